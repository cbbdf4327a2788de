"""Decode few frames at a time: what is held at full size is bounded, the results are the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from mmaction.datasets.transforms import DecordDecode, OpenCVDecode, Resize

HELD_BYTES = 256 * 2**20  # of frames at full size, or one frame if that is more
# What resizes with the frames would have to be resized once.
ALONGSIDE = ("gt_bboxes", "proposals", "keypoint")


def in_turns(
    indices: Sequence[int], decode: Callable[[Sequence[int]], tuple[Sequence[np.ndarray], int]]
) -> list[np.ndarray]:
    """Decode frames in turns of as many as may be held.

    Args:
        indices: of the frames.
        decode: gives the frames of some indices as they are to be kept, and the bytes that one took
            when it was decoded.
    """
    frames: list[np.ndarray] = []
    step = 1  # the first frame tells how large they are
    while len(frames) < len(indices):
        part, size = decode(indices[len(frames) : len(frames) + step])
        frames += part
        step = max(1, HELD_BYTES // size)
    return frames


class DecodeAndResize:
    """`DecordDecode` or `OpenCVDecode`, and the `Resize` behind it, in turns.

    Args:
        decode: decodes frames of an open video.
        resize: resizes each on its own.

    Attributes:
        resize_seconds: that resizing took of the last video.
    """

    def __init__(self, decode: DecordDecode | OpenCVDecode, resize: Resize):
        self.decode, self.resize = decode, resize
        self.resize_seconds = 0.0

    def __call__(self, results: dict) -> dict:
        """Decode and resize the frames of ``frame_inds``."""
        self.resize_seconds = 0.0
        if any(key in results for key in ALONGSIDE):
            return self._resized(self.decode(results))
        indices = np.asarray(results["frame_inds"]).reshape(-1)
        last: dict = {}

        def decode(part: Sequence[int]) -> tuple[list[np.ndarray], int]:
            done = self.decode({**results, "frame_inds": part})
            size = done["imgs"][0].nbytes
            done = self._resized(done)
            last.update(done)
            return done["imgs"], size

        frames = in_turns(indices, decode)
        return {**results, **last, "frame_inds": indices, "imgs": frames}

    def _resized(self, results: dict) -> dict:
        begin = time.perf_counter()
        done = self.resize(results)
        self.resize_seconds += time.perf_counter() - begin
        return done

    def __repr__(self) -> str:
        return f"{self.decode}, {self.resize}"


def bounded(transforms: Sequence[Callable]) -> list[Callable]:
    """Return the transforms with `DecodeAndResize` where one is MMAction2's own decoding and resizing."""
    found: list[Callable] = []
    for transform in transforms:
        before = found[-1] if found else None
        if type(transform) is Resize and not transform.lazy and _decodes_at_will(before):
            found[-1] = DecodeAndResize(before, transform)
        else:
            found.append(transform)
    return found


def _decodes_at_will(transform: Callable | None) -> bool:
    """Whether a transform decodes whatever frames it is asked for, one call after the other."""
    if type(transform) is DecordDecode:
        return transform.mode == "accurate"
    return type(transform) is OpenCVDecode
