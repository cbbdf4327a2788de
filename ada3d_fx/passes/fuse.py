"""Convolutions with the sum and the activation behind them, in a program for inference."""

from __future__ import annotations

import operator
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from ..packed.fused import FusedConv
from ..packed.fused_operations import AFTER_SUM
from ..packed.module_state import is_watched
from ..packed.twins import Twin, plain
from ..packed.windows import window_size
from ..tracing.whole import is_known

FUNCTIONS = {
    torch.relu: "relu",
    torch.relu_: "relu",
    F.relu: "relu",
    F.relu_: "relu",
    F.relu6: "relu6",
}
METHODS = {"relu": "relu", "relu_": "relu"}
FRESH = (nn.Conv3d, nn.Conv2d, nn.MaxPool3d, nn.AvgPool3d)  # what they return is memory of its own


@dataclass(frozen=True)
class TakenOver:
    """Modules that fused convolutions call, or stand for."""

    # path of a module that is not called any more, and the name of what it computed
    activations: tuple[tuple[str, str], ...]
    pools: tuple[tuple[str, FusedConv], ...]  # path of a pool, and who calls it


def fuse(graph: fx.Graph, root: nn.Module, convolutions: dict[str, nn.Module]) -> TakenOver:
    """Let convolutions take over the sum, the activation and the pool behind them; change ``graph``.

    Args:
        graph: the program.
        root: where its module paths start; what ``convolutions`` has is not there.
        convolutions: name in the program -> a convolution. Each is replaced here by a
            `FusedConv`.

    Returns:
        What they took over of the model's modules.
    """
    activations: list[tuple[str, str]] = []
    pools: list[tuple[str, FusedConv]] = []
    for node in list(graph.nodes):
        if node.op != "call_module" or node.target not in convolutions:
            continue
        end, other = node, _added(node)
        if other is not None:
            (end,) = node.users
        found = _activation(end, root, convolutions)
        name = "none"
        if found is not None and (other is None or found[1] in AFTER_SUM):
            end, name = found
            if end.op == "call_module":
                activations.append((str(end.target), name))
        fused = node
        if end is node:
            convolutions[str(node.target)] = FusedConv(convolutions[str(node.target)])
        else:
            fused = _take_over(graph, root, convolutions, node, other, end, name)
        path = _pool_behind(fused, root, convolutions)
        if path is not None and other is None and len(fused.args) > 1:
            conv = convolutions[str(fused.target)]
            assert isinstance(conv, FusedConv)
            pools.append((path, conv))
            (pool,) = fused.users
            pool.replace_all_uses_with(fused)
            graph.erase_node(pool)
    return TakenOver(tuple(activations), tuple(pools))


def activation_of(module: nn.Module) -> str | None:
    """Return the name of the activation that a module is whose call nobody watches."""
    if is_watched(module) or not is_known(module):
        return None
    if isinstance(module, nn.ReLU6):
        return "relu6" if (module.min_val, module.max_val) == (0.0, 6.0) else None
    return "relu" if isinstance(module, nn.ReLU) else None


def is_frame_pool(module: nn.Module) -> bool:
    """Tell whether a module pools single frames, and nobody watches its call."""
    if not isinstance(module, nn.MaxPool3d) or isinstance(module, Twin) or not is_known(module):
        return False
    if is_watched(module) or module.return_indices:
        return False
    return [window_size(module, name) for name in ("kernel_size", "stride", "padding")] == [1, 1, 0]


def _pool_behind(node: fx.Node, root: nn.Module, convolutions: Container[Any]) -> str | None:
    """The path of the pool of frames behind a value that nobody else takes."""
    users = list(node.users)
    if len(users) != 1 or users[0].op != "call_module" or users[0].target in convolutions:
        return None
    path = str(users[0].target)
    return path if is_frame_pool(root.get_submodule(path)) else None


def followed(node: fx.Node, root: nn.Module, convolutions: Container[Any]) -> bool:
    """Tell whether a sum or an activation is behind a convolution, and nobody else takes its output."""
    return _added(node) is not None or _activation(node, root, convolutions) is not None


def _added(node: fx.Node) -> fx.Node | None:
    """What is added to a convolution's output, if nobody else takes that."""
    if len(node.users) != 1:
        return None
    (user,) = node.users
    plain = user.op == "call_function" and user.target is operator.add and not user.kwargs
    if not plain or len(user.args) != 2 or not all(isinstance(a, fx.Node) for a in user.args):
        return None
    left, right = user.args
    other = right if left is node else left
    return other if isinstance(other, fx.Node) and other is not node else None


def _activation(
    node: fx.Node, root: nn.Module, convolutions: Container[Any]
) -> tuple[fx.Node, str] | None:
    """The activation behind a value that nobody else takes, and its name."""
    if len(node.users) != 1:
        return None
    (user,) = node.users
    if user.args[:1] != (node,):
        return None
    if user.op == "call_module":
        taken = user.target in convolutions
        name = None if taken else activation_of(root.get_submodule(str(user.target)))
    else:
        plain = len(user.args) == 1 and set(user.kwargs) <= {"inplace"}
        names: Mapping[Any, str] = FUNCTIONS if user.op == "call_function" else METHODS
        name = names.get(user.target) if plain else None
    return None if name is None else (user, name)


def _take_over(
    graph: fx.Graph, root: nn.Module, convolutions: dict[str, nn.Module], node: fx.Node,
    other: fx.Node | None, end: fx.Node, activation: str,
) -> fx.Node:  # fmt: skip
    """Put one call in place of those from ``node`` to ``end``; return it."""
    overwrites = other is not None and _is_spare(graph, root, convolutions, other, node, end)
    conv = convolutions[str(node.target)]
    convolutions[str(node.target)] = FusedConv(conv, activation, overwrites)
    with graph.inserting_before(end):
        kwargs: dict[str, Any] = {} if other is None else {"other": other}
        fused = graph.create_node(node.op, node.target, node.args, kwargs, end.name)
        fused.meta = dict(node.meta)
    end.replace_all_uses_with(fused)
    graph.erase_node(end)
    for between in list(node.users):  # the sum in front of an activation
        graph.erase_node(between)
    graph.erase_node(node)
    return fused


def _is_spare(
    graph: fx.Graph, root: nn.Module, convolutions: dict[str, nn.Module], other: fx.Node,
    node: fx.Node, end: fx.Node,
) -> bool:  # fmt: skip
    """Whether a value has memory of its own, and is read before ``node`` only."""

    def fresh(one: fx.Node) -> bool:
        if one.op != "call_module":
            return False
        if one.target in convolutions:
            return True
        module = plain(root.get_submodule(str(one.target)))
        return isinstance(module, FRESH) and is_known(module)

    place = {n: index for index, n in enumerate(graph.nodes)}
    readers = [user for user in other.users if user not in (end, *node.users)]
    return fresh(other) and all(place[r] < place[node] and fresh(r) for r in readers)
