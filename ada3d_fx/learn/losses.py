"""The parts of the learning rule (sec. 3.2): baselines, and losses with the gradient of eq. 7.

Shapes: N clips, S sampled policies for each, M executed policies.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..distribution import PolicyDistribution
from ..errors import Ada3DError
from ..policy import Policy
from .reward import Objective, correctness, mean_of_processes, usage_costs


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

        The moving average is that of all processes.

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
            mean = mean_of_processes(rewards.mean().to(self.average))
            self.average.mul_(weight).add_((1 - weight) * mean)
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
