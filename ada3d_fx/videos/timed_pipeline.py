"""A test pipeline that knows where its time goes: opening, decoding, resizing, formatting."""

from __future__ import annotations

import time

from .broken import BrokenVideo, NamedPipeline, NamedTransform

OPEN, DECODE, RESIZE, FORMAT = "open and sample", "decode", "resize and crop", "format and pack"
PARTS = (OPEN, DECODE, RESIZE, FORMAT)


class TimedPipeline(NamedPipeline):
    """A pipeline that reads the clock between transforms, which costs some microseconds a video.

    A transform belongs to a part by what it does: until there are frames, a video is opened and frames
    of it are chosen; the transform that makes frames decodes; those whose names begin with Format or
    Pack make the tensor; whatever else is done to frames is resizing and cropping. Where decoding and
    resizing take turns, they are told apart.

    Attributes:
        seconds: of the last video, for each of `PARTS`.
    """

    seconds: dict[str, float]

    def __call__(self, data: dict) -> dict | BrokenVideo:
        """Apply the transforms one after the other."""
        self.seconds = dict.fromkeys(PARTS, 0.0)
        for transform in self.transforms:
            begin, had_frames = time.perf_counter(), "imgs" in data
            data = transform.run(data)
            broken = isinstance(data, BrokenVideo)
            part = _part(transform, had_frames, not broken and "imgs" in data)
            self.seconds[part] += time.perf_counter() - begin
            if part == DECODE:
                resizing = getattr(transform, "resize_seconds", 0.0)
                self.seconds[DECODE] -= resizing
                self.seconds[RESIZE] += resizing
            if broken:
                break
        return data


def _part(transform: NamedTransform, had_frames: bool, has_frames: bool) -> str:
    if not had_frames:
        return DECODE if has_frames else OPEN
    name = type(transform.transform).__name__
    return FORMAT if name.startswith(("Format", "Pack")) else RESIZE
