"""What modules hold now, so that one can tell later whether anything was changed."""

from __future__ import annotations

import operator
import weakref
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

# Where torch keeps the hooks of all modules' calls.
GLOBAL_HOOKS = (
    "_global_forward_pre_hooks",
    "_global_forward_hooks",
    "_global_backward_pre_hooks",
    "_global_backward_hooks",
)
SIMPLE = (bool, int, float, complex, str, bytes, type(None), type, torch.dtype, torch.device)


class ModuleState:
    """The settings and the memory of modules, as they are when this is made.

    The values of tensors do not belong to it, as what is computed from the same memory sees them. Where
    that memory lies, its layout and its type do.

    Args:
        root: what is remembered are its modules, with all that is in them.
        tensors: further ones, such as constants.

    Attributes:
        is_plain: whether the modules without parts hold nothing but numbers and words beside their
            tables. What modules with parts hold is compared by identity.
    """

    def __init__(self, root: nn.Module, tensors: Sequence[Tensor] = ()):
        modules = list(root.modules())
        # the root by a weak reference: whoever remembers a state may be remembered by the root
        self.root, self.parts = weakref.ref(root), modules[1:]
        self.kinds = [type(module) for module in modules]
        self.settings = [_copied(vars(module)) for module in modules]
        self.children = [dict(module._modules) for module in modules]
        self.held = [_held(module) for module in modules]
        self.tensors = [tensor for held in self.held for tensor in held if tensor is not None]
        self.tensors += tensors
        self.memory = list(map(_memory, self.tensors))
        self.constants = list(map(id, tensors))
        self.is_plain = all(
            bool(children) or all(map(_is_plain, _own(settings)))
            for children, settings in zip(self.children, self.settings)
        )

    def holds(self, root: nn.Module, tensors: Sequence[Tensor] = ()) -> bool:
        """Tell whether everything is still as it was."""
        if root is not self.root() or self.constants != list(map(id, tensors)):
            return False
        before = zip((root, *self.parts), self.kinds, self.settings, self.children, self.held)
        return self.memory == list(map(_memory, self.tensors)) and all(
            type(module) is kind
            and module._modules == children
            and _are(held, _held(module))
            and _equal(vars(module), settings)
            for module, kind, settings, children, held in before
        )


def _copied(settings: dict) -> dict:
    """The same, with lists of their own: those of a module can be written into."""
    return {name: value[:] if type(value) is list else value for name, value in settings.items()}


def _equal(now: dict, before: dict) -> bool:
    try:
        return now == before
    except (RuntimeError, ValueError):  # tensors and arrays do not say whether they are equal
        return False


def is_watched(module: nn.Module) -> bool:
    """Tell whether a hook waits for a module's call, which must then be made."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def is_watched_or_trains(root: nn.Module) -> bool:
    """Tell whether a hook waits for the call of a module in ``root``, or one of them is in training mode."""
    return any(getattr(nn.modules.module, name) for name in GLOBAL_HOOKS) or any(
        m.training or is_watched(m) or m._backward_hooks or m._backward_pre_hooks
        for m in root.modules()
    )


def _held(module: nn.Module) -> tuple[Tensor | None, ...]:
    """The parameters and buffers of a module itself."""
    return (*module._parameters.values(), *module._buffers.values())


def _are(some: tuple, others: tuple) -> bool:
    """Whether these are the same objects: tensors of equal values would be equal."""
    return len(some) == len(others) and all(map(operator.is_, some, others))


def _memory(tensor: Tensor) -> tuple:
    """Where a tensor lies, and how."""
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


def _own(settings: dict) -> Iterator[object]:
    """What a module holds beside nn.Module's own tables."""
    return (value for name, value in settings.items() if name not in _OF_ALL)


_OF_ALL = frozenset(vars(nn.Module())) - {"training"}


def _is_plain(value: object) -> bool:
    if isinstance(value, (tuple, list)):
        return all(isinstance(item, SIMPLE) for item in value)
    return isinstance(value, SIMPLE)
