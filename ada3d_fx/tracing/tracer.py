"""The tracer: fx's, which reads shapes off the meta device, keeps parts whole, and disturbs nobody."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor, fx, nn

from ..errors import Reason
from ..packed.module_tree import constants_of
from .checkpoints import BLOCK, OWN
from .in_place import note_writes, versions
from .isolation import (
    NoDraws,
    Replacements,
    calls_caught,
    catch_draws,
    catch_functions,
    replacing,
)
from .program import AUGMENTED, writes
from .shadow import add_constants, dtype_of, shadow_call
from .whole import is_known

# What torch.utils.checkpoint.checkpoint takes for itself; all else goes to the function.
_CHECKPOINT_OPTIONS = (
    "use_reentrant",
    "preserve_rng_state",
    "context_fn",
    "determinism_check",
    "debug",
    "early_stop",
)


class _Proxy(fx.Proxy):
    """A traced value whose rank is known, and which requires gradients if training is traced."""

    tracer: Tracer

    def __getattr__(self, name: str) -> Any:
        if name == "requires_grad":
            return self.tracer.training
        return super().__getattr__(name)

    def __iter__(self) -> Iterator[Any]:
        fake = self.node.meta.get("fake")
        if isinstance(fake, (tuple, list)):  # as in view(n, c, *x.shape[2:])
            return iter([operator.getitem(self, i) for i in range(len(fake))])
        return super().__iter__()

    def __len__(self) -> int:
        fake = self.node.meta.get("fake")
        return len(fake) if isinstance(fake, (tuple, list)) else super().__len__()


def _augmented(function: Callable) -> Callable:
    def method(self: _Proxy, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    return method


for _name in AUGMENTED - {"setitem"}:  # fx itself takes `x += y` for `x = x + y`
    setattr(_Proxy, f"__{_name}__", _augmented(getattr(operator, _name)))


class Tracer(fx.Tracer):
    """fx's tracer, which keeps whole what the table names and what it cannot trace.

    What is read of buffers is traced: code may take parts of them, whose values change.

    Args:
        shadow: the model on the meta device.
        clip_shape: (C, T, H, W).
        training: whether training is traced.
        marked: modules whose calls are marked as checkpointed.
        num_clips: how many clips are traced.
    """

    proxy_buffer_attributes = True

    def __init__(
        self,
        shadow: nn.Module,
        clip_shape: Sequence[int],
        training: bool,
        marked: Collection[nn.Module] = (),
        num_clips: int = 2,
    ) -> None:
        super().__init__()
        self.untraceable: list[Reason] = []
        self.shadow = shadow
        self.clips_shape = (num_clips, *clip_shape)
        self.training = training
        self._marked = marked
        self._checkpoints = 0
        self._inside_checkpoint: tuple[str, int] | None = None

    def trace(
        self, root: nn.Module | Callable, concrete_args: dict[str, Any] | None = None
    ) -> fx.Graph:
        """Trace as fx does, but replace nothing that other threads use; see isolation.py."""
        assert isinstance(root, nn.Module)
        self.root, self.graph = root, fx.Graph(tracer_cls=type(self))
        self.submodule_paths = {module: path for path, module in root.named_modules()}
        self.tensor_attrs = {
            value: f"{path}.{name}" if path else name
            for path, module in root.named_modules()
            for name, value in vars(module).items()
            if isinstance(value, Tensor)
        }
        function = getattr(type(root), self.traced_func_name)
        function, args = self.create_args_for_root(function, True, concrete_args)
        parameters: dict[str, fx.Proxy] = {}
        with replacing() as replacements:
            catch_functions(replacements, root, self._autowrap_function_ids)
            catch_draws(replacements, root)
            self.replace_functions(replacements)
            replacements.replace(vars(torch.utils.checkpoint), "checkpoint", self.checkpoint)
            read = functools.partial(self.getattr, parameter_proxy_cache=parameters)
            with calls_caught(root, self.call_module, read), NoDraws():
                scores = self.create_arg(function(*args))
                self.create_node("output", "output", (scores,), {})
        self.submodule_paths = None
        return self.graph

    def replace_functions(self, replacements: Replacements) -> None:
        """Replace more functions while tracing."""

    def create_arg(self, a: Any) -> Any:
        """Turn a value into a node's argument; a tensor that the code makes into a constant."""
        if not self._is_literal(a):
            return super().create_arg(a)
        # a copy, as code may write to its tensor later; one for all that are equal
        for name, value in constants_of(self.root).items():
            if (value.dtype, value.device) == (a.dtype, a.device) and torch.equal(value, a):
                return self.create_node("get_attr", name, (), {})
        return super().create_arg(a.detach().clone())

    def _is_literal(self, value: Any) -> bool:
        """Whether a value is a tensor that the model's code makes."""
        if not isinstance(value, Tensor) or isinstance(value, (nn.Parameter, fx.Proxy)):
            return False
        kept = (*self.tensor_attrs, *self.root.buffers())
        return not any(value is other for other in kept)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """Make the traced value of a node."""
        return _Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Tell whether a module is kept whole."""
        if isinstance(m, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
            return False
        return is_known(m)

    def create_proxy(
        self, kind: str, target: Any, args: Any, kwargs: Any, *more: Any, **named: Any
    ) -> fx.Proxy:
        """Make a node and its traced value, whose shape is read off the meta device.

        Raises:
            TypeError: the model's code writes to a tensor that it makes.
        """
        written = [kwargs.get("out")]
        if kind in ("call_method", "call_function") and writes(target):
            written += args[:1]
        if any(self._is_literal(value) for value in written):
            raise TypeError(f"its code writes to a tensor that it makes ({target})")
        proxy = super().create_proxy(kind, target, args, kwargs, *more, **named)
        if self._inside_checkpoint is not None:
            proxy.node.meta["checkpoint"] = self._inside_checkpoint
        with torch.device("meta"), torch.no_grad(), suppress(Exception):
            before = versions(proxy.node)
            proxy.node.meta["fake"] = self._fake(proxy.node)
            note_writes(proxy.node, before)
        return proxy

    def _fake(self, node: fx.Node) -> Any:
        """The value of a node for clips on the meta device; it raises where there is none."""
        args, kwargs = fx.map_arg((node.args, node.kwargs), self._fake_argument)
        if node.op == "placeholder":
            return torch.empty(*self.clips_shape, dtype=dtype_of(self.shadow))
        target = node.target
        if callable(target):
            return target(*args, **kwargs)
        if node.op == "get_attr":
            add_constants(self.shadow, constants_of(self.root))
            return operator.attrgetter(target)(self.shadow)
        if node.op == "call_method":
            return getattr(args[0], target)(*args[1:], **kwargs)
        if node.op == "call_module":
            module = self.shadow.get_submodule(target)
            made = shadow_call(module, args, kwargs)
            # the shadow is in evaluation, where dropout gives what it takes
            drops = self.training and isinstance(module, nn.modules.dropout._DropoutNd)
            return torch.empty_like(made) if drops and not module.inplace else made
        return None  # the output

    def _fake_argument(self, node: fx.Node) -> Any:
        if node.op == "get_attr" and "fake" not in node.meta:  # a buffer or a constant
            node.meta["fake"] = self._fake(node)
        return node.meta["fake"]

    def call_module(self, m: nn.Module, forward: Callable, args: Any, kwargs: Any) -> Any:
        """Trace the call of a module, or keep the module whole if that fails."""
        if m in self._marked:
            return self._checkpoint(BLOCK, self._call_module, m, forward, args, kwargs)
        return self._call_module(m, forward, args, kwargs)

    def _call_module(self, m: nn.Module, forward: Callable, args: Any, kwargs: Any) -> Any:
        stack = list(self.module_stack.items())
        mark = list(self.graph.nodes)[-1] if len(self.graph.nodes) else None
        try:
            return super().call_module(m, forward, args, kwargs)
        # A model's own code runs on proxies here, and what that raises is up to that code. A real
        # mistake shows when the same module runs on shapes, see shapes.py.
        except Exception as error:  # noqa: BLE001
            path, why = self.path_of_module(m), str(error).strip().split("\n")[0]
            self.untraceable.append(Reason(path, f"{type(m).__name__} cannot be traced: {why}"))
            self._erase_after(mark)
            self.module_stack.clear()
            self.module_stack.update(stack)
            return self.create_proxy("call_module", path, args, kwargs)

    def checkpoint(self, function: Callable, *args: Any, **options: Any) -> Any:
        """Run the function, and mark its nodes; in the place of torch.utils.checkpoint's."""
        options = {k: v for k, v in options.items() if k not in _CHECKPOINT_OPTIONS}
        return self._checkpoint(OWN, function, *args, **options)

    def _checkpoint(self, kind: str, function: Callable, *args: Any, **options: Any) -> Any:
        if self._inside_checkpoint is not None:
            return function(*args, **options)
        self._checkpoints += 1
        self._inside_checkpoint = (kind, self._checkpoints)
        try:
            return function(*args, **options)
        finally:
            self._inside_checkpoint = None

    def _erase_after(self, mark: fx.Node | None) -> None:
        nodes = list(self.graph.nodes)
        start = nodes.index(mark) + 1 if mark is not None else 0
        for node in reversed(nodes[start:]):
            self.graph.erase_node(node)
