"""Attention that a model's code writes out, by torch's function for it, where nobody wants gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from .fused_operations import is_plain
from .module_state import is_watched
from .module_tree import module_at

IDLE = (
    nn.Identity,
    nn.Dropout,
)  # may stand behind the softmax: outside training they change nothing


def attend(queries: Tensor, turned_keys: Tensor, values: Tensor, scale: float = 1.0) -> Tensor:
    """Compute ``softmax(scale * queries @ turned_keys) @ values``.

    torch's function keeps no map of all pairs of tokens in memory. The formula itself is computed where
    that function does not take the shapes, or somebody follows what is computed (prices, exports).

    Args:
        queries: [..., L, E].
        turned_keys: [..., E, S].
        values: [..., S, E'].
        scale: what the products are multiplied by.

    Returns:
        [..., L, E'].
    """
    if _takes(queries, turned_keys, values):
        keys = turned_keys.transpose(-2, -1)
        return F.scaled_dot_product_attention(queries, keys, values, scale=scale)
    return (queries @ turned_keys * scale).softmax(-1) @ values


def _takes(*values: Tensor) -> bool:
    first = values[0]
    alike = all((v.shape[:-2], v.dtype) == (first.shape[:-2], first.dtype) for v in values)
    return first.ndim > 2 and alike and first.is_floating_point() and is_plain(first)


class Attending:
    """Operations in which attention is computed by `attend`.

    Args:
        root: where the paths in ``graph`` start.
        graph: the operations, from inputs to a tuple of outputs.
        left_out: paths of the modules between the products, which are not called here.
    """

    def __init__(self, root: nn.Module, graph: fx.Graph, left_out: Sequence[str]):
        program = fx.GraphModule(root, graph, class_name=type(self).__name__)
        self.program: Callable[..., Any] = type(program).forward
        self.left_out = tuple(left_out)

    def stands_for(self, root: nn.Module) -> bool:
        """Tell whether what is left out does nothing now, and nobody wants gradients or watches it.

        Modules are looked at each time: they may be replaced, or be set to train, whenever one likes.
        """
        if torch.is_grad_enabled():
            return False
        return all(is_left_out(module_at(root, path)) for path in self.left_out)


def is_left_out(module: nn.Module) -> bool:
    """Tell whether a module between the two products changes nothing but by a softmax over the last axis.

    Subclasses and parts with parts may do anything, and do not count.
    """
    if is_watched(module):
        return False
    kind: type[nn.Module] = type(module)
    if kind is nn.Softmax:
        return bool(module.dim == -1)
    return kind in IDLE and not (kind is nn.Dropout and module.training and module.p)
