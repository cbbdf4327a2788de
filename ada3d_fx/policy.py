"""Which frames and which stages each clip computes: the policy (eq. 2 and eq. 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .errors import Ada3DError
from .plan import StagePlan


class Policy:
    """The decisions for N clips: which frames are kept, and which stages are on.

    A policy is a value: it is not changed once it is made.

    >>> policy = Policy(torch.tensor([[True, False, True]]), torch.tensor([[True, False]]))
    >>> policy.num_frames, policy.num_stages
    (tensor([2]), tensor([1]))

    Args:
        frames: bool [N, T], u of eq. 2.
        stages: bool [N, K], v of eq. 3.
        gates: the same decisions as floating numbers [N, T] and [N, K] through which gradients
            flow, see `PolicyDistribution.straight_through`. Slices of a policy have none; in a union
            the gates of the policies that had none have no gradients.

    Raises:
        Ada3DError: not bool, not two-dimensional, different numbers of clips or devices, or a clip
            without a frame.
    """

    __slots__ = ("frames", "gates", "stages")

    def __init__(self, frames: Tensor, stages: Tensor, gates: tuple[Tensor, Tensor] | None = None):
        for name, value, shape in (("frames", frames, "[N, T]"), ("stages", stages, "[N, K]")):
            if not isinstance(value, Tensor):
                raise Ada3DError(
                    f"Policy: {name} is a {type(value).__name__}, expected a bool tensor {shape}"
                )
            if value.dtype != torch.bool:
                raise Ada3DError(
                    f"Policy: {name} has dtype {value.dtype}, expected torch.bool; try {name}.bool()"
                )
            if value.ndim != 2:
                raise Ada3DError(f"Policy: {name} has shape {list(value.shape)}, expected {shape}")
        if len(frames) != len(stages):
            raise Ada3DError(
                f"Policy: frames are for {len(frames)} clips but stages for {len(stages)}"
            )
        if frames.device != stages.device:
            raise Ada3DError(f"Policy: frames are on {frames.device} but stages on {stages.device}")
        empty = (~frames.any(1)).nonzero().flatten().tolist()
        if empty:
            raise Ada3DError(
                f"Policy: every clip must keep at least one frame; clips {empty} keep none"
            )
        self.frames, self.stages, self.gates = frames, stages, gates

    @classmethod
    def full(cls, plan: StagePlan, n: int, device: torch.device | str | None = None) -> Policy:
        """Make the policy of the original model: every frame and every stage, for ``n`` clips."""
        return cls(
            torch.ones(n, plan.num_frames, dtype=torch.bool, device=device),
            torch.ones(n, plan.num_stages, dtype=torch.bool, device=device),
        )

    @classmethod
    def random(
        cls,
        plan: StagePlan,
        n: int,
        frames: float | Tensor = 0.7,
        stages: float | Tensor = 0.4,
        generator: torch.Generator | None = None,
    ) -> Policy:
        """Draw policies that use these fractions of the frames and stages on average.

        The number kept by a clip is the fraction of the total, rounded up or down at random so that
        its mean is exact (where it is at least one unit). Which ones are kept is uniform at random.

        Args:
            plan: whose frames, in whole units of ``plan.frame_unit``, and stages.
            n: number of clips, N.
            frames: fraction in [0, 1] of the frames, for all clips or [N].
            stages: fraction in [0, 1] of the stages, for all clips or [N].
            generator: of the CPU, where all is drawn; None is torch's own.

        Raises:
            Ada3DError: a fraction outside [0, 1].
        """
        unit = plan.frame_unit or plan.num_frames
        units = _random_subsets("frames", n, plan.num_frames // unit, frames, 1, generator)
        return cls(
            units.repeat_interleave(unit, dim=1),
            _random_subsets("stages", n, plan.num_stages, stages, 0, generator),
        )

    @classmethod
    def cat(cls, policies: Sequence[Policy]) -> Policy:
        """Join policies: the clips of all of them, in order."""
        frames = torch.cat([policy.frames for policy in policies])
        stages = torch.cat([policy.stages for policy in policies])
        like = next((policy.gates for policy in policies if policy.gates is not None), None)
        if like is None:
            return cls(frames, stages)
        gates = [
            policy.gates or (policy.frames.to(like[0]), policy.stages.to(like[1]))
            for policy in policies
        ]
        both = (torch.cat([gate[0] for gate in gates]), torch.cat([gate[1] for gate in gates]))
        return cls(frames, stages, both)

    @property
    def num_frames(self) -> Tensor:
        """Kept frames of each clip, int64 [N]: ||u||_0 of eq. 4."""
        return self.frames.sum(1)

    @property
    def num_stages(self) -> Tensor:
        """Stages with temporal extent of each clip, int64 [N]: ||v||_0 of eq. 4."""
        return self.stages.sum(1)

    @property
    def num_distinct(self) -> int:
        """How many different policies the clips have."""
        return len(torch.cat([self.frames, self.stages], dim=1).unique(dim=0))

    def to(self, device: torch.device | str) -> Policy:
        """Copy the decisions, without gates, to a device."""
        return Policy(self.frames.to(device), self.stages.to(device))

    def repeat_interleave(self, samples: int) -> Policy:
        """Repeat each clip's policy ``samples`` times, side by side; gates are left out."""
        return Policy(
            self.frames.repeat_interleave(samples, 0), self.stages.repeat_interleave(samples, 0)
        )

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int | slice | Tensor) -> Policy:
        index = slice(index, index + 1 or None) if isinstance(index, int) else index
        return Policy(self.frames[index], self.stages[index])

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Policy)
            and torch.equal(self.frames, other.frames)
            and torch.equal(self.stages, other.stages)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        def word(bits: Tensor) -> str:
            return "".join("#" if bit else "." for bit in bits.tolist())

        clips = [f"{word(u)} {word(v)}" for u, v in zip(self.frames[:8], self.stages[:8])]
        more = [f"... {len(self) - 8} more"] if len(self) > 8 else []
        return f"Policy({len(self)} clips: " + ", ".join(clips + more) + ")"


def _random_subsets(
    name: str,
    n: int,
    size: int,
    fraction: float | Tensor,
    least: int,
    generator: torch.Generator | None,
) -> Tensor:
    """For each of ``n`` clips, a subset of ``size`` things, as bool [n, size]."""
    fraction = torch.as_tensor(fraction, dtype=torch.float64, device="cpu").expand(n)
    if n and not (fraction.min() >= 0 and fraction.max() <= 1):
        raise Ada3DError(f"Policy.random: {name}={fraction.tolist()[:4]} is outside [0, 1]")
    count = (fraction * size + torch.rand(n, generator=generator, dtype=torch.float64)).floor()
    rank = torch.rand(n, size, generator=generator).argsort(1).argsort(1)
    return rank < count.clamp(least, size)[:, None]


def check_policy(policy: Policy, plan: StagePlan, n: int) -> None:
    """Check that a policy is one for ``n`` clips of a plan.

    Raises:
        Ada3DError: not a policy, another shape, or frames not in whole units.
    """
    if not isinstance(policy, Policy):
        raise Ada3DError(
            f"AdaptiveNetwork: policy is a {type(policy).__name__}, expected ada3d_fx.Policy"
        )
    for name, value, size in (
        ("frames", policy.frames, (n, plan.num_frames)),
        ("stages", policy.stages, (n, plan.num_stages)),
    ):
        if tuple(value.shape) != size:
            raise Ada3DError(
                f"AdaptiveNetwork: policy.{name} has shape {list(value.shape)}, expected {list(size)}"
            )
    if plan.frame_unit == 1:
        return
    unit = plan.frame_unit or plan.num_frames
    units = policy.frames.unflatten(1, (-1, unit))
    if not torch.equal(units.any(2), units.all(2)):
        why = plan.reasons[0] if plan.reasons else "the plan"
        raise Ada3DError(
            f"AdaptiveNetwork: frames must be kept in whole units of {unit} frames ({why})"
        )
