"""What a policy decides about a model: its stages, its frames, and what cannot be decided."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import Reason


@dataclass(frozen=True)
class Stage:
    """Temporal convolutions under one decision v_k (eq. 3)."""

    name: str  # as the field calls it, such as 'res2'
    sites: tuple[str, ...]  # their module paths


@dataclass(frozen=True)
class StagePlan:
    """What a policy decides about this model; ``print(plan)`` explains it."""

    clip_shape: tuple[int, int, int, int]  # (C, T, H, W) of the clips for which the plan holds
    stages: tuple[Stage, ...]  # what the stage policy decides, one decision each
    frame_unit: int | None  # g: frames are kept in whole units of g; None: all frames are kept
    reasons: tuple[Reason, ...] = ()  # what cannot be decided, and why
    dense: tuple[Reason, ...] = ()  # what runs densely, on clips of equal length, and why
    # 'packed' (all multiply-adds run on packs), 'dense' (none do), or 'partly dense'
    execution: str = "packed"

    @property
    def num_frames(self) -> int:
        """T, the frames of a clip."""
        return self.clip_shape[1]

    @property
    def num_stages(self) -> int:
        """K, the decisions of the stage policy."""
        return len(self.stages)

    @property
    def num_units(self) -> int:
        """The decisions of the frame policy: T / g, or 0 where frames cannot be dropped."""
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
