"""Which rows of a pack belong to which clip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor


class ClipRun(NamedTuple):
    """Consecutive clips of a pack that agree in length and in every decision that matters."""

    first: int  # the run is the clips first .. first + num_clips - 1
    num_clips: int
    length: int  # frames of each of its clips
    on: Any  # the decision they share, or a tuple of several


_kept: ContextVar[dict[str, Tensor] | None] = ContextVar("numbers_kept", default=None)


def numbers_on(numbers: Sequence[Any], device: torch.device) -> Tensor:
    """Make a tensor of whole numbers on a device, without waiting for what the device still does."""
    kept = _kept.get()
    if kept is None:
        return torch.tensor(numbers).to(device, non_blocking=True)
    told = f"{numbers} {device}"
    if told not in kept:
        kept[told] = torch.tensor(numbers).to(device)
    return kept[told]


@contextmanager
def numbers_kept(kept: dict[str, Tensor]) -> Iterator[None]:
    """Let `numbers_on` take from a table what was made before, so that nothing goes to the device again.

    Args:
        kept: the table; what is made is added.
    """
    token = _kept.set(kept)
    try:
        yield
    finally:
        _kept.reset(token)


def as_rows(frames: Tensor) -> Tensor:
    """Lay frames [F, C, H, W] out as a pack [F, C, 1, H, W], channels last; a view where they are.

    Every stride is that of the format. Any would be right for an axis of size 1, but not for torch's
    BatchNorm on the CPU: where strides leave open what the format is, it takes two formats for one,
    and gives wrong gradients (seen in 2.14, see https://github.com/pytorch/pytorch/issues/63224).
    """
    if not frames.is_contiguous(memory_format=torch.channels_last):
        frames = frames.contiguous(memory_format=torch.channels_last)
    _, channels, height, width = frames.shape
    row = width * channels
    if frames.stride() != (height * row, 1, row, channels):
        last = frames.permute(0, 2, 3, 1)
        frames = last.flatten().view(last.shape).permute(0, 3, 1, 2)
    return frames.unsqueeze(2)


@dataclass(frozen=True)
class Segments:
    """The clip table of a pack: clip i owns ``lengths[i]`` consecutive rows.

    A pack holds F = sum(lengths) frames as ``[F, C, 1, H, W]``: every frame is a one-frame clip, so
    whatever does not mix time runs on it unchanged. What mixes time needs neighbours; it runs on
    *runs*: consecutive clips of equal length are, in channels-last memory, a dense batch ``[n, C,
    L, H, W]`` already. No row is copied for that.

    >>> table = Segments((2, 2, 3))
    >>> table.runs()
    [ClipRun(first=0, num_clips=2, length=2, on=True), ClipRun(first=2, num_clips=1, length=3, on=True)]
    >>> rows = torch.arange(7.).view(7, 1, 1, 1, 1)
    >>> [dense.flatten(1).tolist() for dense in table.split(rows, table.runs())]
    [[[0.0, 1.0], [2.0, 3.0]], [[4.0, 5.0, 6.0]]]
    """

    lengths: tuple[int, ...]  # rows of each clip, in the order of the pack

    @property
    def num_rows(self) -> int:
        """F, the rows of the whole pack."""
        return sum(self.lengths)

    def resized(self, frames: Sequence[int | None]) -> Segments:
        """Return the table after temporal strides and pools.

        Args:
            frames: ``frames[L]`` is what a clip of L frames has left.
        """
        return Segments(tuple(frames[n] or 0 for n in self.lengths))

    def split_ungated(self, gate: Sequence[bool]) -> tuple[Segments, tuple[bool, ...]]:
        """Split each clip whose gate is off into single-frame clips.

        Returns:
            The new table, and the gate of each clip in it.
        """
        lengths = [(n,) if on else (1,) * n for n, on in zip(self.lengths, gate)]
        gates = [(on,) * len(new) for on, new in zip(gate, lengths)]
        return Segments(tuple(chain(*lengths))), tuple(chain(*gates))

    def repeat_per_frame(self, values: Tensor) -> Tensor:
        """Repeat values per clip [N, ...] for each of the clip's frames: [F, ...]."""
        if len(set(self.lengths)) == 1:
            return values.repeat_interleave(self.lengths[0], 0)
        counts = numbers_on(self.lengths, values.device)
        return values.repeat_interleave(counts, 0, output_size=self.num_rows)

    def runs(self, gate: Sequence[Any] | None = None) -> list[ClipRun]:
        """Group the clips into the longest runs that agree in length and gate.

        Args:
            gate: what each clip decided, a bool or a tuple of several; None where all are on.
        """
        decisions = gate if gate is not None else (True,) * len(self.lengths)
        runs: list[ClipRun] = []
        for clip, (length, on) in enumerate(zip(self.lengths, decisions)):
            if runs and runs[-1].length == length and runs[-1].on == on:
                runs[-1] = runs[-1]._replace(num_clips=runs[-1].num_clips + 1)
            else:
                runs.append(ClipRun(clip, 1, length, on))
        return runs

    def split(self, rows: Tensor, runs: Sequence[ClipRun]) -> list[Tensor]:
        """Split a pack [F, C, 1, H, W] into one dense [n, C, L, H, W] per run.

        Args:
            rows: the pack.
            runs: of this table, or of the one it derives from: L is always this table's.

        Returns:
            Views in channels-last memory; nothing is copied.
        """
        return split_rows(rows, [(run.num_clips, self.lengths[run.first]) for run in runs])

    @staticmethod
    def join(parts: Sequence[Tensor]) -> Tensor:
        """Join dense [n, C, L, H, W] parts, in order, to a pack [F, C, 1, H, W]: undoes `split`."""
        channels_last = [part.permute(0, 2, 3, 4, 1).flatten(0, 1) for part in parts]
        packs = [as_rows(frames.permute(0, 3, 1, 2)) for frames in channels_last]
        return torch.cat(packs) if len(packs) > 1 else packs[0]


def split_rows(rows: Tensor, shapes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Split a pack [F, C, 1, H, W] into a dense [n, C, L, H, W] for each (n, L): views."""
    parts: Sequence[Tensor] = [rows]
    if len(shapes) > 1:
        parts = rows.split([num_clips * length for num_clips, length in shapes])
    return [
        part.squeeze(2).unflatten(0, shape).transpose(1, 2) for part, shape in zip(parts, shapes)
    ]
