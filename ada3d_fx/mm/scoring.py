"""What decides about clips and scores them, preprocessing included: one object, whatever the model."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from mmaction.structures import ActionDataSample
from torch import Tensor, nn

from ..cost.count import count
from ..runtime.session import Decision, Session
from ..tracing.model import ScoringModel
from .normalising import prepared


class Scored(NamedTuple):
    """What came of N clips; tensors are on the CPU."""

    scores: (
        Tensor  # [N, classes], as the head's ``average_clips`` averages them over a video's clips
    )
    frames: Tensor | None  # bool [N, T], the kept frames; None: nothing is decided
    stages: Tensor | None  # bool [N, K], the stages that ran in 3D
    macs: Tensor  # int64 [N], multiply-adds of the recognizer
    selector_macs: int  # multiply-adds of the selection network, for one clip
    prepare: float  # seconds of all N: moved to the device and normalised
    select: float  # seconds: decided
    recognise: float  # seconds: scored by the recognizer


class ClipScorer(Protocol):
    """What an inferencer asks of a model."""

    stage_names: Sequence[str]  # K words

    def run(self, clips: Sequence[Tensor]) -> Scored:
        """Decide about clips [C, T, H, W] of one shape, as a test pipeline gives them, and score them.

        Each is as if alone, whatever the others (law 2, docs/how_it_works.md).
        """


class Ada3DScorer:
    """Scores with an Ada3DRecognizer, through its own `predict`.

    Args:
        model: it is put into evaluation mode.
    """

    def __init__(self, model: nn.Module):
        self.model = model.eval()
        self.stage_names = [stage.name for stage in model.plan.stages]

    @torch.no_grad()
    def run(self, clips: Sequence[Tensor]) -> Scored:
        """Decide about clips and score them, see `ClipScorer`."""
        inputs, prepare = _prepared(self.model, clips)
        with _calls(self.model.recognizer, inputs) as times:
            times.append(_now(inputs))
            samples = self.model.predict(inputs.flatten(0, 1), _samples(len(clips)))
        if len(times) == 1:
            times.append(_now(inputs))  # the recognizer did not run
        frames, stages, macs = (
            torch.cat([sample.get(name) for sample in samples]).cpu()
            for name in ("policy_frames", "policy_stages", "recognizer_macs")
        )
        scores = torch.stack([sample.pred_score.flatten() for sample in samples]).cpu()
        steps = [after - before for before, after in itertools.pairwise(times)]
        selector_macs = int(samples[0].selector_macs)
        select, recognise = sum(steps[::2]), sum(steps[1::2])  # in turns
        return Scored(scores, frames, stages, macs, selector_macs, prepare, select, recognise)


class PlainScorer:
    """Scores with a plain recognizer of MMAction2's, for comparison; nothing is decided.

    Args:
        model: it is put into evaluation mode.
    """

    stage_names: Sequence[str] = ()

    def __init__(self, model: nn.Module):
        self.model = model.eval()
        neck = model.neck if model.with_neck else None
        # not the model's own `predict`, which takes one video at a time where there are
        # max_testing_views
        self.scoring = ScoringModel(model.backbone, model.cls_head, neck).eval()
        self.macs: dict[torch.Size, int] = {}  # by the shape of a clip

    @torch.no_grad()
    def run(self, clips: Sequence[Tensor]) -> Scored:
        """Score clips, see `ClipScorer`."""
        inputs, prepare = _prepared(self.model, clips)
        begin = _now(inputs)
        scores = self.scoring(inputs.flatten(0, 1))
        samples = self.model.cls_head.predict_by_feat(scores, _samples(len(clips)))
        scores = torch.stack([sample.pred_score.flatten() for sample in samples]).cpu()
        seconds = _now(inputs) - begin
        shape = inputs.shape[2:]
        if shape not in self.macs:
            self.macs[shape] = count(self.scoring, [inputs[0, :1]]).total
        macs = torch.full((len(clips),), self.macs[shape], dtype=torch.int64)
        return Scored(scores, None, None, macs, 0, prepare, 0.0, seconds)


class SessionScorer:
    """Scores with an exported file.

    Where the file predicts with both networks, they run in one call, so that the selection network
    runs once; all of that time is the recognizer's then.

    Args:
        session: the file.
        model: prepares clips, and has the head whose averaging scores go through; see
            `ExportedModel`.
        full: whether all is kept, instead of what the selection network keeps.
        threshold: what its probabilities must exceed; None: the file's.
    """

    def __init__(
        self, session: Session, model: nn.Module, full: bool = False, threshold: float | None = None
    ):
        self.session, self.model = session, model.eval()
        self.threshold = threshold
        described = session.description
        self.stage_names = described.stages
        self.full = full or not described.selects
        both = described.predict_with == "both"
        self.decides_apart = not self.full and not both
        self.selector_macs = described.selector_macs if both or not self.full else 0

    @torch.no_grad()
    def run(self, clips: Sequence[Tensor]) -> Scored:
        """Decide about clips and score them, see `ClipScorer`."""
        inputs, prepare = _prepared(self.model, clips)
        session, array = self.session, inputs.flatten(0, 1).numpy()
        policy, select = None, 0.0
        begin = time.perf_counter()
        if self.decides_apart:
            policy = session.decide(array, self.threshold)
            select = time.perf_counter() - begin
        elif self.full and session.description.selects:
            policy = _all_of(session, len(clips))
        outcome = session.run(array, policy, None if policy is not None else self.threshold)
        samples = self.model.cls_head.predict_by_feat(
            torch.from_numpy(outcome.scores), _samples(len(clips))
        )
        scores = torch.stack([sample.pred_score.flatten() for sample in samples])
        recognise = time.perf_counter() - begin - select
        frames, stages = map(torch.from_numpy, outcome.policy)
        macs = torch.from_numpy(session.description.price(*outcome.policy))
        return Scored(scores, frames, stages, macs, self.selector_macs, prepare, select, recognise)


def _all_of(session: Session, n: int) -> Decision:
    described = session.description
    return Decision(
        np.ones((n, described.num_frames), bool), np.ones((n, len(described.stages)), bool)
    )


def _prepared(model: nn.Module, clips: Sequence[Tensor]) -> tuple[Tensor, float]:
    """Preprocess clips: [N, 1, C, T, H, W], each as a video of one view; and the seconds it took."""
    begin = time.perf_counter()
    inputs = prepared(model.data_preprocessor, clips)
    inputs = inputs.to(next(model.parameters()).dtype)
    return inputs, _now(inputs) - begin


def _samples(n: int) -> list[ActionDataSample]:
    return [ActionDataSample() for _ in range(n)]


def _now(like: Tensor) -> float:
    """The time at which everything that was begun on the device of ``like`` is done."""
    if like.is_cuda:
        torch.cuda.synchronize(like.device)
    return time.perf_counter()


@contextmanager
def _calls(module: nn.Module, like: Tensor) -> Iterator[list[float]]:
    """Collect the times at which calls of a module begin and end."""
    times: list[float] = []

    def note(*_: Any) -> None:
        times.append(_now(like))

    hooks = [module.register_forward_pre_hook(note), module.register_forward_hook(note)]
    try:
        yield times
    finally:
        for hook in hooks:
            hook.remove()
