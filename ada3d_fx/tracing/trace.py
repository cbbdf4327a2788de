"""Model -> fx graph from clips to scores, whose nodes keep their module paths."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import fx, nn

from ..errors import Reason, UnsupportedModel
from ..packed.module_tree import constants_of
from .checkpoints import blocks
from .concrete import ConcreteTracer
from .in_place import observed_writers, settle_writes
from .isolation import own_caches
from .model import model_name
from .program import Program, drop_unused
from .shadow import add_constants, left_as_it_was, set_mode
from .tracer import Tracer


def trace(
    root: nn.Module, shadow: nn.Module, clip_shape: Sequence[int], checkpointing: bool = False
) -> list[Program]:
    """Trace ``root`` in evaluation and in training.

    Args:
        root: a module from clips to scores; it is left as it was.
        shadow: ``root`` on the meta device, for the shapes of clips [2, *clip_shape].
        clip_shape: (C, T, H, W).
        checkpointing: mark each block of ``root`` as checkpointed in training.

    Returns:
        The program in evaluation, and the one in training where it differs.

    Raises:
        UnsupportedModel: the root itself cannot be traced.
    """
    return _traced_twice(Tracer, root, shadow, clip_shape, checkpointing)


def trace_concretely(
    root: nn.Module,
    shadow: nn.Module,
    clip_shape: Sequence[int],
    num_clips: int,
    checkpointing: bool = False,
) -> list[Program]:
    """Trace ``root`` as `trace` does, with the sizes of so many clips as plain numbers."""
    tensors = (*root.parameters(), *root.buffers())
    device = tensors[0].device if tensors else torch.device("cpu")
    tracer = functools.partial(ConcreteTracer, num_clips=num_clips, device=device)
    return _traced_twice(tracer, root, shadow, clip_shape, checkpointing)


def _traced_twice(
    tracer: Callable[..., Tracer],
    root: nn.Module,
    shadow: nn.Module,
    clip_shape: Sequence[int],
    checkpointing: bool,
) -> list[Program]:
    evaluation = _trace(tracer, root, shadow, clip_shape, False, frozenset())
    marked = blocks(root) if checkpointing else frozenset()
    training = _trace(tracer, root, shadow, clip_shape, True, marked)
    return [evaluation] if evaluation.agrees_with(training) else [evaluation, training]


def _trace(
    make_tracer: Callable[..., Tracer],
    root: nn.Module,
    shadow: nn.Module,
    clip_shape: Sequence[int],
    training: bool,
    marked: Collection[nn.Module],
) -> Program:
    with left_as_it_was(root), own_caches(root):
        # made in here, as it notes which functions `math` has
        tracer = make_tracer(shadow, clip_shape, training, marked)
        if training and hasattr(root, "forward_in_training"):
            tracer.traced_func_name = "forward_in_training"
        set_mode(root, training)
        options = _optional_arguments(root, tracer.traced_func_name)
        try:
            graph = tracer.trace(root, concrete_args=options or None)
        except Exception as error:
            name = model_name(root)
            reason = Reason(name, f"cannot be traced by torch.fx: {error}")
            raise UnsupportedModel(name, [reason]) from error
    add_constants(shadow, constants_of(root))
    _keep_first_input(graph)
    writers = observed_writers(graph, root)
    misread = settle_writes(graph)
    if misread:
        raise UnsupportedModel(model_name(root), misread)
    drop_unused(graph, root)
    return Program(graph, tracer.untraceable, writers)


def _optional_arguments(root: nn.Module, function: str) -> dict[str, Any]:
    """What ``root`` takes beside the clips, with its defaults.

    Raises:
        UnsupportedModel: an argument without a default.
    """
    kinds = inspect.Parameter
    _, *others = inspect.signature(getattr(root, function)).parameters.values()
    named = [p for p in others if p.kind not in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)]
    needed = [p.name for p in named if p.default is kinds.empty]
    if needed:
        name = model_name(root)
        why = f"its forward needs {', '.join(needed)} beside the clips; wrap it in a module that does not"
        raise UnsupportedModel(name, [Reason(name, why)])
    return {p.name: p.default for p in named}


def _keep_first_input(graph: fx.Graph) -> None:
    """Take out the inputs of optional arguments, and fx's checks that they have their defaults."""
    _, *others = (node for node in graph.nodes if node.op == "placeholder")

    def erase(node: fx.Node) -> None:
        for user in list(node.users):
            erase(user)
        graph.erase_node(node)

    for node in others:
        erase(node)
    graph.set_codegen(fx.graph.CodeGen())
