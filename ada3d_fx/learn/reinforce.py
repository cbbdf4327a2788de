"""The learning rule of sec. 3.2: rewards (eq. 4), baselines, and the policy-gradient loss (eq.
6-7).

Shapes: N clips, S sampled policies for each; rewards and log-probabilities are [N, S].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..distribution import PolicyDistribution
from ..errors import Ada3DError
from ..policy import Policy


@dataclass(frozen=True)
class Objective:
    """What the selection network maximises.

    ``gamma``: penalty of a wrong prediction, the accuracy/compute trade-off. ``cost='usage'``: O(u)
    = (|u|/T) to the power ``frame_exponent``, O(v) = (|v|/K) to ``stage_exponent`` (eq. 4 as
    printed: 1 and 2); ``cost='flops'``: both are the multiply-adds of the executed policy over
    those of the full one. ``baseline``: ``'leave_one_out'`` (the mean reward of the clip's other
    samples), ``'greedy'`` (the reward of its most probable policy, which the recognizer then learns
    from too in the joint stage) or ``'moving_average'``. ``entropy``: weight of an entropy bonus.
    ``multi_label``: how right a set of labels is predicted, see `correctness`. ``estimator``: of
    the gradient of eq. 5, ``'reinforce'`` (eq. 6-7) or ``'straight_through'``, see
    `straight_through_loss`; it executes each sample twice, with the kept frames and with all.
    ``reward_temperature``: where it is above 0, a prediction is as right as the probability that it gives to the
    label, its scores divided by this temperature; 0 is the paper's right or wrong. ``budget``:
    GMACs per clip, selection network included, that the drawn policies shall cost on average; the
    weight of the cost follows it with the rate ``budget_rate``, see `CostWeight`.
    """

    gamma: float = 1.0
    cost: str = "usage"
    frame_exponent: float = 1.0
    stage_exponent: float = 2.0
    baseline: str = "leave_one_out"
    samples: int = 4
    estimator: str = "reinforce"
    momentum: float = 0.9
    entropy: float = 0.0
    multi_label: str = "top1"
    reward_temperature: float = 0.0
    budget: float | None = None
    budget_rate: float = 0.02

    def __post_init__(self):
        for name, allowed in (
            ("cost", ("usage", "flops")),
            ("baseline", ("leave_one_out", "greedy", "moving_average")),
            ("estimator", ("reinforce", "straight_through")),
            ("multi_label", ("top1", "average_precision")),
        ):
            if getattr(self, name) not in allowed:
                raise Ada3DError(f"objective: {name}={getattr(self, name)!r}; try one of {allowed}")
        relaxed = self.estimator == "straight_through"
        if relaxed and (self.reward_temperature <= 0 or self.cost != "usage"):
            raise Ada3DError(
                "objective: estimator='straight_through' needs what has a gradient: reward_temperature= above 0, "
                f"not {self.reward_temperature!r}, and cost='usage', not {self.cost!r}"
            )
        least = 2 if self.baseline == "leave_one_out" and not relaxed else 1
        if self.samples < least:
            raise Ada3DError(
                f"objective: {self.baseline!r} needs samples >= {least}, not {self.samples}"
            )
        if self.reward_temperature < 0:
            raise Ada3DError(
                f"objective: reward_temperature={self.reward_temperature!r}; a temperature is at least 0"
            )
        if self.budget is not None and self.budget <= 0:
            raise Ada3DError(f"objective: budget={self.budget!r} GMACs; it must be positive")


def correctness(
    scores: Tensor, labels: Tensor, multi_label: str = "top1", reward_temperature: float = 0.0
) -> Tensor:
    """How right each prediction is, float [M] in [0, 1]. ScoringModel [M, num_classes].

    ``labels`` [M] (classes): 1 where the highest score is the label's; with ``reward_temperature``, the softmax
    of the scores over this temperature, at the label. ``labels`` [M, num_classes]
    (sets, as 0/1): ``'top1'``: 1 where the highest score is of the set; ``'average_precision'``:
    the average precision of the ranking.
    """
    if labels.ndim == 1 and reward_temperature:
        return (scores / reward_temperature).softmax(1).gather(1, labels[:, None])[:, 0]
    if labels.ndim == 1:
        return (scores.argmax(1) == labels).float()
    ranked = labels.gather(1, scores.argsort(1, descending=True)).float()
    if multi_label == "top1":
        return ranked[:, 0]
    precision = ranked.cumsum(1) / torch.arange(1, ranked.shape[1] + 1, device=ranked.device)
    return (precision * ranked).sum(1) / ranked.sum(1).clamp(min=1)


def costs(
    policy: Policy, objective: Objective, price: Tensor | None = None, full_price: int = 1
) -> tuple[Tensor, Tensor]:
    """O(u), O(v) of eq. 4, float [M] each. ``price`` int [M]: multiply-adds of each policy, for
    ``cost='flops'``."""
    if objective.cost == "flops":
        if price is None:
            raise Ada3DError("costs: cost='flops' needs the price of each policy")
        share = (price.double() / full_price).float()
        return share, share
    return _usage(policy.frames.float(), policy.stages.float(), objective)


def reward(correct: Tensor, cost: Tensor, gamma: float, weight: float | Tensor = 1.0) -> Tensor:
    """Eq. 4: 1 - O(x) where the prediction is correct, else -gamma; in between for one that is
    right in part. ``weight``: of O(x), 1 in the paper."""
    return correct * (1 - weight * cost) - (1 - correct) * gamma


class CostWeight(nn.Module):
    """The weight of O(x) in eq. 4: 1, or with a budget whatever makes the drawn policies cost it.

    It grows while they cost more and shrinks while they cost less, and stays below 1 + gamma, where
    a wrong prediction would be better than a dear right one.
    """

    def __init__(self, objective: Objective):
        super().__init__()
        self.budget, self.rate = objective.budget, objective.budget_rate
        self.most = 1 + objective.gamma
        self.register_buffer("value", torch.ones(()), persistent=self.budget is not None)

    def update(self, gmacs: Tensor) -> None:
        """Follow the mean cost of a batch's policies, selection network included."""
        if self.budget is not None and self.training:
            excess = (gmacs / self.budget - 1).clamp(-1, 1).to(self.value)
            self.value.mul_((self.rate * excess).exp()).clamp_(1e-2, self.most)


def leave_one_out(rewards: Tensor) -> Tensor:
    """Rewards [N, S], S >= 2 -> each less the mean of its clip's (or video's) other samples."""
    others = rewards.sum(1, keepdim=True) - rewards
    return rewards - others / (rewards.shape[1] - 1)


class Baseline(nn.Module):
    """b of the advantage R - b. None of the three depends on the sample it is taken from, so eq. 6
    stays unbiased."""

    def __init__(self, objective: Objective):
        super().__init__()
        self.kind, self.momentum = objective.baseline, objective.momentum
        self.register_buffer("average", torch.zeros(()))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    def advantage(self, rewards: Tensor, greedy: Tensor | None = None) -> Tensor:
        """Rewards [N, S] -> R - b [N, S]. ``greedy`` [N]: rewards of the most probable policies,
        for ``'greedy'``."""
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


def policy_loss(
    distribution: PolicyDistribution,
    samples: Policy,
    frame_advantage: Tensor,
    stage_advantage: Tensor,
    entropy: float = 0.0,
) -> Tensor:
    """The loss whose negative gradient is eq. 7. ``distribution`` of N clips; ``samples``: N*S
    policies, clip by clip (as ``repeat_interleave`` makes them); advantages [N, S]. The entropy
    bonus is the mean entropy of a frame decision and that of a stage decision."""
    times = frame_advantage.shape[1]
    log_frames, log_stages = distribution.repeat_interleave(times).log_prob(samples)
    gain = frame_advantage.detach().flatten() * log_frames
    gain = gain + stage_advantage.detach().flatten() * log_stages
    return -gain.mean() - _bonus(distribution, entropy)


def with_dropped(scores: Tensor, every: Tensor, policy: Policy) -> Tensor:
    """``scores`` [M, classes] of ``policy``, unchanged, with gradients for the gates of dropped
    frames too: those of ``scores + mean of their gates * (every - scores)``, where ``every`` [M,
    classes] are the scores of the same clips and stages with every frame."""
    dropped = ~policy.frames
    gates = policy.gates[0]
    share = ((gates - gates.detach()) * dropped).sum(1) / dropped.sum(1).clamp(min=1)
    return scores + share[:, None].to(scores) * (every - scores).detach()


def straight_through_loss(
    distribution: PolicyDistribution,
    scores: Tensor,
    labels: Tensor,
    policy: Policy,
    objective: Objective,
    weight: float | Tensor = 1.0,
) -> Tensor:
    """The peer of `policy_loss`: eq. 4 itself, soft in its correctness, differentiated through the
    gates of ``policy`` (`PolicyDistribution.straight_through`).

    scores [M, classes] of the policies' M clips, with gradients; labels int [M]; weight: of O(x).
    Each decision gets the gradient of its own reward, as in eq. 7: right predictions, and its own
    cost where they are right. A frame that is dropped is not executed: its gate sees its cost only,
    unless `with_dropped` has told what the frame would have changed.

    Raises:
        Ada3DError: a policy without gates, or sets of labels.
    """
    if policy.gates is None or labels.ndim != 1:
        raise Ada3DError(
            "straight_through_loss: needs a policy with gates, and one label for each clip"
        )
    correct = correctness(scores, labels, reward_temperature=objective.reward_temperature)
    frames, stages = policy.gates
    both = _usage(frames, stages, objective)
    mean = sum(both).detach() / 2
    gain = correct * (1 + objective.gamma - weight * mean)
    gain = gain - correct.detach() * weight * sum(both)
    return -gain.mean() - _bonus(distribution, objective.entropy)


def _usage(frames: Tensor, stages: Tensor, objective: Objective) -> tuple[Tensor, Tensor]:
    share = stages.sum(1) / max(stages.shape[1], 1)
    return frames.mean(1) ** objective.frame_exponent, share**objective.stage_exponent


def _bonus(distribution: PolicyDistribution, entropy: float) -> Tensor | float:
    if not entropy:
        return 0.0
    frames, stages = distribution.entropy()
    units, gates = distribution.frame_logits.shape[1], distribution.stage_logits.shape[1]
    return entropy * (frames.mean() / max(units, 1) + stages.mean() / max(gates, 1))
