"""Which temporal convolutions one decision governs, and in which units frames are kept: the plan."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import fx, nn

from .errors import Ada3DError, Reason, UnsupportedModel
from .layouts import Analysis
from .rules import ungateable

Grouping = str | Mapping[str, str]
GRANULARITIES = ("stage", "block", "layer")
# How the field calls the groups of a residual network: part of a module path -> name.
STAGE_NAMES = ((r"^(?:\w+\.)*layer(\d+)$", lambda m: f"res{int(m[1]) + 1}"),)


@dataclass(frozen=True)
class Stage:
    """Temporal convolutions under one decision v_k; ``sites`` are their module paths."""

    name: str
    sites: tuple[str, ...]


@dataclass(frozen=True)
class StagePlan:
    """What a policy decides about this model. ``print(plan)`` explains it.

    num_frames: T; num_stages: K; frame_unit: g, frames are kept in whole units of g, or None where
        frames cannot be
    dropped; reasons: what cannot be decided, and why; clip_shape: (C, T, H, W) for which the plan
    holds.
    """

    clip_shape: tuple[int, int, int, int]
    stages: tuple[Stage, ...]
    frame_unit: int | None
    reasons: tuple[Reason, ...] = ()
    leaves: tuple[Reason, ...] = ()

    @property
    def num_frames(self) -> int:
        return self.clip_shape[1]

    @property
    def num_stages(self) -> int:
        return len(self.stages)

    @property
    def num_units(self) -> int:
        """Decisions of the frame policy: T / g, or 0 where frames cannot be dropped."""
        return 0 if self.frame_unit is None else self.num_frames // self.frame_unit

    def __str__(self) -> str:
        shape = " x ".join(map(str, self.clip_shape))
        unit = {None: "all are always kept", 1: "each may be dropped"}.get(
            self.frame_unit, f"kept in units of {self.frame_unit}"
        )
        width = max([len(stage.name) for stage in self.stages], default=0)
        lines = [
            f"clip {shape} (C x T x H x W)",
            f"frames: T={self.num_frames}, {unit}",
            f"stages: K={self.num_stages}",
        ]
        lines += [
            f"  {k} {stage.name:<{width}}  {len(stage.sites)} temporal convolution"
            f"{'s' if len(stage.sites) > 1 else ''}: {stage.sites[0]}{' ...' if len(stage.sites) > 1 else ''}"
            for k, stage in enumerate(self.stages)
        ]
        for title, reasons in (
            ("run densely per length", self.leaves),
            ("not decided", self.reasons),
        ):
            lines += [f"{title}:", *(f"  {reason}" for reason in reasons)] if reasons else []
        return "\n".join(lines)


def make_plan(
    graph: fx.GraphModule,
    found: Analysis,
    clip_shape: Sequence[int],
    grouping: Grouping,
    leaves: Sequence[Reason] = (),
) -> StagePlan:
    """Group the temporal convolutions and find the frame unit (DESIGN: the smallest g whose
    multiples all join)."""
    reasons: list[Reason] = []
    sites = []
    for node in found.mixing:
        module = graph.get_submodule(node.target)
        if isinstance(module, nn.Conv3d):
            why = ungateable(module)
            sites += [] if why else [node.target]
            reasons += [Reason(node.target, why)] if why else []
    unit = _frame_unit(found, clip_shape[1])
    if unit != 1:
        reasons += [found.invalid[n] for n in sorted(found.invalid)][:1]
    stages = tuple(Stage(name, tuple(paths)) for name, paths in _group(sites, grouping).items())
    if unit is None and not stages:
        nothing = Reason(
            "model",
            "no frame can be dropped and no temporal convolution can be turned off: nothing to decide",
        )
        raise UnsupportedModel(type(graph).__name__, [*reasons, nothing])
    return StagePlan(tuple(clip_shape), stages, unit, tuple(dict.fromkeys(reasons)), tuple(leaves))


def _frame_unit(found: Analysis, num_frames: int) -> int | None:
    for unit in range(1, num_frames):
        multiples = range(unit, num_frames + 1, unit)
        if num_frames % unit == 0 and not any(n in found.invalid for n in multiples):
            return unit
    return None


def _group(sites: Sequence[str], grouping: Grouping) -> dict[str, list[str]]:
    if isinstance(grouping, str) and grouping not in GRANULARITIES:
        raise Ada3DError(
            f"convert: stages={grouping!r}; expected one of {GRANULARITIES} or a mapping {{regex: name}}"
        )
    overrides = {} if isinstance(grouping, str) else dict(grouping)
    granularity = grouping if isinstance(grouping, str) else "stage"
    for pattern in overrides:
        if not any(re.search(pattern, site) for site in sites):
            raise Ada3DError(
                f"convert: stages: {pattern!r} matches none of the {len(sites)} temporal convolutions, "
                f"such as {', '.join(sites[:3]) or '(none)'}"
            )
    groups: dict[str, list[str]] = {}
    for site in sites:
        name = next((name for pattern, name in overrides.items() if re.search(pattern, site)), None)
        groups.setdefault(name or _default_name(site, granularity), []).append(site)
    return groups


def _default_name(site: str, granularity: str) -> str:
    """'backbone.layer3.0.conv1.conv' -> 'res4' (stage), 'res4.0' (block), the site itself
    (layer)."""
    if granularity == "layer":
        return site
    parts = site.split(".")
    first = next((i for i, part in enumerate(parts) if part.isdigit()), None)
    if first is None:
        return "stem"
    head = ".".join(parts[: max(first, 1)])
    for pattern, name in STAGE_NAMES:
        match = re.match(pattern, head)
        head = name(match) if match else head
    head = head.removeprefix("backbone.")
    return f"{head}.{parts[first]}" if granularity == "block" and first else head
