"""One policy-gradient step (Algorithm 1), the same in both of its phases.

It knows no model: recognizer and prices come as functions, the selection network as the
distribution that it gives.

Shapes: N clips, S samples of each, M executed policies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..distribution import PolicyDistribution
from ..policy import Policy
from .estimators import Estimator, Trial
from .reward import correctness, costs, reward

# M policies and the clip of each, int [M] -> scores [M, num_classes], all executed as one batch
Execute = Callable[[Policy, Tensor], Tensor]


@dataclass(frozen=True)
class Prices:
    """What policies cost, in multiply-adds."""

    # M policies -> int64 [M], of the recognizer
    price: Callable[[Policy], Tensor]
    # Of the recognizer under the full policy.
    full: int
    # Of the selection network, for one clip.
    selector: int

    def usage(self, policy: Policy, with_selector: bool = True) -> dict[str, Tensor]:
        """Return the mean usage of M policies, as values to log."""
        selector = self.selector if with_selector else 0
        return {
            "kept_frames": policy.num_frames.float().mean(),
            "active_stages": policy.num_stages.float().mean(),
            "gmacs": (self.price(policy).double().mean() + selector).float() / 1e9,
        }


@dataclass(frozen=True)
class StepResult:
    """What a step gives."""

    # The loss whose negative gradient is that of eq. 7.
    loss: Tensor
    # Values to log, scalars.
    log: dict[str, Tensor]
    # [M, num_classes], of every executed policy; with gradients where the recognizer learns.
    scores: Tensor
    # int [M]: the clip of each.
    clip_index: Tensor


def policy_step(
    distribution: PolicyDistribution,
    labels: Tensor,
    estimator: Estimator,
    execute: Execute,
    prices: Prices,
    *,
    greedy: str = "threshold",
    change: Callable[[Policy], Policy] = lambda policy: policy,
    learned: tuple[bool, bool] = (True, True),
) -> StepResult:
    """Estimate eq. 7 once: sample, execute, reward, and weigh the log-probabilities.

    Args:
        distribution: of N clips, with gradients to the selection network.
        labels: classes int [N], or sets of labels as 0 and 1 [N, num_classes].
        estimator: how the gradient is estimated, and the options of the reward.
        execute: runs the recognizer; with gradients where it learns, or the estimator needs them.
        prices: of the recognizer and of the selection network.
        greedy: how the most probable policy keeps frames, see `PolicyDistribution.mode`.
        change: what becomes of sampled and of greedy policies before they are executed, where one
            of the two decisions is random (table 6).
        learned: whether the frames' and the stages' decisions come from the distribution.

    Returns:
        The loss of the selection network, and what was executed for it.
    """
    objective, clips = estimator.objective, len(distribution)

    # Sample S policies of each clip (eq. 2-3).
    repeated = distribution.repeat_interleave(estimator.samples)
    samples = estimator.sampled(repeated, change(repeated.sample()), learned)
    most_probable = change(distribution.mode(greedy=greedy))

    # Execute them, and what they are compared with, as one batch.
    executed, clip_index = samples, _clip_index(clips, len(samples), labels.device)
    compared = estimator.compared(samples, most_probable)
    if compared is not None:
        executed = Policy.cat([samples, compared])
        more = _clip_index(clips, len(compared), labels.device)
        clip_index = torch.cat([clip_index, more])
    scores = execute(executed, clip_index).float()

    # Reward each: R(u) and R(v) of eq. 4.
    labels = labels[clip_index]
    correct = correctness(
        scores.detach(), labels, objective.multi_label, objective.reward_temperature
    )
    weight = estimator.cost_weight.value.clone()
    frame_cost, stage_cost = costs(executed, objective, prices.price(executed), prices.full)
    rewards = (
        reward(correct, frame_cost, objective.gamma, weight),
        reward(correct, stage_cost, objective.gamma, weight),
    )

    # Follow the budget, and estimate the gradient (eq. 6-7).
    usage = prices.usage(samples)
    estimator.cost_weight.update(usage["gmacs"])
    trial = Trial(distribution, samples, scores, labels, rewards, weight, learned)
    loss, estimated = estimator.loss(trial)

    frame_entropy, stage_entropy = distribution.entropy()
    log = {
        "reward_frames": rewards[0][: len(samples)].mean(),
        "reward_stages": rewards[1][: len(samples)].mean(),
        "correct": correct[: len(samples)].mean(),
        "entropy_frames": frame_entropy.detach().mean(),
        "entropy_stages": stage_entropy.detach().mean(),
        "distinct_policies": correct.new_tensor(float(most_probable.num_distinct)),
        "gmacs_greedy": prices.usage(most_probable)["gmacs"],
        "cost_weight": estimator.cost_weight.value.clone(),
        **estimated,
        **usage,
    }
    return StepResult(loss, log, scores, clip_index)


def _clip_index(clips: int, policies: int, device: torch.device) -> Tensor:
    """Return the clip of each policy, int [policies]: those of a clip are side by side."""
    return torch.arange(clips, device=device).repeat_interleave(policies // clips)
