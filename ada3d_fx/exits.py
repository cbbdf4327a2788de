"""Clips that need no recognizer: those of whose class the selection network is sure.

Sure is told in log-odds, log(p / (1 - p)) of a probability p: they do not saturate as probabilities
do, and a threshold moves along them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .policy import Policy


def certainty(scores: Tensor) -> Tensor:
    """Return the log-odds of the most probable class by softmax.

    Args:
        scores: of a classifier, [N, classes].

    Returns:
        float64 [N]; NaN where a score is.
    """
    scores = scores.detach().double()
    best, at = scores.max(1, keepdim=True)
    return best[:, 0] - scores.scatter(1, at, -torch.inf).logsumexp(1)


def sure(certainties: Tensor, confidence: float) -> Tensor:
    """Tell which clips exit: those whose probability exceeds ``confidence``, bool [N].

    At a confidence of 1 none does.

    Args:
        certainties: of N clips, see `certainty`.
        confidence: above 0, at most 1.
    """
    return certainties > log_odds(confidence)


def tied(threshold: float, start: tuple[float, float]) -> float:
    """Return the confidence of exits that belongs to a threshold of policies.

    One dial moves both: what raises the log-odds that a frame or a stage needs to be computed lowers
    those that a clip needs to exit, by as much. So a clip's doubt, the odds against its class, is
    compared with the same price of computing as the odds of its frames and stages.

    Args:
        threshold: of the policies, in (0, 1).
        start: a threshold in (0, 1) and the confidence that belongs to it.
    """
    return probability(log_odds(start[1]) + log_odds(start[0]) - log_odds(threshold))


def log_odds(p: float) -> float:
    """Return log(p / (1 - p)); infinite at 1."""
    return math.inf if p == 1 else math.log(p / (1 - p))


def probability(odds: float) -> float:
    """Return the probability of log-odds."""
    return 1 / (1 + math.exp(-odds))


@dataclass(frozen=True)
class Scored:
    """What came of N clips at test time; the recognizer computed M of them, and the others exited.

    >>> policy = Policy(torch.tensor([[True, False]]), torch.tensor([[True]]))
    >>> scored = Scored(policy, torch.tensor([True, False]), torch.zeros(2, 4))
    >>> scored.frames.tolist()
    [[False, False], [True, False]]
    """

    # Of the M clips that the recognizer computed, in their order.
    policy: Policy
    # bool [N]: those that it did not.
    exited: Tensor
    # float [N, classes]
    scores: Tensor

    @property
    def frames(self) -> Tensor:
        """The computed frames of each clip, bool [N, T]: none of a clip that exited."""
        return self.spread(self.policy.frames)

    @property
    def stages(self) -> Tensor:
        """The stages that ran in 3D, bool [N, K]: none of a clip that exited."""
        return self.spread(self.policy.stages)

    def spread(self, values: Tensor) -> Tensor:
        """Put values of the computed clips [M, ...] in their places of all [N, ...], with zeros."""
        return spread(values, self.exited)

    @classmethod
    def cat(cls, parts: Sequence[Scored]) -> Scored:
        """Join what came of several batches, in order."""
        return cls(
            Policy.cat([part.policy for part in parts]),
            torch.cat([part.exited for part in parts]),
            torch.cat([part.scores for part in parts]),
        )


def spread(values: Tensor, exited: Tensor) -> Tensor:
    """Put values of M clips in their places among N, with zeros for those that exited.

    Args:
        values: [M, ...].
        exited: bool [N], of which M are False.
    """
    every = values.new_zeros(len(exited), *values.shape[1:])
    every[~exited] = values
    return every
