"""Seconds of the parts of a step, which add up to its whole."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

NOTHING: AbstractContextManager[None] = nullcontext()


class Stopwatch:
    """Seconds by part. A part within another is not counted with that, so that all add up.

    It is off until `start`; then, `part` does nothing at all.

    Attributes:
        seconds: of each part since the stopwatch was made, or since someone emptied this.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.device: torch.device | None = None  # a GPU, for which each part waits
        self._on, self._since = False, 0.0
        self._open: list[str] = []

    def start(self, device: torch.device | None = None) -> None:
        """Measure from now on.

        Args:
            device: where the parts compute: a part on a GPU ends when the GPU is done.
        """
        self.device = device if device is not None and device.type == "cuda" else None
        self._on, self._open, self._since = True, [], self._now()

    def stop(self) -> None:
        """End all parts, and measure no longer."""
        self._count()
        self._on, self._open = False, []

    def begin(self, part: str) -> None:
        """Begin a part; the one in which it lies goes on behind it."""
        if self._on:
            self._count()
            self._open.append(part)

    def end(self, part: str) -> None:
        """End a part, where it is the last that began."""
        if self._open and self._open[-1] == part:
            self._count()
            self._open.pop()

    def part(self, name: str) -> AbstractContextManager[None]:
        """Return a context whose seconds are of this part."""
        return self._measured(name) if self._on else NOTHING

    @contextmanager
    def _measured(self, name: str) -> Iterator[None]:
        self.begin(name)
        try:
            yield
        finally:
            self.end(name)

    def _count(self) -> None:
        if not self._on:
            return
        now = self._now()
        if self._open:
            last = self._open[-1]
            self.seconds[last] = self.seconds.get(last, 0.0) + now - self._since
        self._since = now

    def _now(self) -> float:
        if self.device is not None:
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
