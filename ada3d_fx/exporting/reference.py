"""What an exported file is compared with: the network's scores and decisions, in torch."""

from __future__ import annotations

import torch
from torch import Tensor

from ..convert import AdaptiveNetwork
from ..distribution import PolicyDistribution
from ..errors import Ada3DError
from ..exits import certainty, log_odds, probability, spread, sure
from ..learn.selector import SelectionNetwork
from ..plan import StagePlan
from ..policy import Policy
from ..runtime.session import Decision, Session

MARGIN = 1e-4  # of a probability to the threshold, within which rounding may decide


class Reference:
    """What the network gives for some clips, in torch."""

    def __init__(
        self,
        adaptive: AdaptiveNetwork,
        clips: Tensor,
        distribution: PolicyDistribution,
        classified: Tensor | None,
    ):
        self.adaptive, self.clips, self.distribution = adaptive, clips, distribution
        self.classified = classified
        self.median_exit: float | None = None
        if classified is not None:  # between two clips, or they would be a matter of rounding
            ordered = certainty(classified).sort().values
            middle = len(ordered) // 2
            between = (ordered[middle - 1 : middle + 1]).mean().item()
            self.median_exit = min(probability(between), 1 - 1e-6)

    @classmethod
    def of(
        cls, adaptive: AdaptiveNetwork, selector: SelectionNetwork, clips: Tensor, session: Session
    ) -> Reference:
        """Run the selection network, and have it predict where the file says that it does."""
        features = selector.frame_features(clips)
        classified = None
        if session.description.predict_with == "both":
            classified = selector.classify(features).float().mean(1)
        return cls(adaptive, clips, selector.distribution(features), classified)

    def scores(self, policy: Policy, stays: Tensor | None = None) -> Tensor:
        """Scores under a policy of the clips that stay; the others exit."""
        stays = torch.ones(len(self.clips), dtype=torch.bool) if stays is None else stays
        if not stays.any():
            assert self.classified is not None
            return self.classified
        recognized = spread(self.adaptive(self.clips[stays], policy), ~stays)
        return recognized if self.classified is None else recognized + self.classified

    def differing(self, own: Decision, threshold: float, greedy: str) -> Tensor:
        """The decisions that differ, bool [N, T + K].

        Raises:
            Ada3DError: one does by more than rounding can do.
        """
        mode = self.distribution.mode(threshold, greedy)
        probs = torch.cat([self.distribution.frame_probs, self.distribution.stage_probs], 1)
        near = (probs - threshold).abs() < MARGIN
        if greedy != "threshold":  # a frame may be kept in place of another
            near[:, : self.adaptive.plan.num_frames] |= near.any(1, keepdim=True)
        wanted = torch.cat([mode.frames, mode.stages], 1)
        if self.classified is not None and self.median_exit is not None:
            certainties = certainty(self.classified)
            wanted &= ~sure(certainties, self.median_exit)[:, None]
            close = (certainties - log_odds(self.median_exit)).abs() < MARGIN
            near |= close[:, None]
        differ = torch.cat([torch.from_numpy(part) for part in own], 1) ^ wanted
        if (differ & ~near).any():
            raise Ada3DError(
                f"export: at threshold {threshold:.4g}, {int(differ.any(1).sum())} of {len(differ)} "
                "clips get another policy than from the network it was made of"
            )
        return differ


def policies_of_all_lengths(plan: StagePlan, least: int) -> Policy:
    """Random policies in which every number of kept frames occurs, and the full one.

    Args:
        plan: the network's.
        least: so many policies at least.
    """
    generator = torch.Generator().manual_seed(0)
    units = max(plan.num_units, 1)
    n = max(least, units)
    kept = torch.tensor([i % units + 1 for i in range(n)]) / units
    made = Policy.random(plan, n, kept, 0.5, generator)
    ends = torch.tensor([True, False])[:, None].expand(2, plan.num_stages)
    frames = torch.ones(2, plan.num_frames, dtype=torch.bool)
    return Policy.cat([made, Policy(frames, ends)])
