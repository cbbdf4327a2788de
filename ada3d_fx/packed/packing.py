"""How one policy lays a batch out as a pack."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..policy import Policy
from .segments import Segments, as_rows


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

    @classmethod
    def of(cls, policy: Policy) -> Packing:
        """Lay out a batch under its policy.

        The policy is read on the host: this is the only wait for the device in a forward pass.
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
            frame_gates = frame_gates.flatten() if rows is None else frame_gates[rows]
        gates = tuple(
            StageGate(
                tuple(keys[clip][1][k] for clip in order),
                None if stage_gates is None else stage_gates[list(order), k],
            )
            for k in range(policy.stages.shape[1])
        )
        return cls(order, Segments(lengths), gates, rows, frame_gates)


def stage_gate(packing: Packing, stage: int) -> StageGate:
    """Return decision v_k of each clip of the pack."""
    return packing.gates[stage]


def pack_frames(clips: Tensor, packing: Packing) -> Tensor:
    """Pack the kept frames of clips [N, C, T, H, W] as [F, C, 1, H, W], channels last."""
    frames = clips.transpose(1, 2)
    if packing.rows is None:
        frames = frames.flatten(0, 1)
    else:
        clip, time = torch.tensor(packing.rows).to(clips.device, non_blocking=True)
        frames = frames[clip, time]
    if packing.frame_gates is not None:
        frames = frames * packing.frame_gates[:, None, None, None].to(frames)
    return as_rows(frames)


def restore_order(values: Tensor, packing: Packing) -> Tensor:
    """Put values per clip [N, ...] from the pack's order into the batch's."""
    if packing.order == tuple(range(len(packing.order))):
        return values
    inverse = torch.tensor(packing.order, device=values.device).argsort()
    return values[inverse]
