"""Options of Ada3DRecognizer: the groups training, testing, phases and random policies; a fixed one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeVar

import torch

from ..distribution import GREEDY
from ..errors import Ada3DError, require_number
from ..plan import StagePlan
from ..policy import Policy, check_policy
from .steps import STEPS

POLICIES = ("learned", "full", "random", "recorded", "fixed")
PREDICTORS = ("recognizer", "both", "selector")
RANDOM_PARTS = ("none", "frames", "stages")
SCHEDULES = ("constant", "cosine")

Group = TypeVar("Group")


@dataclass
class TrainingOptions:
    """What a training step of Ada3DRecognizer does.

    Raises:
        Ada3DError: a number that is not finite or out of its bounds.
    """

    # The first phase, see Ada3DRecognizer; TrainingPhaseHook sets later ones.
    phase: str | None = None
    # The share of each batch that keeps the full policy in the warm-up.
    warmup_full: float = 1 / 3
    # Weight of a loss by which the recognizer, under whatever policies, learns the scores of the
    # plain recognizer of ``recognizer_checkpoint`` (Hinton et al., 2015); needs that.
    distill: float = 0.0
    # By which both scores are divided first.
    distill_temperature: float = 2.0
    # Weight of the selection network's classifier in the phases with policies too, so that what it
    # told apart after its pre-training is not unlearned from rewards; needs a classifier.
    classify: float = 0.0
    # Keep the selection network's BatchNorm as it is in the phases with learned policies, so that
    # test time sees the very policies that were trained.
    selector_norm_eval: bool = True

    def __post_init__(self) -> None:
        if self.phase is not None:
            one_of("training: phase", self.phase, tuple(STEPS))
        for name in ("distill", "classify"):
            require_number(f"training: {name}", getattr(self, name), 0.0)
        require_number("training: warmup_full", self.warmup_full, 0.0, 1.0)
        require_number("training: distill_temperature", self.distill_temperature, 0.0, above=True)


@dataclass
class TestingOptions:
    """Which policies are executed at test time, and whose scores predict.

    Raises:
        Ada3DError: an unknown word, or recorded policies without their file.
    """

    # 'learned': the greedy policy; 'full'; 'random'; 'recorded': those of ``policy_file``, one after
    # the other in the order of the test list; 'fixed': ``fixed_policy`` for every clip.
    policy: str = "learned"
    # A file of policies, as tools/test.py writes it (.json or .csv).
    policy_file: str | None = None
    # 'recognizer'; 'both': the sum of the recognizer's scores and of those of the selection network's
    # classifier (the product of their probabilities, scaled); 'selector': its classifier alone: the
    # recognizer does not run, and clips are recorded with no frame. The last two need
    # ``training.classify``: a classifier that is left behind while its features learn from rewards
    # predicts badly.
    predict_with: str = "recognizer"
    # What the greedy policy's probabilities must exceed.
    threshold: float = 0.5
    # How the greedy policy keeps frames, see `PolicyDistribution.mode`; in training too.
    greedy: str = "threshold"

    __test__ = False  # no test class, whatever its name says

    def __post_init__(self) -> None:
        one_of("testing: policy", self.policy, POLICIES)
        one_of("testing: predict_with", self.predict_with, PREDICTORS)
        one_of("testing: greedy", self.greedy, GREEDY)
        require_number("testing: threshold", self.threshold, 0.0, 1.0)
        if (self.policy == "recorded") != (self.policy_file is not None):
            raise Ada3DError(
                f"testing: policy={self.policy!r} and policy_file={self.policy_file!r}: a file of "
                "policies and policy='recorded' belong together"
            )


@dataclass
class RandomPolicyOptions:
    """How much random policies use on average.

    Raises:
        Ada3DError: a fraction outside 0 to 1.
    """

    # The fraction of the frames.
    frames: float = 0.7
    # The fraction of the stages.
    stages: float = 0.4

    def __post_init__(self) -> None:
        for name in ("frames", "stages"):
            require_number(f"random_policy: {name}", getattr(self, name), 0.0, 1.0)


@dataclass
class PhaseOptions:
    """One training phase of TrainingPhaseHook; its length is in epochs or in iterations.

    Raises:
        Ada3DError: no or two lengths, an unknown word, or a number out of its bounds.
    """

    # What is trained, see Ada3DRecognizer.
    name: str
    epochs: int | None = None
    iters: int | None = None
    # 0: nothing is learned.
    recognizer_lr: float = 0.0
    selector_lr: float = 0.0
    # 'constant', or 'cosine' down to zero within the phase.
    schedule: str = "constant"
    # The share of the phase in which the rates rise linearly from zero.
    rise: float = 0.0

    def __post_init__(self) -> None:
        one_of("phase: name", self.name, tuple(STEPS))
        one_of("phase: schedule", self.schedule, SCHEDULES)
        if (self.epochs is None) == (self.iters is None):
            raise Ada3DError(
                f"phase: epochs={self.epochs!r} and iters={self.iters!r}: it needs name and one of "
                "epochs and iters"
            )
        for name in ("epochs", "iters"):
            if getattr(self, name) is not None:
                require_number(f"phase: {name}", getattr(self, name), 1, whole=True)
        for name in ("recognizer_lr", "selector_lr"):
            require_number(f"phase: {name}", getattr(self, name), 0.0)
        require_number("phase: rise", self.rise, 0.0, 1.0)


FIXED_POLICY = re.compile(r"([01]*1[01]*)/([01]*)")


def check_fixed_policy(text: str | None) -> None:
    """Check the words of ``model.fixed_policy``, as far as they can be without a network.

    Raises:
        Ada3DError: no bits, a slash and bits, or no frame that is kept.
    """
    if text is not None and not FIXED_POLICY.fullmatch(text):
        raise Ada3DError(
            f"model.fixed_policy={text!r}; expected a bit for each frame, of which one at least is 1, a "
            "slash, and a bit for each stage, such as 11010101/01100"
        )


def read_fixed_policy(text: str | None, plan: StagePlan) -> Policy | None:
    """Make the policy of one clip that ``model.fixed_policy`` names; None where it names none.

    Args:
        text: FRAMES/STAGES, a bit each.
        plan: of the network.

    Raises:
        Ada3DError: something else, bits of other numbers than the plan's, or parts of frame units.
    """
    check_fixed_policy(text)
    if text is None:
        return None
    frames, stages = ([bit == "1" for bit in word] for word in text.split("/"))
    t, k = plan.num_frames, plan.num_stages
    if (len(frames), len(stages)) != (t, k):
        raise Ada3DError(
            f"model.fixed_policy={text!r}: this network takes {t} bits, a slash and {k} bits, such as "
            f"{'1' * t}/{'1' * k}"
        )
    policy = Policy(torch.tensor([frames]), torch.tensor([stages], dtype=torch.bool))
    try:
        check_policy(policy, plan, 1)
    except Ada3DError as error:
        raise Ada3DError(f"model.fixed_policy={text!r}: {error}") from error
    return policy


def check_exit(confidence: float | None) -> None:
    """Check the value of ``model.exit``.

    Raises:
        Ada3DError: no probability above 0.
    """
    if confidence is not None:
        require_number("model.exit", confidence, 0.0, 1.0, above=True)


def check_exit_parts(confidence: float | None, predict_with: str, multi_class: bool) -> None:
    """Check that clips may exit, by the other options of the model.

    Args:
        confidence: ``model.exit``.
        predict_with: ``testing.predict_with``.
        multi_class: whether a clip may have several labels.

    Raises:
        Ada3DError: they may not.
    """
    check_exit(confidence)
    if confidence is None:
        return
    if predict_with != "both":
        why = "else all clips exit" if predict_with == "selector" else "it predicts what exits"
        raise Ada3DError(
            f"model.exit={confidence} needs testing.predict_with='both', not {predict_with!r}: the "
            f"selection network's classifier is asked about every clip ({why})"
        )
    if multi_class:
        raise Ada3DError(
            f"model.exit={confidence}: clips with several labels (cls_head.multi_class) have no most "
            "probable class to be sure of, and their scores are ranked over all clips, so those of "
            "one network and of two do not mix; leave model.exit out"
        )


def read_group(kind: type[Group], name: str, options: Mapping[str, Any] | None) -> Group:
    """Make a group of options from a config's dict.

    Raises:
        Ada3DError: an option that the group does not have, or a value that it refuses.
    """
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    unknown = [key for key in options or {} if key not in known]
    if unknown:
        raise Ada3DError(f"{name}: there is no {unknown[0]!r}; there are {', '.join(known)}")
    needed = [field.name for field in fields(kind) if field.default is MISSING]  # type: ignore[arg-type]
    missing = [key for key in needed if key not in (options or {})]
    if missing:
        raise Ada3DError(f"{name}: it needs {', '.join(missing)}")
    return kind(**dict(options or {}))


def one_of(option: str, value: str, allowed: Sequence[str]) -> str:
    """Return ``value`` if it is allowed.

    Raises:
        Ada3DError: it is not; the message lists what is.
    """
    if value not in allowed:
        raise Ada3DError(f"{option} {value!r}; there are {', '.join(allowed)}")
    return value
