"""What the packed program of one batch really runs, next to its price."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..convert import AdaptiveNetwork
from ..policy import Policy
from ..tracing.shadow import dtype_of
from .count import COPIES, count, elements
from .price import price


@dataclass(frozen=True)
class Executed:
    """What the packed execution of one batch runs, next to what its policies cost."""

    price: int  # multiply-adds, the sum of the clips' prices
    # multiply-adds of the packed program, never more: less where a clip has too few frames for a
    # kernel's outer taps, which the price counts as padding. This is never credited to a policy.
    macs: int
    copied: int  # elements that packing moves


def executed(adaptive: AdaptiveNetwork, policy: Policy) -> Executed:
    """Count the packed program under the policies of one batch, by fvcore.

    BatchNorm counts as in the price, although inference folds it into the convolutions.

    Raises:
        Ada3DError: a policy of another shape than the plan's.
    """
    total = int(price(adaptive, policy).sum())
    clips = torch.zeros(len(policy), *adaptive.plan.clip_shape, dtype=dtype_of(adaptive))
    program = _UnderPolicy(adaptive, Policy(policy.frames, policy.stages).to("cpu"))
    copied = elements(program, (clips,), COPIES)
    return Executed(total, count(program, (clips,)).total, sum(copied.values()))


class _UnderPolicy(nn.Module):
    """A network's program under one policy, as a module from clips to scores."""

    def __init__(self, adaptive: AdaptiveNetwork, policy: Policy):
        super().__init__()
        self.program, self.policy = adaptive.graph_module, policy

    def forward(self, clips: Tensor) -> Tensor:
        return self.program(clips, self.policy)
