"""A network that is not converted: for inference folded, fused, on a CPU a few images at a time."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, fx, nn

from .packed.fused_operations import is_plain
from .packed.module_state import is_watched_or_trains
from .packed.module_tree import adopt_children, graph_over
from .packed.replay import Replays
from .passes.fold import FoldedGraph

KNOWN = ("torchvision.models.", "ada3d_fx.")  # whose code reads nothing that may change
AT_ONCE = 16  # images; more leave the processor's cache, fewer lay weights out more often


class _Program(NamedTuple):
    structure: tuple  # of the network for which it was made
    folded: FoldedGraph | None  # None where the code cannot be traced
    replays: Replays  # on a GPU


_made: weakref.WeakKeyDictionary[nn.Module, _Program] = weakref.WeakKeyDictionary()


def infer(network: nn.Module, images: Tensor) -> Tensor:
    """Compute what ``network(images)`` is, faster where nobody wants gradients, and on a CPU where they do.

    BatchNorm is folded into convolutions with the weights of now, as in an adaptive network. On a GPU
    calls of one shape are replayed from the third one on, see `packed.replay`. With gradients on a CPU
    the channels of a pixel lie together: a step of MobileNetV2 takes half the time so.

    Args:
        network: from images to one tensor, each image by itself in evaluation.
        images: [B, C, h, w].

    Returns:
        What the network gives, [B, ...].
    """
    program = _program(network) if _applies(network, images) else None
    if program is None or program.folded is None:
        together = torch.is_grad_enabled() and images.device.type == "cpu" and _is_known(network)
        return network(_channels_together(images) if together else images)
    folded = program.folded
    if images.is_cuda:
        run = partial(_run, network, folded)
        return program.replays(run, images, network, folded.graph_module)
    if not folded.refresh():
        return network(images)
    images = _channels_together(images)
    return torch.cat([folded.graph_module(part) for part in images.split(AT_ONCE)])


def _channels_together(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images


def _is_known(network: nn.Module) -> bool:
    return type(network).__module__.startswith(KNOWN)


def _run(network: nn.Module, folded: FoldedGraph, images: Tensor) -> Tensor:
    return folded.graph_module(images) if folded.refresh() else network(images)


def _applies(network: nn.Module, images: Tensor) -> bool:
    """Whether nothing is asked of this call but its result."""
    return (
        not torch.is_grad_enabled()
        and is_plain(images)
        and images.ndim == 4
        and len(images) > 0
        and _is_known(network)
        and not is_watched_or_trains(network)
    )


def _program(network: nn.Module) -> _Program:
    """The network's program."""
    structure = tuple(_structure(network))
    if network not in _made or _made[network].structure != structure:
        _made[network] = _Program(structure, _traced(network), Replays())
    made = _made[network]
    for view in () if made.folded is None else (made.folded.source, made.folded.graph_module):
        adopt_children(view, network)
    return made


def _traced(network: nn.Module) -> FoldedGraph | None:
    try:
        graph = fx.Tracer().trace(network)
        return FoldedGraph(graph_over(network, graph, "Network"))
    except (fx.proxy.TraceError, TypeError, RuntimeError, ValueError):
        return None


def _structure(network: nn.Module) -> Iterator[tuple]:
    """What decides how the code runs: the modules in their order, and the settings of their owners."""
    for path, module in network.named_modules(remove_duplicate=False):
        settings: tuple = ()
        if not type(module).__module__.startswith("torch.nn."):
            settings = tuple(
                (name, value)
                for name, value in vars(module).items()
                if name != "training" and isinstance(value, (bool, int, float, str, type(None)))
            )
        yield path, type(module), settings
