"""Which densely run nodes run together."""

from __future__ import annotations

from torch import fx

from .analysis import TimeAnalysis


class RegionMap:
    """Which densely run nodes run together: connected ones with no packed operation between them.

    Sizes read off packed values (hosts) are made anew in each region that uses them.
    """

    def __init__(self, source: fx.Graph, found: TimeAnalysis):
        self.source, self.found = source, found
        dense = set(found.dense_nodes)
        self.size_nodes: set[fx.Node] = set()
        for node in found.dense_nodes:
            inputs = node.all_input_nodes
            if node not in found.tensors and all(
                n in self.size_nodes or n not in dense for n in inputs
            ):
                self.size_nodes.add(node)
        self.of: dict[fx.Node, int] = {}
        depth: dict[fx.Node, int] = {}
        for node in source.nodes:
            inputs = [n for n in node.all_input_nodes if n not in self.size_nodes]
            inside = node in dense and node not in self.size_nodes
            depth[node] = max(
                [depth[n] + (n in dense and not inside) for n in inputs], default=0
            )  # leaving a region counts one
            if inside:
                near = {self.of[n] for n in inputs if n in self.of and depth[n] == depth[node]}
                region = min(near, default=len(self.of))
                self.of[node] = region
                for other, number in self.of.items():
                    self.of[other] = region if number in near else number

    def parts(self, region: int) -> tuple[list[fx.Node], list[fx.Node], list[fx.Node]]:
        """Nodes of a region in order (hosts included), its inputs, and those whose values are used
        outside."""
        members = {node for node, number in self.of.items() if number == region}
        needed = set(members)
        for node in reversed(self.source.nodes):  # hosts and constants are made inside
            if node in needed:
                needed.update(
                    n
                    for n in node.all_input_nodes
                    if n in self.size_nodes or self.found.layouts[n].kind == "const"
                )
        nodes = [node for node in self.source.nodes if node in needed]
        inputs = [
            node
            for node in self.source.nodes
            if node not in needed and any(user in needed for user in node.users)
        ]
        outputs = [
            node
            for node in nodes
            if node in members and any(user not in needed for user in node.users)
        ]
        return nodes, inputs, outputs
