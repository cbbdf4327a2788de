"""Estimators of the gradient of the expected reward (eq. 5): REINFORCE, and straight-through.

Shapes: N clips, S sampled policies for each, M = N * S (+ more) policies that are executed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..distribution import PolicyDistribution
from ..errors import Ada3DError, require_number
from ..policy import Policy
from .losses import Baseline, entropy_bonus, policy_loss, straight_through_loss, with_dropped
from .reward import CostWeight, Objective

BASELINES = ("leave_one_out", "greedy", "moving_average")


@dataclass(frozen=True)
class Trial:
    """Sampled policies of a batch, and what came of executing them."""

    # Of the N clips.
    distribution: PolicyDistribution
    # N * S policies, those of a clip side by side.
    samples: Policy
    # [M, num_classes]: of the samples, then of the policies that they are compared with.
    scores: Tensor
    # Of the clip of each row: int [M], or sets of labels as 0 and 1 [M, num_classes].
    labels: Tensor
    # R(u) and R(v) of eq. 4, [M] each.
    rewards: tuple[Tensor, Tensor]
    # The weight of O(x) in these rewards, a scalar.
    cost_weight: Tensor
    # Whether frames, and whether stages, were sampled from the distribution; what was not has
    # nothing to learn.
    learned: tuple[bool, bool] = (True, True)


class Estimator(nn.Module):
    """What the estimators share; one of your own implements ``loss``.

    Args:
        samples: S, the policies that are sampled for each clip.
        entropy: weight of a bonus for the mean entropy of a decision, against early certainty.
        options: the options of `Objective`.

    Raises:
        Ada3DError: no samples, or an option that `Objective` does not know or refuses.
    """

    # Whether the scores need gradients in the selection phase, where the recognizer is frozen.
    needs_gradients = False

    def __init__(self, samples: int = 4, entropy: float = 0.0, **options: Any):
        super().__init__()
        try:
            self.objective = Objective(**options)
        except TypeError as error:
            raise Ada3DError(f"objective: {type(self).__name__}: {error}") from error
        require_number("objective: samples", samples, 1, whole=True)
        require_number("objective: entropy", entropy, 0.0)
        self.samples, self.entropy = samples, entropy
        self.cost_weight = CostWeight(self.objective)

    def sampled(
        self, distribution: PolicyDistribution, samples: Policy, learned: tuple[bool, bool]
    ) -> Policy:
        """Return the samples as they are to be executed.

        Args:
            distribution: of the N clips, each S times.
            samples: N * S policies.
            learned: as in `Trial`.
        """
        return samples

    def compared(self, samples: Policy, greedy: Policy) -> Policy | None:
        """Return the policies that are executed behind the samples, in the same batch.

        Args:
            samples: N * S policies.
            greedy: the N most probable policies.

        Returns:
            N policies, one of each clip, or N * S, one of each sample; None for no more.
        """
        return None

    def loss(self, trial: Trial) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss whose negative gradient is the estimate, and values to log."""
        raise NotImplementedError

    def policy_loss(self, trial: Trial, frame_advantage: Tensor, stage_advantage: Tensor) -> Tensor:
        """Return `policy_loss` of a trial; what is not learned has no advantage.

        Args:
            trial: the samples and their distribution.
            frame_advantage: [N, S].
            stage_advantage: [N, S].
        """
        frames, stages = trial.learned
        return policy_loss(
            trial.distribution,
            trial.samples,
            frame_advantage if frames else torch.zeros_like(frame_advantage),
            stage_advantage if stages else torch.zeros_like(stage_advantage),
            self.entropy,
        )


class Reinforce(Estimator):
    """REINFORCE with a baseline (eq. 6-7).

    Args:
        baseline: b of the advantage R - b: 'leave_one_out' is the mean reward of the clip's other
            samples; 'greedy' is the reward of its most probable policy, from which the recognizer
            then learns too in the joint phase; 'moving_average' is that of the batches before.
        momentum: of the moving average.
        samples: S.
        options: see `Estimator` and `Objective`.

    Raises:
        Ada3DError: an unknown baseline, or one sample only for 'leave_one_out'.
    """

    def __init__(
        self,
        baseline: str = "leave_one_out",
        momentum: float = 0.9,
        samples: int = 4,
        **options: Any,
    ):
        if baseline not in BASELINES:
            raise Ada3DError(f"objective: baseline={baseline!r}; try one of {BASELINES}")
        super().__init__(samples, **options)
        require_number("objective: momentum", momentum, 0.0, 1.0)
        if baseline == "leave_one_out" and samples < 2:
            raise Ada3DError(f"objective: baseline={baseline!r} needs samples >= 2, not {samples}")
        self.baseline = baseline
        self.frame_baseline = Baseline(baseline, momentum)
        self.stage_baseline = Baseline(baseline, momentum)

    def compared(self, samples: Policy, greedy: Policy) -> Policy | None:
        """Return the greedy policies where they are the baseline."""
        return greedy if self.baseline == "greedy" else None

    def loss(self, trial: Trial) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of eq. 7, and the mean size of the advantages."""
        sampled, clips = len(trial.samples), len(trial.distribution)
        advantages = [
            baseline.advantage(value[:sampled].unflatten(0, (clips, -1)), value[sampled:])
            for baseline, value in zip((self.frame_baseline, self.stage_baseline), trial.rewards)
        ]
        size = [value * learned for value, learned in zip(advantages, trial.learned)]
        return self.policy_loss(trial, *advantages), {"advantage": torch.stack(size).abs().mean()}


class StraightThrough(Estimator):
    """Eq. 4 itself, soft in its correctness, differentiated through gates (Bengio et al., 2013).

    Each sample is executed with its own frames and with all, so that a dropped frame's gate feels
    what the frame would have changed, see `with_dropped`.

    Args:
        samples: S; half of REINFORCE's cost about the same.
        entropy: see `Estimator`.
        options: see `Objective`; ``reward_temperature`` must be above 0 and ``cost`` 'usage'.

    Raises:
        Ada3DError: options that have no gradient.
    """

    needs_gradients = True

    def __init__(self, samples: int = 2, entropy: float = 0.0, **options: Any):
        super().__init__(samples, entropy, **options)
        if self.objective.reward_temperature <= 0 or self.objective.cost != "usage":
            raise Ada3DError(
                "objective: StraightThrough needs what has a gradient: reward_temperature= above 0, "
                f"not {self.objective.reward_temperature!r}, and cost='usage', not "
                f"{self.objective.cost!r}"
            )

    def sampled(
        self, distribution: PolicyDistribution, samples: Policy, learned: tuple[bool, bool]
    ) -> Policy:
        """Return the samples with gates through which what is learned has gradients."""
        gated = distribution.straight_through(samples)
        assert gated.gates is not None
        frames, stages = (
            gate if wanted else gate.detach() for gate, wanted in zip(gated.gates, learned)
        )
        return Policy(samples.frames, samples.stages, (frames, stages))

    def compared(self, samples: Policy, greedy: Policy) -> Policy | None:
        """Return each sample with all frames, where frames are learned."""
        if samples.gates is None or not samples.gates[0].requires_grad:
            return None
        return Policy(torch.ones_like(samples.frames), samples.stages)

    def loss(self, trial: Trial) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the negative reward with gradients through the gates; nothing to log."""
        sampled = len(trial.samples)
        scores, with_all_frames = trial.scores[:sampled], trial.scores[sampled:]
        if len(with_all_frames):
            scores = with_dropped(scores, with_all_frames, trial.samples)
        loss = straight_through_loss(
            scores, trial.labels[:sampled], trial.samples, self.objective, trial.cost_weight
        )
        return loss - entropy_bonus(trial.distribution, self.entropy), {}
