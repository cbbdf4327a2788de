"""The check of an exported file: what it computes against the network that it was made of."""

from __future__ import annotations

from collections.abc import Sequence
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
from .reference import Reference, policies_of_all_lengths

BATCH = 8  # clips that are scored at once
RANDOM = 12  # random policies that are compared at least, or as many as there are different ones


@dataclass(frozen=True)
class Tolerance:
    """How far an exported file may be off."""

    scores: float = 1e-4  # relative to the largest score
    agreement: float = 0.0  # the least share of scored clips with the same label


FLOAT32 = Tolerance()


@dataclass(frozen=True)
class Parity:
    """What the check found."""

    clips: int  # how many clips were scored, random ones or for int8 those of the calibration
    scores: float  # largest difference of scores, relative to the largest score
    decisions: int = 0  # of the selection network that were compared
    differing: int = 0  # of these, all of them within rounding of the threshold
    agreement: float = 1.0  # the share of scored clips with the same label


def check_adaptive(
    session: Session,
    adaptive: AdaptiveNetwork,
    selector: SelectionNetwork | None,
    clips: Tensor | None = None,
    policy: Policy | None = None,
    tolerance: Tolerance = FLOAT32,
) -> Parity:
    """Compare an exported adaptive network with the original.

    Random policies of every length, the full one, and with a selection network its own at three
    thresholds; where it predicts too, also with half of the clips exiting.

    Args:
        session: the exported file.
        adaptive: the network, float32 on the CPU.
        selector: its selection network.
        clips: [N, C, T, H, W] to compare with; None: random ones.
        policy: given to them; None: random ones.
        tolerance: of the recognizer's scores; policies, and the scores of clips that exit, must be
            the same in any case.

    Raises:
        Ada3DError: scores or policies differ.
    """
    plan = adaptive.plan
    different = max(plan.num_units, 1) * 2**plan.num_stages
    made = policies_of_all_lengths(plan, min(RANDOM, different)) if policy is None else policy
    clips = _random_clips(plan, len(made)) if clips is None else clips.cpu().float()
    made = _repeated(made, len(clips))
    found = _Found()
    with torch.no_grad():
        for numbers in torch.arange(len(clips)).split(BATCH):
            part, given = clips[numbers], made[numbers]
            if selector is None:
                found.given.append((session(part.numpy(), given), adaptive(part, given)))
                continue
            reference = Reference.of(adaptive, selector, part, session)
            found.given.append((session(part.numpy(), given), reference.scores(given)))
            found.add_decisions(session, reference)
            found.add_own(session, reference)
    return found.parity(len(clips), tolerance)


class _Found:
    """What was compared of some clips: scores of the file and of the network, and decisions."""

    def __init__(self) -> None:
        self.given: list[tuple[np.ndarray, Tensor]] = []  # under given policies
        self.own: list[tuple[np.ndarray, Tensor]] = []  # under the selection network's
        self.exited: list[tuple[np.ndarray, Tensor]] = []  # its own scores
        self.compared = self.differing = 0

    def add_decisions(self, session: Session, reference: Reference) -> None:
        """Compare the decisions at three thresholds."""
        described = session.description
        for level in (
            described.threshold,
            0.9 * described.threshold,
            0.1 + 0.9 * described.threshold,
        ):
            own = session.decide(reference.clips.numpy(), level, reference.median_exit)
            differ = reference.differing(own, level, described.greedy)
            self.compared += differ.numel()
            self.differing += int(differ.sum())

    def add_own(self, session: Session, reference: Reference) -> None:
        """Compare the scores under the selection network's policies."""
        outcome = session.run(reference.clips.numpy(), exit=reference.median_exit)
        frames, stages = (torch.from_numpy(part) for part in outcome.policy)
        stays = frames.any(1)
        wanted = reference.scores(Policy(frames[stays], stages[stays]), stays)
        for held, chosen in ((self.own, stays), (self.exited, ~stays)):
            held.append((outcome.scores[chosen.numpy()], wanted[chosen]))

    def parity(self, clips: int, tolerance: Tolerance) -> Parity:
        """Return what was found.

        Raises:
            Ada3DError: scores are too far off.
        """
        allowed = ((self.given, tolerance), (self.own, tolerance), (self.exited, FLOAT32))
        compared = [_difference(pairs, each) for pairs, each in allowed if _count(pairs)]
        worst, agreement = max(pair[0] for pair in compared), min(pair[1] for pair in compared)
        return Parity(clips, worst, self.compared, self.differing, agreement)


def _count(pairs: Sequence[tuple[np.ndarray, Tensor]]) -> int:
    return sum(len(scores) for scores, _ in pairs)


def check_fixed(
    session: Session,
    module: nn.Module,
    clip_shape: tuple[int, ...],
    clips: Tensor | None = None,
    tolerance: Tolerance = FLOAT32,
) -> Parity:
    """Compare an exported network of one fixed policy with the original.

    Args:
        session: the exported file.
        module: what `specialize` made.
        clip_shape: (C, T, H, W) of its clips.
        clips: [N, C, T, H, W] to compare with; None: random ones.
        tolerance: of the scores.

    Raises:
        Ada3DError: the scores differ.
    """
    if clips is None:
        clips = torch.randn(4, *clip_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        pairs = [(session(part.numpy()), module(part)) for part in clips.split(BATCH)]
    worst, agreement = _difference(pairs, tolerance)
    return Parity(len(clips), worst, agreement=agreement)


def _difference(
    pairs: Sequence[tuple[np.ndarray, Tensor]], tolerance: Tolerance
) -> tuple[float, float]:
    """The largest difference of scores, relative to the largest score, and the same labels' share.

    Args:
        pairs: scores of the file and of the network, of some clips each.
        tolerance: of both.

    Raises:
        Ada3DError: the scores are too far off.
    """
    scores = np.concatenate([pair[0] for pair in pairs])
    wanted = torch.cat([pair[1] for pair in pairs]).numpy()
    if scores.shape != wanted.shape:
        raise Ada3DError(f"export: scores have shape {scores.shape}, expected {wanted.shape}")
    off = np.abs(scores - wanted)
    largest = max(float(np.abs(wanted).max()), 1e-12)
    relative = float(off.max()) / largest
    if not relative <= tolerance.scores:
        clip = int(off.max(1).argmax())
        raise Ada3DError(
            f"export: the scores of clip {clip} are {off.max():.3g} off, of {largest:.3g}; allowed is "
            f"{tolerance.scores:g} of the largest. The file was not written"
        )
    agreement = float((scores.argmax(1) == wanted.argmax(1)).mean())
    if agreement < tolerance.agreement:
        raise Ada3DError(
            f"export: {agreement:.1%} of {len(scores)} clips get the label that the network gives "
            f"them; at least {tolerance.agreement:.1%} are asked for, and scores are up to "
            f"{relative:.2g} of the largest off. The file was not written; try more calibration "
            "clips, or float32"
        )
    return relative, agreement


def _repeated(policy: Policy, n: int) -> Policy:
    return policy[torch.arange(n) % len(policy)]


def _random_clips(plan: StagePlan, n: int) -> Tensor:
    return torch.randn(n, *plan.clip_shape, generator=torch.Generator().manual_seed(1))
