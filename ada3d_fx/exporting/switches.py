"""A part as ONNX nodes: If operations that choose its branch, by length and by decision."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import fx

from ..errors import Ada3DError
from .branches import Branches
from .calibration import Calibration, Traced
from .partition import Part
from .pieces import Pieces, onnx

TOGETHER = 4  # stages of one part, which has 2 ** as many branches

Writing = Callable[[list[str]], list[Any]]  # what its outputs are called -> nodes that make them


class PartWriter:
    """Writes the parts of a network, which take and give values by name.

    In front of them come ``num_kept``, int64 [], the clip's kept frames, and ``clip_stages``,
    bool [K].

    Args:
        pieces: of the whole graph.
        branches: of the network.
        names: node of the network's source -> name of its value, at first of the clips.
        calibration: by which the branches are quantised; None: float32.
    """

    def __init__(
        self,
        pieces: Pieces,
        branches: Branches,
        names: Mapping[fx.Node, str],
        calibration: Calibration | None = None,
    ):
        self.pieces, self.branches, self.names = pieces, branches, dict(names)
        self.calibration = calibration
        self.plan = branches.programs.plan
        self.make = onnx().helper.make_node

    def write(self, number: int, part: Part) -> list[Any]:
        """Return the nodes of the next part.

        Raises:
            Ada3DError: an operation that ONNX has not, too many stages in one module, or what NNCF
                cannot quantise.
        """
        if len(part.stages) > TOGETHER:
            path = next(str(n.target) for n in part.nodes if n.op == "call_module")
            raise Ada3DError(
                f"export: {len(part.stages)} stages decide inside one module that runs as a whole "
                f"({path}): {2 ** len(part.stages)} branches; export it with fixed="
            )
        given = self.branches.tensors(part.outputs)
        ends = [f"value_{number}_{index}" for index in range(len(given))]
        made = self._traced(number, part)
        if self.calibration is not None:
            made = self.calibration.quantize(number, part, made)
        self.names.update(zip(given, ends))
        head = [
            self.make("Gather", ["clip_stages", self.pieces.scalar(stage)], [f"on_{number}_{stage}"], axis=0)
            for stage in part.stages
        ]  # fmt: skip
        sides = [self._by_decision(number, index, part, m) for index, (_, m) in enumerate(made)]
        if len(sides) > 1:
            table = np.zeros(self.plan.num_frames + 1, dtype=np.int64)
            for index, (lengths, _) in enumerate(made):
                table[list(lengths)] = index
            own = f"class_{number}"
            head.append(
                self.make("Gather", [self.pieces.constant(table), "num_kept"], [own], axis=0)
            )
        return head + self._by_class(number, sides, 0, self._kinds(given))(ends)

    # ----------------------------------------------------------------------------------- tracing

    def _traced(self, number: int, part: Part) -> Traced:
        """Trace the branches of a part: lengths, and what they run by the stages' decisions."""
        traced: Traced = []
        on = self.branches.all_on(part)
        for lengths, graph in self._served(number, part):
            graphs = {
                decisions: graph
                if decisions == on
                else self._trace(number, part, lengths, decisions)
                for decisions in itertools.product((True, False), repeat=len(part.stages))
            }
            traced.append((lengths, graphs))
        return traced

    def _served(self, number: int, part: Part) -> list[tuple[tuple[int, ...], Any]]:
        """Lengths that are served by one branch, and it with all stages on.

        That the code does not ask for the length is not enough: the exporter may use a size as a
        constant. So the shortest length must give the same graph as the longest, or each gets its
        own.
        """
        on = self.branches.all_on(part)
        served = []
        for lengths in self.branches.classes(part):
            graph = self._trace(number, part, lengths, on)
            one = self.branches.branch(part, lengths, on)
            if not any(one.dynamic.values()) or self.pieces.signature(graph) == (
                self.pieces.signature(self._trace(number, part, lengths, on, min(lengths)))
            ):
                served.append((lengths, graph))
                continue
            alike: dict[str, list[int]] = {}
            graphs = {}
            for length in lengths:
                graph = self._trace(number, part, (length,), on)
                signature = self.pieces.signature(graph)
                graphs[signature] = graph
                alike.setdefault(signature, []).append(length)
            served += [(tuple(each), graphs[signature]) for signature, each in alike.items()]
        return served

    def _trace(
        self, number: int, part: Part, lengths: Sequence[int], on: Sequence[bool], at: int = 0
    ) -> Any:
        """Trace a branch for some lengths, at the longest of them or at one that is told."""
        branch = self.branches.branch(part, lengths, on)
        traced = self.branches.branch(part, (at,), on) if at else branch
        where = f"part {number} of the network, for clips of {at or max(lengths)} frames"
        return self.pieces.trace(
            traced.module, traced.inputs, branch.dynamic, where, not branch.plain
        )

    # ---------------------------------------------------------------------------------- choosing

    def _by_class(
        self, number: int, sides: Sequence[Writing], first: int, kinds: Sequence[int]
    ) -> Writing:
        """Choose by the number of the clip's class of lengths, of which ``first`` is the lowest."""
        if len(sides) == 1:
            return sides[0]
        half = len(sides) // 2
        low = self._by_class(number, sides[:half], first, kinds)
        high = self._by_class(number, sides[half:], first + half, kinds)
        name = f"part_{number}_below_{first + half}"
        limit = self.pieces.scalar(first + half)
        condition = self.make("Less", [f"class_{number}", limit], [name])

        def write(ends: list[str]) -> list[Any]:
            return [condition, *self._either(name, (low, high), ends, name, kinds)]

        return write

    def _by_decision(
        self, number: int, index: int, part: Part, graphs: Mapping[tuple[bool, ...], Any],
        decided: tuple[bool, ...] = (),
    ) -> Writing:  # fmt: skip
        """Choose among the branches of one class of lengths, by one stage after the other."""
        words = ["on" if on else "off" for on in decided]
        name = "_".join(["part", str(number), str(index), *words])
        if len(decided) == len(part.stages):
            inputs = [self.names[node] for node in self.branches.tensors(part.inputs)]
            return lambda ends: self.pieces.place(graphs[decided], f"{name}/", inputs, ends)
        on, off = (
            self._by_decision(number, index, part, graphs, (*decided, on)) for on in (True, False)
        )
        kinds = self._kinds(self.branches.tensors(part.outputs))
        condition = f"on_{number}_{part.stages[len(decided)]}"
        return lambda ends: self._either(condition, (on, off), ends, name, kinds)

    def _either(
        self, condition: str, sides: tuple[Writing, Writing], ends: list[str], name: str,
        kinds: Sequence[int],
    ) -> list[Any]:  # fmt: skip
        """An If of two sides: what is computed where the condition holds, and where not."""
        helper = onnx().helper
        graphs = []
        for word, side in zip(("then", "else"), sides):
            inner = [f"{name}_{word}/{end}" for end in ends]
            told = [helper.make_tensor_value_info(i, kind, None) for i, kind in zip(inner, kinds)]
            graphs.append(helper.make_graph(side(inner), f"{name}_{word}", [], told))
        return [self.make("If", [condition], ends, then_branch=graphs[0], else_branch=graphs[1])]

    def _kinds(self, nodes: Sequence[fx.Node]) -> list[int]:
        """ONNX's numbers of the types of some values."""
        values = self.branches.values_at(self.plan.num_frames)
        kind = onnx().helper.np_dtype_to_tensor_dtype
        return [kind(values[node].detach().numpy().dtype) for node in nodes]
