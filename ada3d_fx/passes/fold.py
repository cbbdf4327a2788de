"""The same program for inference: BatchNorm folded into convolutions, residual sums in place.

Used without gradients and while BatchNorm is in evaluation mode. The weights are folded at every
use: nothing tells reliably that a weight has changed (``p.data.copy_``, NumPy views and changed
options such as ``eps`` leave no trace), so nothing is remembered but the memory they are folded into.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..packed.module_tree import free_name, graph_over
from ..packed.twins import plain
from .whole import is_known

Convolution = nn.Conv3d | nn.Conv2d
Norm = nn.BatchNorm3d | nn.BatchNorm2d | nn.SyncBatchNorm


@dataclass(frozen=True, eq=False)
class _Fold:
    """One BatchNorm that is folded into the convolution before it."""

    convolution: str  # module path
    norm: str  # module path
    folded: nn.Module  # the convolution that stands for both


class FoldedGraph:
    """A rewritten program with folded convolutions; call `refresh` before using it.

    Args:
        graph_module: the program; it is not changed.
    """

    graph_module: fx.GraphModule

    def __init__(self, graph_module: fx.GraphModule):
        self.source = graph_module
        self.folds: list[_Fold] = []
        graph = fx.Graph()
        graph.output(graph.graph_copy(graph_module.graph, {}))
        folded, holder = nn.ModuleDict(), free_name(graph_module, "folded")
        for node in graph.nodes:
            pair = _convolution_and_norm(graph_module, node, f"{holder}.")
            if pair is None:
                continue
            source, conv = pair
            # one for each call: a convolution may be called with a BatchNorm of its own each time
            name = f"{len(folded)}_{str(source.target).replace('.', '_')}"
            folded[name] = _without_weights(conv)
            self.folds.append(_Fold(str(source.target), str(node.target), folded[name]))
            source.target = f"{holder}.{name}"
            node.replace_all_uses_with(source)
            graph.erase_node(node)
        _sum_in_place(graph, f"{holder}.")
        self.graph_module = graph_over(graph_module, graph, "FoldedGraph", {holder: folded})

    def refresh(self) -> bool:
        """Fold the weights of now.

        Returns:
            Whether the folded program stands for the original one now. It does not while a
            BatchNorm trains, or while a hook waits for a convolution or a BatchNorm, or where one of
            them was replaced by a module that computes something else.
        """
        # looked up each time: MMEngine puts other normalisation modules in their place (SyncBatchNorm)
        find: Callable[[str], Any] = self.source.get_submodule
        pairs = [(find(f.convolution), find(f.norm), f.folded) for f in self.folds]
        if not all(_folds(conv, norm) for conv, norm, _ in pairs):
            return False
        if any(_watched(conv) or _watched(norm) or norm.training for conv, norm, _ in pairs):
            return False
        for conv, norm, folded in pairs:
            _fold(conv, norm, folded)
        return True


def _convolution_and_norm(
    graph_module: fx.GraphModule, node: fx.Node, folded: str
) -> tuple[fx.Node, Convolution] | None:
    """The convolution before a BatchNorm, as node and module, if nobody else takes its output."""
    if node.op != "call_module" or not isinstance(node.args[0], fx.Node):
        return None
    source = node.args[0]
    if source.op != "call_module" or len(source.users) > 1 or str(source.target).startswith(folded):
        return None
    conv = graph_module.get_submodule(str(source.target))
    norm = graph_module.get_submodule(str(node.target))
    if not _folds(conv, norm):
        return None
    assert isinstance(conv, (nn.Conv3d, nn.Conv2d))
    return source, conv


def _folds(conv: nn.Module, norm: nn.Module) -> bool:
    """Whether these two compute what torch.nn's convolution and BatchNorm do, with statistics."""
    return (  # tuples of classes, as torch.compile of 2.4 takes no union of them here
        isinstance(conv, (nn.Conv3d, nn.Conv2d))
        and isinstance(norm, (nn.BatchNorm3d, nn.BatchNorm2d, nn.SyncBatchNorm))
        and norm.running_mean is not None
        and all(
            is_known(plain(module)) and not hasattr(module, "parametrizations")
            for module in (conv, norm)
        )
    )


def _without_weights(conv: nn.Module) -> nn.Module:
    """A copy of a convolution whose ``weight`` and ``bias`` are plain attributes, not set yet."""
    empty = copy.copy(conv)
    empty._parameters = {}
    empty.__dict__.update(weight=None, bias=None)
    return empty


def _fold(conv: Convolution, norm: Norm, folded: nn.Module) -> None:
    """Set the weights of ``folded`` to what ``conv`` and ``norm`` do one after the other."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -norm.running_mean.double()
    if conv.bias is not None:
        shift = conv.bias.detach().double() - norm.running_mean
    shift = shift * scale
    if norm.bias is not None:
        shift = shift + norm.bias.detach().double()
    weight = conv.weight.detach()
    scale = scale.to(weight.dtype).view(-1, *(1,) * (weight.ndim - 1))
    folded.__dict__["weight"] = torch.mul(weight, scale, out=_memory(folded, weight))
    folded.__dict__["bias"] = shift.to(weight.dtype)


def _memory(folded: nn.Module, weight: Tensor) -> Tensor:
    """Where a folded weight goes: that of the last time, as fresh memory costs more than folding."""
    last = folded.__dict__["weight"]
    if (
        last is not None
        and (last.shape, last.dtype, last.device) == (weight.shape, weight.dtype, weight.device)
        and last.stride() == weight.stride()
    ):
        return last
    with torch.inference_mode(False):  # what inference mode makes could not be written elsewhere
        return torch.empty_like(weight)


def _watched(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def sum_into(left: Tensor, right: Any) -> Any:
    """Add ``right`` into ``left`` where the sum has its shape and type, else into a new tensor."""
    alike = isinstance(right, Tensor) and (left.shape, left.dtype) == (right.shape, right.dtype)
    return left.add_(right) if alike else left + right


def _sum_in_place(graph: fx.Graph, folded: str) -> None:
    """Let sums overwrite their left side where it is a folded convolution's and nobody else's."""
    for node in graph.nodes:
        if node.op != "call_function" or node.target is not operator.add or len(node.args) != 2:
            continue
        left = node.args[0]
        only_here = isinstance(left, fx.Node) and len(left.users) == 1
        if only_here and left.op == "call_module" and str(left.target).startswith(folded):
            node.target = sum_into
