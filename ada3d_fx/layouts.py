"""How every value of a graph holds time, and which numbers of frames a model can take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import fx, nn

from .errors import Reason, UnsupportedModel
from .rules import (
    CONCATENATION,
    ELEMENTWISE,
    MIXES,
    MODULE_RULES,
    POOLS,
    ROW_RULES,
    ROWWISE,
)
from .shapes import resolutions, shapes_by_length, shapes_of
from .trace import is_known, module_path

PACKED = {"frames", "swapped", "rows"}  # kinds of layouts whose rows are frames


@dataclass(frozen=True)
class Layout:
    """How a value holds time, and what stands for it in a packed program.

    kind: 'const' (no clip in it), 'clips' [N, ...] (one row per clip), 'frames' [N, C, T, H, W]
    (packed as [F, C, 1, H, W]), 'swapped' [N, T, ...] (as [F, 1, ...]), 'rows' [N * T, ...] (as
    [F, ...]), 'dense' (only made for one run at a time). lengths[L]: T of a clip of L frames.
    """

    kind: str
    lengths: tuple[int | None, ...] = ()


@dataclass
class Analysis:
    """What the analysis of a graph found.

    mixing: nodes that get twins; dense: nodes that run on one run of clips at a time; spread: nodes
    that join a value per clip to frames; moves: nodes that only move the time axis, and how;
    tensors: nodes that have a shape.
    convolutions: paths of those with temporal extent; resolutions: the (H, W) that they make;
    windows: input lengths of each pool.
    invalid: why some numbers of frames cannot be.
    """

    layouts: dict[fx.Node, Layout] = field(default_factory=dict)
    mixing: list[fx.Node] = field(default_factory=list)
    dense: list[fx.Node] = field(default_factory=list)
    spread: list[fx.Node] = field(default_factory=list)
    moves: dict[fx.Node, str] = field(default_factory=dict)
    tensors: set[fx.Node] = field(default_factory=set)
    convolutions: list[str] = field(default_factory=list)
    resolutions: dict[str, tuple[int, ...]] = field(default_factory=dict)
    windows: dict[str, tuple[int | None, ...]] = field(default_factory=dict)
    invalid: dict[int, Reason] = field(default_factory=dict)
    reasons: list[Reason] = field(default_factory=list)


def analyse(
    graph: fx.GraphModule, shadow: nn.Module, clip_shape: Sequence[int], known: dict
) -> Analysis:
    """The layout of every value of ``graph`` for clips of every length up to ``clip_shape[1]``.
    ``shadow``: the model on the meta device; ``known``: a dict to keep its modules' shapes in.

    Raises:
        UnsupportedModel: the model does not run on such clips, or its scores still have a time
            axis.
    """
    num_frames = clip_shape[1]
    by_length = shapes_by_length(graph.graph, shadow, clip_shape, known)
    with resolutions(shadow) as sizes:
        three = shapes_of(graph.graph, shadow, clip_shape, known, 3, num_frames)
    for full in (by_length[num_frames], three):
        if isinstance(full, Reason):
            raise UnsupportedModel(type(graph).__name__, [_explain(graph, full)])
    found = Analysis(resolutions=sizes)
    found.invalid = {n: r for n, r in by_length.items() if isinstance(r, Reason)}
    shapes = {n: r for n, r in by_length.items() if not isinstance(r, Reason)}

    def lengths_of(key: fx.Node | str) -> tuple[int | None, ...]:
        return (
            None,
            *(shapes[n][key][2] if n in shapes else None for n in range(1, num_frames + 1)),
        )

    for node in graph.graph.nodes:
        if three[node] is not None:
            found.tensors.add(node)
        found.layouts[node] = _layout(node, graph, found, shapes, three, lengths_of)
        if node.op == "call_module":
            module = graph.get_submodule(node.target)
            if isinstance(module, POOLS) and node.target in three:
                found.windows[node.target] = lengths_of(node.target)
            if node in found.mixing or node in found.dense:
                found.convolutions += _temporal_convolutions(node.target, module)
    found.convolutions = list(dict.fromkeys(found.convolutions))
    if found.reasons:
        raise UnsupportedModel(type(graph).__name__, found.reasons)
    return found


def _temporal_convolutions(path: str, module: nn.Module) -> list[str]:
    """Paths of the convolutions with temporal extent in a module."""
    return [
        f"{path}.{name}" if name else path
        for name, part in module.named_modules()
        if isinstance(part, nn.Conv3d) and part.kernel_size[0] > 1
    ]


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
            if found.layouts[source].kind in (*PACKED, "dense"):
                found.reasons.append(
                    Reason(module_path(source), "the output still has a time axis")
                )
        return Layout("const")
    if not kinds - {"const"}:
        return Layout("const")
    moved = _moved(node, found, shapes, three)
    if moved is not None:
        return moved
    if not kinds - {"const", "clips"} and not _has_stages(node, graph):
        return Layout("clips")
    spreads = "clips" in kinds and _spreads(node, found, shapes)
    if spreads:
        found.spread.append(node)
    packed = kinds & PACKED
    known = len(packed) == 1 and "dense" not in kinds and ("clips" not in kinds or spreads)
    rule = _rule(node, graph, found, shapes, *packed) if known else None
    if rule is not None:
        _check_joins(node, inputs, found)
        if rule == MIXES:
            found.mixing.append(node)
        if packed == {"rows"}:
            return next(layout for layout in inputs if layout.kind == "rows")
        collapsed = rule == MIXES and _collapses(node, graph)
        return Layout("clips") if collapsed else Layout("frames", lengths_of(node))
    found.dense.append(node)
    return _dense_layout(node, found, shapes, three, lengths_of)


def _collapses(node: fx.Node, graph: fx.GraphModule) -> bool:
    return node.op == "call_module" and isinstance(
        graph.get_submodule(node.target), (nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d)
    )


def _has_stages(node: fx.Node, graph: fx.GraphModule) -> bool:
    """Whether a node must run per run of clips, for the gates of the convolutions in it."""
    return node.op == "call_module" and bool(
        _temporal_convolutions(node.target, graph.get_submodule(node.target))
    )


def _spreads(node: fx.Node, found: Analysis, shapes: dict) -> bool:
    """Whether each per-clip input has one frame for all of the clip's, as in squeeze-and-excitation."""
    per_clip = [n for n in node.all_input_nodes if found.layouts[n].kind == "clips"]
    return node.target in ELEMENTWISE and all(
        s[n] is not None and len(s[n]) == 5 and s[n][2] == 1
        for s in shapes.values()
        for n in per_clip
    )


def _rule(
    node: fx.Node, graph: fx.GraphModule, found: Analysis, shapes: dict, kind: str
) -> str | None:
    """ROWWISE, MIXES or None for a node all of whose clip-dependent inputs are packed alike."""
    some = next(iter(shapes.values()))
    packed = [n for n in node.all_input_nodes if found.layouts[n].kind == kind]
    ranks = {len(some[n]) for n in packed}
    if kind == "swapped" or len(ranks) > 1 or (kind == "frames" and ranks != {5}):
        return None
    if node.op == "call_module":
        module = graph.get_submodule(node.target)
        table = MODULE_RULES if kind == "frames" else ROW_RULES
        rule = next((rule for types, rule in table if isinstance(module, types)), None)
        simple = len(node.args) == 1 and not node.kwargs and len(packed) == 1
        simple &= is_known(module) and not hasattr(module, "parametrizations")
        return rule(module) if rule is not None and simple else None
    (ndim,) = ranks
    if node.target in CONCATENATION:
        dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
        return (
            ROWWISE if dim in (1, 1 - ndim) and len(packed) == len(node.all_input_nodes) else None
        )
    if node.target in ELEMENTWISE and not _touches_time_by_constant(node, found, some, kind, ndim):
        return ROWWISE
    return None


# Operations that may only move axes or merge them.
_PERMUTES = ("permute", torch.permute)
_TRANSPOSES = ("transpose", torch.transpose, "swapaxes", torch.swapaxes)
_RESHAPES = (
    "reshape",
    "view",
    "flatten",
    "unflatten",
    torch.reshape,
    torch.flatten,
    torch.unflatten,
)


def _moved(node: fx.Node, found: Analysis, shapes: dict, three: dict) -> Layout | None:
    """The layout after an operation that moves the time axis, or folds it into the clips' and back,
    as in running a 2D network on all frames."""
    tensors = [n for n in node.all_input_nodes if n in found.tensors]
    if len(tensors) != 1 or found.layouts[tensors[0]].kind not in PACKED or three[node] is None:
        return None
    (source,), layout = tensors, found.layouts[tensors[0]]
    if node.target == "contiguous":
        found.moves[node] = "same"
        return layout
    before, after = three[source], three[node]
    order = _axis_order(node, len(before))
    if order is not None and layout.kind != "rows" and order[0] == 0:
        time = order.index(2 if layout.kind == "frames" else 1)
        kind = {1: "swapped", 2: "frames"}.get(time)
        if kind is not None and (kind == "swapped" or len(after) == 5):
            found.moves[node] = "permute"
            return Layout(kind, layout.lengths)
    if node.target in _RESHAPES and layout.kind != "frames":
        pairs = [(2, s[source], s[node]) for s in shapes.values()] + [(3, before, after)]
        folds = all(a == (n * b[1], *b[2:]) for n, b, a in pairs if len(b) > 1)
        unfolds = all(a == (n, b[0] // n, *b[1:]) for n, b, a in pairs)
        if (layout.kind == "swapped" and folds) or (layout.kind == "rows" and unfolds):
            found.moves[node] = "fold" if layout.kind == "swapped" else "unfold"
            return Layout("rows" if layout.kind == "swapped" else "swapped", layout.lengths)
    return None


def _axis_order(node: fx.Node, ndim: int) -> list[int] | None:
    """Which axis of the input each axis of the output is; None if the node is no permutation."""
    dims = node.args[1:]
    if len(dims) == 1 and isinstance(dims[0], (tuple, list)):
        dims = tuple(dims[0])
    if node.kwargs or not all(isinstance(d, int) for d in dims):
        return None
    dims = [d % ndim for d in dims]
    if node.target in _PERMUTES:
        return dims
    if node.target in _TRANSPOSES:
        order = list(range(ndim))
        order[dims[0]], order[dims[1]] = dims[1], dims[0]
        return order
    return None


def _touches_time_by_constant(
    node: fx.Node, found: Analysis, some: dict, kind: str, ndim: int
) -> bool:
    """Whether a constant differs along an axis of the clips or of time."""
    axes = (ndim, ndim - 2) if kind == "frames" else (ndim,)  # counted from the last
    constants = [some[n] for n in node.all_input_nodes if found.layouts[n].kind == "const"]
    return any(s is not None and len(s) >= a and s[-a] != 1 for s in constants for a in axes)


def _check_joins(node: fx.Node, inputs: Sequence[Layout], found: Analysis) -> None:
    packed = [layout.lengths for layout in inputs if layout.kind in PACKED]
    for length, values in enumerate(zip(*packed)):
        if length not in found.invalid and len(set(values)) > 1:
            joined = " and ".join(str(v) for v in values)
            found.invalid[length] = Reason(
                module_path(node), f"of {length} frames, {joined} frames meet here"
            )


def _dense_layout(node, found, shapes, three, lengths_of) -> Layout:
    """A value of unknown structure goes back into a pack as soon as its shape shows clips on axis 0
    and time on axis 2, or clips on axis 0 and nothing that depends on time."""
    by_length = {n: s[node] for n, s in shapes.items()}
    last, wide = by_length[max(by_length)], three[node]
    if last is None or wide is None or not last or last[0] != 2 or wide != (3, *last[1:]):
        return Layout("dense")
    known = {layout.lengths for layout in found.layouts.values() if layout.kind in PACKED}
    others = {(s[:2], s[3:]) for s in by_length.values()}
    lengths = lengths_of(node) if len(last) == 5 else ()
    if len(last) == 5 and len(others) == 1 and (lengths in known or len(set(lengths)) > 2):
        return Layout("frames", lengths)
    if len(set(by_length.values())) == 1:
        return Layout("clips")
    return Layout("dense")
