"""Model -> fx graph from clips to scores, whose nodes keep their module paths; the table of leaves,
each with its reason."""

from __future__ import annotations

import copy
import operator
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import fx, nn

from .errors import Ada3DError, Reason, UnsupportedModel

# Modules kept whole because their forward only guards against empty inputs around a torch.nn forward that we know.
# Everything else outside torch.nn is traced through. Row: defining module -> reason.
LEAF_PACKAGES = {
    "torch.nn.": "torch.nn modules are the vocabulary of the rules in stages.py",
    "mmcv.cnn.bricks.wrappers": "torch.nn modules with a guard for empty inputs under torch < 1.5",
    "mmcv.cnn.bricks.activation": "element-wise activations",
}

# What fx and a model's own control flow raise when a traced value decides a branch or meets an unknown callable.
_TRACE_FAILURES = (
    fx.proxy.TraceError,
    TypeError,
    AttributeError,
    NotImplementedError,
    RuntimeError,
)


class Scores(nn.Module):
    """The part of a recognizer that turns clips into scores: backbone, optional neck, head, under
    their own names."""

    def __init__(self, backbone: nn.Module, cls_head: nn.Module, neck: nn.Module | None = None):
        super().__init__()
        self.backbone = backbone
        if neck is not None:
            self.neck = neck
        self.cls_head = cls_head

    def forward(self, clips):
        features = self.backbone(clips)
        if hasattr(self, "neck"):
            features, _ = self.neck(features)
        return self.cls_head(features)


def scores_module(model: nn.Module) -> nn.Module:
    """A copy of ``model`` as a module from clips [N, C, T, H, W] to scores [N, classes].

    A recognizer is told by its ``backbone`` and ``cls_head``; any other module is taken to be one
    already.

    Raises:
        Ada3DError: not a module, or a recognizer with a part missing.
    """
    if not isinstance(model, nn.Module):
        raise Ada3DError(
            f"convert: expected a built model (nn.Module), got {type(model).__name__}; "
            "build a config with mmaction.registry.MODELS.build(cfg.model) first"
        )
    backbone, head, neck = (getattr(model, name, None) for name in ("backbone", "cls_head", "neck"))
    if backbone is None and head is None and not hasattr(model, "extract_feat"):
        return copy.deepcopy(model)
    for name, part in (("backbone", backbone), ("cls_head", head)):
        if not isinstance(part, nn.Module):
            raise Ada3DError(
                f"convert: {type(model).__name__} has no `{name}`: a recognizer needs `backbone` and `cls_head`; "
                "a plain nn.Module from clips to scores converts too, if it has none of them"
            )
    scores = Scores(backbone, head, neck)
    scores.training = model.training  # the flags of the parts are their own
    return copy.deepcopy(scores)


class _Proxy(fx.Proxy):
    """A traced value whose rank is known, and which does not require gradients: checkpointing is a
    matter of memory, not of values."""

    def __getattr__(self, name: str) -> Any:
        return False if name == "requires_grad" else super().__getattr__(name)

    def __iter__(self):
        fake = self.node.meta.get("fake")
        if isinstance(fake, (tuple, list)):  # as in view(n, c, *x.shape[2:])
            return iter([self[i] for i in range(len(fake))])
        return super().__iter__()

    def __len__(self) -> int:
        fake = self.node.meta.get("fake")
        return len(fake) if isinstance(fake, (tuple, list)) else super().__len__()


class _Tracer(fx.Tracer):
    """fx's tracer, with leaves from the table, and modules that cannot be traced as leaves with
    their reason."""

    def __init__(self, shadow: nn.Module, clip_shape: Sequence[int]) -> None:
        super().__init__()
        self.untraceable: list[Reason] = []
        self.shadow = shadow
        self.clip_shape = clip_shape
        self._evaluating = False

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
            return False
        return f"{type(m).__module__}.".startswith(tuple(LEAF_PACKAGES))

    def create_proxy(self, kind, target, args, kwargs, *more, **named):
        proxy = super().create_proxy(kind, target, args, kwargs, *more, **named)
        self._evaluating = (
            True  # fx sees every module call and parameter while it traces, these too
        )
        with torch.device("meta"), torch.no_grad(), suppress(*_TRACE_FAILURES, LookupError):
            proxy.node.meta["fake"] = self._fake(proxy.node)
        self._evaluating = False
        return proxy

    def getattr(self, attr, attr_val, parameter_proxy_cache):
        return (
            attr_val if self._evaluating else super().getattr(attr, attr_val, parameter_proxy_cache)
        )

    def _fake(self, node: fx.Node) -> Any:
        """The value of a node for clips on the meta device; an exception where it has none."""
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: n.meta["fake"])
        if node.op == "placeholder":
            return torch.empty(2, *self.clip_shape, dtype=dtype_of(self.shadow))
        if node.op == "get_attr":
            return operator.attrgetter(node.target)(self.shadow)
        if node.op == "call_method":
            return getattr(args[0], node.target)(*args[1:], **kwargs)
        if node.op == "call_module":
            return shadow_call(self.shadow.get_submodule(node.target), args, kwargs)
        return node.target(*args, **kwargs) if node.op != "output" else None

    def call_module(self, m, forward, args, kwargs):
        if self._evaluating:
            return forward(*args, **kwargs)
        stack = list(self.module_stack.items())
        mark = list(self.graph.nodes)[-1] if len(self.graph.nodes) else None
        try:
            return super().call_module(m, forward, args, kwargs)
        except _TRACE_FAILURES as error:
            path = self.path_of_module(m)
            self.untraceable.append(Reason(path, f"{type(m).__name__} cannot be traced: {error}"))
            self._erase_after(mark)
            self.module_stack.clear()
            self.module_stack.update(stack)
            return self.create_proxy("call_module", path, args, kwargs)

    def _erase_after(self, mark: fx.Node | None) -> None:
        nodes = list(self.graph.nodes)
        start = nodes.index(mark) + 1 if mark is not None else 0
        for node in reversed(nodes[start:]):
            self.graph.erase_node(node)


def trace(
    root: nn.Module, shadow: nn.Module, clip_shape: Sequence[int]
) -> tuple[fx.Graph, list[Reason]]:
    """The graph of ``root`` and the modules kept as leaves because they could not be traced.

    ``shadow``: ``root`` on the meta device, for the shapes of clips [2, *clip_shape].

    Raises:
        UnsupportedModel: the root itself cannot be traced, or computes something else in training
            than in evaluation outside of torch.nn modules (a graph would hold only one of the two).
    """
    name = type(root).__name__
    modes = {path: module.training for path, module in root.named_modules()}
    graphs = []
    try:
        for training in (True, False):
            for module in root.modules():
                module.training = training
            tracer = _Tracer(shadow, clip_shape)
            graphs.append(tracer.trace(root))
            _drop_unused(graphs[-1])
    except _TRACE_FAILURES as error:
        raise UnsupportedModel(
            name, [Reason(name, f"cannot be traced by torch.fx: {error}")]
        ) from error
    finally:
        for path, module in root.named_modules():
            module.training = modes[path]
    differing = [
        (a, b)
        for a, b in zip(graphs[0].nodes, graphs[1].nodes)
        if a.format_node() != b.format_node()
    ]
    if differing or len(graphs[0].nodes) != len(graphs[1].nodes):
        where = module_path(differing[0][0]) if differing else name
        why = "reads self.training in its own forward; use torch.nn modules (such as nn.Dropout) for that"
        raise UnsupportedModel(name, [Reason(where, why)])
    return graphs[1], tracer.untraceable


def _drop_unused(graph: fx.Graph) -> None:
    for node in reversed(graph.nodes):
        if not node.users and node.op not in ("placeholder", "output"):
            graph.erase_node(node)


def module_path(node: fx.Node) -> str:
    """The path of the module in whose forward ``node`` was made, as ``named_modules`` has it."""
    if node.op == "call_module":
        return str(node.target)
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values()]
    return paths[-1] if paths and paths[-1] else node.name


def shadow_of(module: nn.Module) -> nn.Module:
    """A copy of ``module`` on the meta device, in evaluation mode: shapes without arithmetic."""
    shadow = copy.deepcopy(module).to("meta")
    for part in shadow.modules():
        part.training = (
            False  # not eval(): some models' train() returns nothing, or sets flags back
        )
    return shadow


def shadow_call(module: nn.Module, args: tuple, kwargs: dict) -> Any:
    """``module(*args)`` on the meta device, where BatchNorm takes 5 ms for nothing."""
    if isinstance(module, nn.BatchNorm3d) and len(args) == 1:
        (x,) = args
        if x.ndim == 5 and x.shape[1] == module.num_features:
            return x
    return module(*args, **kwargs)


def dtype_of(module: nn.Module) -> torch.dtype:
    """The floating dtype of a module's first parameter or buffer (float32 if it has none)."""
    tensors = [*module.parameters(), *module.buffers()]
    return next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)
