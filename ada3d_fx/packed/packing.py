"""How one policy lays a batch out as a pack."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..policy import Policy
from .segments import Segments


class StageGate(tuple):
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
    gates: tuple[StageGate, ...]
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
            StageGate(keys[clip][1][k] for clip in order) for k in range(policy.stages.shape[1])
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
