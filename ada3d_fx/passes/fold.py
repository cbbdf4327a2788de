"""The same program for inference: BatchNorm folded into the convolution before it, residual sums in
place.

Used without gradients and while BatchNorm is in evaluation mode; weights are folded anew whenever
they have changed.
"""

from __future__ import annotations

import copy
import operator

from torch import Tensor, fx, nn

from ..packed.twins import PackedConv3d

# Convolutions whose output nobody else sees, so that it may be overwritten.
_CONVOLUTIONS = (nn.Conv3d, nn.Conv2d, PackedConv3d)


_NORMS = (nn.BatchNorm3d, nn.BatchNorm2d, nn.SyncBatchNorm)


class FoldedGraph:
    """A graph with folded convolutions. ``ready()`` says whether it stands for the original now,
    and refreshes it."""

    def __init__(self, graph_module: fx.GraphModule):
        self.source = graph_module
        self.paths: list[tuple[str, str, nn.Conv3d]] = []
        self.stamp: tuple[tuple[int, int], ...] | None = None
        graph = fx.Graph()
        graph.output(graph.graph_copy(graph_module.graph, {}))
        folded = nn.ModuleDict()
        for node in graph.nodes:
            conv, norm = _conv_and_norm(graph_module, node)
            if norm is None:
                continue
            source = node.args[0]
            name = str(source.target).replace(".", "_")
            folded[name] = _shell(conv)
            self.paths.append((str(source.target), str(node.target), folded[name]))
            source.target = f"folded.{name}"
            node.replace_all_uses_with(source)
            graph.erase_node(node)
        _sum_in_place(graph)
        modules = {**graph_module._modules, "folded": folded}
        holder = nn.Module()
        holder._modules, holder._parameters = modules, graph_module._parameters
        holder._buffers = graph_module._buffers
        self.graph_module = fx.GraphModule(holder, graph, class_name="FoldedGraph")
        self.graph_module._modules = modules

    def ready(self) -> bool:
        # looked up each time: MMEngine puts other normalisation modules in their place (SyncBatchNorm)
        find = self.source.get_submodule
        pairs = [(find(conv), find(norm), shell) for conv, norm, shell in self.paths]
        if any(_watched(conv) or _watched(norm) or norm.training for conv, norm, _ in pairs):
            return False  # a hook must see its module, and batch statistics cannot be folded
        stamp = tuple(
            (tensor.data_ptr(), tensor._version)
            for conv, norm, _ in pairs
            for tensor in (*conv.parameters(), *norm.parameters(), *norm.buffers())
        )
        if stamp != self.stamp:
            for conv, norm, shell in pairs:
                _fold(conv, norm, shell)
            self.stamp = stamp
        return True


def _conv_and_norm(
    graph_module: fx.GraphModule, node: fx.Node
) -> tuple[nn.Conv3d, nn.BatchNorm3d | None]:
    if node.op != "call_module" or not isinstance(node.args[0], fx.Node):
        return None, None
    source = node.args[0]
    if (
        source.op != "call_module"
        or len(source.users) > 1
        or str(source.target).startswith("folded.")
    ):
        return None, None
    conv = graph_module.get_submodule(source.target)
    norm = graph_module.get_submodule(node.target)
    plain = isinstance(conv, _CONVOLUTIONS) and isinstance(norm, _NORMS)
    return (conv, norm) if plain and norm.running_mean is not None else (None, None)


def _shell(conv: nn.Conv3d) -> nn.Conv3d:
    shell = copy.copy(conv)
    shell._parameters = {}
    shell.weight = shell.bias = None
    return shell


def _fold(conv: nn.Conv3d, norm: nn.BatchNorm3d, shell: nn.Conv3d) -> None:
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = (
        -norm.running_mean.double()
        if conv.bias is None
        else conv.bias.detach().double() - norm.running_mean
    )
    shift = shift * scale + (0 if norm.bias is None else norm.bias.detach().double())
    weight: Tensor = conv.weight.detach()
    shell.weight = weight * scale.to(weight.dtype).view(-1, *(1,) * (weight.ndim - 1))
    shell.bias = shift.to(weight.dtype)


def _watched(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _sum_in_place(graph: fx.Graph) -> None:
    for node in graph.nodes:
        if node.op != "call_function" or node.target is not operator.add or len(node.args) != 2:
            continue
        left = node.args[0]
        only_here = isinstance(left, fx.Node) and len(left.users) == 1
        if only_here and left.op == "call_module" and str(left.target).startswith("folded."):
            node.target = operator.iadd
