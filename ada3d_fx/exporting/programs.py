"""A network's program for clips of each length, run for the shapes of its values alone."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from ..convert import AdaptiveNetwork
from ..cost.shapes_only import no_arithmetic
from ..passes.isolation import own_caches
from ..passes.shadow import dtype_of, isolated
from ..specialize import StaticProgram, static_program


class Programs:
    """What `specialize` makes of a network, for each length; the weights are the network's own.

    Args:
        adaptive: the network; it is not changed.
    """

    def __init__(self, adaptive: AdaptiveNetwork):
        self.adaptive, self.plan = adaptive, adaptive.plan
        unit = self.plan.frame_unit or self.plan.num_frames
        self.lengths = range(unit, self.plan.num_frames + 1, unit)
        self._made: dict[tuple[int, tuple[bool, ...]], StaticProgram] = {}

    def of(self, length: int, stages: Sequence[bool] | None = None) -> StaticProgram:
        """Return the program of one policy; without ``stages``, all of them are on."""
        on = (True,) * self.plan.num_stages if stages is None else tuple(stages)
        if (length, on) not in self._made:
            made = static_program(self.adaptive, length, on, copy_weights=False)
            self._made[length, on] = made
        return self._made[length, on]

    def run(self, length: int, note: Callable[[fx.Node, Any], None]) -> None:
        """Tell what each node of the network's source gives for one clip, all stages on.

        Args:
            length: kept frames of the clip.
            note: takes a node and its value; floating-point numbers in it mean nothing.
        """
        static = self.of(length)
        sources = {copy.name: node for node, copy in static.nodes.items()}
        channels, _, height, width = self.plan.clip_shape
        with _shapes_only(static.module) as module:
            assert isinstance(module, fx.GraphModule)
            clip = torch.zeros(1, channels, length, height, width, dtype=dtype_of(module))
            _Noting(module, lambda node, value: note(sources[node.name], value)).run(clip)


class _Noting(fx.Interpreter):
    """Runs a program and tells what its nodes give."""

    def __init__(self, module: fx.GraphModule, note: Callable[[fx.Node, Any], None]):
        super().__init__(module)
        self.note = note

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.op != "output":
            self.note(n, value)
        return value


@contextmanager
def _shapes_only(module: nn.Module) -> Iterator[nn.Module]:
    """A copy to run without arithmetic; what the model's code keeps of it goes with the copy."""
    copied = isolated(module)
    with torch.no_grad(), own_caches(copied), no_arithmetic():
        yield copied


def program_signature(module: nn.Module, inputs: Sequence[Tensor]) -> str:
    """Return what two runs have in common if they are the same operations, sizes left open.

    Sizes that the code computes from its inputs' shapes do not count; those that it reads into
    Python, and decides by, are constants and count. No arithmetic is done.

    Args:
        module: from tensors to a tuple of tensors.
        inputs: of shapes to run it with; their values do not matter.
    """
    with _shapes_only(module) as copied, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that sizes become constants, which is looked for
        graph, _ = torch.jit._get_trace_graph(copied, tuple(inputs), strict=False)
    torch._C._jit_pass_dce(graph)
    numbers: dict[str, str] = {v.debugName(): f"in{i}" for i, v in enumerate(graph.inputs())}
    lines = _lines(graph, numbers)
    ends = [numbers[value.debugName()] for value in graph.outputs()]
    return hashlib.sha256(repr((lines, ends)).encode()).hexdigest()


def _lines(block: Any, numbers: dict[str, str]) -> list[Any]:
    """The operations of a block, with values numbered in the order in which they are made."""
    lines: list[Any] = []
    for node in block.nodes():
        inputs = [numbers[value.debugName()] for value in node.inputs()]
        attributes = [
            (n, _content(getattr(node, node.kindOf(n))(n))) for n in node.attributeNames()
        ]
        numbers.update({v.debugName(): f"v{len(numbers)}" for v in node.outputs()})
        inner = [_lines(b, numbers) for b in node.blocks()]
        lines.append((node.kind(), inputs, sorted(attributes), inner))
    return lines


def _content(value: Any) -> str:
    """A constant as text; of a floating tensor the shape, as nothing computed it."""
    if isinstance(value, Tensor):
        held = "" if value.is_floating_point() else str(value.tolist())
        return f"{value.dtype} {list(value.shape)} {held}"
    return repr(value)


def holds_tensors(value: Any) -> bool:
    """Whether a value is no tensor itself, but has some."""
    return not isinstance(value, Tensor) and any(isinstance(v, Tensor) for v in tree_leaves(value))
