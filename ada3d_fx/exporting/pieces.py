"""Modules as pieces of an ONNX graph, whose weights are held once however many pieces use them."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import requirements
from ..errors import Ada3DError

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
    ) -> Any:
        """Trace a module to an ONNX graph of its own.

        Args:
            module: from tensors to a tensor or a tuple of them.
            inputs: for which it is traced.
            dynamic: place of an input -> its axes whose size varies.
            where: what it is, for messages.

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
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(heard),
            contextlib.redirect_stderr(heard),
            torch.no_grad(),
        ):
            # of the exporter's own future, and that sizes become constants, which is looked for
            warnings.simplefilter("ignore")
            try:
                torch.onnx.export(
                    _Called(module).eval(), tuple(inputs), file, input_names=names, dynamic_axes=axes,
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
        names = {tensor.name: self._weight(tensor) for tensor in graph.initializer}
        names.update(zip([value.name for value in graph.input], inputs))
        ends = [value.name for value in graph.output]
        names.update(zip(ends, outputs))
        nodes = []
        for node in graph.node:
            new = onnx().NodeProto()
            new.CopyFrom(node)
            new.name = prefix + node.name
            for values in (new.input, new.output):
                values[:] = [name and names.setdefault(name, prefix + name) for name in values]
            nodes.append(new)
        # an output that is an input or a weight has no node to name it
        made = {name for node in graph.node for name in node.output}
        sources = {value.name: name for value, name in zip(graph.input, inputs)}
        for end, name in zip(ends, outputs):
            if end not in made:
                nodes.append(onnx().helper.make_node("Identity", [sources[end]], [name]))
        return nodes

    def signature(self, graph: Any) -> str:
        """Return what two traced graphs have in common if they are the same program.

        Names do not count, as the tracer numbers them; shapes that it notes at values do not either.
        """
        numbers: dict[str, str] = {
            tensor.name: _digest(onnx().numpy_helper.to_array(tensor))
            for tensor in graph.initializer
        }
        for index, value in enumerate(graph.input):
            numbers.setdefault(value.name, f"in{index}")
        lines = []
        for number, node in enumerate(graph.node):
            attributes = sorted(a.SerializeToString(deterministic=True) for a in node.attribute)
            inputs = [numbers.get(name, name) for name in node.input]
            numbers.update({name: f"{number}.{i}" for i, name in enumerate(node.output)})
            lines.append((node.op_type, tuple(inputs), tuple(attributes)))
        return hashlib.sha256(repr(lines).encode()).hexdigest()

    def constant(self, array: Any) -> str:
        """Return the name of a weight of this content."""
        return self._weight(onnx().numpy_helper.from_array(array))

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


def _digest(array: Any) -> str:
    head = f"{array.dtype} {array.shape} ".encode()
    return hashlib.sha256(head + array.tobytes()).hexdigest()
