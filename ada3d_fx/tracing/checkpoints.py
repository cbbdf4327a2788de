"""Nodes that are computed again in backward, by the model's own code or as asked -> one call each."""

from __future__ import annotations

import operator
from collections.abc import Sequence

from torch import fx, nn

from ..packed.module_tree import free_name
from ..packed.regions import Checkpointed

# whose checkpoints they are: of the model's own code, or of a block where `convert` was asked
OWN, BLOCK = "own", "block"


def blocks(root: nn.Module) -> frozenset[nn.Module]:
    """Find the blocks of a model: items of lists of modules that have parts, but no blocks, inside."""
    found: set[nn.Module] = set()
    for module in root.modules():
        if isinstance(module, (nn.Sequential, nn.ModuleList)):
            items = [item for item in module if any(True for _ in item.children())]
            found.update(items if len(items) > 1 else [])
    return frozenset(m for m in found if not found.intersection(list(m.modules())[1:]))


def subgraph(
    nodes: Sequence[fx.Node], inputs: Sequence[fx.Node], outputs: Sequence[fx.Node]
) -> fx.Graph:
    """Copy ``nodes`` as a graph of their own, from ``inputs`` to a tuple of ``outputs``."""
    graph = fx.Graph()
    inside: dict[fx.Node, fx.Node] = {node: graph.placeholder(node.name) for node in inputs}
    for node in nodes:
        inside[node] = graph.node_copy(node, inside.__getitem__)
    graph.output(tuple(inside[node] for node in outputs))
    return graph


def tagged(new: fx.Node, *sources: fx.Node) -> fx.Node:
    """Mark ``new`` as checkpointed if all that it stands for is, together; return it."""
    tags = {source.meta.get("checkpoint") for source in sources}
    if len(tags) == 1:
        new.meta["checkpoint"] = tags.pop()
    return new


def checkpointed(root: nn.Module, graph: fx.Graph) -> dict[str, Checkpointed]:
    """Turn the nodes of each checkpoint into one call.

    A checkpoint woven into what is outside of it stays as it is: that costs memory, but is right.

    Args:
        root: where the paths in ``graph`` start.
        graph: it is changed.

    Returns:
        The modules that the new calls name.
    """
    groups: dict[tuple[str, int], list[fx.Node]] = {}
    for node in graph.nodes:
        if node.meta.get("checkpoint") is not None:
            groups.setdefault(node.meta["checkpoint"], []).append(node)
    made: dict[str, Checkpointed] = {}
    for (kind, _), nodes in groups.items():
        name = free_name(root, f"checkpoint_{len(made)}")
        region = carve(graph, nodes, name)
        if region is not None:
            made[name] = Checkpointed(root, region, statistics_once=kind == BLOCK)
    return made


def carve(graph: fx.Graph, nodes: Sequence[fx.Node], name: str) -> fx.Graph | None:
    """Put one call in place of some nodes.

    Args:
        graph: it is changed.
        nodes: in its order.
        name: of the module that is called; it takes what the nodes take from outside, and returns
            a tuple of what others take of theirs, both in the order of the graph.

    Returns:
        The graph of that module; None if the nodes are woven into what is outside of them.
    """
    members = set(nodes)
    inputs = list(dict.fromkeys(n for m in nodes for n in m.all_input_nodes if n not in members))
    if not _before(nodes[0], graph).issuperset(inputs):
        return None
    outputs = [node for node in nodes if any(user not in members for user in node.users)]
    inside = subgraph(nodes, inputs, outputs)
    with graph.inserting_before(nodes[0]):
        result = graph.create_node("call_module", name, tuple(inputs), {}, name)
        for index, node in enumerate(outputs):
            item = graph.call_function(operator.getitem, (result, index))
            for user in [user for user in node.users if user not in members]:
                user.replace_input_with(node, item)
    for node in reversed(nodes):
        graph.erase_node(node)
    return inside


def _before(node: fx.Node, graph: fx.Graph) -> set[fx.Node]:
    nodes = list(graph.nodes)
    return set(nodes[: nodes.index(node)])
