"""Model -> fx graph from clips to scores, whose nodes keep their module paths."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor, fx, nn

from ..errors import Reason, UnsupportedModel
from ..packed.module_tree import constants_of
from .isolation import calls_caught, catch_functions, own_caches, replacing
from .model import model_name
from .program import Program, drop_unused
from .shadow import add_constants, dtype_of, left_as_it_was, set_mode, shadow_call
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


def trace(root: nn.Module, shadow: nn.Module, clip_shape: Sequence[int]) -> list[Program]:
    """Trace ``root`` in evaluation and in training.

    Args:
        root: a module from clips to scores; it is left as it was.
        shadow: ``root`` on the meta device, for the shapes of clips [2, *clip_shape].
        clip_shape: (C, T, H, W).

    Returns:
        The program in evaluation, and the one in training where it differs.

    Raises:
        UnsupportedModel: the root itself cannot be traced.
    """
    evaluation, training = (_trace(root, shadow, clip_shape, mode) for mode in (False, True))
    return [evaluation] if evaluation.agrees_with(training) else [evaluation, training]


def _trace(
    root: nn.Module, shadow: nn.Module, clip_shape: Sequence[int], training: bool
) -> Program:
    tracer = _Tracer(shadow, clip_shape, training)
    if training and hasattr(root, "forward_in_training"):
        tracer.traced_func_name = "forward_in_training"
    with left_as_it_was(root), own_caches(root):
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
    drop_unused(graph)
    return Program(graph, tracer.untraceable)


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


class _Proxy(fx.Proxy):
    """A traced value whose rank is known, and which requires gradients if training is traced."""

    tracer: _Tracer

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


class _Tracer(fx.Tracer):
    """fx's tracer, which keeps whole what the table names and what it cannot trace.

    Args:
        shadow: the model on the meta device.
        clip_shape: (C, T, H, W).
        training: whether training is traced.
    """

    def __init__(self, shadow: nn.Module, clip_shape: Sequence[int], training: bool) -> None:
        super().__init__()
        self.untraceable: list[Reason] = []
        self.shadow = shadow
        self.clip_shape = clip_shape
        self.training = training
        self._checkpoints = 0
        self._inside_checkpoint: int | None = None

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
            replacements.replace(vars(torch.utils.checkpoint), "checkpoint", self.checkpoint)
            with calls_caught(
                root, self.call_module, lambda name, value: self.getattr(name, value, parameters)
            ):
                scores = self.create_arg(function(*args))
                self.create_node("output", "output", (scores,), {})
        self.submodule_paths = None
        return self.graph

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
            return False
        return is_known(m)

    def create_proxy(
        self, kind: str, target: Any, args: Any, kwargs: Any, *more: Any, **named: Any
    ) -> fx.Proxy:
        proxy = super().create_proxy(kind, target, args, kwargs, *more, **named)
        if self._inside_checkpoint is not None:
            proxy.node.meta["checkpoint"] = self._inside_checkpoint
        with torch.device("meta"), torch.no_grad(), suppress(Exception):
            proxy.node.meta["fake"] = self._fake(proxy.node)
        return proxy

    def _fake(self, node: fx.Node) -> Any:
        """The value of a node for clips on the meta device; it raises where there is none."""
        args, kwargs = fx.map_arg((node.args, node.kwargs), self._fake_argument)
        if node.op == "placeholder":
            return torch.empty(2, *self.clip_shape, dtype=dtype_of(self.shadow))
        target = node.target
        if callable(target):
            return target(*args, **kwargs)
        if node.op == "get_attr":
            add_constants(self.shadow, constants_of(self.root))
            return operator.attrgetter(target)(self.shadow)
        if node.op == "call_method":
            return getattr(args[0], target)(*args[1:], **kwargs)
        if node.op == "call_module":
            return shadow_call(self.shadow.get_submodule(target), args, kwargs)
        return None  # the output

    def _fake_argument(self, node: fx.Node) -> Any:
        if node.op == "get_attr" and "fake" not in node.meta:  # a buffer or a constant
            node.meta["fake"] = self._fake(node)
        return node.meta["fake"]

    def call_module(self, m: nn.Module, forward: Callable, args: Any, kwargs: Any) -> Any:
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
        if self._inside_checkpoint is not None:
            return function(*args, **options)
        self._checkpoints += 1
        self._inside_checkpoint = self._checkpoints
        try:
            return function(*args, **options)
        finally:
            self._inside_checkpoint = None

    def _erase_after(self, mark: fx.Node | None) -> None:
        nodes = list(self.graph.nodes)
        start = nodes.index(mark) + 1 if mark is not None else 0
        for node in reversed(nodes[start:]):
            self.graph.erase_node(node)
