"""How every value of a graph holds time, and which numbers of frames a model can take."""

from __future__ import annotations

from collections.abc import Sequence

from torch import fx, nn

from ..errors import Reason, UnsupportedModel
from ..packed.windows import POOLS
from ..tracing.model import model_name
from ..tracing.program import module_path
from ..tracing.rules import MIXES
from .analysis import PACKED, PER_RUN, Layout, TimeAnalysis
from .axis_moves import moved
from .batches import is_batch_wise
from .rowwise import is_broadcast, is_collapse, rule_of
from .shapes import ShapeCache, ShapeTable, shape_table
from .tokens import is_token_wise


def analyse(
    root: nn.Module,
    graph: fx.Graph,
    shadow: nn.Module,
    clip_shape: Sequence[int],
    shape_cache: ShapeCache,
) -> TimeAnalysis:
    """Find the layout of every value of a graph for clips of every length up to T.

    Args:
        root: where the paths in ``graph`` start.
        graph: clips -> scores.
        shadow: ``root`` on the meta device.
        clip_shape: (C, T, H, W).
        shape_cache: what the shadow's modules gave; shared by the programs of one model.

    Raises:
        UnsupportedModel: the model does not run on such clips, or its scores still have a time
            axis.
    """
    shapes = shape_table(graph, shadow, clip_shape, shape_cache)
    if isinstance(shapes, Reason):
        raise UnsupportedModel(model_name(root), [_explain(root, shapes)])
    analysis = TimeAnalysis(
        resolutions=shapes.resolutions, invalid_lengths=dict(shapes.invalid_lengths)
    )
    for node in graph.nodes:
        if shapes.shapes_of_three_clips.values[node] is not None:
            analysis.tensors.add(node)
        elif node in shapes.shapes_of_three_clips.plain:
            analysis.plain.add(node)
        analysis.layouts[node] = _layout(node, root, analysis, shapes)
        if node.op == "call_module":
            _note_module(node, root, analysis, shapes)
    analysis.convolutions = list(dict.fromkeys(analysis.convolutions))
    if analysis.reasons:
        raise UnsupportedModel(model_name(root), analysis.reasons)
    return analysis


def _note_module(
    node: fx.Node, root: nn.Module, analysis: TimeAnalysis, shapes: ShapeTable
) -> None:
    path = str(node.target)
    module = root.get_submodule(path)
    if isinstance(module, POOLS) and node in shapes.shapes_of_three_clips.inputs:
        analysis.windows[node] = shapes.input_frames_of(node)
    if node in analysis.time_mixing_nodes or node in analysis.dense_nodes:
        analysis.convolutions += _temporal_convolutions(path, module)


def _temporal_convolutions(path: str, module: nn.Module) -> list[str]:
    """Paths of the convolutions with temporal extent in a module."""
    return [
        f"{path}.{name}" if name else path
        for name, part in module.named_modules()
        if isinstance(part, nn.Conv3d) and part.kernel_size[0] > 1
    ]


def _explain(root: nn.Module, reason: Reason) -> Reason:
    flat = [path for path, module in root.named_modules() if isinstance(module, nn.Conv2d)]
    if flat and not any(isinstance(module, nn.Conv3d) for module in root.modules()):
        return Reason(
            reason.where,
            f"{reason.why}. It has 2D convolutions only (Conv2d at {flat[0]!r}): is it a 2D recognizer?",
        )
    return reason


def _layout(node: fx.Node, root: nn.Module, analysis: TimeAnalysis, shapes: ShapeTable) -> Layout:
    """The layout of one value, given those before it; notes in ``analysis`` what follows."""
    if node.op == "placeholder":
        if not analysis.layouts:
            return Layout("frames", shapes.frames_of(node))
        return Layout("swapped", (None, *range(1, shapes.num_frames + 1)))  # the times [N, T]
    inputs = [analysis.layouts[n] for n in node.all_input_nodes]
    kinds = {layout.kind for layout in inputs}
    if node.op == "output":
        _check_output(node, analysis)
        return Layout("const")
    if not kinds - {"const"}:
        return Layout("const")
    move = moved(node, analysis, shapes)
    if move is not None:
        analysis.axis_moves[node] = move[0]
        return move[1]
    if not kinds - {"const", "clips"} and not _has_stages(node, root):
        if shapes.shapes_of_three_clips.values[node] is None or _clips_lead(node, shapes):
            return Layout("clips")
        analysis.dense_nodes.append(node)
        return _dense_layout(node, analysis, shapes)
    if is_token_wise(node, root, analysis, shapes):
        return Layout("tokens")
    if is_batch_wise(node, root, analysis, shapes):
        return Layout("batches")
    broadcast = is_broadcast(node, analysis, shapes)
    if broadcast:
        analysis.broadcast_nodes.append(node)
    packed = kinds & PACKED
    # of whole clips, one frame may meet several: that is what the model's own code makes of it
    lengths = {layout.lengths[-1] for layout in inputs if layout.kind in PACKED}
    together = len(lengths) == 1 and ("clips" not in kinds or broadcast)
    alike = len(packed) == 1 and not kinds & PER_RUN and together
    rule = rule_of(node, root, analysis, shapes, *packed) if alike else None
    if rule is None:
        analysis.dense_nodes.append(node)
        return _dense_layout(node, analysis, shapes)
    _check_joins(node, inputs, analysis)
    if rule == MIXES:
        analysis.time_mixing_nodes.append(node)
    if packed == {"rows"}:
        return next(layout for layout in inputs if layout.kind == "rows")
    return (
        Layout("clips")
        if is_collapse(node, root, rule)
        else Layout("frames", shapes.frames_of(node))
    )


def _clips_lead(node: fx.Node, shapes: ShapeTable) -> bool:
    """Whether a value is a tensor with the clips on axis 0, and on no other."""
    of_two = shapes.of_length[shapes.num_frames].values[node] or ()
    return of_two[:1] == (2,) and shapes.shapes_of_three_clips.values[node] == (3, *of_two[1:])


def _check_output(node: fx.Node, analysis: TimeAnalysis) -> None:
    for source in node.all_input_nodes:
        if analysis.layouts[source].kind in (*PACKED, *PER_RUN):
            analysis.reasons.append(Reason(module_path(source), "the output still has a time axis"))


def _has_stages(node: fx.Node, root: nn.Module) -> bool:
    """Whether a node must run per run of clips, for the gates of the convolutions in it."""
    if node.op != "call_module":
        return False
    path = str(node.target)
    return bool(_temporal_convolutions(path, root.get_submodule(path)))


def _check_joins(node: fx.Node, inputs: Sequence[Layout], analysis: TimeAnalysis) -> None:
    """Note the clip lengths at which the node's inputs have different numbers of frames."""
    packed = [layout.lengths for layout in inputs if layout.kind in PACKED]
    for length, values in enumerate(zip(*packed)):
        if length not in analysis.invalid_lengths and len(set(values)) > 1:
            joined = " and ".join(str(v) for v in values)
            analysis.invalid_lengths[length] = Reason(
                module_path(node), f"of {length} frames, {joined} frames meet here"
            )


def _dense_layout(node: fx.Node, analysis: TimeAnalysis, shapes: ShapeTable) -> Layout:
    """The layout of a value that was made densely, which is packed again as soon as it can be.

    It can where its shape shows clips on axis 0 and time on axis 2, or clips on axis 0 and nothing
    that depends on time.
    """
    if not _clips_lead(node, shapes):
        return Layout("dense")
    seen = [of_two.values[node] or () for of_two in shapes.of_length.values()]
    if len(seen[0]) == 5 and len({(shape[:2], shape[3:]) for shape in seen}) == 1:
        lengths = shapes.frames_of(node)
        if len(set(lengths) - {None}) > 1:  # else it may be another axis, as long as time is
            return Layout("frames", lengths)
    return Layout("clips") if len(set(seen)) == 1 else Layout("dense")
