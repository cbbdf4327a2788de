"""Where the seconds of an inference went: in the process that predicts, and in those that decode."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..mm.results import VideoResult
from ..progress import duration
from ..report import tables
from ..videos import timed_pipeline

WAIT, NORMALISE, SELECT = "wait for videos", "normalise", "select"
RECOGNISE, WRITE, REST = "recognise", "write rows and draw", "the rest"
MAIN = (WAIT, NORMALISE, SELECT, RECOGNISE, WRITE)
COLUMNS = (
    ("part", "part", "{}"),
    ("seconds", "seconds", "{:.2f}"),
    ("ms", "ms a video", "{:.2f}"),
    ("share", "share", "{:.1%}"),
)


class Profile:
    """Seconds of a model's videos, by part; what no part takes is 'the rest', so all add up.

    Args:
        model: its name.
        start: seconds to build it, of `time.perf_counter`, before the first video is asked for.
    """

    def __init__(self, model: str, start: float = 0.0):
        self.model, self.start = model, start
        self.videos, self.processes = 0, 1
        self.wall = self.working = 0.0  # seconds: of this process, and of those that decode
        self.main = dict.fromkeys(MAIN, 0.0)
        self.workers = dict.fromkeys(timed_pipeline.PARTS, 0.0)
        self._begun = time.perf_counter()

    def begin(self) -> None:
        """The first video is asked for now."""
        self._begun = time.perf_counter()

    def add(self, result: VideoResult, writing: float) -> None:
        """Count a video.

        Args:
            result: complete.
            writing: seconds to write and draw it.
        """
        video = result.video
        self.videos += 1
        parts = (video.waited, result.prepare, result.select, result.recognise, writing)
        for name, seconds in zip(MAIN, parts):
            self.main[name] += seconds
        self.working += video.decode
        for name, seconds in video.parts.items():
            self.workers[name] += seconds

    def end(self) -> None:
        """The last video is done."""
        self.wall = time.perf_counter() - self._begun

    def merge(self, other: Profile) -> None:
        """Add the seconds of another process."""
        self.videos += other.videos
        self.processes += other.processes
        self.wall, self.working = self.wall + other.wall, self.working + other.working
        self.start += other.start
        for mine, theirs in ((self.main, other.main), (self.workers, other.workers)):
            for name, seconds in theirs.items():
                mine[name] += seconds

    def found(self) -> dict[str, Any]:
        """Return the parts for machines; ``seconds`` and ``share`` of each, of all processes together."""
        return {
            "model": self.model,
            "videos": self.videos,
            "processes": self.processes,
            "start_seconds": self.start,
            "seconds": self.wall,
            "parts": self._rows(self.main, self.wall),
            "decoding_seconds": self.working,
            "decoding_parts": self._rows(self.workers, self.working),
        }

    def text(self) -> str:
        """Tell them as two tables."""
        found = self.found()
        processes = f", {self.processes} processes together" if self.processes > 1 else ""
        return (
            f"seconds of {self.model}: {self.videos} videos in {duration(self.wall)}{processes}, after "
            f"{duration(self.start)} to build it\n{tables.table(found['parts'], COLUMNS)}\n"
            f"decoding meanwhile: {duration(self.working)}\n"
            f"{tables.table(found['decoding_parts'], COLUMNS)}"
        )

    def _rows(self, parts: Mapping[str, float], whole: float) -> list[dict[str, Any]]:
        parts = {**parts, REST: whole - sum(parts.values())}
        return [
            {
                "part": name,
                "seconds": seconds,
                "ms": 1000 * seconds / self.videos if self.videos else None,
                "share": seconds / whole if whole else None,
            }
            for name, seconds in parts.items()
        ]


def merged(profiles: Sequence[Profile]) -> list[Profile]:
    """Return one profile for each model, of all processes together."""
    found: dict[str, Profile] = {}
    for profile in profiles:
        if profile.model in found:
            found[profile.model].merge(profile)
        else:
            found[profile.model] = profile
    return list(found.values())
