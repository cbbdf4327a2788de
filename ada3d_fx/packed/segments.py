"""Which rows of a pack belong to which clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor


class ClipRun(NamedTuple):
    """Consecutive clips ``first .. first + count - 1`` of one length which share every decision
    that matters, ``on``: one, or a tuple of several."""

    first: int
    count: int
    length: int
    on: Any


@dataclass(frozen=True)
class Segments:
    """The clip table of a pack: clip i owns ``lengths[i]`` consecutive rows.

    A pack holds F = sum(lengths) frames as ``[F, C, 1, H, W]``: every frame is a one-frame clip, so
    whatever does not mix time runs on it unchanged. What mixes time needs neighbours; it runs on
    *runs*: consecutive clips of equal length are, in channels-last memory, a dense batch ``[n, C,
    L, H, W]`` already. No row is copied for that.

    >>> table = Segments((2, 2, 3))
    >>> table.runs()
    [ClipRun(first=0, count=2, length=2, on=True), ClipRun(first=2, count=1, length=3, on=True)]
    >>> rows = torch.arange(7.).view(7, 1, 1, 1, 1)
    >>> [dense.flatten(1).tolist() for dense in table.split(rows, table.runs())]
    [[[0.0, 1.0], [2.0, 3.0]], [[4.0, 5.0, 6.0]]]
    """

    lengths: tuple[int, ...]

    @property
    def num_rows(self) -> int:
        return sum(self.lengths)

    def resized(self, frames: Sequence[int | None]) -> Segments:
        """The table where a clip of L frames has ``frames[L]``: after temporal strides and
        pools."""
        return Segments(tuple(frames[n] or 0 for n in self.lengths))

    def split_ungated(self, gate: Sequence[bool]) -> tuple[Segments, tuple[bool, ...]]:
        """Clips without neighbours (gate off) as so many clips of one frame, with the gate of each
        clip of the result."""
        lengths = [(n,) if on else (1,) * n for n, on in zip(self.lengths, gate)]
        gates = [(on,) * len(new) for on, new in zip(gate, lengths)]
        return Segments(tuple(chain(*lengths))), tuple(chain(*gates))

    def repeat_per_frame(self, values: Tensor) -> Tensor:
        """Values per clip [N, ...] -> the same for each of the clip's frames [F, ...]."""
        if len(set(self.lengths)) == 1:
            return values.repeat_interleave(self.lengths[0], 0)
        counts = torch.tensor(self.lengths).to(values.device, non_blocking=True)
        return values.repeat_interleave(counts, 0, output_size=self.num_rows)

    def runs(self, gate: Sequence[Any] | None = None) -> list[ClipRun]:
        """Maximal runs of clips that agree in length and gate."""
        on = gate if gate is not None else (True,) * len(self.lengths)
        runs: list[ClipRun] = []
        for clip, (length, open_) in enumerate(zip(self.lengths, on)):
            if runs and runs[-1].length == length and runs[-1].on == open_:
                runs[-1] = runs[-1]._replace(count=runs[-1].count + 1)
            else:
                runs.append(ClipRun(clip, 1, length, open_))
        return runs

    def split(self, rows: Tensor, runs: Sequence[ClipRun]) -> list[Tensor]:
        """A pack [F, C, 1, H, W] as one dense [n, C, L, H, W] per run; views in channels-last
        memory.

        ``runs`` may be those of the table from which this one derives: L is always this table's.
        """
        shapes = [(run.count, self.lengths[run.first]) for run in runs]
        parts = (
            rows.split([count * length for count, length in shapes]) if len(runs) > 1 else [rows]
        )
        return [
            part.squeeze(2).unflatten(0, shape).transpose(1, 2)
            for part, shape in zip(parts, shapes)
        ]

    @staticmethod
    def join(parts: Sequence[Tensor]) -> Tensor:
        """The inverse of ``split``: dense [n, C, L, H, W] parts, in order, as one pack [F, C, 1, H,
        W]."""
        packs = [part.transpose(1, 2).flatten(0, 1).unsqueeze(2) for part in parts]
        return torch.cat(packs) if len(packs) > 1 else packs[0]
