"""The same program for inference: BatchNorm folded into convolutions, sums and activations fused with them.

Used without gradients and while BatchNorm is in evaluation mode. The weights are folded at every
use: nothing tells reliably that a weight has changed (``p.data.copy_``, NumPy views and changed
options such as ``eps`` leave no trace), so nothing is remembered but the memory they are folded into.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..packed.fused_operations import computed_in
from ..packed.module_state import is_watched
from ..packed.module_tree import free_name, graph_over, keep_unregistered, module_at
from ..packed.twins import plain_class
from ..tracing.whole import is_known_class
from .fuse import activation_of, followed, fuse, is_frame_pool
from .share import SharedFrames

Convolution = nn.Conv3d | nn.Conv2d
Norm = nn.BatchNorm3d | nn.BatchNorm2d | nn.SyncBatchNorm


@dataclass(frozen=True, eq=False)
class _Fold:
    """A convolution with weights of its own: of a BatchNorm behind it, too, where there is one."""

    convolution: str  # module path
    norm: str | None  # module path
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
        holder = free_name(graph_module, "folded")
        folded: dict[str, nn.Module] = {}  # name in the new program -> convolution
        for node in list(graph.nodes):
            pair = _convolution_and_norm(graph_module, node, folded)
            if pair is not None:
                source, norm = pair
                self._add(holder, folded, graph_module, source, str(norm.target))
                norm.replace_all_uses_with(source)
                graph.erase_node(norm)
        for node in graph.nodes:
            if _is_convolution(graph_module, node, folded) and followed(node, graph_module, folded):
                self._add(holder, folded, graph_module, node, None)
        self.taken_over = fuse(graph, graph_module, folded)
        self.shared = SharedFrames(graph, folded)
        held = nn.ModuleDict({name.removeprefix(f"{holder}."): m for name, m in folded.items()})
        self.graph_module = graph_over(graph_module, graph, "FoldedGraph", {holder: held})

    def _add(
        self, holder: str, folded: dict[str, nn.Module], root: nn.Module, node: fx.Node,
        norm: str | None,
    ) -> None:  # fmt: skip
        """Let a call go to a convolution of its own: one may have another BatchNorm at each call."""
        path = str(node.target)
        name = f"{holder}.{len(folded)}_{path.replace('.', '_')}"
        folded[name] = _without_weights(root.get_submodule(path))
        self.folds.append(_Fold(path, norm, folded[name]))
        node.target = name

    def shares(self) -> bool:
        """Tell whether the program takes the clip of each policy now, and shares frames."""
        return self.shared.holds(self.source)

    def refresh(self) -> bool:
        """Fold the weights of now.

        Returns:
            Whether the folded program stands for the original one now. It does not while a
            BatchNorm trains, or while a hook waits for a convolution or a BatchNorm, or where one of
            them was replaced by a module that computes something else.
        """
        # looked up each time: MMEngine puts other normalisation modules in their place (SyncBatchNorm)
        find: Callable[[str], Any] = partial(module_at, self.source)
        pairs = [
            (find(f.convolution), find(f.norm) if f.norm else None, f.folded) for f in self.folds
        ]
        if not all(_folds(conv, norm) for conv, norm, _ in pairs):
            return False
        if any(activation_of(find(path)) != name for path, name in self.taken_over.activations):
            return False
        if not all(is_frame_pool(find(path)) for path, _ in self.taken_over.pools):
            return False
        for conv, norm, _ in pairs:
            if is_watched(conv) or (norm and (is_watched(norm) or norm.training)):
                return False
        _fold(pairs)
        for path, fused in self.taken_over.pools:
            keep_unregistered(fused, pool=find(path))
        return True


def _convolution_and_norm(
    graph_module: fx.GraphModule, node: fx.Node, folded: Container[Any]
) -> tuple[fx.Node, fx.Node] | None:
    """The convolution before a BatchNorm, and that, if nobody else takes the output between them."""
    if node.op != "call_module" or node.target in folded or not isinstance(node.args[0], fx.Node):
        return None
    source = node.args[0]
    if source.op != "call_module" or source.target in folded or len(source.users) > 1:
        return None
    conv = graph_module.get_submodule(str(source.target))
    norm = graph_module.get_submodule(str(node.target))
    return (source, node) if _is_norm(norm) and _folds(conv, norm) else None


def _is_convolution(graph_module: fx.GraphModule, node: fx.Node, folded: Container[Any]) -> bool:
    """Whether a node calls a convolution that is not folded with a BatchNorm."""
    if node.op != "call_module" or node.target in folded:
        return False
    return _folds(graph_module.get_submodule(str(node.target)), None)


def _folds(conv: nn.Module, norm: nn.Module | None) -> bool:
    """Whether these compute what torch.nn's convolution and BatchNorm do, with statistics."""
    known = isinstance(conv, (nn.Conv3d, nn.Conv2d)) and _computes_as_known(conv)
    return known and (norm is None or (_is_norm(norm) and _computes_as_known(norm)))


def _is_norm(module: nn.Module) -> bool:
    # a tuple of classes, as torch.compile of 2.4 takes no union of them here
    norms = (nn.BatchNorm3d, nn.BatchNorm2d, nn.SyncBatchNorm)
    return isinstance(module, norms) and module.running_mean is not None


def _computes_as_known(module: nn.Module) -> bool:
    return is_known_class(plain_class(module)) and "parametrizations" not in module._modules


def _without_weights(conv: nn.Module) -> nn.Module:
    """A copy of a convolution whose ``weight`` and ``bias`` are plain attributes, not set yet."""
    empty = copy.copy(conv)
    empty._parameters = {}
    empty.__dict__.update(weight=None, bias=None)
    return empty


def _fold(pairs: Sequence[tuple[Convolution, Norm | None, nn.Module]]) -> None:
    """Set the weights of each third module to what the two before it do one after the other.

    Numbers of channels are computed for all pairs at once that are computed alike: a network has
    dozens of them, and each operation on a few numbers takes as long as one on many.
    """
    alike: dict[tuple[Any, ...], list[tuple[Convolution, Norm, nn.Module]]] = {}
    for conv, norm, folded in pairs:
        if norm is None:
            computed = computed_in(conv.weight)
            bias = None if conv.bias is None else conv.bias.detach().to(computed)
            folded.__dict__.update(weight=conv.weight.detach().to(computed), bias=bias)
            continue
        given = [value is None for value in (norm.weight, norm.bias, conv.bias)]
        key = (norm.eps, conv.weight.dtype, conv.weight.device, *given)
        alike.setdefault(key, []).append((conv, norm, folded))
    for (eps, dtype, *_), group in alike.items():
        scales, shifts = _scales_and_shifts(
            [conv for conv, *_ in group], [norm for _, norm, _ in group], eps
        )
        sizes = [len(conv.weight) for conv, *_ in group]
        shifts = shifts.to(dtype).to(computed_in(group[0][0].weight))
        parts = zip(scales.to(dtype).split(sizes), shifts.split(sizes))
        for (conv, _, folded), (scale, shift) in zip(group, parts):
            weight = conv.weight.detach()
            scale = scale.view(-1, *(1,) * (weight.ndim - 1))
            folded.__dict__["weight"] = torch.mul(weight, scale, out=_memory(folded, weight))
            folded.__dict__["bias"] = shift


def _scales_and_shifts(
    convs: Sequence[Convolution], norms: Sequence[Norm], eps: float
) -> tuple[Tensor, Tensor]:
    """What the outputs of convolutions are multiplied by, and what is added: float64, joined.

    Either all of them have a bias, or none; so with the weights and biases of the BatchNorms.
    """
    scale = (_joined([norm.running_var for norm in norms]) + eps).rsqrt()
    if norms[0].weight is not None:
        scale = scale * _joined([norm.weight for norm in norms])
    shift = -_joined([norm.running_mean for norm in norms])
    if convs[0].bias is not None:
        shift = shift + _joined([conv.bias for conv in convs])
    shift = shift * scale
    if norms[0].bias is not None:
        shift = shift + _joined([norm.bias for norm in norms])
    return scale, shift


def _joined(values: Sequence[Tensor | None]) -> Tensor:
    """Numbers of channels of several modules, one after the other."""
    return torch.cat([value.detach() for value in values if value is not None]).double()


def _memory(folded: nn.Module, weight: Tensor) -> Tensor:
    """Where a folded weight goes: that of the last time, as fresh memory costs more than folding.

    On a GPU it has channels last, as the values have; cuDNN would copy it at each use otherwise.
    """
    last, dtype = folded.__dict__["weight"], computed_in(weight)
    order = torch.preserve_format
    if weight.is_cuda:
        order = torch.channels_last_3d if weight.ndim == 5 else torch.channels_last
    if (
        last is not None
        and (last.shape, last.dtype, last.device) == (weight.shape, dtype, weight.device)
        and (weight.is_cuda or last.stride() == weight.stride())
    ):
        return last
    with torch.inference_mode(False):  # what inference mode makes could not be written elsewhere
        return torch.empty_like(weight, dtype=dtype, memory_format=order)
