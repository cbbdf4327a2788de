"""The fx pass: frame-selection hook at the input, one gate per stage, twins under their own
names."""

from __future__ import annotations

from typing import Any

from torch import fx, nn

from .layouts import Analysis
from .ops import DenseRegion, make_twin, stage_gate
from .segments import Packing, Segments, pack_frames, restore_order
from .stages import StagePlan


def rewrite(root: nn.Module, source: fx.Graph, found: Analysis, plan: StagePlan) -> fx.GraphModule:
    """``source`` (clips -> scores) as a graph (clips, policy) -> scores that computes what the
    policy keeps.

    ``root``'s modules that mix time are replaced by their twins, in place, under their own names.
    """
    return _Rewrite(root, source, found, plan).run()


class _Rewrite:
    def __init__(self, root: nn.Module, source: fx.Graph, found: Analysis, plan: StagePlan):
        self.root, self.source, self.found = root, source, found
        self.site_stage = {site: k for k, stage in enumerate(plan.stages) for site in stage.sites}
        self.graph = fx.Graph()
        self.new: dict[fx.Node, Any] = {}
        self.regions = _Regions(source, found)
        self.region_modules: dict[str, DenseRegion] = {}
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
        self._swap_twins()
        module = fx.GraphModule(
            _Holder(self.root, self.region_modules), self.graph, class_name="AdaptiveGraph"
        )
        # The containers are the model's own: names, train() overrides and frozen stages stay what they were.
        module._modules = {**self.root._modules, **self.region_modules}
        module.graph.lint()
        return module

    def _swap_twins(self) -> None:
        paths = {str(node.target) for node in self.found.mixing}
        originals = {path: self.root.get_submodule(path) for path in paths}
        twins = {id(module): make_twin(module) for module in originals.values()}
        for path, module in originals.items():  # a module may have several names
            parent, _, name = path.rpartition(".")
            setattr(self.root.get_submodule(parent), name, twins[id(module)])

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
        elif node in self.found.mixing:
            (source,) = node.args
            gate = self.site_stage.get(str(node.target))
            extra = () if gate is None else (self.gates[gate],)
            self.new[node] = self._copy(node, self._emit(source), self._table(source), *extra)
        else:
            for source in node.all_input_nodes:
                self._emit(source)
            self.new[node] = self.graph.node_copy(node, self.new.__getitem__)
        return self.new.get(node)

    def _copy(self, node: fx.Node, *args) -> fx.Node:
        return self.graph.create_node(node.op, node.target, args, {}, node.name, node.type)

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
            self._table(node) if kind == "frames" else self.segments
            for node, kind in zip(inputs, kinds)
        ]
        body = fx.Graph()
        inside: dict[fx.Node, fx.Node] = {node: body.placeholder(node.name) for node in inputs}
        for node in nodes:
            inside[node] = body.node_copy(node, inside.__getitem__)
        body.output(tuple(inside[node] for node in outputs))
        name = f"dense_region_{len(self.region_modules)}"
        self.region_modules[name] = DenseRegion(
            fx.GraphModule(self.root, body),
            kinds,
            [self.found.layouts[node].kind for node in outputs],
        )
        result = self.graph.create_node(
            "call_module", name, (self.segments, tuple(values), tuple(tables)), {}, name
        )
        for index, node in enumerate(outputs):
            self.new[node] = self.graph.call_function(_item, (result, index))


def _item(values: tuple, index: int):
    return values[index]


class _Holder(nn.Module):
    """The model's modules and the dense regions under one root, for fx to look names up in."""

    def __init__(self, root: nn.Module, regions: dict[str, DenseRegion]):
        super().__init__()
        self.__dict__.update({k: v for k, v in root.__dict__.items() if k not in self.__dict__})
        self._parameters, self._buffers = root._parameters, root._buffers
        self._modules = {**root._modules, **regions}


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
