"""A traced forward as a graph: what is dead in it, and where its nodes come from."""

from __future__ import annotations

import operator
from dataclasses import dataclass

from torch import fx

from ..errors import Reason


@dataclass(frozen=True, eq=False)
class Program:
    """One traced forward."""

    graph: fx.Graph  # clips -> scores; its nodes keep the paths of the modules they come from
    untraceable: list[Reason]  # the modules in it that were kept whole, as they cannot be traced

    def agrees_with(self, other: Program) -> bool:
        """Tell whether two programs do the same, node by node."""
        return _lines(self.graph) == _lines(other.graph)


def _lines(graph: fx.Graph) -> list:
    return [(node.format_node(), node.meta.get("checkpoint")) for node in graph.nodes]


def drop_unused(graph: fx.Graph) -> None:
    """Erase the nodes whose values nobody uses, but for those that write in place."""
    for node in reversed(graph.nodes):
        if not node.users and node.op not in ("placeholder", "output") and not _in_place(node):
            graph.erase_node(node)


def _in_place(node: fx.Node) -> bool:
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    method = node.op == "call_method" and name.endswith("_") and not name.endswith("__")
    return method or (
        node.op == "call_function" and name.startswith("i") and hasattr(operator, name)
    )


def module_path(node: fx.Node) -> str:
    """Return the path of the module in whose forward ``node`` was made, or the node's own name."""
    if node.op == "call_module":
        return str(node.target)
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values()]
    return paths[-1] if paths and paths[-1] else node.name
