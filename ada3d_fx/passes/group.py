"""Which temporal convolutions one decision governs, and in which units frames are kept."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import fx

from ..errors import Ada3DError, Reason, UnsupportedModel
from ..packed.windows import ungateable
from ..plan import Stage, StagePlan
from .analysis import PACKED, TimeAnalysis
from .trace import module_path

Grouping = str | Mapping[str, str]


GRANULARITIES = ("stage", "block", "layer")


# How the field calls the parts of a recognizer: a component of a module path -> name of its stage.
STAGE_NAMES = (
    (r"neck", lambda m: "neck"),
    (r"layer(\d+)(_lateral)?", lambda m: f"res{int(m[1]) + 1}"),
    (r"conv(\d)[a-z]", lambda m: f"conv{m[1]}"),
    (r"conv1(_\w+)?|patch_embed\w*", lambda m: "stem"),
)


# Functions and methods that multiply and add.
_PRODUCTS = {
    *("matmul", "mm", "bmm", "addmm", "baddbmm", "einsum", "linear", "tensordot"),
    *("scaled_dot_product_attention", "conv1d", "conv2d", "conv3d"),
}


def make_plan(
    graph: fx.GraphModule,
    found: TimeAnalysis,
    clip_shape: Sequence[int],
    grouping: Grouping,
    leaves: Sequence[Reason] = (),
) -> StagePlan:
    """Group the temporal convolutions and find the frame unit (DESIGN: the smallest g whose
    multiples all join). ``leaves``: the modules that could not be traced."""
    reasons: list[Reason] = []
    sites = []
    for path in found.convolutions:
        why = ungateable(graph.get_submodule(path))
        sites += [] if why else [path]
        reasons += [Reason(path, why)] if why else []
    unit = _frame_unit(found, clip_shape[1])
    reasons += _unit_reasons(found, clip_shape[1], unit)
    grouped = _group(sites, grouping, found.resolutions)
    stages = tuple(Stage(name, tuple(paths)) for name, paths in grouped.items())
    if unit is None and not stages:
        nothing = Reason(
            "model",
            "no frame can be dropped and no temporal convolution can be turned off: nothing to decide",
        )
        raise UnsupportedModel(type(graph).__name__, [*reasons, nothing])
    dense = [*leaves, *_densely(graph, found, {leaf.where for leaf in leaves})]
    return StagePlan(
        tuple(clip_shape),
        stages,
        unit,
        tuple(dict.fromkeys(reasons)),
        tuple(dense),
        _execution(graph, found),
    )


def _execution(graph: fx.GraphModule, found: TimeAnalysis) -> str:
    """How the operations that multiply and add run, as long as there is a time axis."""
    dense = set(found.dense_nodes)
    kinds = {
        node in dense
        for node, layout in found.layouts.items()
        if _multiplies(node, graph)
        and (node in dense or layout.kind in PACKED or node in found.time_mixing_nodes)
    }
    return {(True,): "dense", (False, True): "partly dense"}.get(tuple(sorted(kinds)), "packed")


def _multiplies(node: fx.Node, graph: fx.GraphModule) -> bool:
    if node.op == "call_module":
        return any(True for _ in graph.get_submodule(node.target).parameters())
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return node.op in ("call_function", "call_method") and name in _PRODUCTS


def _densely(graph: fx.GraphModule, found: TimeAnalysis, known: set[str]) -> list[Reason]:
    """The traced operations that have no packed form, by the block that they are in."""
    names: dict[str, dict[str, None]] = {}
    for node in found.dense_nodes:
        path = module_path(node)
        if node in found.tensors and path not in known:
            operation = getattr(node.target, "__name__", node.target)
            if node.op == "call_module":
                operation = type(graph.get_submodule(node.target)).__name__
            names.setdefault(_block(path), {})[str(operation)] = None
    return [
        Reason(
            path, f"no packed form of {', '.join(list(ops)[:6])}{' ...' if len(ops) > 6 else ''}"
        )
        for path, ops in names.items()
    ]


def _block(path: str) -> str:
    """'backbone.blocks.3.attn.qkv' -> 'backbone.blocks.3'; a path without a number is itself."""
    parts = path.split(".")
    first = next((i for i, part in enumerate(parts) if part.isdigit()), len(parts))
    return ".".join(parts[: first + 1])


def _frame_unit(found: TimeAnalysis, num_frames: int) -> int | None:
    for unit in range(1, num_frames):
        multiples = range(unit, num_frames + 1, unit)
        if num_frames % unit == 0 and not any(n in found.invalid_lengths for n in multiples):
            return unit
    return None


def _unit_reasons(found: TimeAnalysis, num_frames: int, unit: int | None) -> list[Reason]:
    """Why frames cannot be dropped in smaller units: one reason for each smaller unit."""
    smaller = [n for n in range(1, unit or num_frames) if num_frames % n == 0]
    failing = [
        next(n for n in range(g, num_frames + 1, g) if n in found.invalid_lengths) for g in smaller
    ]
    return [found.invalid_lengths[n] for n in dict.fromkeys(failing[::-1])]


def _group(
    sites: Sequence[str], grouping: Grouping, resolutions: Mapping[str, tuple[int, ...]]
) -> dict[str, list[str]]:
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
    defaults = _default_names(sites, granularity, resolutions)
    groups: dict[str, list[str]] = {}
    for site in sites:
        name = next((name for pattern, name in overrides.items() if re.search(pattern, site)), None)
        groups.setdefault(name or defaults[site], []).append(site)
    return groups


def _default_names(
    sites: Sequence[str], granularity: str, resolutions: Mapping[str, tuple[int, ...]]
) -> dict[str, str]:
    """Name of each site's group: 'backbone.layer3.0.conv1.conv' is in 'res4' (stage), 'res4.0'
    (block), itself (layer)."""
    if granularity == "layer":
        return {site: site for site in sites}
    blocks: dict[str, dict[int, tuple[int, ...]]] = {}  # container -> block -> its resolution
    named = {}
    for site in sites:
        container, block, name = _place(site)
        named[site] = (container, block, name)
        if block is not None and name is None:
            blocks.setdefault(container, {}).setdefault(block, resolutions.get(site, ()))
    ranges = {container: _ranges(sizes) for container, sizes in blocks.items()}
    names = {}
    for site, (container, block, name) in named.items():
        if name is None:
            name = container.removeprefix("backbone.")
            if block is not None and granularity == "stage":
                name += ranges[container][block]
        names[site] = f"{name}.{block}" if granularity == "block" and block is not None else name
    return names


def _place(site: str) -> tuple[str, int | None, str | None]:
    """Where a convolution is: its container, its block's number in it, and the container's name
    where the field has one."""
    parts = site.split(".")
    first = next((i for i, part in enumerate(parts) if part.isdigit()), None)
    block = None if not first else int(parts[first])  # at the front, the model is a sequence
    heads = parts[: first or (2 if parts[0] == "backbone" else 1)]
    for part in parts[:first]:
        for pattern, name in STAGE_NAMES:
            if match := re.fullmatch(pattern, part):
                return ".".join(heads), block, name(match)
    return ".".join(heads), block, None


def _ranges(resolutions: Mapping[int, tuple[int, ...]]) -> dict[int, str]:
    """What to add to the container's name for each block: nothing if all blocks see one
    resolution, else the range of blocks that share it."""
    runs: list[list[int]] = []
    for block in sorted(resolutions):
        if runs and resolutions[block] == resolutions[runs[-1][-1]]:
            runs[-1].append(block)
        else:
            runs.append([block])
    if len(runs) == 1:
        return dict.fromkeys(resolutions, "")
    words = {run[0]: f"{run[0]}" + (f"-{run[-1]}" if len(run) > 1 else "") for run in runs}
    return {block: f".{words[run[0]]}" for run in runs for block in run}
