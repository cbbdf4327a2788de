"""A model without arithmetic: its copy on the meta device, which gives shapes only."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..packed.module_tree import constants_of


def set_mode(root: nn.Module, training: bool) -> None:
    """Set evaluation everywhere, or training as the model's own ``train()`` leaves it.

    Frozen stages stay in evaluation then.
    """
    # not eval(): some models' train() returns nothing, or sets flags back
    for module in root.modules():
        module.training = training
    if training:
        root.train()


@contextmanager
def left_as_it_was(root: nn.Module) -> Iterator[None]:
    """Undo what running the model's own code does to it: modes, gradients, attributes, modules.

    Constants that tracing leaves on the root stay.
    """
    kept = [(m, dict(m.__dict__), dict(m._modules)) for m in root.modules()]
    gradients = [(p, p.requires_grad) for p in root.parameters()]
    try:
        yield
    finally:
        for module, attributes, children in kept:
            constants = constants_of(module) if module is root else {}
            module.__dict__.clear()
            module.__dict__.update(attributes, **constants)
            module._modules.clear()
            module._modules.update(children)
        for parameter, required in gradients:
            parameter.requires_grad_(required)


def shadow_of(module: nn.Module) -> nn.Module:
    """Copy ``module`` to the meta device, in evaluation mode: shapes without arithmetic."""
    shadow = copy.deepcopy(module).to("meta")
    set_mode(shadow, training=False)
    for part in shadow.modules():
        add_constants(part, vars(part))
    return shadow


def add_constants(shadow: nn.Module, attributes: Mapping[str, Any]) -> None:
    """Give a module on the meta device the tensors among ``attributes`` that are no buffers.

    Those of one number stay where they are: they mix with any device, and can be read.
    """
    for name, value in list(attributes.items()):
        if isinstance(value, Tensor):
            shadow.__dict__[name] = value.to("meta") if value.ndim else value


def isolated(module: nn.Module, device: torch.device | str | None = None) -> nn.Module:
    """Copy a module but for its floating-point tensors, which the two share.

    What the model's own code keeps while the copy runs stays with the copy.

    Args:
        module: it is left as it was.
        device: where the copy's tensors are; those that are elsewhere are copied there. None: where
            the module's are.
    """
    tensors = [*module.parameters(), *module.buffers()]
    # such as a weight that another computes: it cannot be copied
    computed = [t for m in module.modules() for t in vars(m).values() if isinstance(t, Tensor)]
    kept = {id(t): t for t in (*(t for t in tensors if t.is_floating_point()), *computed)}
    if device is not None:
        away = [t for t in (*tensors, *computed) if t.device != torch.device(device)]
        kept.update({id(t): _copied_to(t, device) for t in away})
    return copy.deepcopy(module, kept)


def _copied_to(tensor: Tensor, device: torch.device | str) -> Tensor:
    values = tensor.detach().to(device)
    trained = isinstance(tensor, nn.Parameter)
    return nn.Parameter(values, tensor.requires_grad) if trained else values


def shadow_call(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Call a module on the meta device, where BatchNorm would take 5 ms for nothing."""
    if isinstance(module, nn.BatchNorm3d) and len(args) == 1:
        (x,) = args
        if x.ndim == 5 and x.shape[1] == module.num_features:
            return torch.empty_like(x)
    return module(*args, **kwargs)


def dtype_of(module: nn.Module) -> torch.dtype:
    """Return the floating dtype of a module's first parameter or buffer; float32 if it has none."""
    tensors = [*module.parameters(), *module.buffers()]
    return next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)
