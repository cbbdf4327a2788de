"""Which frames and which stages each clip computes: the policy, and its distribution (eq. 1-3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from .errors import Ada3DError

if (
    TYPE_CHECKING
):  # the plan is made further down the data flow; a policy only reads three numbers of it
    from .stages import StagePlan


GREEDY = ("threshold", "count", "spread")


class Policy:
    """Decisions for N clips: ``frames`` bool [N, T] (u of eq. 2), ``stages`` bool [N, K] (v of eq.
    3).

    >>> policy = Policy(torch.tensor([[True, False, True]]), torch.tensor([[True, False]]))
    >>> policy.num_frames, policy.num_stages
    (tensor([2]), tensor([1]))

    ``gates``: the same decisions as floating numbers ([N, T], [N, K]) through which gradients flow,
    see `PolicyDistribution.straight_through`; slices of policies have none, and in a union the gates
    of the policies that had none have no gradients.

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
        """Every frame, every stage: the original model."""
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
        """Policies that use these fractions of the frames and stages on average, which ones being
        uniform at random.

        The number kept by a clip is the fraction of the total, rounded up or down at random so that
        its mean is exact (where it is at least one unit); whole units of ``plan.frame_unit`` frames
        are kept. ``frames`` and ``stages``: fractions in [0, 1], for all clips or [N]. Drawn on the
        CPU.
        """
        unit = plan.frame_unit or plan.num_frames
        units = _random_subsets("frames", n, plan.num_frames // unit, frames, 1, generator)
        return cls(
            units.repeat_interleave(unit, dim=1),
            _random_subsets("stages", n, plan.num_stages, stages, 0, generator),
        )

    @classmethod
    def cat(cls, policies: Sequence[Policy]) -> Policy:
        """The clips of all these policies, in order."""
        bits = [(p.frames, p.stages) for p in policies]
        given = next((p.gates for p in policies if p.gates is not None), None)
        gates = None
        if given is not None:
            plain = [[v.to(gate) for v, gate in zip(hard, given)] for hard in bits]
            soft = [p.gates or none for p, none in zip(policies, plain)]
            gates = tuple(torch.cat(parts) for parts in zip(*soft))
        return cls(*(torch.cat(parts) for parts in zip(*bits)), gates)

    @property
    def num_frames(self) -> Tensor:
        """int64 [N]: kept frames, ||u||_0 of eq. 4."""
        return self.frames.sum(1)

    @property
    def num_stages(self) -> Tensor:
        """int64 [N]: stages with temporal extent, ||v||_0 of eq. 4."""
        return self.stages.sum(1)

    @property
    def num_distinct(self) -> int:
        """How many different policies there are among those of the clips."""
        return len(torch.cat([self.frames, self.stages], dim=1).unique(dim=0))

    def to(self, device: torch.device | str) -> Policy:
        return Policy(self.frames.to(device), self.stages.to(device))

    def repeat_interleave(self, samples: int) -> Policy:
        """Each clip's policy ``samples`` times, neighbours in the result."""
        return Policy(
            self.frames.repeat_interleave(samples, 0), self.stages.repeat_interleave(samples, 0)
        )

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index) -> Policy:
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
    fraction = torch.as_tensor(fraction, dtype=torch.float64, device="cpu").expand(n)
    if n and not (fraction.min() >= 0 and fraction.max() <= 1):
        raise Ada3DError(f"Policy.random: {name}={fraction.tolist()[:4]} is outside [0, 1]")
    count = (fraction * size + torch.rand(n, generator=generator, dtype=torch.float64)).floor()
    rank = torch.rand(n, size, generator=generator).argsort(1).argsort(1)
    return rank < count.clamp(least, size)[:, None]


class PolicyDistribution:
    """Independent Bernoulli decisions of N clips (eq. 1-3): one per frame unit and one per stage.

    ``frame_logits`` [N, T/g], ``stage_logits`` [N, K]; m and n of eq. 1 are their sigmoids. Where
    frames cannot be dropped (``frame_unit=None``), ``frame_logits`` is [N, 0], ``num_frames`` says
    how many there are, and all are kept.

    At least one unit is kept: a draw that drops all keeps its most probable one. ``log_prob`` is
    that of the policy as it is executed, so the probabilities of all executable policies sum to
    one.
    """

    def __init__(
        self,
        frame_logits: Tensor,
        stage_logits: Tensor,
        frame_unit: int | None = 1,
        num_frames: int | None = None,
    ):
        if frame_unit is None and num_frames is None:
            raise Ada3DError("PolicyDistribution: frames that cannot be dropped need num_frames=")
        self.frame_logits, self.stage_logits = frame_logits, stage_logits
        self.frame_unit = frame_unit
        self.num_frames = num_frames or frame_logits.shape[1] * (frame_unit or 0)

    @property
    def frame_probs(self) -> Tensor:
        """[N, T]: m of eq. 1."""
        if self.frame_unit is None:
            return self.stage_logits.new_ones(len(self), self.num_frames)
        return self.frame_logits.sigmoid().repeat_interleave(self.frame_unit, dim=1)

    @property
    def stage_probs(self) -> Tensor:
        """[N, K]: n of eq. 1."""
        return self.stage_logits.sigmoid()

    def sample(self, generator: torch.Generator | None = None) -> Policy:
        """u, v drawn from eq. 2-3."""

        def draw(logits: Tensor) -> Tensor:
            probs = logits.detach().float().sigmoid()
            return torch.rand(probs.shape, generator=generator, device=probs.device) < probs

        return self._policy(draw(self.frame_logits), draw(self.stage_logits))

    def mode(self, threshold: float = 0.5, greedy: str = "threshold") -> Policy:
        """The greedy policy of test time.

        ``greedy='threshold'``, the paper's: what is more probable than ``threshold``.
        ``'count'``: as many units of frames as a draw keeps on average, the most probable ones.
        Where frames are alike, all their probabilities lie on one side of a threshold, so that a
        small step turns all frames on or off; their number does not jump. ``threshold`` above 0.5
        makes all policies cheaper, below it dearer: it is taken from the logits.

        Raises:
            Ada3DError: another way, or a threshold outside (0, 1).
        """
        if greedy not in GREEDY or not 0 < threshold < 1:
            raise Ada3DError(
                f"mode: greedy={greedy!r} (one of {', '.join(GREEDY)}), threshold={threshold!r} "
                "(between 0 and 1)"
            )
        shift = math.log(threshold / (1 - threshold))
        units, stages = self.frame_logits.detach() - shift, self.stage_logits.detach() - shift
        if greedy == "threshold" or not units.shape[1]:
            return self._policy(units > 0, stages > 0)
        passed = units.double().sigmoid().cumsum(1)
        total = passed[:, -1:]
        kept = total.round().clamp(min=1)
        if greedy == "count":
            rank = units.argsort(dim=1, descending=True, stable=True).argsort(1)
            return self._policy(rank < kept, stages > 0)
        # points one apart, as far from the start as from the end; no frame is as long as two
        points = (passed - (total - kept + 1) / 2).floor().add(1).clamp(min=0).minimum(kept)
        return self._policy(points.diff(dim=1, prepend=torch.zeros_like(total)) > 0, stages > 0)

    def straight_through(self, policy: Policy) -> Policy:
        """``policy`` with gates whose gradient is that of the probabilities (Bengio et al., 2013):
        what is executed is the hard decision, what is differentiated the soft one."""
        probs = (self.frame_probs, self.stage_probs)
        hard = (policy.frames, policy.stages)
        gates = [bits.to(prob) + (prob - prob.detach()) for bits, prob in zip(hard, probs)]
        return Policy(*hard, (gates[0], gates[1]))

    def log_prob(self, policy: Policy) -> tuple[Tensor, Tensor]:
        """log pi^f(u | V) [N] and log pi^c(v | V) [N]; gradients flow to the logits."""
        stages = -F.binary_cross_entropy_with_logits(
            self.stage_logits, policy.stages.to(self.stage_logits), reduction="none"
        ).sum(1)
        if self.frame_unit is None:
            return torch.zeros_like(stages), stages
        units = policy.frames[:, :: self.frame_unit]
        drawn = -F.binary_cross_entropy_with_logits(
            self.frame_logits, units.to(self.frame_logits), reduction="none"
        ).sum(1)
        all_dropped = F.logsigmoid(-self.frame_logits).sum(1)
        also_from_empty = (units == self._most_probable()).all(1)
        frames = torch.where(also_from_empty, torch.logaddexp(drawn, all_dropped), drawn)
        return frames, stages

    def entropy(self) -> tuple[Tensor, Tensor]:
        """Entropy in nats of the frame decisions [N] and the stage decisions [N], as drawn."""

        def bernoulli(logits: Tensor) -> Tensor:
            probs = logits.sigmoid()
            return -(probs * F.logsigmoid(logits) + (1 - probs) * F.logsigmoid(-logits)).sum(1)

        return bernoulli(self.frame_logits), bernoulli(self.stage_logits)

    def repeat_interleave(self, samples: int) -> PolicyDistribution:
        """Each clip's distribution ``samples`` times, neighbours in the result."""
        return PolicyDistribution(
            self.frame_logits.repeat_interleave(samples, 0),
            self.stage_logits.repeat_interleave(samples, 0),
            self.frame_unit,
            self.num_frames,
        )

    def __len__(self) -> int:
        return len(self.stage_logits)

    def _most_probable(self) -> Tensor:
        best = self.frame_logits.detach().argmax(1, keepdim=True)
        return torch.zeros_like(self.frame_logits, dtype=torch.bool).scatter_(1, best, True)

    def _policy(self, units: Tensor, stages: Tensor) -> Policy:
        if self.frame_unit is None:
            return Policy(stages.new_ones(len(stages), self.num_frames), stages)
        units = torch.where(units.any(1, keepdim=True), units, self._most_probable())
        return Policy(units.repeat_interleave(self.frame_unit, dim=1), stages)
