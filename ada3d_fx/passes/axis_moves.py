"""Operations that only move the time axis, or fold it into the clips' axis and back."""

from __future__ import annotations

import torch
from torch import fx

from .analysis import PACKED, Layout, TimeAnalysis
from .shapes import ShapeTable

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


def moved(node: fx.Node, analysis: TimeAnalysis, shapes: ShapeTable) -> tuple[str, Layout] | None:
    """Recognise an operation that moves the time axis, or folds it into the clips' and back.

    Models do so to run a 2D network on all frames.

    Args:
        node: the operation; those before it are analysed.
        analysis: the layouts of the nodes before it.
        shapes: of the graph.

    Returns:
        How it moves the axis ('same', 'permute', 'fold' or 'unfold'), and the layout after it; None
        if it does something else.
    """
    tensors = [n for n in node.all_input_nodes if n in analysis.tensors]
    after = shapes.shapes_of_three_clips.values[node]
    if len(tensors) != 1 or analysis.layouts[tensors[0]].kind not in PACKED or after is None:
        return None
    (source,), layout = tensors, analysis.layouts[tensors[0]]
    if node.target == "contiguous":
        return "same", layout
    before = shapes.shapes_of_three_clips.of(source)
    order = _axis_order(node, len(before))
    if order is not None and layout.kind != "rows" and order[0] == 0:
        time = order.index(2 if layout.kind == "frames" else 1)
        kind = {1: "swapped", 2: "frames"}.get(time)
        if kind is not None and (kind == "swapped" or len(after) == 5):
            return "permute", Layout(kind, layout.lengths)
    if node.target in _RESHAPES and layout.kind != "frames":
        cases = [(2, s.of(source), s.of(node)) for s in shapes.of_length.values()]
        cases.append((3, before, after))
        folds = all(a == (n * b[1], *b[2:]) for n, b, a in cases if len(b) > 1)
        unfolds = all(a == (n, b[0] // n, *b[1:]) for n, b, a in cases)
        if layout.kind == "swapped" and folds:
            return "fold", Layout("rows", layout.lengths)
        if layout.kind == "rows" and unfolds:
            return "unfold", Layout("swapped", layout.lengths)
    return None


def _axis_order(node: fx.Node, ndim: int) -> list[int] | None:
    """Which axis of the input each axis of the output is; None if the node is no permutation."""
    axes = node.args[1:]
    if len(axes) == 1 and isinstance(axes[0], (tuple, list)):
        axes = tuple(axes[0])
    given = [axis % ndim for axis in axes if isinstance(axis, int)]
    if node.kwargs or len(given) != len(axes):
        return None
    if node.target in _PERMUTES:
        return given
    if node.target in _TRANSPOSES:
        order = list(range(ndim))
        order[given[0]], order[given[1]] = given[1], given[0]
        return order
    return None
