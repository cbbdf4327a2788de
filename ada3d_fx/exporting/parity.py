"""The check of an exported file: what it computes against the network that it was made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..convert import AdaptiveNetwork
from ..distribution import PolicyDistribution
from ..errors import Ada3DError
from ..exits import certainty, log_odds, probability, spread, sure
from ..learn.selector import SelectionNetwork
from ..plan import StagePlan
from ..policy import Policy
from ..runtime.session import Decision, Session

TOLERANCE = 1e-4  # of the scores in float32, relative to the largest
MARGIN = 1e-4  # of a probability to the threshold, within which rounding may decide


@dataclass(frozen=True)
class Parity:
    """What the check found."""

    clips: int  # how many random clips were scored
    scores: float  # largest difference of scores, relative to the largest score
    decisions: int = 0  # of the selection network that were compared
    differing: int = 0  # of these, all of them within MARGIN of the threshold


def check_adaptive(
    session: Session,
    adaptive: AdaptiveNetwork,
    selector: SelectionNetwork | None,
    clips: Tensor | None = None,
) -> Parity:
    """Compare an exported adaptive network with the original.

    Random policies of every length, the full one, and with a selection network its own at three
    thresholds; where it predicts too, also with half of the clips exiting.

    Args:
        session: the exported file.
        adaptive: the network, float32 on the CPU.
        selector: its selection network.
        clips: [N, C, T, H, W] to compare with; None: random ones.

    Raises:
        Ada3DError: scores or policies differ.
    """
    plan, described = adaptive.plan, session.description
    policy = policies_of_all_lengths(plan)
    clips = _random_clips(plan, len(policy)) if clips is None else clips.cpu().float()
    policy = _repeated(policy, len(clips))
    with torch.no_grad():
        if selector is None:
            wanted = adaptive(clips, policy)
            return Parity(len(clips), _difference(session(clips.numpy(), policy), wanted))
        features = selector.frame_features(clips)
        classified = None
        if described.predict_with == "both":
            classified = selector.classify(features).float().mean(1)
        reference = _Reference(adaptive, clips, selector.distribution(features), classified)
        worst = _difference(session(clips.numpy(), policy), reference.scores(policy))
        compared = differing = 0
        for level in (
            described.threshold,
            0.9 * described.threshold,
            0.1 + 0.9 * described.threshold,
        ):
            own = session.decide(clips.numpy(), level, reference.median_exit)
            differ = reference.differing(own, level, described.greedy)
            compared, differing = compared + differ.numel(), differing + int(differ.sum())
        outcome = session.run(clips.numpy(), exit=reference.median_exit)
        frames, stages = (torch.from_numpy(part) for part in outcome.policy)
        stays = frames.any(1)
        wanted = reference.scores(Policy(frames[stays], stages[stays]), stays)
        worst = max(worst, _difference(outcome.scores, wanted))
    return Parity(len(clips), worst, compared, differing)


class _Reference:
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


def check_fixed(session: Session, module: nn.Module, clip_shape: tuple[int, ...]) -> Parity:
    """Compare an exported network of one fixed policy with the original.

    Args:
        session: the exported file.
        module: what `specialize` made.
        clip_shape: (C, T, H, W) of its clips.

    Raises:
        Ada3DError: the scores differ.
    """
    generator = torch.Generator().manual_seed(0)
    clips = torch.randn(4, *clip_shape, generator=generator)
    with torch.no_grad():
        return Parity(len(clips), _difference(session(clips.numpy()), module(clips)))


def _difference(scores: np.ndarray, reference: Tensor) -> float:
    """The largest difference of scores, relative to the largest score.

    Raises:
        Ada3DError: it is too large.
    """
    wanted = reference.numpy()
    if scores.shape != wanted.shape:
        raise Ada3DError(f"export: scores have shape {scores.shape}, expected {wanted.shape}")
    off = np.abs(scores - wanted)
    largest = max(float(np.abs(wanted).max()), 1e-12)
    relative = float(off.max()) / largest
    if not relative <= TOLERANCE:
        clip = int(off.max(1).argmax())
        raise Ada3DError(
            f"export: the scores of clip {clip} are {off.max():.3g} off, of {largest:.3g}; allowed is "
            f"{TOLERANCE:g} of the largest. The file was not written"
        )
    return relative


def policies_of_all_lengths(plan: StagePlan, least: int = 12) -> Policy:
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


def _repeated(policy: Policy, n: int) -> Policy:
    return policy[torch.arange(n) % len(policy)]


def _random_clips(plan: StagePlan, n: int) -> Tensor:
    return torch.randn(n, *plan.clip_shape, generator=torch.Generator().manual_seed(1))
