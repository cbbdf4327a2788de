"""What makes rows comparable: policies of equal cost, training of equal length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.config import Config

from ..policy import Policy

USAGE_SAMPLES = 4096  # random policies by whose mean price the costs are matched


def middles(count: int, total: int) -> list[int]:
    """Choose the middle one of each of ``count`` equal parts of ``total`` things: their places."""
    return [(2 * i + 1) * total // (2 * count) for i in range(count)]


def phases_of(config: Config) -> list[dict]:
    """List the training phases of a config, each with its options."""
    return next(
        [dict(phase) for phase in hook["phases"]]
        for hook in config.custom_hooks
        if hook["type"] == "TrainingPhaseHook"
    )


def unit_of(phase: Mapping[str, Any]) -> str:
    """Tell how a phase counts its length: 'epochs' or 'iters'."""
    return "epochs" if "epochs" in phase else "iters"


def set_phases(config: Config, phases: Sequence[Mapping[str, Any]]) -> None:
    """Make a config train these phases, and keep its last checkpoint instead of the best one."""
    for hook in config.custom_hooks:
        if hook["type"] == "TrainingPhaseHook":
            hook["phases"] = list(phases)
    unit = unit_of(phases[0])
    config.train_cfg[f"max_{unit}"] = sum(phase[unit] for phase in phases)
    for part in config.default_hooks.values():
        if part["type"] == "CheckpointHook":
            part.pop("save_best", None)


def random_phases(phases: Sequence[Mapping[str, Any]], name: str = "random") -> list[dict]:
    """Make the training phases of Random FT: ada3d's warm-up, then as many steps at random.

    Under one policy, ``name`` is 'fixed'.

    Where ada3d's recognizer is frozen, random_ft's learns, as in the joint phase; steps of the
    selection network without the recognizer do not count.
    """
    joint = next((phase for phase in phases if phase["name"] == "joint"), phases[-1])
    kept = [dict(phase) for phase in phases if phase["name"] == "warmup"]
    rest = [phase for phase in phases if phase["name"] not in ("warmup", "pretrain")]
    unit = unit_of(joint)
    return [*kept, {**joint, unit: sum(phase[unit] for phase in rest), "name": name}]


def match_usage(model, frames: float, stages: float, gmacs: float) -> dict[str, float]:
    """Find the usage at which random policies cost ``gmacs`` per clip.

    Args:
        model: the Ada3DRecognizer whose plan and prices count.
        frames: the fraction of frames; its proportion to ``stages`` is kept.
        stages: the fraction of stages.
        gmacs: the cost of the recognizer that is wanted.

    Returns:
        ``frames`` and ``stages``, the fractions; at most 1 each.
    """
    low, high = 0.0, 1 / max(min(frames, stages), 1e-3)
    for _ in range(30):
        scale = (low + high) / 2
        usage = {"frames": min(1.0, scale * frames), "stages": min(1.0, scale * stages)}
        generator = torch.Generator().manual_seed(0)
        policies = Policy.random(model.plan, USAGE_SAMPLES, **usage, generator=generator)
        cost = model.price(policies).double().mean().item() / 1e9
        low, high = (scale, high) if cost < gmacs else (low, scale)
    return usage


def shuffled(policies: Sequence[Mapping]) -> list[Mapping]:
    """Return each clip the policy of another one, in a fixed random order; exits count as one."""
    order = torch.randperm(len(policies), generator=torch.Generator().manual_seed(0))
    return [policies[i] for i in order.tolist()]
