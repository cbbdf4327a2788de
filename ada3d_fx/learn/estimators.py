"""Estimators of the gradient of the expected reward (eq. 5): REINFORCE, and straight-through.

Shapes: N clips, S sampled policies for each, M = N * S (+ more) policies that are executed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..distribution import PolicyDistribution
from ..errors import Ada3DError
from ..policy import Policy
from .reward import CostWeight, Objective, correctness, usage_costs

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
        if samples < 1:
            raise Ada3DError(f"objective: samples={samples}; at least 1 for each clip")
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


class Baseline(nn.Module):
    """b of the advantage R - b, which leaves eq. 6 unbiased.

    None of the three depends on the sample from whose reward it is taken.
    """

    average: Tensor
    batches: Tensor

    def __init__(self, kind: str = "leave_one_out", momentum: float = 0.9):
        super().__init__()
        self.kind, self.momentum = kind, momentum
        self.register_buffer("average", torch.zeros(()))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    def advantage(self, rewards: Tensor, greedy: Tensor) -> Tensor:
        """Return R - b.

        Args:
            rewards: [N, S].
            greedy: [N], the rewards of the most probable policies; read by 'greedy' only.

        Returns:
            [N, S].
        """
        if self.kind == "leave_one_out":
            return leave_one_out(rewards)
        if self.kind == "greedy":
            return rewards - greedy[:, None]
        before = self.average.clone()  # this batch's own samples must not be in it
        if self.training:
            weight = self.momentum if self.batches else 0.0
            self.average.mul_(weight).add_((1 - weight) * rewards.mean().to(self.average))
            self.batches += 1
        return rewards - before


def leave_one_out(rewards: Tensor) -> Tensor:
    """Subtract from each reward the mean of its clip's (or video's) others; [N, S], S >= 2."""
    others = rewards.sum(1, keepdim=True) - rewards
    return rewards - others / (rewards.shape[1] - 1)


def policy_loss(
    distribution: PolicyDistribution,
    samples: Policy,
    frame_advantage: Tensor,
    stage_advantage: Tensor,
    entropy: float = 0.0,
) -> Tensor:
    """Return the loss whose negative gradient is eq. 7.

    Args:
        distribution: of N clips.
        samples: N * S policies, clip by clip, as ``repeat_interleave`` makes them.
        frame_advantage: R(u) - b, [N, S].
        stage_advantage: R(v) - b, [N, S].
        entropy: weight of the entropy bonus.

    Returns:
        A scalar.
    """
    times = frame_advantage.shape[1]
    log_frames, log_stages = distribution.repeat_interleave(times).log_prob(samples)
    gain = frame_advantage.detach().flatten() * log_frames
    gain = gain + stage_advantage.detach().flatten() * log_stages
    return -gain.mean() - entropy_bonus(distribution, entropy)


def with_dropped(scores: Tensor, with_all_frames: Tensor, policy: Policy) -> Tensor:
    """Return ``scores`` unchanged, with gradients for the gates of dropped frames.

    In backward, these gates receive the gradient that they would have if keeping them moved the
    scores towards those of all frames: that of ``scores + mean of their gates * (with_all_frames -
    scores)``.

    Args:
        scores: [M, num_classes] of ``policy``.
        with_all_frames: [M, num_classes] of the same clips and stages with every frame.
        policy: M policies with gates.

    Returns:
        [M, num_classes].
    """
    assert policy.gates is not None
    dropped = ~policy.frames
    gates = policy.gates[0]
    share = ((gates - gates.detach()) * dropped).sum(1) / dropped.sum(1).clamp(min=1)
    return scores + share[:, None].to(scores) * (with_all_frames - scores).detach()


def straight_through_loss(
    scores: Tensor,
    labels: Tensor,
    policy: Policy,
    objective: Objective,
    weight: float | Tensor = 1.0,
) -> Tensor:
    """Return the negative of eq. 4, soft in its correctness, with gradients through the gates.

    Each decision gets the gradient of its own reward, as in eq. 7: right predictions, and its own
    cost where they are right. A frame that is dropped is not executed: its gate sees its cost only,
    unless `with_dropped` has told what the frame would have changed.

    Args:
        scores: [M, num_classes] of the policies, with gradients.
        labels: int [M].
        policy: M policies with gates, see `PolicyDistribution.straight_through`.
        objective: the reward's options.
        weight: of O(x).

    Returns:
        A scalar.

    Raises:
        Ada3DError: a policy without gates, or sets of labels.
    """
    if policy.gates is None or labels.ndim != 1:
        raise Ada3DError(
            "straight_through_loss: needs a policy with gates, and one label for each clip"
        )
    correct = correctness(scores, labels, temperature=objective.reward_temperature)
    frame_cost, stage_cost = usage_costs(*policy.gates, objective)
    total = frame_cost + stage_cost
    mean = total.detach() / 2
    gain = correct * (1 + objective.gamma - weight * mean)
    gain = gain - correct.detach() * weight * total
    return -gain.mean()


def entropy_bonus(distribution: PolicyDistribution, entropy: float) -> Tensor | float:
    """Return ``entropy`` times the mean entropy of a frame decision plus that of a stage decision."""
    if not entropy:
        return 0.0
    frames, stages = distribution.entropy()
    units, gates = distribution.frame_logits.shape[1], distribution.stage_logits.shape[1]
    return entropy * (frames.mean() / max(units, 1) + stages.mean() / max(gates, 1))
