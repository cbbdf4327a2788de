"""A traced forward as a graph: what is dead in it, and where its nodes come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from ..errors import Reason


@dataclass(frozen=True, eq=False)
class Program:
    """One traced forward."""

    graph: fx.Graph  # clips -> scores; its nodes keep the paths of the modules they come from
    untraceable: list[Reason]  # the modules in it that were kept whole, as they cannot be traced
    observed_writers: dict[
        str, bool
    ]  # module path -> whether it writes, where that is seen elsewhere

    def agrees_with(self, other: Program) -> bool:
        """Tell whether two programs do the same, node by node."""
        return _lines(self.graph) == _lines(other.graph)


def _lines(graph: fx.Graph) -> list:
    return [(node.format_node(), node.meta.get("checkpoint")) for node in graph.nodes]


def drop_unused(graph: fx.Graph, root: nn.Module) -> None:
    """Erase the nodes whose values nobody uses, but for those that write in place.

    Args:
        graph: it is changed.
        root: where its module paths start.
    """
    for node in reversed(graph.nodes):
        if node.users or node.op in ("placeholder", "output"):
            continue
        if node.op == "call_module":
            in_place = getattr(root.get_submodule(str(node.target)), "inplace", False)
        else:
            in_place = writes(node.target) or node.kwargs.get("inplace", False)
        if not in_place:
            graph.erase_node(node)


# +=, and so on, without the underscores around them
AUGMENTED = {
    *("iadd", "iand", "iconcat", "ifloordiv", "ilshift", "imatmul", "imod", "imul"),
    *("ior", "ipow", "irshift", "isub", "itruediv", "ixor", "setitem"),
}


def writes(target: Any) -> bool:
    """Tell whether a function or method writes to its first argument, as ``add_`` and ``+=`` do."""
    name = str(getattr(target, "__name__", target))
    if name.startswith("__") and name.endswith("__"):
        return name[2:-2] in AUGMENTED
    return name in AUGMENTED or name.endswith("_")


def args_of(node: fx.Node) -> tuple[Any, ...]:
    """Return the positional arguments of a node, of whatever types they are."""
    return node.args


def argument(node: fx.Node, place: int, name: str, default: Any = None) -> Any:
    """Return an argument of a node, given by its place or by its name."""
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def operation_name(node: fx.Node) -> str:
    """Return the name of the function or method that a node calls; '' for other nodes."""
    if node.op not in ("call_function", "call_method"):
        return ""
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")


def module_path(node: fx.Node) -> str:
    """Return the path of the module in whose forward ``node`` was made, or the node's own name."""
    if node.op == "call_module":
        return str(node.target)
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values()]
    return paths[-1] if paths and paths[-1] else node.name
