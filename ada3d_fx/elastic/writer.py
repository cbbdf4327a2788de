"""Writes a graph that was traced for T frames anew, with sizes and positions that follow the kept frames."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from ..packed.kept_times import (
    Blocks,
    Entries,
    drawn,
    follow_frames,
    size_for,
    with_part,
    written,
)
from ..packed.module_tree import CONSTANT
from ..tracing.concrete import DRAWS
from ..tracing.program import args_of, drop_unused, operation_name
from .labelling import Labeller
from .labels import Labels, Unfollowed
from .sums import Sum


class Growth(NamedTuple):
    """The size of an axis for n clips of u units: alone + per_clip n + (per_unit + both n) u."""

    alone: int
    per_clip: int
    per_unit: int
    both: int

    @property
    def is_fixed(self) -> bool:
        """Whether it is the same for all clips."""
        return not any(self[1:])


class ElasticWriter:
    """Writes the graph for clips whose frames are kept in units of ``unit``.

    Raises:
        Unfollowed: something in it cannot follow the frames.
    """

    def __init__(self, root: nn.Module, two: fx.Graph, three: fx.Graph, unit: int):
        self.root, self.source, self.unit = root, two, unit
        self.twin = _matched(two, three)
        fixed = self._fixed()
        self.two = Labeller(root, two, unit, fixed).run()
        self.three = Labeller(root, three, unit, {self.twin[n] for n in fixed}).run()
        self.fixed = fixed
        self.graph = fx.Graph()
        self.new: dict[fx.Node, fx.Node] = {}
        self.numbers: dict[Growth, fx.Node] = {}

    def write(self) -> fx.Graph:
        """Write the graph."""
        for node in self.source.nodes:
            if node.op == "placeholder":
                self.new[node] = self.graph.node_copy(node)
                self.times = self.graph.placeholder("times")
            else:
                made = self._written(node)
                made.meta = {k: v for k, v in node.meta.items() if k not in ("fake", "writes")}
                if "writes" in node.meta:
                    made.meta["writes"] = self.new.get(node.meta["writes"])
                self.new[node] = made
        drop_unused(self.graph, self.root)
        return self.graph

    def _fixed(self) -> set[fx.Node]:
        """The nodes that are the same for all clips, and for every number of clips."""
        fixed: set[fx.Node] = set()
        for node in self.source.nodes:
            other = self.twin[node]
            same = _shapes(node) == _shapes(other)
            if node.op == "get_attr" and str(node.target).startswith(CONSTANT):
                same = same and torch.equal(self._constant(node), self._constant(other))
            draws = node.target in DRAWS or operation_name(node) in ("bernoulli", "dropout")
            known = all(n in fixed for n in node.all_input_nodes)
            if node.op not in ("placeholder", "output") and same and known and not draws:
                fixed.add(node)
        return fixed

    def _constant(self, node: fx.Node) -> Tensor:
        return vars(self.root)[str(node.target)]

    # ---------------------------------------------------------------------------------- sizes

    def _growth(self, node: fx.Node, axis: int) -> Growth:
        """How the size of an axis follows the clips and the frames."""
        two, three = self.two, self.three
        vectors = [two.vector(node, axis), three.vector(self.twin[node], axis)]
        sizes = [two.of(node).shape[axis], three.of(self.twin[node]).shape[axis]]
        labelled = [0 if v is None else int((v >= 0).sum()) for v in vectors]
        if (vectors[0] is None) != (vectors[1] is None):
            raise Unfollowed(node, "it depends on the number of clips which frames it takes")
        return _growth(node, [a - b for a, b in zip(sizes, labelled)], labelled, two.num_units)

    def _place(self, node: fx.Node, axis: int, place: int, other: int) -> Growth:
        """How many entries of an axis lie before a place; ``other`` is the place for three clips."""
        alone: list[int] = []
        labelled: list[int] = []
        for graph, at, stop in ((self.two, node, place), (self.three, self.twin[node], other)):
            vector = graph.vector(at, axis)
            labels = torch.full((stop,), -1) if vector is None else vector[:stop].long()
            counts = torch.bincount(labels[labels >= 0], minlength=graph.num_units)
            if len(counts.unique()) > 1:
                raise Unfollowed(node, "it takes some of the frames only")
            alone.append(int((labels < 0).sum()))
            labelled.append(int((labels >= 0).sum()))
        return _growth(node, alone, labelled, self.two.num_units)

    def _number(self, growth: Growth) -> Any:
        """The size as a node of the graph, or as a plain number."""
        if growth.is_fixed:
            return growth.alone
        if growth not in self.numbers:
            with self.graph.inserting_after(self.times):
                self.numbers[growth] = self.graph.call_function(
                    size_for, (self.times, self.unit, *growth)
                )
        return self.numbers[growth]

    def _sizes(self, node: fx.Node) -> tuple[Any, ...]:
        return tuple(
            self._number(self._growth(node, axis)) for axis in range(len(self.two.of(node).shape))
        )

    def _follows_size(self, node: fx.Node) -> bool:
        labels = self.two.labels.get(node)
        if node in self.fixed or not isinstance(labels, Labels):
            return False
        return any(not self._growth(node, axis).is_fixed for axis in range(len(labels.shape)))

    # ------------------------------------------------------------------------------ operations

    def _written(self, node: fx.Node) -> fx.Node:
        name = operation_name(node)
        if node in self.fixed:
            return self.graph.node_copy(node, self.new.__getitem__)
        if node.target in DRAWS:
            return self._drawn(node)
        if node.op in ("get_attr", "call_function", "call_method") and self._follows_size(node):
            if node.op == "get_attr":
                return self._literal(node)
            if name in _WRITERS:
                return _WRITERS[name](self, node)
        if name == "getitem" and isinstance(args_of(node)[0].meta.get("fake"), Tensor):
            return self._item(node)
        if node.target in (written, with_part):
            target, index, value = args_of(node)
            index = self._index(node, target, index)
            values = self._value(node, target), self._value(node, value)
            return self.graph.call_function(node.target, (values[0], index, values[1]))
        if name == "einsum":
            return self._summed(node)
        if name in _SIZED and any(self._follows_size(n) for n in node.all_input_nodes):
            raise Unfollowed(node, f"{name} has sizes that cannot follow the frames")
        return self.graph.node_copy(node, lambda source: self._value(node, source))

    def _value(self, user: fx.Node, source: Any) -> Any:
        """What a user takes: a constant that varies along time is indexed by the kept frames."""
        if not isinstance(source, fx.Node):
            return source
        axes = self.two.follows.get((user, source))
        if axes is None:
            return self.new[source]
        clips = self._blocks(user)
        return self._followed(user, source, axes, clips)

    def _followed(
        self, user: fx.Node, source: fx.Node, axes: dict[int, Tensor], clips: Blocks
    ) -> fx.Node:
        if clips.axis in axes:
            raise Unfollowed(user, "frames of several clips lie along an axis of a constant")
        return self._taken(source, axes, len(self.two.of(user).shape), clips)

    def _taken(self, source: fx.Node, axes: dict[int, Tensor], ndim: int, clips: Blocks) -> fx.Node:
        entries = tuple(_entries(vector, self.two.num_units) for vector in axes.values())
        args = (self.new[source], self.times, self.unit, ndim, tuple(axes), entries, clips)
        return self.graph.call_function(follow_frames, args)

    def _summed(self, node: fx.Node) -> fx.Node:
        """An einsum; its constants that follow the frames get an axis of the clips."""
        what = Sum.of(node)
        operands: list[fx.Node] = []
        letters: list[str] = []
        for source, own in zip(what.operands, what.letters):
            axes = self.two.follows.get((node, source))
            value = self.new[source]
            if axes is not None:
                clips = self._blocks(node)
                own = what.result[clips.axis] + own
                axes = {1 + axis: vector for axis, vector in axes.items()}
                value = self._taken(source, axes, len(own), Blocks(0, clips.outer, clips.inner))
            operands.append(value)
            letters.append(own)
        equation = Sum(tuple(operands), tuple(letters), what.result).equation()
        return self.graph.call_function(torch.einsum, (equation, *operands))

    def _blocks(self, node: fx.Node) -> Blocks:
        """How a value holds the clips."""
        found = self.two.clip_vector(node)
        if found is None:
            raise Unfollowed(node, "a constant of all frames meets a value without clips")
        axis, vector = found
        clips = self.two.num_clips
        changes = int((vector != vector[0]).int().argmax())
        outer = len(vector) // (changes * clips)
        wanted = torch.arange(clips).repeat_interleave(changes).repeat(outer)
        if len(wanted) != len(vector) or not torch.equal(wanted.to(vector), vector):
            raise Unfollowed(node, "the clips do not lie in blocks along an axis of it")
        growth = self._growth(node, axis)
        if growth != Growth(0, changes * outer, 0, 0):
            raise Unfollowed(node, "clips and frames lie along one axis where a constant is added")
        return Blocks(axis, outer, changes)

    def _literal(self, node: fx.Node) -> fx.Node:
        """A constant of the model's code with an entry for each clip: one entry, repeated."""
        value = self._constant(node)
        for axis in range(value.ndim):
            if not self._growth(node, axis).is_fixed:
                first = value.narrow(axis, 0, 1)
                if not bool((value == first).all()):
                    raise Unfollowed(node, "its code makes another constant for each clip")
                value = first
        name = f"{node.target}_of_one"
        self.root.__dict__[name] = value.clone()
        one = self.graph.get_attr(name)
        return self.graph.call_method("expand", (one, self._sizes(node)))

    def _reshaped(self, node: fx.Node) -> fx.Node:
        source = args_of(node)[0]
        return self.graph.call_function(torch.reshape, (self.new[source], self._sizes(node)))

    def _expanded(self, node: fx.Node) -> fx.Node:
        source = args_of(node)[0]
        value = self.new[source]
        if source in self.fixed:
            shape, out = tuple(source.meta["fake"].shape), self.two.of(node).shape
            shift = len(out) - len(shape)
            axes = {
                axis: vector
                for axis, vector in self.two.axes[node].items()
                if axis >= shift and shape[axis - shift] > 1
            }
            if axes:
                per_clip = [a for a in range(len(out)) if self._growth(node, a) == (0, 1, 0, 0)]
                if len(per_clip) != 1:
                    raise Unfollowed(node, "a constant of all frames is repeated, not once a clip")
                value = self._followed(node, source, axes, Blocks(per_clip[0], 1, 1))
        return self.graph.call_method("expand", (value, self._sizes(node)))

    def _repeated(self, node: fx.Node) -> fx.Node:
        source = args_of(node)[0]
        shape, out = tuple(source.meta["fake"].shape), self.two.of(node).shape
        shift = len(out) - len(shape)
        repeats: list[Any] = []
        for axis in range(len(out)):
            made = self._growth(node, axis)
            had = Growth(1, 0, 0, 0)
            if axis >= shift:
                had = Growth(shape[axis - shift], 0, 0, 0)
                if source not in self.fixed:
                    had = self._growth(source, axis - shift)
            times = out[axis] // (shape[axis - shift] if axis >= shift else 1)
            if made == Growth(*(times * n for n in had)):
                repeats.append(times)
            elif had == Growth(1, 0, 0, 0):
                repeats.append(self._number(made))
            else:
                raise Unfollowed(node, "it repeats a value in a way that cannot follow the frames")
        return self.graph.call_method("repeat", (self.new[source], *repeats))

    def _item(self, node: fx.Node) -> fx.Node:
        source = args_of(node)[0]
        index = self._index(node, source, args_of(node)[1])
        return self.graph.call_function(operator.getitem, (self.new[source], index))

    def _index(self, node: fx.Node, source: fx.Node, index: Any) -> Any:
        """An index whose places follow the frames of ``source``."""
        other = args_of(self.twin[node])[1]
        single = not isinstance(index, tuple)
        parts, others = ((index,), (other,)) if single else (index, other)
        ndim = len(self.two.of(source).shape)
        taken = sum(part is not None and part is not Ellipsis for part in parts)
        made: list[Any] = []
        axis = out = 0
        for part, same in zip(parts, others):
            if part is Ellipsis:
                axis, out = axis + ndim - taken, out + ndim - taken
                made.append(part)
            elif part is None:
                out += 1
                made.append(part)
            else:
                made.append(self._part(node, source, axis, out, part, same))
                axis, out = axis + 1, out + isinstance(part, slice)
        return made[0] if single else tuple(made)

    def _part(
        self, node: fx.Node, source: fx.Node, axis: int, out: int, part: Any, other: Any
    ) -> Any:
        if not isinstance(part, (int, slice)):
            raise Unfollowed(node, "it takes entries by a list or a mask")
        if self._growth(source, axis).is_fixed:
            return _plain(part)
        sizes = self.two.of(source).shape[axis], self.three.of(self.twin[source]).shape[axis]
        if isinstance(part, int):
            places = [p % size for p, size in zip((part, other), sizes)]
            return self._number(self._place(source, axis, *places))
        (start, stop, step), (first, last, _) = part.indices(sizes[0]), other.indices(sizes[1])
        if step != 1:
            raise Unfollowed(node, "it takes every other entry along the frames or clips")
        begin = self._place(source, axis, start, first)
        if stop == sizes[0]:
            return slice(self._number(begin), None, None)
        try:
            end = self._place(source, axis, stop, last)
        except Unfollowed:  # such as one entry for each clip, which all are the same
            if node.target in (written, with_part):
                raise
            length = self._growth(node, out)
            end = Growth(*(a + b for a, b in zip(begin, length)))
        return slice(self._number(begin), self._number(end), None)

    def _drawn(self, node: fx.Node) -> fx.Node:
        options = {k: v for k, v in node.kwargs.items() if k != "device"}
        args = (self.times, operation_name(node), self._sizes(node))
        return self.graph.call_function(drawn, args, options)


_WRITERS = {
    **dict.fromkeys(("reshape", "view", "unflatten"), ElasticWriter._reshaped),
    "expand": ElasticWriter._expanded,
    "repeat": ElasticWriter._repeated,
}
_SIZED = {"reshape", "view", "unflatten", "narrow", "select", "split", "repeat_interleave"}


def _plain(part: Any) -> Any:
    if isinstance(part, slice):
        return slice(*(None if n is None else int(n) for n in (part.start, part.stop, part.step)))
    return int(part)


def _growth(node: fx.Node, alone: Sequence[int], labelled: Sequence[int], units: int) -> Growth:
    """Solve for what a size has for two and for three clips."""
    made: list[int] = []
    for two, three in (alone, [n // units for n in labelled]):
        made += [two - 2 * (three - two), three - two]
    if any(n % units for n in labelled) or min(made) < 0:
        raise Unfollowed(node, "one of its sizes follows neither the frames nor the clips")
    return Growth(*made)


def _entries(vector: Tensor, units: int) -> Entries:
    places = torch.arange(len(vector))
    of_unit = tuple(tuple(places[vector == unit].tolist()) for unit in range(units))
    of_none = tuple(places[vector < 0].tolist())
    order = [*of_none, *itertools.chain.from_iterable(of_unit)]
    return of_unit, of_none, order == sorted(order)


def _matched(two: fx.Graph, three: fx.Graph) -> dict[fx.Node, fx.Node]:
    """The node of the graph for three clips that stands for each of the one for two.

    Raises:
        Unfollowed: the two are not alike.
    """
    pairs = list(zip(two.nodes, three.nodes))
    for node, other in pairs:
        constants = all(str(n.target).startswith(CONSTANT) for n in (node, other))
        if node.op != other.op or not (node.target == other.target or constants):
            raise Unfollowed(node, "its code is another for three clips than for two")
    if len(two.nodes) != len(three.nodes):
        raise Unfollowed(pairs[-1][0], "its code is another for three clips than for two")
    return dict(pairs)


def _shapes(node: fx.Node) -> Any:
    def of(value: Any) -> Any:
        if isinstance(value, Tensor):
            return tuple(value.shape)
        return tuple(map(of, value)) if isinstance(value, (tuple, list)) else None

    return of(node.meta.get("fake"))
