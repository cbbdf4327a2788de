"""What tracing replaces: for the thread that traces and the model that is traced, for nobody else.

fx.Tracer.trace replaces methods of nn.Module and functions of other packages for the whole process,
so every other thread runs into them. Here, calls and attributes are caught in the modules of the
traced model alone, and a replaced function is the original in all other threads.
"""

from __future__ import annotations

import functools
import math
import random
import sys
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.fx import _symbolic_trace as fx_tracing
from torch.utils._python_dispatch import TorchDispatchMode

Namespace = type | dict[str, Any]  # a class, or what ``vars()`` of a Python module gives

_ONE_THREAD = threading.RLock()


class Replacements:
    """Functions that are replaced for the thread that made this object; see `replacing`."""

    def __init__(self) -> None:
        self.thread: int | None = threading.get_ident()
        self.originals: list[tuple[Namespace, str, Any]] = []

    def replace(self, namespace: Namespace, name: str, new: Callable) -> None:
        """Let ``name`` be ``new`` in this thread; in others it stays what it was.

        Args:
            namespace: the class or the global names that have it, unless it is a built-in function.
            name: of a function or method.
            new: takes what the function takes.
        """
        names = vars(namespace) if isinstance(namespace, type) else namespace
        held = names.get(name, _MISSING)
        original = vars(sys.modules["builtins"])[name] if held is _MISSING else held
        wrapper = type(original) if isinstance(original, (staticmethod, classmethod)) else None
        function = original if wrapper is None else original.__func__

        @functools.wraps(function)
        def dispatch(*args: Any, **kwargs: Any) -> Any:
            chosen = new if self.thread == threading.get_ident() else function
            return chosen(*args, **kwargs)

        for attribute in ("cache_clear", "cache_info", "cache_parameters"):
            if hasattr(function, attribute):
                setattr(dispatch, attribute, getattr(function, attribute))
        self.originals.append((namespace, name, held))
        _put(namespace, name, dispatch if wrapper is None else wrapper(dispatch))

    def undo(self) -> None:
        """Put the originals back; what still holds a replaced function gets the original of it."""
        self.thread = None
        while self.originals:
            _put(*self.originals.pop())


@contextmanager
def replacing() -> Iterator[Replacements]:
    """Replace functions for this thread alone; another thread that wants to do so waits."""
    with _ONE_THREAD:
        replacements = Replacements()
        try:
            yield replacements
        finally:
            replacements.undo()


@contextmanager
def calls_caught(
    root: nn.Module, call: Callable[..., Any], read: Callable[[str, Any], Any]
) -> Iterator[None]:
    """Catch the calls of the modules of ``root``, and what is read of their parameters and children.

    Args:
        root: no other thread uses its modules meanwhile.
        call: takes a module, the function that calls it, and the arguments as a tuple and a dict.
        read: takes the name and the value of a parameter, buffer or child; returns what is read.
    """

    class Caught(nn.Module):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return call(self, super().__call__, args, kwargs)

        def __getattr__(self, name: str) -> Any:
            return read(name, super().__getattr__(name))

    classes: dict[type, type] = {}
    changed: list[tuple[nn.Module, type]] = []
    try:
        for module in root.modules():
            original = type(module)
            if original not in classes:
                # `Caught` is right before nn.Module in the order of inheritance, so the model's own
                # methods come first
                made = types.new_class(original.__name__, (_Unnoticed, original, Caught))
                made.__module__, made.__qualname__ = original.__module__, original.__qualname__
                classes[original] = made
            module.__class__ = classes[original]
            changed.append((module, original))
        yield
    finally:
        for module, original in changed:
            module.__class__ = original


def catch_functions(replacements: Replacements, root: nn.Module, functions: set[int]) -> None:
    """Let the functions that fx catches make nodes of traced values, as fx itself does.

    Args:
        replacements: where they are replaced.
        root: what is traced.
        functions: the ``id`` of each that is caught wherever a file of the model names it.
    """
    for (_, name), names in dict(fx_tracing._wrapped_fns_to_patch).items():
        original = names[name] if name in names else vars(sys.modules["builtins"])[name]
        replacements.replace(names, name, fx_tracing._create_wrapped_func(original))
    for owner, name in fx_tracing._wrapped_methods_to_patch:
        replacements.replace(owner, name, fx_tracing._create_wrapped_method(owner, name))
    for names in _files(root, math):
        for name, value in list(names.items()):
            if not name.startswith("_") and callable(value) and id(value) in functions:
                replacements.replace(names, name, fx_tracing._create_wrapped_func(value))


class NoDraws(TorchDispatchMode):
    """Raises where a model's code draws random numbers of which no traced value knows.

    They would be drawn once, while tracing, and be the same ever after.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded in func.tags:
            devices = [value.device for value in args if isinstance(value, torch.Tensor)]
            if torch.device("meta") not in (*devices, kwargs.get("device")):
                _refuse_draw(func)
        return func(*args, **kwargs)


def catch_draws(replacements: Replacements, root: nn.Module) -> None:
    """Let the generators of Python's and NumPy's random numbers raise, as `NoDraws` does."""
    for names in _files(root, random, np.random):
        for name, value in list(names.items()):
            owner = getattr(value, "__self__", None)
            if isinstance(owner, (random.Random, np.random.RandomState)):
                replacements.replace(names, name, functools.partial(_refuse_draw, name))


def _refuse_draw(what: Any, *args: Any, **kwargs: Any) -> None:
    raise RuntimeError(f"its code draws random numbers ({what})")


def _files(root: nn.Module, *modules: types.ModuleType) -> list[dict[str, Any]]:
    """The global names of some Python modules, and those that the forwards of ``root`` see."""
    files = [vars(module) for module in modules]
    files += [getattr(module.forward, "__globals__", {}) for module in root.modules()]
    return list({id(names): names for names in files}.values())


@contextmanager
def own_caches(root: nn.Module) -> Iterator[None]:
    """Give this thread caches of its own for the ``functools.lru_cache`` functions of a model.

    What they keep in here (traced values, tensors without values) then reaches nobody else.
    MMAction2's Swin keeps its attention masks in one.

    Args:
        root: cached are the functions and methods beside its modules' classes, and those in the
            Python modules that these files name.
    """
    with replacing() as replacements:
        for namespace in _namespaces(root):
            for name, value in list(vars(namespace).items()):
                function = (
                    value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
                )
                if isinstance(function, functools._lru_cache_wrapper):
                    own = functools.lru_cache(**function.cache_parameters())(function.__wrapped__)
                    owner = namespace if isinstance(namespace, type) else vars(namespace)
                    replacements.replace(owner, name, own)
        yield


def _namespaces(root: nn.Module) -> list[type | types.ModuleType]:
    classes = {
        c for module in root.modules() for c in type(module).__mro__ if _is_users(c.__module__)
    }
    files = {sys.modules[c.__module__] for c in classes if c.__module__ in sys.modules}
    named = {
        value
        for file in files
        for value in list(vars(file).values())
        if isinstance(value, types.ModuleType) and _is_users(value.__name__)
    }
    return [*classes, *(files | named)]


def _is_users(name: str) -> bool:
    top = name.partition(".")[0]
    return top not in {"torch", *sys.stdlib_module_names} or name == "__main__"


class _Unnoticed(nn.Module):
    """Keeps a class's ``__init_subclass__`` from being run, which may register each subclass."""

    def __init_subclass__(cls, **options: Any) -> None:
        pass


_MISSING = object()


def _put(namespace: Namespace, name: str, value: Any) -> None:
    if isinstance(namespace, type):
        setattr(namespace, name, value)
    elif value is _MISSING:
        del namespace[name]
    else:
        namespace[name] = value
