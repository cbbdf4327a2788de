"""The branches of a part: what it computes by the decisions of its stages and the clip's length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..packed.twins import plain_tree
from ..packed.windows import fit_window
from ..tracing.whole import is_known
from .partition import Part
from .programs import Programs


@dataclass(frozen=True)
class Branch:
    """One way to compute a part."""

    module: nn.Module  # the part's tensors in -> a tuple of its tensors out
    inputs: tuple[Tensor, ...]  # of one clip of the longest length that it is for, to trace it
    dynamic: Mapping[int, Sequence[int]]  # number of an input -> axes that vary with the length
    plain: bool  # it runs no code of the model's own


class Branches:
    """Makes the branches of all parts of a network.

    Args:
        programs: of the network.
        parts: of it, see `partition`.
    """

    def __init__(self, programs: Programs, parts: Sequence[Part]):
        self.programs, self.parts = programs, tuple(parts)
        self.handed_over = {node for part in parts for node in (*part.inputs, *part.outputs)}
        self.root = plain_tree(programs.adaptive.conversion.root)
        self.values: dict[int, dict[fx.Node, Any]] = {}  # by length: of the nodes at the cuts

    def tensors(self, nodes: Sequence[fx.Node]) -> list[fx.Node]:
        """Leave out what is known for each length, such as sizes."""
        values = self.values_at(self.programs.plan.num_frames)
        return [node for node in nodes if isinstance(values[node], Tensor)]

    def classes(self, part: Part) -> list[tuple[int, ...]]:
        """Group the lengths for which a part is the same program, as far as its code tells.

        Code of the model's own may ask for its input's length, and keep what it computes of it:
        there it is one program for each shape of the inputs.
        """
        if self.is_plain(part):
            return self._by_windows(part)
        groups: dict[str, tuple[int, ...]] = {}
        for length in self.programs.lengths:
            values = self.values_at(length)
            told = str([_told(values[node]) for node in part.inputs])
            groups[told] = (*groups.get(told, ()), length)
        return list(groups.values())

    def is_plain(self, part: Part) -> bool:
        """Whether no code of the model's own, that can ask for a length, is called in a part.

        What was traced symbolically are operations of torch and its modules, which do not ask; but
        for pools, whose windows are known.
        """
        for node in part.nodes:
            if node.op == "call_module":
                if not is_known(self.root.get_submodule(str(node.target))):
                    return False
            elif node.op == "call_function" and not _of_torch(node.target):
                return False
        return not any(self._fixed_only(node) for node in part.inputs)

    def _fixed_only(self, node: fx.Node) -> bool:
        """Whether a value is known for each length, and differs."""
        ends = [self.values_at(length)[node] for length in self._ends()]
        return not isinstance(ends[0], Tensor) and ends[0] != ends[-1]

    def _ends(self) -> tuple[int, int]:
        return self.programs.lengths[0], self.programs.lengths[-1]

    def _by_windows(self, part: Part) -> list[tuple[int, ...]]:
        """Group the lengths for which the pools of a part have the same windows."""
        windows = self.programs.adaptive.conversion.windows
        pools = [
            (self.root.get_submodule(str(n.target)), windows[n]) for n in part.nodes if n in windows
        ]
        groups: dict[str, tuple[int, ...]] = {}
        for length in self.programs.lengths:
            sizes = str([fit_window(p, known[length] or 1).kernel_size for p, known in pools])
            groups[sizes] = (*groups.get(sizes, ()), length)
        return list(groups.values())

    def all_on(self, part: Part) -> tuple[bool, ...]:
        """Return the decisions with the temporal convolutions of a part on."""
        return (True,) * len(part.stages)

    def branch(self, part: Part, lengths: Sequence[int], on: Sequence[bool]) -> Branch:
        """Make the branch for some lengths, whose code is that of the longest.

        Args:
            part: one of the parts.
            lengths: of clips.
            on: whether each of the part's stages is on.
        """
        longest = max(lengths)
        taken = self.tensors(part.inputs)
        values = self.values_at(longest)
        plain = self.is_plain(part)
        known = {min(lengths), longest} if plain else lengths
        dynamic = {}
        for index, node in enumerate(taken):
            shapes = [self.values_at(length)[node].shape for length in known]
            varying = [d for d, sizes in enumerate(zip(*shapes)) if len(set(sizes)) > 1]
            dynamic[index] = varying
        inputs = tuple(torch.zeros_like(values[n]) for n in taken)
        return Branch(self.module(part, longest, on), inputs, dynamic, plain)

    def module(self, part: Part, length: int, on: Sequence[bool]) -> nn.Module:
        """Make a part a module, for clips of one length: its tensors in -> a tuple of its out."""
        stages = [True] * self.programs.plan.num_stages
        for stage, decision in zip(part.stages, on):
            stages[stage] = decision
        static = self.programs.of(length, stages)
        taken, values = set(self.tensors(part.inputs)), self.values_at(length)
        graph, inside = fx.Graph(), dict[fx.Node, Any]()
        for node in part.inputs:
            inside[static.nodes[node]] = (
                graph.placeholder(node.name) if node in taken else values[node]
            )
        for node in part.nodes:
            copy = static.nodes[node]
            inside[copy] = graph.node_copy(copy, inside.__getitem__)
        graph.output(tuple(inside[static.nodes[n]] for n in self.tensors(part.outputs)))
        return fx.GraphModule(static.module, graph, class_name="Branch").eval()

    def values_at(self, length: int) -> Mapping[fx.Node, Any]:
        """Values at the cuts for one clip of ``length`` frames; numbers in tensors mean nothing."""
        if length not in self.values:
            values: dict[fx.Node, Any] = {}

            def note(node: fx.Node, value: Any) -> None:
                if node in self.handed_over:
                    values[node] = value

            self.programs.run(length, note)
            self.values[length] = values
        return self.values[length]


def _of_torch(function: Any) -> bool:
    """Whether a function computes with sizes only in ways that a trace follows."""
    name = getattr(function, "__module__", None) or ""
    return function is getattr or name.split(".")[0] in ("torch", "_operator")


def _told(value: Any) -> Any:
    return tuple(value.shape) if isinstance(value, Tensor) else value
