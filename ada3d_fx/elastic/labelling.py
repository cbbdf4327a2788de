"""Labels all values of a graph, and finds the constants along which frames must be followed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, fx, nn

from ..tracing.concrete import DRAWS
from ..tracing.program import operation_name
from ..tracing.rules import ELEMENTWISE
from .label_moves import MOVES, moved_back
from .label_rules import POINTWISE, LabelRules
from .labels import LabelledGraph, Labels, Unfollowed, along, compact, joined


class Demand(Exception):
    """A value must have labels that it has not: the graph is labelled again from it on."""

    def __init__(self, node: fx.Node):
        super().__init__()
        self.node = node


class Labeller:
    """Labels the values of a graph.

    Args:
        root: where module paths start.
        graph: clips -> scores, traced with sizes as numbers; its nodes keep their values on the meta
            device.
        unit: the frames of a unit.
        fixed: the nodes that are the same for all clips, and for every number of clips.
    """

    def __init__(self, root: nn.Module, graph: fx.Graph, unit: int, fixed: set[fx.Node]):
        self.graph, self.fixed = graph, fixed
        (clips,) = (node for node in graph.nodes if node.op == "placeholder")
        num_clips, _, num_frames = clips.meta["fake"].shape[:3]
        self.made = LabelledGraph(num_frames // unit, num_clips)
        self.rules = LabelRules(root, unit, fixed, self.made, self._require)

    def run(self) -> LabelledGraph:
        """Label all values.

        Raises:
            Unfollowed: an operation for whose labels there is no rule, or that needs all frames.
        """
        nodes = [node for node in self.graph.nodes if node.op != "output"]
        places = {node: place for place, node in enumerate(nodes)}
        place = 0
        while place < len(nodes):
            node = nodes[place]
            try:
                self.made.labels[node] = self._checked(node)
                place += 1
            except Demand as demand:
                place = places[demand.node]
        return self.made

    def _checked(self, node: fx.Node) -> Any:
        labels = self.rules.label(node)
        if isinstance(labels, Labels):
            for seed in self.made.seeds.get(node, []):
                labels = self._with(labels, seed)
            self.made.axes[node] = self.made.vectors(labels, node)
            clips = [len(label[label >= 0].unique()) for label in labels.clips]
            if clips not in ([], [self.made.num_clips]):
                raise Unfollowed(node, "it joins values of several clips, or takes some of them")
        return labels

    def _with(self, labels: Labels, seed: Tensor) -> Labels:
        return replace(labels, sizes=tuple(joined([*labels.sizes, seed])))

    def _require(
        self, user: fx.Node, source: fx.Node, own: Labels, at: int, vector: Tensor, ndim: int
    ) -> None:
        """Require that a value has labels along an axis, counted from the last."""
        if -at > len(own.shape) or own.shape[at] == 1:
            return
        axis = at + len(own.shape)
        if any(label.shape[axis] > 1 for label in (*own.times, *own.sizes)):
            return  # `joined` has compared them
        if source in self.fixed:
            self.made.follows.setdefault((user, source), {})[at + ndim] = vector
            return
        self._demand(source, along(vector, axis, len(own.shape)))

    def _demand(self, node: fx.Node, label: Tensor) -> None:
        """Give a value labels where it is made, and label the graph again.

        Raises:
            Demand: done.
            Unfollowed: it depends on the clips, or it is made in a way that cannot follow frames.
        """
        fake = node.meta["fake"]
        name = operation_name(node)
        sources = [n for n in node.all_input_nodes if isinstance(n.meta.get("fake"), Tensor)]
        if node.op != "get_attr" and len(sources) == 1 and name in (*MOVES, "getitem"):
            (source,) = sources
            shape = tuple(source.meta["fake"].shape)
            moved = moved_back(node, source, shape, label.expand(tuple(fake.shape)))
            if moved is not None and source not in self.fixed:
                self._demand(source, moved)
            if name not in ("expand", "repeat"):
                raise Unfollowed(node, "it has as many entries as there are frames, but not theirs")
        elif node.target in ELEMENTWISE or name in POINTWISE:
            for source in sources:
                shape = tuple(source.meta["fake"].shape)
                aligned = _ranked_down(label, len(shape))
                if source not in self.fixed and any(
                    n > 1 and shape[axis] == n for axis, n in enumerate(aligned.shape)
                ):
                    self._demand(source, aligned)
        elif node.op != "get_attr" and node.target not in DRAWS and name != "einsum":
            raise Unfollowed(node, "it has as many entries as there are frames, but not theirs")
        self.made.seeds.setdefault(node, []).append(compact(label))
        raise Demand(node)


def _ranked_down(label: Tensor, ndim: int) -> Tensor:
    while label.ndim > ndim:
        label = label[0]
    return label
