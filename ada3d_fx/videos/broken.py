"""Videos that do not decode: named as values that go through a pipeline and a batch.

A worker process hands a broken video on as a value, as an exception would come out of it as text.
Nothing is put in its place: a batch is smaller by it.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.dataset import Compose

from ..errors import Ada3DError, require_number
from .decoding import bounded
from .probe import decoding_errors, first_line

SHOWN = 10  # broken videos that are named on the console; the log names all


@dataclass(frozen=True)
class BrokenVideo:
    """A video that does not decode, or that a pipeline gives nothing for."""

    video: str
    why: str
    where: str = ""  # list and line
    trace: str = ""  # for the log

    def __str__(self) -> str:
        return f"{self.where + ': ' if self.where else ''}the video {self.video}: {self.why}"


def limit_of(config: Mapping, videos: int | None = None) -> float:
    """Return how many broken videos a config allows a list to have: ``broken_videos.limit``.

    Args:
        config: ``broken_videos=dict(limit=...)`` in it is a number of videos or, below 1, a share
            of the list; 0 by default.
        videos: entries of the list, of which a share becomes a number.

    Raises:
        Ada3DError: an unknown entry, or no such number.
    """
    options = config.get("broken_videos") or {}
    if not isinstance(options, Mapping) or set(options) - {"limit"}:
        raise Ada3DError(f"broken_videos={options!r}; expected dict(limit=NUMBER or SHARE)")
    limit = options.get("limit", 0)
    require_number("broken_videos.limit", limit, low=0)
    if limit >= 1 and limit != int(limit):
        raise Ada3DError(
            f"broken_videos.limit={limit}; expected a whole number, or a share below 1"
        )
    return math.floor(limit * videos) if videos is not None and limit < 1 else limit


class NamedTransform:
    """A transform whose errors name the video.

    Args:
        transform: the transform.
        source: the list that names the videos.
    """

    def __init__(self, transform: Callable, source: str = ""):
        self.transform, self.source = transform, source

    def run(self, results: dict) -> dict | BrokenVideo:
        """Apply the transform; until there are frames, its errors are the video's."""
        decoded = "imgs" in results
        video = str(results.get("filename") or results.get("frame_dir") or "without a name")
        where = (
            f"{self.source}, entry {results['sample_idx'] + 1}" if "sample_idx" in results else ""
        )
        name = type(self.transform).__name__
        try:
            done = self.transform(results)
        except Ada3DError as error:
            return BrokenVideo(video, str(error), where)
        except decoding_errors() as error:
            if decoded:
                raise RuntimeError(f"{name} fails on the frames of {video} ({where})") from error
            why = f"{name} fails: {first_line(error)}"
            return BrokenVideo(video, why, where, traceback.format_exc())
        return BrokenVideo(video, f"{name} gives nothing", where) if done is None else done

    def __call__(self, results: dict) -> dict:
        """Apply the transform.

        Raises:
            Ada3DError: the video is broken.
        """
        done = self.run(results)
        if isinstance(done, BrokenVideo):
            raise Ada3DError(str(done))
        return done

    def __repr__(self) -> str:
        return repr(self.transform)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "transform":
            raise AttributeError(name)
        return getattr(self.transform, name)


class NamedPipeline(Compose):
    """A pipeline that gives a `BrokenVideo` where another raises, and holds few frames at full size.

    Args:
        transforms: those of the pipeline, built.
        source: the list that names the videos.
        merge: decode and resize in turns, see `DecodeAndResize`.
    """

    def __init__(self, transforms: Sequence[Callable], source: str = "", merge: bool = True):
        super().__init__(None)
        steps = bounded(transforms) if merge else transforms
        self.transforms = [NamedTransform(step, source) for step in steps]

    def __call__(self, data: dict) -> dict | BrokenVideo:
        """Apply the transforms one after the other."""
        for transform in self.transforms:
            data = transform.run(data)
            if isinstance(data, BrokenVideo):
                break
        return data


@dataclass(frozen=True)
class PartialBatch:
    """A batch without its broken videos."""

    data: Any  # the other ones, collated; None: there are none
    broken: tuple[tuple[int, BrokenVideo], ...]  # with their places in the batch


class CollateWhole:
    """Collates what is not broken.

    Args:
        collate: the loader's own function.
    """

    def __init__(self, collate: Callable):
        self.collate = collate

    def __call__(self, samples: Sequence) -> Any:
        """Return the batch, or a `PartialBatch`."""
        broken = tuple((i, s) for i, s in enumerate(samples) if isinstance(s, BrokenVideo))
        if not broken:
            return self.collate(samples)
        whole = [sample for sample in samples if not isinstance(sample, BrokenVideo)]
        return PartialBatch(self.collate(whole) if whole else None, broken)
