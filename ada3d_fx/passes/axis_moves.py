"""Operations that only move the time axis, or fold it into the clips' axis and back."""

from __future__ import annotations

import torch
from torch import fx

from .analysis import PACKED, Layout, TimeAnalysis

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


def moved(node: fx.Node, found: TimeAnalysis, shapes: dict, three: dict) -> Layout | None:
    """The layout after an operation that moves the time axis, or folds it into the clips' and back,
    as in running a 2D network on all frames."""
    tensors = [n for n in node.all_input_nodes if n in found.tensors]
    if len(tensors) != 1 or found.layouts[tensors[0]].kind not in PACKED or three[node] is None:
        return None
    (source,), layout = tensors, found.layouts[tensors[0]]
    if node.target == "contiguous":
        found.axis_moves[node] = "same"
        return layout
    before, after = three[source], three[node]
    order = _axis_order(node, len(before))
    if order is not None and layout.kind != "rows" and order[0] == 0:
        time = order.index(2 if layout.kind == "frames" else 1)
        kind = {1: "swapped", 2: "frames"}.get(time)
        if kind is not None and (kind == "swapped" or len(after) == 5):
            found.axis_moves[node] = "permute"
            return Layout(kind, layout.lengths)
    if node.target in _RESHAPES and layout.kind != "frames":
        pairs = [(2, s[source], s[node]) for s in shapes.values()] + [(3, before, after)]
        folds = all(a == (n * b[1], *b[2:]) for n, b, a in pairs if len(b) > 1)
        unfolds = all(a == (n, b[0] // n, *b[1:]) for n, b, a in pairs)
        if (layout.kind == "swapped" and folds) or (layout.kind == "rows" and unfolds):
            found.axis_moves[node] = "fold" if layout.kind == "swapped" else "unfold"
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
