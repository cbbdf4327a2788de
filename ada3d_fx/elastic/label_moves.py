"""What operations that move entries do to labels: the same as to the entries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from ..tracing.program import args_of, operation_name
from .labels import NONE, Labels, Unfollowed, reshaped

MOVES = {
    *("reshape", "view", "permute", "transpose", "swapaxes", "movedim", "flatten", "unflatten"),
    *("squeeze", "unsqueeze", "contiguous", "clone", "expand", "repeat", "detach", "getattr"),
    *("to", "float", "double", "half", "bfloat16"),
}


def replay(node: fx.Node, source: fx.Node, value: Tensor) -> Any:
    """Do to ``value`` what a node does to ``source``.

    Raises:
        Unfollowed: it depends on other values, such as a list of entries.
    """
    if set(node.all_input_nodes) != {source}:
        raise Unfollowed(node, "it takes entries by a list or a mask")
    args, kwargs = fx.map_arg((args_of(node), node.kwargs), lambda n: value if n is source else n)
    if node.op == "call_method":
        # labels do not lie in memory as values do
        method = "reshape" if node.target == "view" else str(node.target)
        return getattr(args[0], method)(*args[1:], **kwargs)
    function: Any = node.target
    return function(*args, **kwargs)


def moved_back(
    node: fx.Node, source: fx.Node, shape: tuple[int, ...], label: Tensor
) -> Tensor | None:
    """Find what labels a source of this shape must have for its moved entries to have these.

    Returns:
        None if an entry of it is moved to places of several labels.
    """
    if operation_name(node) == "getitem" and isinstance(args_of(node)[1], tuple):
        parts = args_of(node)[1]
        if all(part is None or part == slice(None) for part in parts):  # it adds axes only
            return label.squeeze([axis for axis, part in enumerate(parts) if part is None])
    numbers = torch.arange(int(torch.Size(shape).numel())).view(shape)
    index = replay(node, source, numbers).flatten()
    back = torch.full(numbers.shape, NONE, dtype=label.dtype).flatten()
    back[index] = label.flatten()
    return back.view(shape) if torch.equal(back[index], label.flatten()) else None


def label_of(labels: Labels, kind: str, place: int) -> Tensor:
    """Return one of the labels of a kind, or one that says that entries belong to nothing."""
    own = labels.of_kind(kind)
    none = torch.full((1,) * len(labels.shape), NONE, dtype=torch.int16)
    return own[place] if place < len(own) else none


def written_shape(shape: tuple[int, ...], index: Any, label: Tensor, other: Tensor) -> list[int]:
    """A value's shape, but for axes that an index takes whole and along which labels are the same."""
    parts = index if isinstance(index, tuple) else (index,)
    if not all(isinstance(part, slice) for part in parts):
        return list(shape)
    parts = (*parts, *[slice(None)] * (len(shape) - len(parts)))
    aligned = ranked(other, len(shape))
    return [
        1 if part == slice(None) and label.shape[axis] == aligned.shape[axis] == 1 else size
        for axis, (size, part) in enumerate(zip(shape, parts))
    ]


def joined_along(axis: int, parts: Sequence[Tensor], labels: Sequence[Labels]) -> Tensor:
    """Concatenate labels, expanded only where one of them must be."""
    ndim = len(labels[0].shape)
    wide = [max(part.shape[a] for part in parts) for a in range(ndim)]
    expanded = []
    for part, own in zip(parts, labels):
        shape = [own.shape[axis] if a == axis else wide[a] for a in range(ndim)]
        expanded.append(part.expand(shape))
    return torch.cat(expanded, axis)


_RESHAPES = {"reshape", "view", "flatten", "unflatten", "squeeze", "unsqueeze"}
_SAME = {"contiguous", "clone", "detach", "to", "float", "double", "half", "bfloat16"}


def moved_label(node: fx.Node, source: fx.Node, label: Tensor, shape: tuple[int, ...]) -> Any:
    """What a node that moves entries makes of a label of its source."""
    name, fake = operation_name(node), node.meta["fake"]
    if set(node.all_input_nodes) == {source} and isinstance(fake, Tensor):
        after = tuple(fake.shape)
        if name in _SAME:
            return label
        if name in _RESHAPES:
            return reshaped(label, shape, after)
        if name == "expand":
            return ranked(label, len(after))
    return replay(node, source, label.expand(shape))


def ranked(label: Tensor, ndim: int) -> Tensor:
    """Give a label a rank, by axes of one entry before its own."""
    return label[(None,) * (ndim - label.ndim) + (...,)]
