"""The rewriting pass: clips -> scores becomes (clips, policy) -> scores, on packs.

The new program packs the kept frames at its input, reads one gate per stage off the policy, calls
twins under their own names, and runs what has no packed form in dense regions.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx, nn

from ..packed.batches import BatchRegion
from ..packed.kept_times import kept_times
from ..packed.module_tree import free_name, graph_over, with_modules
from ..packed.packing import Packing, pack_frames, restore_order, stage_gate
from ..packed.regions import DenseRegion, Region, paths_with_twins
from ..packed.segments import Segments, as_rows
from ..packed.tokens import TokenRegion
from ..plan import StagePlan
from ..tracing.checkpoints import checkpointed, subgraph, tagged
from .analysis import PACKED, PER_RUN, TimeAnalysis
from .attend import attending
from .regions import RegionMap
from .share import frame_wise


def rewrite(
    root: nn.Module, source: fx.Graph, analysis: TimeAnalysis, plan: StagePlan
) -> fx.GraphModule:
    """Write a program that computes what a policy keeps.

    Args:
        root: the model, with twins in place of the modules that mix time.
        source: the model's own program, clips -> scores; it is not changed.
        analysis: of ``source``.
        plan: what a policy decides.

    Returns:
        (clips, policy) -> scores; its children are those of ``root``, and its dense regions.
    """
    writer = _Writer(root, source, analysis, plan)
    for node in source.nodes:
        writer.emit(node)
    holder = with_modules(root, writer.regions)
    extra = {**writer.regions, **checkpointed(holder, writer.graph)}
    # The containers are the model's own: names, train() and frozen stages stay what they were.
    module = graph_over(root, writer.graph, "AdaptiveGraph", extra)
    module.graph.lint()
    return module


class _Writer:
    """Writes the nodes of the new graph, one for each of the old one or for each region."""

    def __init__(self, root: nn.Module, source: fx.Graph, analysis: TimeAnalysis, plan: StagePlan):
        self.root, self.analysis = root, analysis
        self.stage_of = {site: k for k, stage in enumerate(plan.stages) for site in stage.sites}
        self.graph = fx.Graph()
        self.new: dict[fx.Node, fx.Node] = {}  # node of the source -> node of the new graph
        self.region_map = RegionMap(source, analysis)
        self.regions: dict[str, Region] = {}  # by their names in the new program
        self.emitted: set[int] = set()  # numbers of the regions that are written
        self.clips = self.graph.placeholder("clips")
        policy = self.graph.placeholder("policy")
        self.packing = self._call("packing", Packing.of, policy)
        self.rows = self._call("rows", pack_frames, self.clips, self.packing)
        self.segments = self._call("segments", getattr, self.packing, "segments")
        self.gates = [
            self._call(f"gate_{stage.name}", stage_gate, self.packing, k)
            for k, stage in enumerate(plan.stages)
        ]
        # lengths of a value -> the node that holds its clip table
        self.tables = {(None, *range(1, plan.num_frames + 1)): self.segments}

    def emit(self, node: fx.Node) -> None:
        """Write what stands for ``node``, unless that is done; those before it are written."""
        if node in self.new or node in self.region_map.size_nodes:
            return
        if node in self.region_map.of:
            region = self.region_map.of[node]
            if region not in self.emitted:
                self.emitted.add(region)
                self._emit_region(region)
        elif node.op == "placeholder":
            first = not self.new
            self.new[node] = (
                self.rows if first else self._call("times", kept_times, self.clips, self.packing)
            )
        elif node.op == "output":
            self.new[node] = self.graph.output(fx.map_arg(node.args[0], self._restored))
        elif node in self.analysis.axis_moves:
            self.new[node] = tagged(self._axis_move(node), node)
        elif node in self.analysis.time_mixing_nodes:
            self.new[node] = tagged(self._twin_call(node), node)
        else:
            values = {source: self._value(source) for source in node.all_input_nodes}
            if node in self.analysis.broadcast_nodes:
                per_clip = [source for source in values if self._kind(source) == "clips"]
                values.update({source: self._per_frame(source, node) for source in per_clip})
            self.new[node] = self.graph.node_copy(node, values.__getitem__)
            kinds = {self._kind(node), *map(self._kind, values)}
            if kinds <= {*PACKED, "const"}:
                frame_wise(self.new[node])

    def _value(self, node: fx.Node) -> fx.Node:
        self.emit(node)
        return self.new[node]

    def _call(self, name: str, function: Callable, *args: Any) -> fx.Node:
        return self.graph.create_node("call_function", function, args, {}, name=name)

    def _kind(self, node: fx.Node) -> str:
        kind = self.analysis.layouts[node].kind
        return "dense" if kind in PER_RUN else kind

    def _table(self, node: fx.Node) -> fx.Node:
        """The node that holds the clip table of a packed value."""
        lengths = self.analysis.layouts[node].lengths
        if lengths not in self.tables:
            with self.graph.inserting_after(self.segments):
                self.tables[lengths] = self._call(
                    f"segments_{len(self.tables)}", Segments.resized, self.segments, lengths
                )
        return self.tables[lengths]

    def _axis_move(self, node: fx.Node) -> fx.Node:
        (source,) = (n for n in node.all_input_nodes if n in self.analysis.tensors)
        value, move = self._value(source), self.analysis.axis_moves[node]
        if move == "permute":
            moved = frame_wise(self.graph.node_copy(node, lambda _: value))
            if self._kind(node) == "swapped":
                return moved
            frames = self._call(f"{node.name}_frames", torch.squeeze, moved, 2)
            tagged(frame_wise(frames), node)
            return frame_wise(self._call(f"{node.name}_rows", as_rows, frames))
        if move == "fold":
            return frame_wise(self._call(node.name, torch.flatten, value, 0, 1))
        if move == "unfold":
            return frame_wise(self._call(node.name, torch.unsqueeze, value, 1))
        return value

    def _twin_call(self, node: fx.Node) -> fx.Node:
        (source,) = node.all_input_nodes
        args = [self._value(source), self._table(source)]
        if node.target in self.stage_of:
            args.append(self.gates[self.stage_of[str(node.target)]])
        return self.graph.create_node(node.op, node.target, tuple(args), {}, node.name, node.type)

    def _per_frame(self, source: fx.Node, node: fx.Node) -> fx.Node:
        """A value per clip, repeated for the frames with which ``node`` joins it."""
        table = self._table(next(n for n in node.all_input_nodes if self._kind(n) == "frames"))
        name = f"{source.name}_per_frame"
        return tagged(self._call(name, Segments.repeat_per_frame, table, self.new[source]), node)

    def _restored(self, node: fx.Node) -> fx.Node:
        """A value of the output, with the clips in the order of the batch."""
        value = self._value(node)
        if self._kind(node) == "const":
            return value
        return self._call("scores", restore_order, value, self.packing)

    def _emit_region(self, region: int) -> None:
        nodes, inputs, outputs = self.region_map.nodes_of(region)
        values = tuple(self._value(node) for node in inputs)
        body = subgraph(nodes, inputs, outputs)
        args: tuple[Any, ...] = (values,)
        kind = self.region_map.kind_of(region)
        if kind == "tokens":
            name = free_name(self.root, f"token_region_{len(self.regions)}")
            self.regions[name] = TokenRegion(self.root, body)
        elif kind == "batches":
            name = free_name(self.root, f"batch_region_{len(self.regions)}")
            self.regions[name] = BatchRegion(self.root, body)
        else:
            name = free_name(self.root, f"dense_region_{len(self.regions)}")
            self.regions[name], stages = self._dense_region(body, inputs, outputs)
            tables = tuple(
                self._table(node) if self._kind(node) in PACKED else self.segments
                for node in inputs
            )
            args = (self.segments, values, tables, tuple(self.gates[k] for k in stages))
        result = tagged(self.graph.create_node("call_module", name, args, {}, name), *nodes)
        for index, node in enumerate(outputs):
            item = self.graph.call_function(operator.getitem, (result, index))
            self.new[node] = tagged(item, *nodes)

    def _dense_region(
        self, body: fx.Graph, inputs: Sequence[fx.Node], outputs: Sequence[fx.Node]
    ) -> tuple[DenseRegion, list[int]]:
        """A dense region, and the stages whose gates it takes."""
        kinds = [self._kind(node) for node in inputs]
        made = [self._kind(node) for node in outputs]
        twin_paths = paths_with_twins(self.root, body)
        stage_of = {path: self.stage_of[path] for path in twin_paths if path in self.stage_of}
        stages = sorted(set(stage_of.values()))
        if "dense" in (*kinds, *made):
            stages = list(range(len(self.gates)))
        region = DenseRegion(
            self.root,
            body,
            inputs=kinds,
            outputs=made,
            twin_paths=twin_paths,
            sites={path: stages.index(stage) for path, stage in stage_of.items()},
            attending=attending(self.root, body),
        )
        return region, stages
