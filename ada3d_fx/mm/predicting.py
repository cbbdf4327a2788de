"""What Ada3DRecognizer does at test time: decide, score, and tell of each view what it cost.

In all of it ``model`` is the Ada3DRecognizer and ``clips`` are [N, C, T, H, W].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.dist import get_world_size
from mmengine.model import BaseModel
from torch import Tensor

from ..convert import AdaptiveNetwork
from ..errors import Ada3DError
from ..exits import Scored, certainty, spread, sure
from ..learn.reward import correctness, costs, reward
from ..policy import Policy
from ..report import records
from .steps import labels_of


def score(model: BaseModel, clips: Tensor, features: Tensor | None = None) -> Scored:
    """Return the policies and the scores of test time.

    Clips that exit are not in the pack: the recognizer never sees them, and does not run where all
    exit. Their scores are those of the selection network's classifier; the others' are its and the
    recognizer's, added. So each clip's scores sum up what was asked about it, and views of one video
    may be averaged whether they exited or not.

    Args:
        model: the Ada3DRecognizer.
        clips: [N, C, T, H, W].
        features: the selection network's of these clips, if they are there already.
    """
    if model.testing_options.predict_with == "recognizer":
        policy = model.choose_policy(clips, features)
        return Scored(policy, _exited(clips, False), widened(model.recognizer(clips, policy)))
    features = model.selector.frame_features(clips) if features is None else features
    scores = model.class_scores(features)
    policy, exited = _decide(model, clips, features, scores)
    if len(policy):
        rest = clips if len(policy) == len(clips) else clips[~exited]
        scores = scores + spread(widened(model.recognizer(rest, policy)), exited)
    return Scored(policy, exited, scores)


def _decide(
    model: BaseModel, clips: Tensor, features: Tensor, scores: Tensor
) -> tuple[Policy, Tensor]:
    """Return the policies of the clips that do not exit, and bool [N]: which do.

    Where the selection network predicts alone, all exit. Recorded clips exit if they did.
    """
    options = model.testing_options
    if options.predict_with == "selector":
        return Policy.full(model.plan, 0, clips.device), _exited(clips, True)
    if options.policy == "recorded":
        policy, exited = model.recorded.take(len(clips), model.recognizer)
        return policy.to(clips.device), exited.to(clips.device)
    policy = model.choose_policy(clips, features)
    if model.exit is None:
        return policy, _exited(clips, False)
    exited = sure(certainty(scores), model.exit)
    return policy[~exited], exited


def widened(scores: Tensor) -> Tensor:
    """Return scores in float32, of mixed precision too; float64 stays what it is."""
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def _exited(clips: Tensor, every: bool) -> Tensor:
    return torch.full((len(clips),), every, dtype=torch.bool, device=clips.device)


def predict(model: BaseModel, clips: Tensor, data_samples: list) -> list:
    """Return the samples with scores averaged over views, and each view's policy and price.

    A view that exited has no frame, no stage, and no multiply-adds of the recognizer; the reward of
    its policy is that of one that costs nothing.
    """
    parts = [model.score(part) for part in clips.split(model.max_testing_views or len(clips))]
    scored = Scored.cat(parts)
    macs = model.price(scored.policy)
    both = [
        scored.spread(cost)
        for cost in costs(scored.policy, model.estimator.objective, macs, model.full_macs)
    ]
    fields = {
        "policy_frames": scored.frames.cpu(),
        "policy_stages": scored.stages.cpu(),
        "recognizer_macs": scored.spread(macs).cpu(),
    }
    data_samples = model.head[0].predict_by_feat(scored.scores, data_samples)
    views = len(clips) // len(data_samples)
    for i, sample in enumerate(data_samples):
        mine = slice(i * views, (i + 1) * views)
        for name, values in fields.items():
            sample.set_field(values[mine], name)
        sample.set_field(model.tested_selector_macs, "selector_macs")
        if model.testing_options.predict_with != "selector" and "gt_label" in sample:
            value = _reward(sample, [cost[mine] for cost in both], model.estimator.objective.gamma)
            sample.set_field(value, "reward")
    return data_samples


def _reward(sample: Any, both: Sequence[Tensor], gamma: float) -> float:
    """Return R(u) + R(v) of eq. 4 for a predicted sample, by its averaged scores.

    Args:
        sample: it.
        both: O(u) and O(v) of each of its views.
        gamma: penalty of a wrong prediction.
    """
    scores = sample.pred_score  # [classes], or a row per view where the head does not average
    views = len(both[0])
    scores = scores.expand(views, scores.shape[-1])
    labels = labels_of([sample], scores.device)
    right = correctness(scores, labels.expand(views, *labels.shape[1:]))
    return sum(reward(right, cost, gamma).mean().item() for cost in both)


class Recorded:
    """Policies of a file, one after the other in the order of the test list.

    Args:
        path: the file, as tools/test.py writes it; None: there is none.
    """

    def __init__(self, path: str | None):
        self.path, self.next = path, 0
        self._read: tuple[Policy, Tensor] | None = None

    def rewind(self) -> None:
        """Begin with the first again."""
        self.next = 0

    def take(self, n: int, recognizer: AdaptiveNetwork) -> tuple[Policy, Tensor]:
        """Return the policies of the next n clips that have one, and bool [n]: those that have none.

        Args:
            n: how many clips.
            recognizer: for which the policies must be.

        Raises:
            Ada3DError: no policies, for another recognizer or for fewer clips, or several processes.
        """
        if self._read is None:
            assert self.path is not None
            read = records.decisions_of(records.read_clips(self.path))
            recognizer.check(read[0], len(read[0]))
            self._read = read
        if get_world_size() > 1:
            raise Ada3DError("testing.policy='recorded' goes by the test list: run one process")
        policy, exited = self._read
        start, self.next = self.next, self.next + n
        if self.next > len(exited):
            raise Ada3DError(
                f"testing.policy_file: {self.path} has policies of {len(exited)} clips, but the "
                "test list has more; was it written for another list, or other views?"
            )
        first = int((~exited[:start]).sum())
        exited = exited[start : self.next]
        return policy[first : first + int((~exited).sum())], exited
