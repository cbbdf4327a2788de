"""Packed frames: which rows of a pack belong to which clip, and how one policy lays a batch out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .policy import Policy


class Run(NamedTuple):
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
    [Run(first=0, count=2, length=2, on=True), Run(first=2, count=1, length=3, on=True)]
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

    def alone(self, gate: Sequence[bool]) -> tuple[Segments, tuple[bool, ...]]:
        """Clips without neighbours (gate off) as so many clips of one frame, with the gate of each
        clip of the result."""
        lengths = [(n,) if on else (1,) * n for n, on in zip(self.lengths, gate)]
        gates = [(on,) * len(new) for on, new in zip(gate, lengths)]
        return Segments(tuple(chain(*lengths))), tuple(chain(*gates))

    def spread(self, values: Tensor) -> Tensor:
        """Values per clip [N, ...] -> the same for each of the clip's frames [F, ...]."""
        if len(set(self.lengths)) == 1:
            return values.repeat_interleave(self.lengths[0], 0)
        counts = torch.tensor(self.lengths).to(values.device, non_blocking=True)
        return values.repeat_interleave(counts, 0, output_size=self.num_rows)

    def runs(self, gate: Sequence[Any] | None = None) -> list[Run]:
        """Maximal runs of clips that agree in length and gate."""
        on = gate if gate is not None else (True,) * len(self.lengths)
        runs: list[Run] = []
        for clip, (length, open_) in enumerate(zip(self.lengths, on)):
            if runs and runs[-1].length == length and runs[-1].on == open_:
                runs[-1] = runs[-1]._replace(count=runs[-1].count + 1)
            else:
                runs.append(Run(clip, 1, length, open_))
        return runs

    def split(self, rows: Tensor, runs: Sequence[Run]) -> list[Tensor]:
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


class Gate(tuple):
    """Decision v_k of each clip of a pack, bools. ``soft``: the same as floating numbers [N] with
    gradients, or None."""

    soft: Tensor | None = None


@dataclass(frozen=True)
class Packing:
    """How one batch is laid out under its policy. Clips are sorted by length and stage decisions so
    that runs are long.

    order: clip of the batch at each place of the pack; segments: the kept frames, in that order;
    gates: for each stage, the decision of each clip in that order; rows: (clip, time) of each row,
        None for all in order; frame_gates: of each row, floating [F] with gradients, or None.
    """

    order: tuple[int, ...]
    segments: Segments
    gates: tuple[Gate, ...]
    rows: tuple[tuple[int, ...], tuple[int, ...]] | None
    frame_gates: Tensor | None = None

    @classmethod
    def of(cls, policy: Policy) -> Packing:
        """One look at the policy on the host (the only wait for the device in a forward pass)."""
        bits = torch.cat([policy.frames, policy.stages], dim=1).cpu().numpy()
        num_frames = policy.frames.shape[1]
        keys = [(int(row[:num_frames].sum()), row[num_frames:].tolist()) for row in bits]
        order = tuple(sorted(range(len(keys)), key=keys.__getitem__))
        lengths = tuple(keys[clip][0] for clip in order)
        gates = tuple(
            Gate(keys[clip][1][k] for clip in order) for k in range(policy.stages.shape[1])
        )
        every = all(length == num_frames for length in lengths) and order == tuple(
            range(len(order))
        )
        kept = [(clip, t) for clip in order for t in bits[clip, :num_frames].nonzero()[0].tolist()]
        rows, soft = None if every else tuple(zip(*kept)), None
        if policy.gates is not None:
            soft = policy.gates[0].flatten() if every else policy.gates[0][rows]
            for k, gate in enumerate(gates):
                gate.soft = policy.gates[1][list(order), k]
        return cls(order, Segments(lengths), gates, rows, soft)


def pack_frames(clips: Tensor, packing: Packing) -> Tensor:
    """Clips [N, C, T, H, W] -> the kept frames [F, C, 1, H, W], channels last."""
    frames = clips.transpose(1, 2)
    if packing.rows is None:
        frames = frames.flatten(0, 1)
    else:
        clip, time = torch.tensor(packing.rows).to(clips.device, non_blocking=True)
        frames = frames[clip, time]
    if packing.frame_gates is not None:
        frames = frames * packing.frame_gates[:, None, None, None].to(frames)
    frames = frames.contiguous(memory_format=torch.channels_last)
    return frames.unsqueeze(2)


def restore_order(values: Tensor, packing: Packing) -> Tensor:
    """Per-clip values of the pack's order [N, ...] -> the batch's order."""
    if packing.order == tuple(range(len(packing.order))):
        return values
    inverse = torch.tensor(packing.order, device=values.device).argsort()
    return values[inverse]
