"""Modules as pieces of an ONNX graph, whose weights are held once however many pieces use them."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import io
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .. import requirements
from ..errors import Ada3DError
from ..tracing.isolation import own_caches

OPSET = 17  # the last that torch's older exporter writes, and that both engines read in full


def onnx() -> Any:
    """Return the package onnx.

    Raises:
        MissingRequirement: it is not installed.
    """
    return requirements.module("onnx", "export")


class Pieces:
    """Turns modules into ONNX nodes, and collects their weights.

    Weights of the same content are one: so the branches of a part share theirs.
    """

    def __init__(self) -> None:
        self.weights: dict[str, Any] = {}  # digest -> TensorProto, under its name in the graph

    def trace(
        self,
        module: nn.Module,
        inputs: Sequence[Tensor],
        dynamic: Mapping[int, Sequence[int]],
        where: str,
        warm: bool = False,
    ) -> Any:
        """Trace a module to an ONNX graph of its own.

        Args:
            module: from tensors to a tensor or a tuple of them.
            inputs: for which it is traced.
            dynamic: place of an input -> its axes whose size varies.
            where: what it is, for messages.
            warm: its code may keep what it computes of sizes, such as masks: it runs once before, so
                that these are constants.

        Raises:
            Ada3DError: it holds an operation that ONNX has not.
        """
        names = [f"in{index}" for index in range(len(inputs))]
        axes = {names[i]: {d: f"n{i}_{d}" for d in dims} for i, dims in dynamic.items() if dims}
        options: dict[str, Any] = {"dynamo": False}
        file: Any = io.BytesIO()
        if "dynamo" not in inspect.signature(torch.onnx.export).parameters:  # torch 2.4
            options = {}
        heard = io.StringIO()  # where it fails, the exporter prints the whole graph
        called = _Called(module).eval()
        sizes = contextlib.nullcontext() if any(dynamic.values()) else _KnownSizes()
        with (
            own_caches(called),
            sizes,
            warnings.catch_warnings(),
            contextlib.redirect_stdout(heard),
            contextlib.redirect_stderr(heard),
            torch.no_grad(),
        ):
            # of the exporter's own future, and that sizes become constants, which is looked for
            warnings.simplefilter("ignore")
            try:
                if warm:
                    called(*inputs)
                torch.onnx.export(
                    called, tuple(inputs), file, input_names=names, dynamic_axes=axes,
                    opset_version=OPSET, **options,
                )  # fmt: skip
            except (torch.onnx.errors.OnnxExporterError, RuntimeError, TypeError) as error:
                lines = str(error).strip().splitlines()
                raise Ada3DError(
                    f"export: {where} cannot be written as ONNX: {lines[0] if lines else error!r}"
                ) from error
        return onnx().load_from_string(file.getvalue()).graph

    def place(
        self, graph: Any, prefix: str, inputs: Sequence[str], outputs: Sequence[str]
    ) -> list[Any]:
        """Return a traced graph's nodes under names of their own.

        Args:
            graph: what `trace` gave.
            prefix: of the names of its values.
            inputs: what its inputs are called outside.
            outputs: what its outputs shall be called.
        """
        sources = dict(zip([value.name for value in graph.input], inputs))
        ends = [value.name for value in graph.output]
        made = {name for node in graph.node for name in node.output}
        names = {**sources, **{end: n for end, n in zip(ends, outputs) if end in made}}
        nodes = self._renamed(graph, prefix, names)
        # one that is an input, a weight, or given twice, has no node to name it
        for end, name in zip(ends, outputs):
            if names[end] != name:
                nodes.append(onnx().helper.make_node("Identity", [names[end]], [name]))
        return nodes

    def _renamed(self, graph: Any, prefix: str, names: dict[str, str]) -> list[Any]:
        """A graph's nodes under other names, also in branches of its own; large constants are weights.

        Args:
            graph: its nodes are copied.
            prefix: of names that ``names`` has not.
            names: old -> new; what is made is added.
        """
        names.update((tensor.name, self._weight(tensor)) for tensor in graph.initializer)
        nodes = []
        for node in graph.node:
            held = _constant_of(node)
            if held is not None and node.output[0] not in names:
                names[node.output[0]] = self._weight(held)
                continue
            new = onnx().NodeProto()
            new.CopyFrom(node)
            new.name = prefix + node.name
            for values in (new.input, new.output):
                values[:] = [name and names.setdefault(name, prefix + name) for name in values]
            for attribute in new.attribute:
                for inner in [
                    *([attribute.g] if attribute.HasField("g") else []),
                    *attribute.graphs,
                ]:
                    self._rename_inside(inner, prefix, names)
            nodes.append(new)
        return nodes

    def _rename_inside(self, graph: Any, prefix: str, names: dict[str, str]) -> None:
        """Rename what a branch of a traced graph holds; it sees the values outside of it."""
        own = dict(names)
        for value in graph.input:
            own[value.name] = prefix + value.name
            value.name = own[value.name]
        nodes = self._renamed(graph, prefix, own)
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(nodes)
        for number, value in enumerate(graph.output):
            source, value.name = own[value.name], f"{prefix}{graph.name}_end_{number}"
            graph.node.append(onnx().helper.make_node("Identity", [source], [value.name]))

    def signature(self, graph: Any) -> str:
        """Return what two traced graphs have in common if they are the same program.

        Names do not count, as the tracer numbers them; shapes that it notes at values do not either.
        """
        lines = _lines(graph, {value.name: f"in{i}" for i, value in enumerate(graph.input)})
        return hashlib.sha256(repr(lines).encode()).hexdigest()

    def constant(self, array: Any) -> str:
        """Return the name of a weight of this content."""
        return self._weight(onnx().numpy_helper.from_array(array))

    def scalar(self, value: int | bool) -> str:
        """Return the name of a number."""
        return self.constant(np.array(value))

    def vector(self, *values: int) -> str:
        """Return the name of a vector of numbers."""
        return self.constant(np.array(values, dtype=np.int64))

    def _weight(self, tensor: Any) -> str:
        digest = _digest(onnx().numpy_helper.to_array(tensor))
        if digest not in self.weights:
            own = onnx().TensorProto()
            own.CopyFrom(tensor)
            own.name = f"weight_{len(self.weights)}"
            self.weights[digest] = own
        return self.weights[digest].name


class _Called(nn.Module):
    """A module without a ``graph`` of its own, which the exporter would take for its own kind."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> Any:
        return self.module(*inputs)


class _KnownSizes(TorchFunctionMode):
    """Sizes are numbers for the tracer, where they are the same in every run, and not computed."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if func not in (Tensor.size, Tensor.shape.__get__):  # type: ignore[attr-defined]
            return made
        return torch.Size(map(int, made)) if isinstance(made, tuple) else int(made)


SHARED = 64  # numbers of a constant that is held as a weight, once


def _constant_of(node: Any) -> Any:
    """The tensor of a constant that is large enough to be held once."""
    if node.op_type != "Constant":
        return None
    (attribute,) = node.attribute
    return attribute.t if attribute.name == "value" and _count(attribute.t) >= SHARED else None


def _count(tensor: Any) -> int:
    return math.prod(tensor.dims)


def _lines(graph: Any, numbers: dict[str, str]) -> list[Any]:
    """The operations of a graph, with values numbered in the order in which they are made."""
    for tensor in graph.initializer:
        numbers[tensor.name] = _digest(onnx().numpy_helper.to_array(tensor))
    lines: list[Any] = []
    for node in graph.node:
        inputs = [numbers.get(name, name) for name in node.input]
        attributes = []
        for a in sorted(node.attribute, key=lambda a: a.name):
            inner = [*([a.g] if a.HasField("g") else []), *a.graphs]
            told = [_lines(g, dict(numbers)) for g in inner]
            attributes.append((a.name, told or a.SerializeToString(deterministic=True)))
        numbers.update({name: f"v{len(numbers)}" for name in node.output})
        lines.append((node.op_type, inputs, attributes))
    lines.append([numbers.get(value.name, value.name) for value in graph.output])
    return lines


def _digest(array: Any) -> str:
    head = f"{array.dtype} {array.shape} ".encode()
    return hashlib.sha256(head + array.tobytes()).hexdigest()
