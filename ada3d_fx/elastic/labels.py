"""Which clip and which unit of frames every entry of every value belongs to.

Each value of a graph that was traced for N clips of T frames gets labels: small tensors that broadcast to
its shape, and hold the number of the clip and of the unit of frames of each entry, or -1 for entries that
belong to none, such as a class token. What moves values around moves their labels, by the very same
operation; what joins values joins them; what sums over an axis lets the labels along it go. A value has
labels of time several times if it depends on several times, as a map of attention does: on that of the
row and that of the column.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from ..errors import Reason
from ..tracing.program import module_path

NONE = -1


class Unfollowed(Exception):
    """What does not let sizes and positions follow the kept frames; ``reason`` says where and why."""

    def __init__(self, node: fx.Node, why: str):
        super().__init__(why)
        self.node = node
        self.reason = Reason(module_path(node), why)


@dataclass(frozen=True, eq=False)
class Labels:
    """The labels of one value, each a tensor of the value's rank that broadcasts to its shape."""

    shape: tuple[int, ...]
    times: tuple[Tensor, ...] = ()  # the units on which entries depend
    clips: tuple[Tensor, ...] = ()  # the clips on which they depend: one tensor, or none
    # units with which entries come and go though they do not depend on them, such as the class tokens
    # that are put before the tokens of each frame
    sizes: tuple[Tensor, ...] = ()

    def all(self) -> tuple[Tensor, ...]:
        """Return the tensors of all kinds."""
        return (*self.times, *self.clips, *self.sizes)

    def of_kind(self, kind: str) -> tuple[Tensor, ...]:
        """Return those of one of `KINDS`."""
        return getattr(self, kind)


KINDS = ("times", "clips", "sizes")


@dataclass(eq=False)
class LabelledGraph:
    """The labels of a graph's values for clips of one number and length."""

    num_units: int
    num_clips: int
    labels: dict[fx.Node, Any] = field(default_factory=dict)  # Labels, or a tuple of several
    # the axes of a value that hold time, and the unit of each of their entries
    axes: dict[fx.Node, dict[int, Tensor]] = field(default_factory=dict)
    # what is the same for all clips -> the entry of time that meets it: user, operand -> axes of the
    # user's result along which the operand is to follow the frames, with the labels along them
    follows: dict[tuple[fx.Node, fx.Node], dict[int, Tensor]] = field(default_factory=dict)
    # labels that a value must have, since it meets a value that has them
    seeds: dict[fx.Node, list[Tensor]] = field(default_factory=dict)

    def of(self, node: fx.Node) -> Labels:
        """Return the labels of a node that is one tensor."""
        labels = self.labels[node]
        assert isinstance(labels, Labels), node
        return labels

    def vector(self, node: fx.Node, axis: int) -> Tensor | None:
        """Return the unit of each entry of an axis; None where the axis holds no time."""
        return self.axes[node].get(axis)

    def vectors(self, labels: Labels, node: fx.Node) -> dict[int, Tensor]:
        """Return the axes that hold time, and the unit of each of their entries.

        Raises:
            Unfollowed: units cannot be taken out of the value along an axis.
        """
        found: dict[int, Tensor] = {}
        for label in joined([*labels.times, *labels.sizes]):
            axis, vector = one_axis(label, node)
            counts = torch.bincount(vector[vector >= 0].long(), minlength=self.num_units)
            if len(counts.unique()) > 1:
                raise Unfollowed(node, "it takes some of the frames only")
            if axis in found:
                raise Unfollowed(node, "one axis holds two times")
            found[axis] = vector
        return found

    def clip_vector(self, node: fx.Node) -> tuple[int, Tensor] | None:
        """Return the axis that holds the clips, and the clip of each of its entries."""
        clips = self.of(node).clips
        return one_axis(clips[0], node) if clips else None


def one_axis(label: Tensor, node: fx.Node) -> tuple[int, Tensor]:
    """Return the axis each of whose entries has one label, and those labels.

    Raises:
        Unfollowed: there is none.
    """
    for axis in range(label.ndim):
        others = [a for a in range(label.ndim) if a != axis and label.shape[a] > 1]
        high = label.amax(others, keepdim=True) if others else label
        known = label.masked_fill(label < 0, torch.iinfo(label.dtype).max)
        low = known.amin(others, keepdim=True) if others else known
        if label.shape[axis] > 1 and bool(((high < 0) | (high == low)).all()):
            return axis, high.flatten()
    if len(label[label >= 0].unique()) == 1:
        raise Unfollowed(node, "it takes some of the frames only")
    raise Unfollowed(node, "the frames do not lie along one axis of it")


def compact(label: Tensor) -> Tensor:
    """Narrow the axes along which all entries are the same to one."""
    narrow = label
    for axis, size in enumerate(label.shape):
        first = narrow.narrow(axis, 0, 1) if size else narrow
        if size > 1 and (narrow.stride(axis) == 0 or bool((narrow == first).all())):
            narrow = first
    return narrow.clone() if narrow.shape != label.shape else label  # it keeps no large memory


def reshaped(label: Tensor, before: Sequence[int], after: Sequence[int]) -> Tensor:
    """Reshape a label as its value is, and expand only what the reshape takes apart or merges.

    Args:
        label: broadcasts to ``before``.
        before: the shape of the value.
        after: its new shape.
    """
    wide: list[int] = []  # the label's shape where it must be expanded, and what it becomes
    made: list[int] = []
    for old, new in _groups(before, after):
        whole = any(label.shape[axis] > 1 for axis in old)
        wide += [before[axis] if whole else 1 for axis in old]
        made += [after[axis] if whole else 1 for axis in new]
    return label.expand(wide).reshape(made)


def _groups(before: Sequence[int], after: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """The axes of two shapes in groups, in order, that have as many entries in both."""
    old: list[int] = []
    new: list[int] = []
    left = iter(range(len(before)))
    right = iter(range(len(after)))
    sizes = [1, 1]
    while True:
        if sizes[0] == sizes[1] and (old or new):
            yield old, new
            old, new, sizes = [], [], [1, 1]
        take = sizes[0] <= sizes[1]
        axis = next(left if take else right, None)
        if axis is None:
            axis = next(right if take else left, None)
            take = not take
            if axis is None:
                break
        (old if take else new).append(axis)
        sizes[0 if take else 1] *= before[axis] if take else after[axis]
    if old or new:
        yield old, new


def along(vector: Tensor, axis: int, ndim: int) -> Tensor:
    """Give a vector of labels the rank of a value, along one of its axes."""
    shape = [1] * ndim
    shape[axis] = len(vector)
    return vector.view(shape)


def joined(labels: Iterable[Tensor]) -> list[Tensor]:
    """Join labels that agree wherever both are known; those that do not stay apart."""
    made: list[Tensor] = []
    for label in labels:
        for place, other in enumerate(made):
            if bool(((label == other) | (label < 0) | (other < 0)).all()):
                made[place] = compact(torch.maximum(label, other))
                break
        else:
            if bool((label >= 0).any()):
                made.append(label)
    return made


def equal(one: Tensor | None, other: Tensor | None) -> bool:
    """Tell whether two vectors of labels, or none, are the same."""
    return one is other or (one is not None and other is not None and torch.equal(one, other))
