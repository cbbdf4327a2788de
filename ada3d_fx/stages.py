"""Which operations mix time, which decision governs them, and which numbers of frames a model can take."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Union

import torch
from torch import Tensor, fx, nn

from .errors import Ada3DError, Reason, UnsupportedModel
from .rules import CONCATENATION, ELEMENTWISE, MIXES, MODULE_RULES, ROWWISE, fit_window, ungateable
from .trace import dtype_of, module_path, shadow_call

# --------------------------------------------------------------------------------------------------------------------
# The layout of every value in the graph.


@dataclass(frozen=True)
class Layout:
    """How a value holds time. kind: 'const' (no clip in it), 'clips' (one row per clip), 'frames' (a pack: clip axis 0
    and time axis 2 become rows; ``lengths[L]`` frames of a clip of L), 'dense' (only made for one run at a time)."""

    kind: str
    lengths: tuple[int | None, ...] = ()


@dataclass
class Analysis:
    """What the analysis of a graph found; ``mixing`` nodes get twins, ``dense``
    nodes run on one run of clips at a time, ``tensors`` have a shape, ``invalid`` says why some numbers of frames cannot be."""

    layouts: dict[fx.Node, Layout] = field(default_factory=dict)
    mixing: list[fx.Node] = field(default_factory=list)
    dense: list[fx.Node] = field(default_factory=list)
    tensors: set[fx.Node] = field(default_factory=set)
    invalid: dict[int, Reason] = field(default_factory=dict)
    reasons: list[Reason] = field(default_factory=list)


class _Shapes(fx.Interpreter):
    """Runs a graph on clips of the meta device, windows fitted to short ones, and keeps every value's shape."""

    def __init__(self, shadow: nn.Module, graph: fx.Graph):
        super().__init__(shadow, graph=graph)
        self.shapes: dict[fx.Node, Any] = {}
        self.at: fx.Node | None = None

    def run_node(self, n: fx.Node) -> Any:
        self.at = n
        value = super().run_node(n)
        self.shapes[n] = tuple(value.shape) if isinstance(value, Tensor) else None
        return value

    def call_module(self, target, args, kwargs):
        module = self.fetch_attr(target)
        if args and isinstance(args[0], Tensor) and args[0].ndim == 5:
            module = fit_window(module, args[0].shape[2])
        return shadow_call(module, args, kwargs)


_SHAPE_FAILURES = (
    *(RuntimeError, ValueError, TypeError, AssertionError),
    *(IndexError, AttributeError, KeyError, NotImplementedError),
)


def _shapes(
    shadow: nn.Module, graph: fx.Graph, clip_shape: Sequence[int], clips: int, length: int
) -> dict[fx.Node, Any] | Reason:
    interpreter = _Shapes(shadow, graph)
    channels, _, *size = clip_shape
    with torch.device("meta"), torch.no_grad():
        try:
            interpreter.run(torch.empty(clips, channels, length, *size, dtype=dtype_of(shadow)))
        except _SHAPE_FAILURES as error:
            where = module_path(interpreter.at) if interpreter.at is not None else "input"
            message = str(error).strip().split("\n")[0]
            shape = f"[N, {channels}, {length}, {', '.join(map(str, size))}]"
            return Reason(where, f"fails on clips {shape}: {message}")
    return interpreter.shapes


def analyse(graph: fx.GraphModule, shadow: nn.Module, clip_shape: Sequence[int]) -> Analysis:
    """The layout of every value of ``graph`` for clips of every length up to ``clip_shape[1]``.
    ``shadow``: the model on the meta device.

    Raises:
        UnsupportedModel: the model does not run on such clips, or its scores still have a time axis.
    """
    num_frames = clip_shape[1]
    by_length: dict[int, Any] = {
        n: _shapes(shadow, graph.graph, clip_shape, 2, n) for n in range(1, num_frames + 1)
    }
    three = _shapes(shadow, graph.graph, clip_shape, 3, num_frames)
    if isinstance(by_length[num_frames], Reason):
        raise UnsupportedModel(type(graph).__name__, [_explain(graph, by_length[num_frames])])
    found = Analysis(invalid={n: r for n, r in by_length.items() if isinstance(r, Reason)})
    shapes = {n: r for n, r in by_length.items() if not isinstance(r, Reason)}

    def lengths_of(node: fx.Node) -> tuple[int | None, ...]:
        return (
            None,
            *(shapes[n][node][2] if n in shapes else None for n in range(1, num_frames + 1)),
        )

    for node in graph.graph.nodes:
        if three[node] is not None:
            found.tensors.add(node)
        found.layouts[node] = _layout(node, graph, found, shapes, three, lengths_of)
    if found.reasons:
        raise UnsupportedModel(type(graph).__name__, found.reasons)
    return found


def _explain(graph: nn.Module, reason: Reason) -> Reason:
    flat = [path for path, m in graph.named_modules() if isinstance(m, nn.Conv2d)]
    if flat and not any(isinstance(m, nn.Conv3d) for m in graph.modules()):
        return Reason(
            reason.where,
            f"{reason.why}. It has 2D convolutions only (Conv2d at {flat[0]!r}): is it a 2D recognizer?",
        )
    return reason


def _layout(node, graph, found, shapes, three, lengths_of) -> Layout:
    if node.op == "placeholder":
        return Layout("frames", lengths_of(node))
    inputs = [found.layouts[n] for n in node.all_input_nodes]
    kinds = {layout.kind for layout in inputs}
    if node.op == "output":
        for source in node.all_input_nodes:
            if found.layouts[source].kind in ("frames", "dense"):
                found.reasons.append(
                    Reason(module_path(source), "the output still has a time axis")
                )
        return Layout("const")
    if not kinds - {"const"}:
        return Layout("const")
    if not kinds - {"const", "clips"}:
        return Layout("clips")
    rule = None if "dense" in kinds or "clips" in kinds else _rule(node, graph, found, shapes)
    if rule is not None:
        _check_joins(node, inputs, found)
        if rule == MIXES:
            found.mixing.append(node)
        lengths = lengths_of(node)
        return Layout("clips") if set(lengths) <= {None, 1} and rule == MIXES and _collapses(node, graph) else Layout(
            "frames", lengths
        )  # fmt: skip
    found.dense.append(node)
    return _dense_layout(node, found, shapes, three, lengths_of)


def _collapses(node: fx.Node, graph: fx.GraphModule) -> bool:
    return node.op == "call_module" and isinstance(
        graph.get_submodule(node.target), (nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d)
    )


def _rule(node: fx.Node, graph: fx.GraphModule, found: Analysis, shapes: dict) -> str | None:
    """ROWWISE, MIXES or None for a node all of whose clip-dependent inputs are packed."""
    some = next(iter(shapes.values()))
    packed = [n for n in node.all_input_nodes if found.layouts[n].kind == "frames"]
    if any(len(some[n]) != 5 for n in packed):
        return None
    if node.op == "call_module":
        module = graph.get_submodule(node.target)
        rule = next((rule for types, rule in MODULE_RULES if isinstance(module, types)), None)
        simple = len(node.args) == 1 and not node.kwargs and len(packed) == 1
        return rule(module) if rule is not None and simple else None
    if node.target in CONCATENATION:
        dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
        return ROWWISE if dim in (1, -4) and len(packed) == len(node.all_input_nodes) else None
    if node.target in ELEMENTWISE and not _touches_time_by_constant(node, found, some):
        return ROWWISE
    return None


def _touches_time_by_constant(node: fx.Node, found: Analysis, some: dict) -> bool:
    constants = [some[n] for n in node.all_input_nodes if found.layouts[n].kind == "const"]
    return any(
        s is not None and ((len(s) >= 3 and s[-3] != 1) or (len(s) == 5 and s[0] != 1))
        for s in constants
    )


def _check_joins(node: fx.Node, inputs: Sequence[Layout], found: Analysis) -> None:
    packed = [layout.lengths for layout in inputs if layout.kind == "frames"]
    for length, values in enumerate(zip(*packed)):
        if length not in found.invalid and len(set(values)) > 1:
            joined = " and ".join(str(v) for v in values)
            found.invalid[length] = Reason(
                module_path(node), f"of {length} frames, {joined} frames meet here"
            )


def _dense_layout(node, found, shapes, three, lengths_of) -> Layout:
    """A value of unknown structure goes back into a pack as soon as its shape shows clips on axis 0 and time on axis 2,
    or clips on axis 0 and nothing that depends on time."""
    by_length = {n: s[node] for n, s in shapes.items()}
    last, wide = by_length[max(by_length)], three[node]
    if last is None or wide is None or not last or last[0] != 2 or wide != (3, *last[1:]):
        return Layout("dense")
    known = {layout.lengths for layout in found.layouts.values() if layout.kind == "frames"}
    others = {(s[:2], s[3:]) for s in by_length.values()}
    if len(last) == 5 and len(others) == 1 and lengths_of(node) in known:
        return Layout("frames", lengths_of(node))
    if len(set(by_length.values())) == 1:
        return Layout("clips")
    return Layout("dense")


# --------------------------------------------------------------------------------------------------------------------
# The plan.

Grouping = Union[str, Mapping[str, str]]
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

    num_frames: T; num_stages: K; frame_unit: g, frames are kept in whole units of g, or None where frames cannot be
    dropped; reasons: what cannot be decided, and why; clip_shape: (C, T, H, W) for which the plan holds.
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
    """Group the temporal convolutions and find the frame unit (DESIGN: the smallest g whose multiples all join)."""
    reasons = list(found.reasons)
    sites = []
    for node in found.mixing:
        module = graph.get_submodule(node.target)
        if isinstance(module, nn.Conv3d):
            why = ungateable(module)
            sites += [] if why else [node.target]
            reasons += [Reason(node.target, why)] if why else []
    num_frames = clip_shape[1]
    unit = next(
        (g for g in range(1, num_frames + 1) if num_frames % g == 0 and not any(found.invalid.get(n) for n in range(g, num_frames + 1, g))),
        None,
    )  # fmt: skip
    unit = None if unit == num_frames else unit
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
    """'backbone.layer3.0.conv1.conv' -> 'res4' (stage), 'res4.0' (block), the site itself (layer)."""
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
