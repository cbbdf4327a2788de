"""Clips of random numbers, and the policies under which they are timed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..convert import AdaptiveNetwork
from ..errors import Ada3DError
from ..plan import StagePlan
from ..policy import Policy
from ..report import records

FULL, FLAT = "full policy", "all stages 2D"
Shape = tuple[int, int, int, int]  # C, T, H, W


def varied_clips(n: int, shape: Shape, seed: int) -> Tensor:
    """Random clips [N, C, T, H, W] whose frames differ in brightness and contrast."""
    generator = torch.Generator().manual_seed(seed)
    contrast, brightness = torch.randn(2, n, shape[0], shape[1], 1, 1, generator=generator)
    return torch.randn(n, *shape, generator=generator) * contrast + brightness


def timed_policies(
    plan: StagePlan,
    clips: int,
    usages: Sequence[tuple[float, float]],
    seed: int,
    ragged: bool = False,
) -> dict[str, Policy]:
    """Make the policies that are timed, by the names of their rows; see `usage_policy`."""
    full = Policy.full(plan, clips)
    policies = {FULL: full}
    if plan.num_stages:
        policies[FLAT] = Policy(full.frames, torch.zeros_like(full.stages))
    generator = torch.Generator().manual_seed(seed)
    for frames, stages in usages:
        policy = usage_policy(plan, clips, frames, stages, generator, ragged)
        policies[used(policy)] = policy
    return policies


def used(policy: Policy) -> str:
    """Tell how many frames and stages a batch's policies keep."""
    kept, on = int(policy.num_frames.sum()), int(policy.num_stages.sum())
    return f"{kept} of {policy.frames.numel()} frames, {on} of {policy.stages.numel()} stages"


def inside_words(policy: Policy) -> str:
    """Name the row in which the selection network chooses these policies."""
    frames, stages = int(policy.num_frames.sum()), int(policy.num_stages.sum())
    return f"selection network inside: {frames} frames, {stages} stages"


def usage_policy(
    plan: StagePlan,
    clips: int,
    frames: float,
    stages: float,
    generator: torch.Generator,
    ragged: bool = False,
) -> Policy:
    """Make random policies whose totals over the batch are these fractions.

    The totals are exact to the nearest whole decision, not only on average.

    Args:
        plan: whose decisions.
        clips: N.
        frames: fraction of the frames.
        stages: fraction of the stages.
        generator: which frames and stages they are is drawn from it.
        ragged: whether the numbers of kept frames differ as much as that fraction allows; else all
            are alike.
    """
    unit = plan.frame_unit or plan.num_frames
    units = round(frames * clips * plan.num_frames / unit)
    make = distribute_unevenly if ragged else distribute
    kept = make(units, clips, plan.num_frames // unit, 1)
    on = distribute(round(stages * clips * plan.num_stages), clips, plan.num_stages, 0)
    return Policy.random(
        plan,
        clips,
        frames=torch.tensor(kept, dtype=torch.float64) * unit / plan.num_frames,
        stages=torch.tensor(on, dtype=torch.float64) / max(plan.num_stages, 1),
        generator=generator,
    )


def distribute(total: int, clips: int, most: int, least: int) -> list[int]:
    """Distribute ``total`` decisions over the clips as evenly as can be."""
    return [min(max(total // clips + (i < total % clips), least), most) for i in range(clips)]


def distribute_unevenly(total: int, clips: int, most: int, least: int) -> list[int]:
    """Distribute ``total`` decisions over the clips at even steps, as far apart as can be."""
    mean = total / clips
    reach = max(min(mean - least, most - mean), 0.0) if clips > 1 else 0.0
    ideal = [mean + reach * (2 * i / max(clips - 1, 1) - 1) for i in range(clips)]
    ends = [0, *(round(sum(ideal[: i + 1])) for i in range(clips))]  # so that the sum stays
    return sorted(min(max(b - a, least), most) for a, b in zip(ends, ends[1:]))


def recorded_policy(path: str, adaptive: AdaptiveNetwork, clips: int) -> Policy:
    """Read the policies of a file's first clips; those that exited have none, and are passed over.

    Raises:
        Ada3DError: no file of policies, one with fewer clips, or one of another network.
    """
    policy, _ = records.decisions_of(records.read_clips(path))
    if len(policy) < clips:
        raise Ada3DError(
            f"--policy {path}: it holds policies of {len(policy)} clips that did not exit, and "
            f"{clips} are timed; try --clips {max(len(policy), 1)}"
        )
    policy = policy[slice(clips)]
    try:
        adaptive.check(policy, clips)
    except Ada3DError as error:
        raise Ada3DError(f"--policy {path}: {error}; is it of another network?") from error
    return policy
