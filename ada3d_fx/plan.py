"""What a policy decides about a model: its stages, its frames, and what cannot be decided."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import Reason


@dataclass(frozen=True)
class Stage:
    """Temporal convolutions under one decision v_k; ``sites`` are their module paths."""

    name: str
    sites: tuple[str, ...]


@dataclass(frozen=True)
class StagePlan:
    """What a policy decides about this model. ``print(plan)`` explains it.

    num_frames: T; num_stages: K; frame_unit: g, frames are kept in whole units of g, or None where
        frames cannot be
    dropped; reasons: what cannot be decided, and why; clip_shape: (C, T, H, W) for which the plan
    holds; dense: what runs densely per length, and why; execution: 'packed' (all multiply-adds run
    on packs), 'dense' (none do) or 'partly dense'.
    """

    clip_shape: tuple[int, int, int, int]
    stages: tuple[Stage, ...]
    frame_unit: int | None
    reasons: tuple[Reason, ...] = ()
    dense: tuple[Reason, ...] = ()
    execution: str = "packed"

    @property
    def num_frames(self) -> int:
        return self.clip_shape[1]

    @property
    def num_stages(self) -> int:
        return len(self.stages)

    @property
    def num_units(self) -> int:
        """Decisions of the frame policy: T / g, or 0 where frames cannot be dropped."""
        return 0 if self.frame_unit is None else self.num_frames // self.frame_unit

    def __str__(self) -> str:
        shape = " x ".join(map(str, self.clip_shape))
        unit = {None: "all are always kept", 1: "each may be dropped"}.get(
            self.frame_unit, f"kept in units of {self.frame_unit}"
        )
        width = max([len(stage.name) for stage in self.stages], default=0)
        lines = [
            f"clip {shape} (C x T x H x W)",
            f"frames: T={self.num_frames}, {unit}",
            f"stages: K={self.num_stages}",
        ]
        lines += [
            f"  {k} {stage.name:<{width}}  {len(stage.sites)} temporal convolution"
            f"{'s' if len(stage.sites) > 1 else ''}: {stage.sites[0]}{' ...' if len(stage.sites) > 1 else ''}"
            for k, stage in enumerate(self.stages)
        ]
        for title, reasons in (
            ("run densely per length", self.dense),
            ("not decided", self.reasons),
        ):
            lines += [f"{title}:", *(f"  {reason}" for reason in reasons)] if reasons else []
        return "\n".join(lines)
