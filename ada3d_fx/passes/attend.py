"""Find attention that a model's code writes out: a product, its softmax, and a product with that."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import fx, nn

from ..packed.attention import IDLE, Attending, attend, is_left_out
from ..tracing.program import argument, operation_name

PRODUCTS = ("matmul", "bmm")
SCALINGS = {"mul": 1, "truediv": -1, "div": -1}  # to which power the number is taken


class _Found(NamedTuple):
    nodes: list[fx.Node]  # from the first product to the second, in order
    operands: tuple[fx.Node, fx.Node, fx.Node]
    scale: float


def attending(root: nn.Module, graph: fx.Graph) -> Attending | None:
    """Make a copy of operations in which attention is one operation.

    Values between the products must have no other use. Where anything is written in place nothing is
    changed, since the first product moves to where the second one is.

    Args:
        root: where the paths in ``graph`` start.
        graph: the operations, from inputs to a tuple of outputs; it is not changed.

    Returns:
        The copy; None where there is no attention.
    """
    if any("writes" in node.meta for node in graph.nodes):
        return None
    made = fx.Graph()
    made.output(made.graph_copy(graph, {}))
    left_out: list[str] = []
    for node in list(made.nodes):
        found = _attention(root, node)
        if found is None:
            continue
        last = found.nodes[-1]
        left_out += [str(n.target) for n in found.nodes if n.op == "call_module"]
        with made.inserting_before(last):
            new = made.call_function(attend, (*found.operands, found.scale))
        new.meta = dict(last.meta)
        last.replace_all_uses_with(new)
        for old in reversed(found.nodes):
            made.erase_node(old)
    if not any(node.target is attend for node in made.nodes):
        return None
    return Attending(root, made, left_out)


def _attention(root: nn.Module, softmax: fx.Node) -> _Found | None:
    """The attention whose softmax a node is."""
    if not softmax.args or not _is_softmax(root, softmax):
        return None
    scores, scale, before = softmax.args[0], 1.0, [softmax]
    if isinstance(scores, fx.Node) and not _is_product(scores):
        scaled = _scaled(scores)
        if scaled is None or not _feeds_only(scores, softmax):
            return None
        before.insert(0, scores)
        scores, scale = scaled
    if not isinstance(scores, fx.Node) or not _is_product(scores):
        return None
    if not _feeds_only(scores, before[0]):
        return None
    weights, after = softmax, list[fx.Node]()
    follower = _only_user(weights)
    while follower is not None and _is_idle(root, follower) and follower.args == (weights,):
        after.append(follower)
        weights, follower = follower, _only_user(follower)
    if follower is None or not _is_product(follower) or follower.args[0] is not weights:
        return None
    nodes = [scores, *before, *after, follower]
    queries, keys, values = scores.args[0], scores.args[1], follower.args[1]
    if not all(isinstance(value, fx.Node) for value in (queries, keys, values)):
        return None
    return _Found(nodes, (queries, keys, values), scale)  # type: ignore[arg-type]


def _is_softmax(root: nn.Module, node: fx.Node) -> bool:
    """Whether a node is a softmax over the last axis, in the type of its input."""
    if node.op == "call_module":
        module = root.get_submodule(str(node.target))
        return isinstance(module, nn.Softmax) and is_left_out(module)
    if operation_name(node) != "softmax" or len(node.args) > 2:
        return False
    return argument(node, 1, "dim") == -1 and node.kwargs.get("dtype") is None


def _is_product(node: fx.Node) -> bool:
    return operation_name(node) in PRODUCTS and len(node.args) == 2 and not node.kwargs


def _scaled(node: fx.Node) -> tuple[fx.Node, float] | None:
    """What a node multiplies by a number, and the number."""
    power = SCALINGS.get(operation_name(node))
    if power is None or len(node.args) != 2 or node.kwargs:
        return None
    value, number = node.args
    if power == 1 and isinstance(number, fx.Node):
        value, number = number, value
    if not isinstance(value, fx.Node) or isinstance(number, bool):
        return None
    if not isinstance(number, (int, float)) or not number or not math.isfinite(number):
        return None
    return value, float(number) ** power


def _is_idle(root: nn.Module, node: fx.Node) -> bool:
    """Whether a node calls a module that changes nothing without training."""
    if node.op != "call_module":
        return False
    return type(root.get_submodule(str(node.target))) in IDLE


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _feeds_only(node: fx.Node, user: fx.Node) -> bool:
    return _only_user(node) is user
