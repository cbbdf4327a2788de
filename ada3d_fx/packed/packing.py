"""How one policy lays a batch out as a pack."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..policy import Policy
from .segments import Segments, as_rows, numbers_on


@dataclass(frozen=True, eq=False)
class StageGate:
    """Decision v_k of each clip of a pack."""

    on: tuple[bool, ...]  # per clip, in the order of the pack
    soft: Tensor | None = None  # the same as floating numbers [N] with gradients, if there are any


@dataclass(frozen=True, eq=False)
class Packing:
    """How one batch is laid out under its policy.

    Clips are sorted by length and stage decisions, so that runs are long.
    """

    order: tuple[int, ...]  # the batch's number of the clip at each place of the pack
    segments: Segments  # the clip table of the kept frames, in that order
    gates: tuple[StageGate, ...]  # one for each stage, clips in that order
    # clip and time of each row; None where all frames are kept in the order of the batch
    rows: tuple[tuple[int, ...], tuple[int, ...]] | None
    frame_gates: Tensor | None = None  # of each row, floating [F] with gradients, if there are any
    # where policies share clips: the different ones of ``rows``, and which of them each row is
    distinct: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    which: tuple[int, ...] | None = None

    @classmethod
    def of(cls, policy: Policy, clip_index: Sequence[int] | None = None) -> Packing:
        """Lay out a batch under its policy.

        The policy is read on the host: this is the only wait for the device in a forward pass.

        Args:
            policy: of M clips.
            clip_index: M numbers, where a clip has several policies: the clip of each.
        """
        bits = torch.cat([policy.frames, policy.stages], dim=1).cpu().numpy()
        num_frames = policy.frames.shape[1]
        keys = [(int(row[:num_frames].sum()), row[num_frames:].tolist()) for row in bits]
        order = tuple(sorted(range(len(keys)), key=keys.__getitem__))
        lengths = tuple(keys[clip][0] for clip in order)
        in_order = order == tuple(range(len(order)))
        rows = None
        if not in_order or any(length != num_frames for length in lengths):
            kept = [
                (clip, time)
                for clip in order
                for time in bits[clip, :num_frames].nonzero()[0].tolist()
            ]
            rows = (tuple(clip for clip, _ in kept), tuple(time for _, time in kept))
        frame_gates, stage_gates = None, None
        if policy.gates is not None:
            frame_gates, stage_gates = policy.gates
            frame_gates = frame_gates.flatten() if rows is None else _taken(frame_gates, rows)
            stage_gates = stage_gates[numbers_on(order, stage_gates.device)]
        gates = tuple(
            StageGate(
                tuple(keys[clip][1][k] for clip in order),
                None if stage_gates is None else stage_gates[:, k],
            )
            for k in range(policy.stages.shape[1])
        )
        made = cls(order, Segments(lengths), gates, rows, frame_gates)
        return made if clip_index is None else made._shared(clip_index, num_frames)

    def _shared(self, clip_index: Sequence[int], num_frames: int) -> Packing:
        """The same where clips have several policies."""
        rows = self.rows
        if rows is None:
            places = range(len(self.order))
            rows = (
                tuple(clip for clip in places for _ in range(num_frames)),
                tuple(range(num_frames)) * len(self.order),
            )
        pairs = [(clip_index[clip], time) for clip, time in zip(*rows)]
        place = {pair: number for number, pair in enumerate(dict.fromkeys(pairs))}
        return replace(
            self,
            rows=_columns(pairs),
            distinct=_columns(place),
            which=tuple(place[pair] for pair in pairs),
        )


def _columns(pairs: Iterable[tuple[int, int]]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    first, second = zip(*pairs)
    return first, second


def common_policy(policy: Policy) -> bytes | None:
    """Return the decisions on which all clips agree; None where they do not, or have gates.

    They are read on the host.
    """
    if policy.gates is not None:
        return None
    bits = torch.cat([policy.frames, policy.stages], dim=1).cpu().numpy()
    return bits[0].tobytes() if len(bits) and (bits == bits[0]).all() else None


def stage_gate(packing: Packing, stage: int) -> StageGate:
    """Return decision v_k of each clip of the pack."""
    return packing.gates[stage]


def pack_frames(clips: Tensor, packing: Packing) -> Tensor:
    """Pack the kept frames of clips [N, C, T, H, W] as [F, C, 1, H, W], channels last."""
    frames = clips.transpose(1, 2)
    frames = frames.flatten(0, 1) if packing.rows is None else _taken(frames, packing.rows)
    if packing.frame_gates is not None:
        frames = frames * packing.frame_gates[:, None, None, None].to(frames)
    return as_rows(frames)


def pack_distinct(clips: Tensor, packing: Packing) -> Tensor:
    """Pack each kept frame of clips [N, C, T, H, W] once, as [U, C, 1, H, W], channels last.

    Where policies do not share clips, or have gates, it is `pack_frames`.
    """
    if packing.distinct is None or packing.frame_gates is not None:
        return pack_frames(clips, packing)
    return as_rows(_taken(clips.transpose(1, 2), packing.distinct))


def spread(values: Tensor, packing: Packing) -> Tensor:
    """Repeat values of `pack_distinct`'s frames [U, ...] for the policies that keep them.

    Returns:
        [F, ...], [F, C, 1, H, W] with channels last; ``values`` itself where policies do not share
        clips.
    """
    if packing.which is None or packing.frame_gates is not None:
        return values
    index = numbers_on(packing.which, values.device)
    if values.ndim != 5 or values.shape[2] != 1:
        return values.index_select(0, index)
    last = values.squeeze(2).permute(0, 2, 3, 1).index_select(0, index)
    return last.permute(0, 3, 1, 2).unsqueeze(2)


def _taken(frames: Tensor, rows: tuple[tuple[int, ...], tuple[int, ...]]) -> Tensor:
    """Frames [N, T, ...] of these clips and times: [F, ...]."""
    clip, time = numbers_on(rows, frames.device)
    return frames[clip, time]


def restore_order(values: Tensor, packing: Packing) -> Tensor:
    """Put values per clip [N, ...] from the pack's order into the batch's."""
    if packing.order == tuple(range(len(packing.order))):
        return values
    inverse = sorted(range(len(packing.order)), key=packing.order.__getitem__)
    return values[numbers_on(inverse, values.device)]
