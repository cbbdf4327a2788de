"""The branches of a part: what it computes by the decision of its stage and the clip's length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from ..convert import AdaptiveNetwork
from ..packed.windows import fit_window
from ..passes.checkpoints import subgraph
from ..specialize import StaticProgram, static_program
from .partition import Part


@dataclass(frozen=True)
class Branch:
    """One way to compute a part."""

    on: bool  # whether the part's stage is on
    shortest: int  # for clips of so many kept frames or more, up to the next branch's
    module: nn.Module  # the part's inputs -> a tuple of its outputs
    inputs: tuple[Tensor, ...]  # of one clip of the longest length that it is for, to trace it


class Branches:
    """Makes the branches of all parts of a network.

    Args:
        adaptive: the network; the branches share its weights.
        parts: of it, see `partition`.
    """

    def __init__(self, adaptive: AdaptiveNetwork, parts: Sequence[Part]):
        self.adaptive, self.parts, self.plan = adaptive, parts, adaptive.plan
        unit = self.plan.frame_unit or self.plan.num_frames
        self.lengths = range(unit, self.plan.num_frames + 1, unit)
        self.programs: dict[tuple[int, bool], StaticProgram] = {}
        self.values: dict[int, dict[fx.Node, Tensor]] = {}  # by length: of the nodes at the cuts

    def of(self, part: Part, per_length: bool = False) -> list[Branch]:
        """Return the branches of a part.

        Args:
            part: one of the parts.
            per_length: one for each number of kept frames, where the model's code computes with it.
        """
        made = []
        decisions = (True,) if part.stage is None else (True, False)
        for shortest, longest in self._classes(part, per_length):
            values = self.values_at(longest)
            inputs = tuple(values[node] for node in part.inputs)
            for on in decisions:
                made.append(Branch(on, shortest, self._module(part, longest, on), inputs))
        return made

    def _classes(self, part: Part, per_length: bool) -> list[tuple[int, int]]:
        """First and last length of each range for which the part's pools have the same windows."""
        if per_length:
            return [(length, length) for length in self.lengths]
        windows = self.adaptive.conversion.windows
        pools = [(self._pool(n), windows[n]) for n in part.nodes if n in windows]
        ranges: list[tuple[tuple, int, int]] = []
        for length in self.lengths:
            fitted = tuple(
                str(fit_window(pool, lengths[length] or 1).kernel_size) for pool, lengths in pools
            )
            if ranges and ranges[-1][0] == fitted:
                ranges[-1] = (fitted, ranges[-1][1], length)
            else:
                ranges.append((fitted, length, length))
        return [(first, last) for _, first, last in ranges]

    def _pool(self, node: fx.Node) -> nn.Module:
        return self.adaptive.get_submodule(str(node.target))

    def _program(self, length: int, on: bool) -> StaticProgram:
        if (length, on) not in self.programs:
            stages = [on] * self.plan.num_stages
            program = static_program(self.adaptive, length, stages, copy_weights=False)
            self.programs[length, on] = program
        return self.programs[length, on]

    def _module(self, part: Part, length: int, on: bool) -> nn.Module:
        static = self._program(length, on)

        def mapped(nodes: Sequence[fx.Node]) -> list[fx.Node]:
            return [static.nodes[node] for node in nodes]

        graph = subgraph(mapped(part.nodes), mapped(part.inputs), mapped(part.outputs))
        return fx.GraphModule(static.module, graph, class_name="Branch").eval()

    def values_at(self, length: int) -> Mapping[fx.Node, Tensor]:
        """Values at the cuts for one random clip of ``length`` frames, all stages on."""
        if length not in self.values:
            channels, _, height, width = self.plan.clip_shape
            generator = torch.Generator().manual_seed(length)
            clip = torch.randn(1, channels, length, height, width, generator=generator)
            values = {self.parts[0].inputs[0]: clip}
            with torch.no_grad():
                for part in self.parts:
                    made = self._module(part, length, True)(*[values[n] for n in part.inputs])
                    values.update(zip(part.outputs, made))
            self.values[length] = values
        return self.values[length]
