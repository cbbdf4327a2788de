"""What one training step of Ada3DRecognizer does, by its training phase: losses and log values.

In all of them ``model`` is the Ada3DRecognizer, ``clips`` are [N, C, T, H, W] and ``data_samples``
are MMAction2's, one for each clip. Values whose name contains 'loss' are summed by MMEngine.

Where the config blends clips (`data_preprocessor.blending`), the recognizer learns from blended ones
in all phases but those in which policies are learned: a mixture has no class that a policy could be
right about. The selection network always sees clips as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from mmengine.dist import get_rank
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.nn import functional as F

from ..learn.step import policy_step
from ..policy import Policy

Losses = dict[str, Tensor]
# Parts of a step that a model's stopwatch measures, see `StepTimesHook`.
SELECT, CLASSIFY, RECOGNISE, TEACH = "selection network", "classifier", "recognizer", "teacher"


def warmup_step(model: BaseModel, clips: Tensor, data_samples: list) -> Losses:
    """Train the recognizer under random policies of any size, and the selector's classifier."""
    n = len(clips)
    full = share_of_process(n, model.training_options.warmup_full)
    others = Policy.random(model.plan, n - full, torch.rand(n - full), torch.rand(n - full))
    policy = Policy.cat([Policy.full(model.plan, full), others]).to(clips.device)
    losses = _recognizer_step(model, policy, clips, data_samples)
    if model.selector is not None:
        losses.update(pretrain_step(model, clips, data_samples))
    return {**losses, **model.prices.usage(policy, with_selector=False)}


def share_of_process(n: int, share: float) -> int:
    """Return how many of this process's n clips make ``share`` of those of all processes.

    Rounded for all together: of batches of one clip each, a third would be none.
    """
    before = get_rank() * n * share
    return round(before + n * share) - round(before)


def random_step(model: BaseModel, clips: Tensor, data_samples: list) -> Losses:
    """Train the recognizer under random policies of ``random_policy``'s usage (Random FT)."""
    policy = Policy.random(model.plan, len(clips), **model.random_policy).to(clips.device)
    losses = _recognizer_step(model, policy, clips, data_samples)
    return {**losses, **model.prices.usage(policy, with_selector=False)}


def fixed_step(model: BaseModel, clips: Tensor, data_samples: list) -> Losses:
    """Train the recognizer under the one policy of ``fixed_policy``."""
    policy = model.fixed_policies(len(clips), clips.device)
    losses = _recognizer_step(model, policy, clips, data_samples)
    return {**losses, **model.prices.usage(policy, with_selector=False)}


def pretrain_step(model: BaseModel, clips: Tensor, data_samples: list) -> Losses:
    """Train the selector's classifier alone, if it has one."""
    if model.selector.classifier is None:
        return {}
    with model.stopwatch.part(SELECT):
        features = model.selector.frame_features(clips)
    return {"loss_classifier": _classifier_loss(model, features, data_samples)}


def transfer_step(model: BaseModel, clips: Tensor, data_samples: list) -> Losses:
    """Train the recognizer under policies sampled from the selector, which is frozen (table 3)."""
    with torch.no_grad(), model.stopwatch.part(SELECT):
        distribution = model.selector(clips)
    policy = model.randomize_part(distribution.sample())
    losses = _recognizer_step(model, policy, clips, data_samples)
    return {**losses, **model.prices.usage(policy)}


def learning_step(model: BaseModel, clips: Tensor, data_samples: list) -> Losses:
    """Train the selector by policy gradient (eq. 7), and in the joint phase both (eq. 8)."""
    joint = model.training_phase == "joint"
    with model.stopwatch.part(SELECT):
        features = model.selector.frame_features(clips)
        distribution = model.selector.distribution(features)
    auxiliary: dict[str, Tensor] = {}

    def execute(policy: Policy, clip_index: Tensor) -> Tensor:
        gradients = torch.set_grad_enabled(joint or model.estimator.needs_gradients)
        with gradients, model.stopwatch.part(RECOGNISE):
            scores, heads = model.recognizer.with_auxiliary(clips, policy, clip_index)
        auxiliary.update(heads)
        return scores

    result = policy_step(
        distribution,
        labels_of(data_samples, clips.device),
        model.estimator,
        execute,
        model.prices,
        greedy=model.testing_options.greedy,
        change=model.randomize_part,
        learned=(model.random_part != "frames", model.random_part != "stages"),
    )
    losses = {"loss_policy": result.loss}
    if joint:
        losses.update(
            _recognizer_losses(
                model, result.scores, auxiliary, clips, data_samples, _has_sets(data_samples),
                result.clip_index,
            )
        )  # fmt: skip
    classify = model.training_options.classify
    if classify:
        losses["loss_classifier"] = classify * _classifier_loss(model, features, data_samples)
    return {**losses, **result.log}


STEPS: dict[str, Callable[[BaseModel, Tensor, list], Losses]] = {
    "warmup": warmup_step,
    "pretrain": pretrain_step,
    "selection": learning_step,
    "joint": learning_step,
    "transfer": transfer_step,
    "random": random_step,
    "fixed": fixed_step,
}

# What a phase does not train.
FROZEN = {
    "pretrain": "recognizer",
    "selection": "recognizer",
    "transfer": "selector",
    "random": "selector",
    "fixed": "selector",
}


def labels_of(data_samples: list, device: torch.device | str) -> Tensor:
    """Return classes int [N], or sets of labels as 0 and 1 [N, num_classes]."""
    labels = torch.stack([sample.gt_label for sample in data_samples]).to(device)
    return labels if _has_sets(data_samples) else labels.flatten()


def _recognizer_step(model: BaseModel, policy: Policy, clips: Tensor, data_samples: list) -> Losses:
    """Train the recognizer alone, on blended clips where the config asks for them."""
    several = _has_sets(data_samples)
    clips, data_samples = _blended(model, clips, data_samples)
    with model.stopwatch.part(RECOGNISE):
        scores, auxiliary = model.recognizer.with_auxiliary(clips, policy)
    return _recognizer_losses(model, scores, auxiliary, clips, data_samples, several)


def _blended(model: BaseModel, clips: Tensor, data_samples: list) -> tuple[Tensor, list]:
    """Return clips blended as the config says, with samples of the labels that belong to them.

    The samples given keep their own labels. Without blending, both are returned as they are.
    """
    if model.blending is None:
        return clips, data_samples
    return model.blending(clips, [sample.clone() for sample in data_samples])


def _has_sets(data_samples: list) -> bool:
    """Tell whether clips have sets of labels; those of blended clips look alike."""
    return data_samples[0].gt_label.shape[-1] != 1


def _recognizer_losses(
    model: BaseModel,
    scores: Tensor,
    auxiliary: dict[str, Tensor],
    clips: Tensor,
    data_samples: list,
    multi_label: bool,
    clip_index: Tensor | None = None,
) -> Losses:
    """Return the losses of the head, of auxiliary heads, and of distillation.

    Heads' losses are made by their own code. ``multi_label``: the clips have sets of labels;
    ``clip_index``: the clip of each row of ``scores``, None for one row each.
    """
    if clip_index is not None:
        data_samples = [data_samples[i] for i in clip_index.tolist()]
    losses = model.head[0].loss_by_feat(scores.float(), data_samples)
    for path, value in auxiliary.items():
        head = _ScoredHead(model.recognizer.get_submodule(path))
        losses.update(type(head.module).loss(head, value.float(), data_samples))
    distill = model.training_options.distill
    if distill:
        with model.stopwatch.part(TEACH):
            distill_loss = model.teacher.loss(scores.float(), clips, multi_label, clip_index)
        losses["loss_distill"] = distill * distill_loss
    return losses


def _classifier_loss(model: BaseModel, features: Tensor, data_samples: list) -> Tensor:
    with model.stopwatch.part(CLASSIFY):
        scores = model.selector.classify(features).float()
    labels = labels_of(data_samples, features.device).repeat_interleave(scores.shape[1], 0)
    if labels.ndim == 1:
        return F.cross_entropy(scores.flatten(0, 1), labels)
    return F.binary_cross_entropy_with_logits(scores.flatten(0, 1), labels.float())


class _ScoredHead:
    """An auxiliary head whose scores are there already: calling it gives back what it is given."""

    def __init__(self, module: nn.Module):
        self.module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)

    def __call__(self, scores: Tensor) -> Tensor:
        return scores
