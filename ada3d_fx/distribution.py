"""The distribution of a clip's policy (eq. 1-3): sampling, the greedy policy, log-probabilities."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .errors import Ada3DError
from .policy import Policy

GREEDY = ("threshold", "count", "systematic")


class PolicyDistribution:
    """Independent Bernoulli decisions of N clips: one per frame unit and one per stage (eq. 1-3).

    At least one unit is kept: a draw that drops all keeps its most probable one. ``log_prob`` is
    that of the policy as it is executed, so the probabilities of all executable policies sum to
    one.

    Args:
        frame_logits: [N, T / g]; their sigmoids are m of eq. 1. [N, 0] where frames cannot be
            dropped.
        stage_logits: [N, K]; their sigmoids are n of eq. 1.
        frame_unit: g, frames per decision; None where frames cannot be dropped.
        num_frames: T; needed where frames cannot be dropped.

    Raises:
        Ada3DError: frames cannot be dropped, and nothing says how many there are.
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
        """The probability of keeping each frame, [N, T]: m of eq. 1."""
        if self.frame_unit is None:
            return self.stage_logits.new_ones(len(self), self.num_frames)
        return self.frame_logits.sigmoid().repeat_interleave(self.frame_unit, dim=1)

    @property
    def stage_probs(self) -> Tensor:
        """The probability of each stage's temporal extent, [N, K]: n of eq. 1."""
        return self.stage_logits.sigmoid()

    def sample(self, generator: torch.Generator | None = None) -> Policy:
        """Draw a policy: u of eq. 2 and v of eq. 3.

        Args:
            generator: of the logits' device; None is torch's own.
        """

        def draw(logits: Tensor) -> Tensor:
            probs = logits.detach().float().sigmoid()
            return torch.rand(probs.shape, generator=generator, device=probs.device) < probs

        return self._policy(draw(self.frame_logits), draw(self.stage_logits))

    def mode(self, threshold: float = 0.5, greedy: str = "threshold") -> Policy:
        """Choose the greedy policy of test time.

        Args:
            threshold: above 0.5 it makes all policies cheaper, below 0.5 dearer: its logit is taken
                from all logits first.
            greedy: how frames are chosen; a stage is on if it is more probable than ``threshold``.
                'threshold', the paper's: the units more probable than ``threshold``. 'count': the
                most probable units, as many as a draw keeps on average; where frames are alike, a
                small step moves all of them over a threshold, but their number does not jump.
                'systematic': as many, but at even distances where frames are alike.

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
        # Systematic sampling: `kept` equally spaced points on the cumulated probabilities, centred;
        # keep each frame whose interval contains one. (A probability is at most 1, so none has two.)
        points = (passed - (total - kept + 1) / 2).floor().add(1).clamp(min=0).minimum(kept)
        return self._policy(points.diff(dim=1, prepend=torch.zeros_like(total)) > 0, stages > 0)

    def straight_through(self, policy: Policy) -> Policy:
        """Return ``policy`` with gates whose gradient is that of the probabilities.

        What is executed is the hard decision, what is differentiated is the probability (Bengio et
        al., 2013).
        """
        probs = (self.frame_probs, self.stage_probs)
        hard = (policy.frames, policy.stages)
        gates = [bits.to(prob) + (prob - prob.detach()) for bits, prob in zip(hard, probs)]
        return Policy(*hard, (gates[0], gates[1]))

    def log_prob(self, policy: Policy) -> tuple[Tensor, Tensor]:
        """Return the log-probabilities of a policy; gradients flow to the logits.

        Returns:
            log pi^f(u | V) [N] of the frames, and log pi^c(v | V) [N] of the stages.
        """
        stages = -F.binary_cross_entropy_with_logits(
            self.stage_logits, policy.stages.to(self.stage_logits), reduction="none"
        ).sum(1)
        if self.frame_unit is None:
            return torch.zeros_like(stages), stages
        units = policy.frames[:, :: self.frame_unit]
        as_drawn = -F.binary_cross_entropy_with_logits(
            self.frame_logits, units.to(self.frame_logits), reduction="none"
        ).sum(1)
        all_dropped = F.logsigmoid(-self.frame_logits).sum(1)
        also_from_empty = (units == self._most_probable()).all(1)
        frames = torch.where(also_from_empty, torch.logaddexp(as_drawn, all_dropped), as_drawn)
        return frames, stages

    def entropy(self) -> tuple[Tensor, Tensor]:
        """Return the entropy in nats of the frame decisions [N] and of the stage decisions [N].

        It is that of the draw, before a draw that drops all frames keeps one.
        """

        def bernoulli(logits: Tensor) -> Tensor:
            probs = logits.sigmoid()
            return -(probs * F.logsigmoid(logits) + (1 - probs) * F.logsigmoid(-logits)).sum(1)

        return bernoulli(self.frame_logits), bernoulli(self.stage_logits)

    def repeat_interleave(self, samples: int) -> PolicyDistribution:
        """Repeat each clip's distribution ``samples`` times, side by side."""
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
