"""The check of an exported file: what it computes against the network that it was made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..convert import AdaptiveNetwork
from ..errors import Ada3DError
from ..learn.selector import SelectionNetwork
from ..plan import StagePlan
from ..policy import Policy
from ..runtime.session import Session

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
    greedy: str,
    threshold: float,
    classifies: bool,
    clips: Tensor | None = None,
) -> Parity:
    """Compare an exported adaptive network with the original.

    Random policies of every length, the full one, and with a selection network its own.

    Args:
        session: the exported file.
        adaptive: the network, float32 on the CPU.
        selector: its selection network.
        greedy: how it keeps frames.
        threshold: of its policies; two others are compared too.
        classifies: its class scores are added.
        clips: [N, C, T, H, W] to compare with; None: random ones.

    Raises:
        Ada3DError: scores or policies differ.
    """
    plan = adaptive.plan
    policy = policies_of_all_lengths(plan)
    clips = _random_clips(plan, len(policy)) if clips is None else clips.cpu().float()
    policy = _repeated(policy, len(clips))
    with torch.no_grad():
        added: Tensor | float = 0.0
        if selector is not None:
            features = selector.frame_features(clips)
            if classifies:
                added = selector.classify(features).float().mean(1)
        worst = _difference(session(clips.numpy(), policy), adaptive(clips, policy) + added, plan)
        compared = differing = 0
        if selector is not None:
            distribution = selector.distribution(features)
            probs = torch.cat([distribution.frame_probs, distribution.stage_probs], 1)
            for level in (threshold, 0.9 * threshold, 0.1 + 0.9 * threshold):
                own = session.decide(clips.numpy(), level)
                mode = distribution.mode(level, greedy)
                both = [torch.from_numpy(part) for part in own]
                differ = torch.cat([both[0] ^ mode.frames, both[1] ^ mode.stages], 1)
                near = (probs - level).abs() < MARGIN
                if greedy != "threshold":  # a frame may be kept in place of another
                    near[:, : plan.num_frames] = True
                if (differ & ~near).any():
                    raise Ada3DError(
                        f"export: at threshold {level:.4g}, {int(differ.any(1).sum())} of {len(clips)} "
                        "clips get another policy than from the network it was made of"
                    )
                compared, differing = compared + differ.numel(), differing + int(differ.sum())
            outcome = session.run(clips.numpy(), threshold=threshold)
            frames, stages = (torch.from_numpy(part) for part in outcome.policy)
            reference = adaptive(clips, Policy(frames, stages)) + added
            worst = max(worst, _difference(outcome.scores, reference, plan))
    return Parity(len(clips), worst, compared, differing)


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
        return Parity(len(clips), _difference(session(clips.numpy()), module(clips), None))


def _difference(scores: np.ndarray, reference: Tensor, plan: StagePlan | None) -> float:
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
    ends = torch.tensor([[True] * plan.num_stages, [False] * plan.num_stages])
    frames = torch.ones(2, plan.num_frames, dtype=torch.bool)
    return Policy.cat([made, Policy(frames, ends.view(2, plan.num_stages))])


def _repeated(policy: Policy, n: int) -> Policy:
    return policy[torch.arange(n) % len(policy)]


def _random_clips(plan: StagePlan, n: int) -> Tensor:
    return torch.randn(n, *plan.clip_shape, generator=torch.Generator().manual_seed(1))
