"""How every value of a graph holds time, and which numbers of frames a model can take."""

from __future__ import annotations

from collections.abc import Sequence

from torch import fx, nn

from ..errors import Reason, UnsupportedModel
from ..packed.windows import POOLS
from .analysis import PACKED, Layout, TimeAnalysis
from .axis_moves import moved
from .rules import CONCATENATION, ELEMENTWISE, MIXES, MODULE_RULES, ROW_RULES, ROWWISE
from .shapes import resolutions, shapes_by_length, shapes_of
from .trace import is_known, module_path


def analyse(
    graph: fx.GraphModule, shadow: nn.Module, clip_shape: Sequence[int], known: dict
) -> TimeAnalysis:
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
    found = TimeAnalysis(resolutions=sizes)
    found.invalid_lengths = {n: r for n, r in by_length.items() if isinstance(r, Reason)}
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
            if node in found.time_mixing_nodes or node in found.dense_nodes:
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
    after_move = moved(node, found, shapes, three)
    if after_move is not None:
        return after_move
    if not kinds - {"const", "clips"} and not _has_stages(node, graph):
        return Layout("clips")
    spreads = "clips" in kinds and _spreads(node, found, shapes)
    if spreads:
        found.broadcast_nodes.append(node)
    packed = kinds & PACKED
    known = len(packed) == 1 and "dense" not in kinds and ("clips" not in kinds or spreads)
    rule = _rule(node, graph, found, shapes, *packed) if known else None
    if rule is not None:
        _check_joins(node, inputs, found)
        if rule == MIXES:
            found.time_mixing_nodes.append(node)
        if packed == {"rows"}:
            return next(layout for layout in inputs if layout.kind == "rows")
        collapsed = rule == MIXES and _collapses(node, graph)
        return Layout("clips") if collapsed else Layout("frames", lengths_of(node))
    found.dense_nodes.append(node)
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


def _spreads(node: fx.Node, found: TimeAnalysis, shapes: dict) -> bool:
    """Whether each per-clip input has one frame for all of the clip's, as in squeeze-and-excitation."""
    per_clip = [n for n in node.all_input_nodes if found.layouts[n].kind == "clips"]
    return node.target in ELEMENTWISE and all(
        s[n] is not None and len(s[n]) == 5 and s[n][2] == 1
        for s in shapes.values()
        for n in per_clip
    )


def _rule(
    node: fx.Node, graph: fx.GraphModule, found: TimeAnalysis, shapes: dict, kind: str
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


def _touches_time_by_constant(
    node: fx.Node, found: TimeAnalysis, some: dict, kind: str, ndim: int
) -> bool:
    """Whether a constant differs along an axis of the clips or of time."""
    axes = (ndim, ndim - 2) if kind == "frames" else (ndim,)  # counted from the last
    constants = [some[n] for n in node.all_input_nodes if found.layouts[n].kind == "const"]
    return any(s is not None and len(s) >= a and s[-a] != 1 for s in constants for a in axes)


def _check_joins(node: fx.Node, inputs: Sequence[Layout], found: TimeAnalysis) -> None:
    packed = [layout.lengths for layout in inputs if layout.kind in PACKED]
    for length, values in enumerate(zip(*packed)):
        if length not in found.invalid_lengths and len(set(values)) > 1:
            joined = " and ".join(str(v) for v in values)
            found.invalid_lengths[length] = Reason(
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
