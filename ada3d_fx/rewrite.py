"""The fx pass: frame-selection hook at the input, one gate per stage, twins under their own
names."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import fx, nn

from .layouts import PACKED, Analysis
from .ops import make_twin, replace_module, stage_gate
from .parts import Checkpointed, DenseRegion, Part, time_mixing
from .segments import Packing, Segments, pack_frames, restore_order
from .stages import StagePlan


def rewrite(root: nn.Module, source: fx.Graph, found: Analysis, plan: StagePlan) -> fx.GraphModule:
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
    def __init__(self, root: nn.Module, source: fx.Graph, found: Analysis, plan: StagePlan):
        self.root, self.source, self.found = root, source, found
        self.site_stage = {site: k for k, stage in enumerate(plan.stages) for site in stage.sites}
        self.graph = fx.Graph()
        self.new: dict[fx.Node, Any] = {}
        self.regions = _Regions(source, found)
        self.parts: dict[str, Part] = {}
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
        self.parts.update(_checkpointed(holder, self.graph))
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
        elif node in self.regions.hosts:
            return None
        elif node.op == "output":
            self.new[node] = self.graph.output(fx.map_arg(node.args[0], self._restored))
        elif node in self.found.moves:
            self.new[node] = _tagged(self._move(node), node)
        elif node in self.found.mixing:
            (source,) = node.args
            gate = self.site_stage.get(str(node.target))
            extra = () if gate is None else (self.gates[gate],)
            self.new[node] = self._copy(node, self._emit(source), self._table(source), *extra)
        else:
            values = {source: self._emit(source) for source in node.all_input_nodes}
            if node in self.found.spread:
                values.update(
                    {s: self._spread(s, node) for s in values if self._kind(s) == "clips"}
                )
            self.new[node] = self.graph.node_copy(node, values.__getitem__)
        return self.new.get(node)

    def _move(self, node: fx.Node) -> fx.Node:
        (source,) = (n for n in node.all_input_nodes if n in self.found.tensors)
        value, how = self._emit(source), self.found.moves[node]
        if how == "permute":
            return self.graph.node_copy(node, lambda _: value)
        if how == "fold":
            return self._call(node.name, torch.flatten, value, 0, 1)
        return self._call(node.name, torch.unsqueeze, value, 1) if how == "unfold" else value

    def _kind(self, node: fx.Node) -> str:
        return self.found.layouts[node].kind

    def _spread(self, source: fx.Node, node: fx.Node) -> fx.Node:
        table = self._table(next(n for n in node.all_input_nodes if self._kind(n) == "frames"))
        spread = self._call(f"{source.name}_spread", Segments.spread, table, self.new[source])
        return _tagged(spread, node)

    def _copy(self, node: fx.Node, *args) -> fx.Node:
        copied = self.graph.create_node(node.op, node.target, args, {}, node.name, node.type)
        return _tagged(copied, node)

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
        body = _subgraph(nodes, inputs, outputs)
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
        _tagged(result, *nodes)
        for index, node in enumerate(outputs):
            item = self.graph.call_function(operator.getitem, (result, index))
            self.new[node] = _tagged(item, *nodes)


def _subgraph(
    nodes: Sequence[fx.Node], inputs: Sequence[fx.Node], outputs: Sequence[fx.Node]
) -> fx.Graph:
    """``nodes`` as a graph of their own, from ``inputs`` to a tuple of ``outputs``."""
    graph = fx.Graph()
    inside: dict[fx.Node, fx.Node] = {node: graph.placeholder(node.name) for node in inputs}
    for node in nodes:
        inside[node] = graph.node_copy(node, inside.__getitem__)
    graph.output(tuple(inside[node] for node in outputs))
    return graph


def _tagged(new: fx.Node, *sources: fx.Node) -> fx.Node:
    """Mark ``new`` as checkpointed if all that it stands for is, together."""
    tags = {source.meta.get("checkpoint") for source in sources}
    if len(tags) == 1:
        new.meta["checkpoint"] = tags.pop()
    return new


def _checkpointed(holder: nn.Module, graph: fx.Graph) -> dict[str, Checkpointed]:
    """Turn the nodes of each checkpoint of the model's own code into one call."""
    groups: dict[int, list[fx.Node]] = {}
    for node in graph.nodes:
        if node.meta.get("checkpoint") is not None:
            groups.setdefault(node.meta["checkpoint"], []).append(node)
    made = {}
    for nodes in groups.values():
        before = set()
        for node in graph.nodes:
            if node is nodes[0]:
                break
            before.add(node)
        members = set(nodes)
        inputs = list(
            dict.fromkeys(n for m in nodes for n in m.all_input_nodes if n not in members)
        )
        if not before.issuperset(inputs):
            continue  # woven into what is outside: it costs memory, not correctness
        outputs = [node for node in nodes if any(user not in members for user in node.users)]
        name = f"checkpoint_{len(made)}"
        made[name] = Checkpointed(holder, _subgraph(nodes, inputs, outputs))
        with graph.inserting_before(nodes[0]):
            result = graph.create_node("call_module", name, tuple(inputs), {}, name)
            for index, node in enumerate(outputs):
                item = graph.call_function(operator.getitem, (result, index))
                for user in [user for user in node.users if user not in members]:
                    user.replace_input_with(node, item)
        for node in reversed(nodes):
            graph.erase_node(node)
    return made


class _Holder(nn.Module):
    """The model's modules and the parts of its program under one root, to look names up in."""

    def __init__(self, root: nn.Module, parts: dict[str, Part]):
        super().__init__()
        self.__dict__.update({k: v for k, v in root.__dict__.items() if k not in self.__dict__})
        self._parameters, self._buffers = root._parameters, root._buffers
        self._modules = {**root._modules, **parts}


class _Regions:
    """Which densely run nodes run together: connected ones with no packed operation between them.

    Sizes read off packed values (hosts) are made anew in each region that uses them.
    """

    def __init__(self, source: fx.Graph, found: Analysis):
        self.source, self.found = source, found
        dense = set(found.dense)
        self.hosts: set[fx.Node] = set()
        for node in found.dense:
            inputs = node.all_input_nodes
            if node not in found.tensors and all(n in self.hosts or n not in dense for n in inputs):
                self.hosts.add(node)
        self.of: dict[fx.Node, int] = {}
        depth: dict[fx.Node, int] = {}
        for node in source.nodes:
            inputs = [n for n in node.all_input_nodes if n not in self.hosts]
            inside = node in dense and node not in self.hosts
            depth[node] = max(
                [depth[n] + (n in dense and not inside) for n in inputs], default=0
            )  # leaving a region counts one
            if inside:
                near = {self.of[n] for n in inputs if n in self.of and depth[n] == depth[node]}
                region = min(near, default=len(self.of))
                self.of[node] = region
                for other, number in self.of.items():
                    self.of[other] = region if number in near else number

    def parts(self, region: int) -> tuple[list[fx.Node], list[fx.Node], list[fx.Node]]:
        """Nodes of a region in order (hosts included), its inputs, and those whose values are used
        outside."""
        members = {node for node, number in self.of.items() if number == region}
        needed = set(members)
        for node in reversed(self.source.nodes):  # hosts and constants are made inside
            if node in needed:
                needed.update(
                    n
                    for n in node.all_input_nodes
                    if n in self.hosts or self.found.layouts[n].kind == "const"
                )
        nodes = [node for node in self.source.nodes if node in needed]
        inputs = [
            node
            for node in self.source.nodes
            if node not in needed and any(user in needed for user in node.users)
        ]
        outputs = [
            node
            for node in nodes
            if node in members and any(user not in needed for user in node.users)
        ]
        return nodes, inputs, outputs
