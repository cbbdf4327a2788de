"""What one training step of Ada3DRecognizer does, by its training stage: losses and log values."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..distribution import PolicyDistribution
from ..learn.reinforce import (
    correctness,
    costs,
    policy_loss,
    reward,
    straight_through_loss,
    with_dropped,
)
from ..policy import Policy

Losses = dict[str, Tensor]


def random_step(model, clips: Tensor, data_samples: list) -> Losses:
    """The recognizer under random policies, in the warm-up beside the selector's classifier."""
    n = len(clips)
    if model.training_phase == "random":
        policy = Policy.random(model.plan, n, **model.random_policy)
    else:
        full = round(n * model.warmup_full)
        some = Policy.random(model.plan, n - full, torch.rand(n - full), torch.rand(n - full))
        policy = Policy.cat([Policy.full(model.plan, full), some])
    policy = policy.to(clips.device)
    scores, auxiliary = model.recognizer.with_auxiliary(clips, policy)
    losses = _recognizer_losses(model, scores, auxiliary, clips, data_samples)
    if model.training_phase == "warmup" and model.selector is not None:
        losses.update(pretrain_step(model, clips, data_samples))
    return {**losses, **_usage(model, policy)}


def pretrain_step(model, clips: Tensor, data_samples: list) -> Losses:
    """The selector's classifier alone, if it has one."""
    if model.selector.classifier is None:
        return {}
    features = model.selector.frame_features(clips)
    return {"loss_classifier": _classifier_loss(model, features, data_samples)}


def transfer_step(model, clips: Tensor, data_samples: list) -> Losses:
    """The recognizer under policies drawn from the selector, which is frozen."""
    with torch.no_grad():
        distribution = model.selector(clips)
    policy = model.randomize_part(distribution.sample())
    scores, auxiliary = model.recognizer.with_auxiliary(clips, policy)
    losses = _recognizer_losses(model, scores, auxiliary, clips, data_samples)
    return {**losses, **_usage(model, policy, model.selector_macs)}


def policy_step(model, clips: Tensor, data_samples: list) -> Losses:
    """One estimate of eq. 7, and in the joint stage of eq. 8, over S policies for each clip."""
    goal, n, joint = model.objective, len(clips), model.training_phase == "joint"
    relaxed = goal.estimator == "straight_through"
    features = model.selector.frame_features(clips)
    distribution: PolicyDistribution = model.selector.distribution(features)
    repeated = distribution.repeat_interleave(goal.samples)
    drawn = model.randomize_part(repeated.sample())
    if relaxed:
        drawn = _with_gates(model, repeated, drawn)
    greedy = model.randomize_part(distribution.mode(greedy=model.greedy))
    policy, which = drawn, torch.arange(n, device=clips.device).repeat_interleave(goal.samples)
    # behind the samples, in the same forward
    if relaxed and drawn.gates[0].requires_grad:
        every = Policy(torch.ones_like(drawn.frames), drawn.stages)
        policy, which = Policy.cat([drawn, every]), which.repeat(2)
    elif goal.baseline == "greedy" and not relaxed:
        policy, which = Policy.cat([drawn, greedy]), torch.cat([which, which[:: goal.samples]])
    with torch.set_grad_enabled(joint or relaxed):
        scores, auxiliary = model.recognizer.with_auxiliary(clips[which], policy)
    scores, labels = scores.float(), labels_of(data_samples, clips.device)[which]
    correct = correctness(scores.detach(), labels, goal.multi_label, goal.reward_temperature)
    weight = model.cost_weight.value.clone()
    rewards = [
        reward(correct, cost, goal.gamma, weight)
        for cost in costs(policy, goal, model.price(policy), model.full_macs)
    ]
    usage = _usage(model, drawn, model.selector_macs)
    model.cost_weight.update(usage["gmacs"])
    log = _policy_log(model, distribution, greedy, rewards, correct, len(drawn))
    if relaxed:
        own, of_every = scores[: len(drawn)], scores[len(drawn) :]
        own = with_dropped(own, of_every, drawn) if len(of_every) else own
        loss = straight_through_loss(repeated, own, labels[: len(drawn)], drawn, goal, weight)
    else:
        advantages = _advantages(model, rewards, n)
        loss = policy_loss(distribution, drawn, *advantages, goal.entropy)
        log["advantage"] = torch.stack(advantages).abs().mean()
    losses = {"loss_policy": loss}
    if joint:
        losses.update(_recognizer_losses(model, scores, auxiliary, clips, data_samples, which))
    if model.classify:
        classified = _classifier_loss(model, features, data_samples)
        losses["loss_classifier"] = model.classify * classified
    return {**losses, **log, **usage}


STEPS: dict[str, Callable[..., Losses]] = {
    "warmup": random_step,
    "pretrain": pretrain_step,
    "selection": policy_step,
    "joint": policy_step,
    "transfer": transfer_step,
    "random": random_step,
}


# What a stage does not train.
FROZEN = {
    "pretrain": "recognizer", "selection": "recognizer", "transfer": "selector", "random": "selector"
}  # fmt: skip


def labels_of(data_samples: list, device: torch.device | str) -> Tensor:
    """Classes int [N], or label sets as 0/1 [N, num_classes]."""
    labels = torch.stack([sample.gt_label for sample in data_samples]).to(device)
    return labels.flatten() if labels.shape[-1] == 1 else labels


def _advantages(model, rewards: list[Tensor], n: int) -> list[Tensor]:
    """Of frames and stages, [n, S] each; ``rewards`` [n * S], or with those of the greedy policies
    [n] behind them."""
    many, samples = n * model.objective.samples, model.objective.samples
    advantages = [
        baseline.advantage(value[:many].unflatten(0, (n, samples)), value[many:])
        for baseline, value in zip((model.frame_baseline, model.stage_baseline), rewards)
    ]
    if model.random_part != "none":  # was not drawn from the distribution: nothing to learn
        advantages[model.random_part == "stages"].zero_()
    return advantages


def _with_gates(model, distribution: PolicyDistribution, policy: Policy) -> Policy:
    """``policy`` with gates through which its learned part has gradients."""
    policy = distribution.straight_through(policy)
    frames, stages = policy.gates
    if model.random_part == "frames":
        policy.gates = (frames.detach(), stages)
    elif model.random_part == "stages":
        policy.gates = (frames, stages.detach())
    return policy


def _recognizer_losses(
    model,
    scores: Tensor,
    auxiliary: dict[str, Tensor],
    clips: Tensor,
    data_samples: list,
    which: Tensor | None = None,
) -> Losses:
    """The head's loss, those of auxiliary heads, each made by the head's own code, and what is
    learned from the plain recognizer. ``which``: the clip of each row, None for one row each."""
    if which is not None:
        data_samples = [data_samples[i] for i in which.tolist()]
    losses = model.head[0].loss_by_feat(scores.float(), data_samples)
    for path, value in auxiliary.items():
        head = _Scored(model.recognizer.get_submodule(path))
        losses.update(type(head.module).loss(head, value.float(), data_samples))
    if model.distill:
        sets = labels_of(data_samples, clips.device).ndim > 1
        taught = model.teacher.loss(scores.float(), clips, sets, which)
        losses["loss_distill"] = model.distill * taught
    return losses


def _classifier_loss(model, features: Tensor, data_samples: list) -> Tensor:
    scores = model.selector.classify(features).float()
    labels = labels_of(data_samples, features.device).repeat_interleave(scores.shape[1], 0)
    if labels.ndim == 1:
        return F.cross_entropy(scores.flatten(0, 1), labels)
    return F.binary_cross_entropy_with_logits(scores.flatten(0, 1), labels.float())


def _policy_log(
    model,
    distribution: PolicyDistribution,
    greedy: Policy,
    rewards: list[Tensor],
    correct: Tensor,
    drawn: int,
) -> Losses:
    frames, stages = distribution.entropy()
    return {
        "reward_frames": rewards[0][:drawn].mean(),
        "reward_stages": rewards[1][:drawn].mean(),
        "correct": correct[:drawn].mean(),
        "entropy_frames": frames.detach().mean(),
        "entropy_stages": stages.detach().mean(),
        "distinct_policies": correct.new_tensor(float(greedy.num_distinct)),
        "gmacs_greedy": _usage(model, greedy, model.selector_macs)["gmacs"],
        "cost_weight": model.cost_weight.value.clone(),
    }


def _usage(model, policy: Policy, selector_macs: int = 0) -> Losses:
    return {
        "kept_frames": policy.num_frames.float().mean(),
        "active_stages": policy.num_stages.float().mean(),
        "gmacs": (model.price(policy).double().mean() + selector_macs).float() / 1e9,
    }


class _Scored:
    """An auxiliary head whose scores are there already: calling it gives back what it is given."""

    def __init__(self, module: nn.Module):
        self.module = module

    def __getattr__(self, name: str):
        return getattr(self.module, name)

    def __call__(self, scores: Tensor) -> Tensor:
        return scores
