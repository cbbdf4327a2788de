"""A network's program for clips of each length, run for the shapes of its values alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_leaves

from ..convert import AdaptiveNetwork
from ..cost.shapes_only import no_arithmetic
from ..specialize import StaticProgram, static_program
from ..tracing.isolation import own_caches
from ..tracing.shadow import dtype_of, isolated


class Programs:
    """What `specialize` makes of a network, for each length; the weights are the network's own.

    Args:
        adaptive: the network; it is not changed.
    """

    def __init__(self, adaptive: AdaptiveNetwork):
        self.adaptive, self.plan = adaptive, adaptive.plan
        unit = self.plan.frame_unit or self.plan.num_frames
        self.lengths = range(unit, self.plan.num_frames + 1, unit)
        source = adaptive.conversion.source
        # the clips, and the times of their frames where positions follow them
        self.inputs = [node for node in source.nodes if node.op == "placeholder"]
        self._made: dict[tuple[int, tuple[bool, ...]], StaticProgram] = {}

    def of(self, length: int, stages: Sequence[bool] | None = None) -> StaticProgram:
        """Return the program of one policy; without ``stages``, all of them are on."""
        on = (True,) * self.plan.num_stages if stages is None else tuple(stages)
        if (length, on) not in self._made:
            made = static_program(self.adaptive, length, on, copy_weights=False, times=None)
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
        module = isolated(static.module)  # what the model's code keeps of the run goes with it
        assert isinstance(module, fx.GraphModule)
        with torch.no_grad(), own_caches(module), no_arithmetic():
            clip = torch.zeros(1, channels, length, height, width, dtype=dtype_of(module))
            times = torch.zeros(1, length, dtype=torch.int64)
            inputs = (clip, times)[: len(self.inputs)]
            _Noting(module, lambda node, value: note(sources[node.name], value)).run(*inputs)


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


def holds_tensors(value: Any) -> bool:
    """Whether a value is no tensor itself, but has some."""
    return not isinstance(value, Tensor) and any(isinstance(v, Tensor) for v in tree_leaves(value))
