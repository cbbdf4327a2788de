"""Which densely run nodes run together."""

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
    """Which densely run nodes run together: connected ones with no packed operation between them.

    Sizes read off packed values (``size_nodes``), or off values per clip, are made anew in each
    region that uses them.

    Args:
        source: the graph.
        analysis: its analysis.
    """

    def __init__(self, source: fx.Graph, analysis: TimeAnalysis):
        self.source, self.analysis = source, analysis
        self.size_nodes = _size_nodes(analysis)
        self.of: dict[fx.Node, int] = {}  # densely run node -> number of its region
        dense = set(analysis.dense_nodes)
        depth: dict[fx.Node, int] = {}  # how many regions lie before a node
        for node in source.nodes:
            inputs = node.all_input_nodes
            inside = node in dense and node not in self.size_nodes
            depth[node] = max([depth[n] + (n in dense and not inside) for n in inputs], default=0)
            if inside:
                near = {self.of[n] for n in inputs if n in self.of and depth[n] == depth[node]}
                region = min(near, default=len(self.of))
                self.of[node] = region
                for other, number in self.of.items():
                    if number in near:
                        self.of[other] = region

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
