"""The reward of eq. 4: what a prediction is worth, what a policy costs, and the weight of that cost.

Shapes: M clips, each under a policy of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

from ..errors import Ada3DError, require_number
from ..policy import Policy

COSTS = ("usage", "flops")
MULTI_LABEL = ("top1", "average_precision")


@dataclass(frozen=True)
class Objective:
    """The options of the reward R(x) that the selection network maximises (eq. 4-5).

    Raises:
        Ada3DError: an unknown word, or a number that is not finite or out of its bounds.
    """

    # Penalty of a wrong prediction: the trade-off between accuracy and computation.
    gamma: float = 1.0
    # 'usage': O(u) = (|u|/T) ** frame_exponent and O(v) = (|v|/K) ** stage_exponent (eq. 4 as printed);
    # 'flops': both are the multiply-adds of the policy over those of the full one.
    cost: str = "usage"
    frame_exponent: float = 1.0
    stage_exponent: float = 2.0
    # How right a set of labels is predicted, see `correctness`.
    multi_label: str = "top1"
    # Above 0: a prediction is as right as the probability that it gives to its label, its scores
    # divided by this temperature. 0 is the paper's right or wrong.
    reward_temperature: float = 0.0
    # GMACs per clip, selection network included, that the sampled policies shall cost on average;
    # the weight of the cost follows it, see `CostWeight`. None: the weight is 1, as in the paper.
    budget: float | None = None
    budget_rate: float = 0.02

    def __post_init__(self) -> None:
        for name, allowed in (("cost", COSTS), ("multi_label", MULTI_LABEL)):
            if getattr(self, name) not in allowed:
                raise Ada3DError(f"objective: {name}={getattr(self, name)!r}; try one of {allowed}")
        for name in ("gamma", "frame_exponent", "stage_exponent", "reward_temperature"):
            require_number(f"objective: {name}", getattr(self, name), 0.0)
        require_number("objective: budget_rate", self.budget_rate, 0.0, above=True)
        if self.budget is not None:
            require_number("objective: budget", self.budget, 0.0, above=True)


def correctness(
    scores: Tensor, labels: Tensor, multi_label: str = "top1", temperature: float = 0.0
) -> Tensor:
    """Tell how right each prediction is, as a number from 0 to 1.

    Args:
        scores: [M, num_classes].
        labels: classes, int [M]; or sets of classes, as 0 and 1 [M, num_classes].
        multi_label: for sets: 'top1' is 1 where the highest score is of the set,
            'average_precision' is the average precision of the ranking.
        temperature: for classes: 0 gives 1 where the highest score is the label's; above 0, the
            softmax of the scores over this temperature, at the label.

    Returns:
        float [M].
    """
    if labels.ndim == 1 and temperature:
        return (scores / temperature).softmax(1).gather(1, labels[:, None])[:, 0]
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
    """Compute O(u) and O(v) of eq. 4.

    Args:
        policy: M policies.
        objective: its ``cost`` and exponents.
        price: int [M], the multiply-adds of each policy, for ``cost='flops'``.
        full_price: the multiply-adds of the full policy.

    Returns:
        float [M] each.

    Raises:
        Ada3DError: ``cost='flops'`` without prices.
    """
    if objective.cost == "flops":
        if price is None:
            raise Ada3DError("costs: cost='flops' needs the price of each policy")
        share = (price.double() / full_price).float()
        return share, share
    return usage_costs(policy.frames.float(), policy.stages.float(), objective)


def usage_costs(frames: Tensor, stages: Tensor, objective: Objective) -> tuple[Tensor, Tensor]:
    """Compute O(u) and O(v) of eq. 4 from decisions as numbers, [M, T] and [M, K]."""
    share = stages.sum(1) / max(stages.shape[1], 1)
    return frames.mean(1) ** objective.frame_exponent, share**objective.stage_exponent


def reward(correct: Tensor, cost: Tensor, gamma: float, weight: float | Tensor = 1.0) -> Tensor:
    """Compute R(x) of eq. 4: 1 - O(x) where the prediction is correct, else -gamma.

    Args:
        correct: [M], 1 or 0, or in between for a prediction that is right in part.
        cost: O(x), [M].
        gamma: penalty of a wrong prediction.
        weight: of O(x); 1 in the paper.

    Returns:
        [M].
    """
    return correct * (1 - weight * cost) - (1 - correct) * gamma


def mean_of_processes(value: Tensor) -> Tensor:
    """Return the mean of what the processes of a distributed run have; all of them call it.

    Args:
        value: without gradients, of the same shape in all of them.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return value
    total = value.detach().clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()


class CostWeight(nn.Module):
    """The weight of O(x) in eq. 4: 1, or with a budget whatever makes sampled policies cost it.

    It grows while they cost more and shrinks while they cost less, and stays below 1 + gamma, where
    a wrong prediction would be better than an expensive right one.
    """

    value: Tensor

    def __init__(self, objective: Objective):
        super().__init__()
        self.budget, self.rate = objective.budget, objective.budget_rate
        self.most = 1 + objective.gamma
        self.register_buffer("value", torch.ones(()), persistent=self.budget is not None)

    def update(self, gmacs: Tensor) -> None:
        """Follow the mean cost of a batch's policies, in GMACs with the selection network.

        In several processes it is the mean over all of them.
        """
        if self.budget is not None and self.training:
            gmacs = mean_of_processes(gmacs)
            excess = (gmacs / self.budget - 1).clamp(-1, 1).to(self.value)
            self.value.mul_((self.rate * excess).exp()).clamp_(1e-2, self.most)
