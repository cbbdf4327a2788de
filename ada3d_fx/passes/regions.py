"""Which nodes that run on runs of clips run together: densely, or on tokens alone."""

from __future__ import annotations

from typing import NamedTuple

from torch import fx

from .analysis import TimeAnalysis


class RegionNodes(NamedTuple):
    """The nodes of one region."""

    inside: list[fx.Node]  # in the order of the graph, with the size nodes and constants it needs
    inputs: list[fx.Node]  # nodes outside whose values it takes
    outputs: list[fx.Node]  # nodes inside whose values are used outside


class RegionMap:
    """Which densely run nodes run together: connected ones with no other operation between them.

    What acts on every token alone makes regions of its own in the same way, and attention of each image
    alone does so by itself.

    Sizes read off packed values (``size_nodes``), or off values per clip, are made anew in each
    region that uses them.

    Args:
        source: the graph.
        analysis: its analysis.
    """

    def __init__(self, source: fx.Graph, analysis: TimeAnalysis):
        self.source, self.analysis = source, analysis
        self.size_nodes = _size_nodes(analysis)
        self.of: dict[fx.Node, int] = {}  # node -> number of its region
        kinds = {node: "dense" for node in analysis.dense_nodes if node not in self.size_nodes}
        kinds |= {
            node: made.kind
            for node, made in analysis.layouts.items()
            if made.kind in ("tokens", "batches")
        }
        self.kinds = kinds
        depth: dict[fx.Node, int] = {}  # how many regions lie before a node
        for node in source.nodes:
            inputs, kind = node.all_input_nodes, kinds.get(node)
            depth[node] = max(
                [depth[n] + (kinds.get(n) not in (None, kind)) for n in inputs], default=0
            )
            if kind:
                near = {
                    self.of[n]
                    for n in inputs
                    if kinds.get(n) == kind != "batches" and depth[n] == depth[node]
                }
                region = min(near, default=len(self.of))
                self.of[node] = region
                for other, number in self.of.items():
                    if number in near:
                        self.of[other] = region

    def kind_of(self, region: int) -> str:
        """Return how a region runs: 'dense', 'tokens' or 'batches'."""
        return next(self.kinds[node] for node, number in self.of.items() if number == region)

    def nodes_of(self, region: int) -> RegionNodes:
        """List the nodes of a region, its inputs and its outputs."""
        members = {node for node, number in self.of.items() if number == region}
        needed = set(members)
        for node in reversed(self.source.nodes):
            if node in needed:
                needed.update(n for n in node.all_input_nodes if self._is_made_inside(n))
        nodes = list(self.source.nodes)
        return RegionNodes(
            inside=[n for n in nodes if n in needed],
            inputs=[n for n in nodes if n not in needed and any(u in needed for u in n.users)],
            outputs=[n for n in nodes if n in members and any(u not in needed for u in n.users)],
        )

    def _is_made_inside(self, node: fx.Node) -> bool:
        kind = self.analysis.layouts[node].kind
        # such as the number of clips, which is another in each run
        of_clips = kind == "clips" and node in self.analysis.plain
        return node in self.size_nodes or kind == "const" or of_clips


def _size_nodes(analysis: TimeAnalysis) -> set[fx.Node]:
    """The densely run nodes that only compute with sizes of packed values."""
    dense = set(analysis.dense_nodes)
    sizes: set[fx.Node] = set()
    for node in analysis.dense_nodes:
        inputs = node.all_input_nodes
        if node in analysis.plain and all(n in sizes or n not in dense for n in inputs):
            sizes.add(node)
    return sizes
