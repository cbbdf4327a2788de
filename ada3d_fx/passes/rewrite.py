"""The fx pass: frame-selection hook at the input, one gate per stage, twins under their own
names."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import torch
from torch import fx, nn

from ..packed.module_tree import replace_module
from ..packed.packing import Packing, pack_frames, restore_order
from ..packed.regions import DenseRegion, Region, time_mixing
from ..packed.segments import Segments
from ..packed.twins import make_twin, stage_gate
from ..plan import StagePlan
from .analysis import PACKED, TimeAnalysis
from .checkpoints import checkpointed, subgraph, tagged
from .regions import RegionMap


def rewrite(
    root: nn.Module, source: fx.Graph, found: TimeAnalysis, plan: StagePlan
) -> fx.GraphModule:
    """``source`` (clips -> scores) as a graph (clips, policy) -> scores that computes what the
    policy keeps. ``swap_twins`` has been called on ``root``."""
    return _Rewrite(root, source, found, plan).run()


def swap_twins(root: nn.Module, paths: Iterable[str]) -> None:
    """Put twins in place of modules that mix time, under their own names."""
    originals = {path: root.get_submodule(path) for path in paths}
    twins = {id(module): make_twin(module) for module in originals.values()}
    for path, module in originals.items():  # a module may have several names
        replace_module(root, path, twins[id(module)])


class _Rewrite:
    def __init__(self, root: nn.Module, source: fx.Graph, found: TimeAnalysis, plan: StagePlan):
        self.root, self.source, self.found = root, source, found
        self.site_stage = {site: k for k, stage in enumerate(plan.stages) for site in stage.sites}
        self.graph = fx.Graph()
        self.new: dict[fx.Node, Any] = {}
        self.regions = RegionMap(source, found)
        self.parts: dict[str, Region] = {}
        self.emitted: set[int] = set()
        clips = self.graph.placeholder("clips")
        policy = self.graph.placeholder("policy")
        self.packing = self._call("packing", Packing.of, policy)
        self.rows = self._call("rows", pack_frames, clips, self.packing)
        self.segments = self._call("segments", getattr, self.packing, "segments")
        self.gates = [
            self._call(f"gate_{stage.name}", stage_gate, self.packing, k)
            for k, stage in enumerate(plan.stages)
        ]
        self.tables = {(None, *range(1, plan.num_frames + 1)): self.segments}

    def run(self) -> fx.GraphModule:
        for node in self.source.nodes:
            self._emit(node)
        holder = _Holder(self.root, self.parts)
        self.parts.update(checkpointed(holder, self.graph))
        holder._modules.update(self.parts)
        module = fx.GraphModule(holder, self.graph, class_name="AdaptiveGraph")
        # The containers are the model's own: names, train() overrides and frozen stages stay what they were.
        module._modules = {**self.root._modules, **self.parts}
        module.graph.lint()
        return module

    def _call(self, name: str, function, *args, **kwargs) -> fx.Node:
        return self.graph.create_node("call_function", function, args, kwargs, name=name)

    def _table(self, node: fx.Node) -> fx.Node:
        """The node that holds the clip table of a packed value."""
        lengths = self.found.layouts[node].lengths
        if lengths not in self.tables:
            with self.graph.inserting_after(self.segments):
                self.tables[lengths] = self._call(
                    f"segments_{len(self.tables)}", Segments.resized, self.segments, lengths
                )
        return self.tables[lengths]

    def _emit(self, node: fx.Node) -> Any:
        if node in self.new:
            return self.new[node]
        if node.op == "placeholder":
            self.new[node] = self.rows
        elif node in self.regions.of:
            region = self.regions.of[node]
            if region not in self.emitted:
                self.emitted.add(region)
                self._emit_region(region)
        elif node in self.regions.size_nodes:
            return None
        elif node.op == "output":
            self.new[node] = self.graph.output(fx.map_arg(node.args[0], self._restored))
        elif node in self.found.axis_moves:
            self.new[node] = tagged(self._move(node), node)
        elif node in self.found.time_mixing_nodes:
            (source,) = node.args
            gate = self.site_stage.get(str(node.target))
            extra = () if gate is None else (self.gates[gate],)
            self.new[node] = self._copy(node, self._emit(source), self._table(source), *extra)
        else:
            values = {source: self._emit(source) for source in node.all_input_nodes}
            if node in self.found.broadcast_nodes:
                values.update(
                    {s: self._spread(s, node) for s in values if self._kind(s) == "clips"}
                )
            self.new[node] = self.graph.node_copy(node, values.__getitem__)
        return self.new.get(node)

    def _move(self, node: fx.Node) -> fx.Node:
        (source,) = (n for n in node.all_input_nodes if n in self.found.tensors)
        value, how = self._emit(source), self.found.axis_moves[node]
        if how == "permute":
            return self.graph.node_copy(node, lambda _: value)
        if how == "fold":
            return self._call(node.name, torch.flatten, value, 0, 1)
        return self._call(node.name, torch.unsqueeze, value, 1) if how == "unfold" else value

    def _kind(self, node: fx.Node) -> str:
        return self.found.layouts[node].kind

    def _spread(self, source: fx.Node, node: fx.Node) -> fx.Node:
        table = self._table(next(n for n in node.all_input_nodes if self._kind(n) == "frames"))
        spread = self._call(
            f"{source.name}_spread", Segments.repeat_per_frame, table, self.new[source]
        )
        return tagged(spread, node)

    def _copy(self, node: fx.Node, *args) -> fx.Node:
        copied = self.graph.create_node(node.op, node.target, args, {}, node.name, node.type)
        return tagged(copied, node)

    def _restored(self, node: fx.Node) -> fx.Node:
        value = self._emit(node)
        if self.found.layouts[node].kind == "const":
            return value
        return self._call("scores", restore_order, value, self.packing)

    def _emit_region(self, region: int) -> None:
        nodes, inputs, outputs = self.regions.parts(region)
        values = [self._emit(node) for node in inputs]
        kinds = [self.found.layouts[node].kind for node in inputs]
        tables = [
            self._table(node) if kind in PACKED else self.segments
            for node, kind in zip(inputs, kinds)
        ]
        body = subgraph(nodes, inputs, outputs)
        name = f"dense_region_{len(self.parts)}"
        region_paths = time_mixing(self.root, body)
        stages = sorted({self.site_stage[path] for path in region_paths if path in self.site_stage})
        made = [self._kind(node) for node in outputs]
        if "dense" in (*kinds, *made):
            stages = list(range(len(self.gates)))
        self.parts[name] = DenseRegion(
            self.root,
            body,
            inputs=kinds,
            outputs=made,
            mixing=region_paths,
            sites={
                path: stages.index(self.site_stage[path])
                for path in region_paths
                if path in self.site_stage
            },
            windows=self.found.windows,
        )
        gates = tuple(self.gates[k] for k in stages)
        result = self.graph.create_node(
            "call_module", name, (self.segments, tuple(values), tuple(tables), gates), {}, name
        )
        tagged(result, *nodes)
        for index, node in enumerate(outputs):
            item = self.graph.call_function(operator.getitem, (result, index))
            self.new[node] = tagged(item, *nodes)


class _Holder(nn.Module):
    """The model's modules and the parts of its program under one root, to look names up in."""

    def __init__(self, root: nn.Module, parts: dict[str, Region]):
        super().__init__()
        self.__dict__.update({k: v for k, v in root.__dict__.items() if k not in self.__dict__})
        self._parameters, self._buffers = root._parameters, root._buffers
        self._modules = {**root._modules, **parts}
