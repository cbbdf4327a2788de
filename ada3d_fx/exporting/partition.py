"""Where an exported network may switch: its program, cut into parts with one stage each.

In an exported graph a clip is scored by itself, and a part is computed by one of two branches: with
the temporal convolutions of its stage, or with their centre slices. So nothing is masked, gathered
by taps or computed twice; what a branch runs is what a dense network of the same size runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from ..convert import AdaptiveNetwork
from ..cost.shapes_only import no_arithmetic
from ..passes.isolation import own_caches
from ..passes.shadow import dtype_of, isolated
from ..specialize import static_program


@dataclass(frozen=True)
class Part:
    """Consecutive operations of the network in which one stage decides."""

    stage: int | None  # number of the stage; None: nothing is decided in it
    nodes: tuple[fx.Node, ...]  # of the network's source, in its order
    inputs: tuple[fx.Node, ...]  # nodes outside whose values it takes
    outputs: tuple[fx.Node, ...]  # nodes inside whose values are used outside


def partition(adaptive: AdaptiveNetwork) -> list[Part]:
    """Cut the network's program into parts, each at the place with the least to hand over.

    A stage whose convolutions come before and after another's has several parts.

    Args:
        adaptive: the network; it is not changed.
    """
    source = adaptive.conversion.source
    stage_of = {site: k for k, stage in enumerate(adaptive.plan.stages) for site in stage.sites}
    sites = {
        node: stage_of[str(node.target)]
        for node in source.nodes
        if node.op == "call_module" and str(node.target) in stage_of
    }
    stages, level = _levels(source, sites)
    (placeholder,) = (node for node in source.nodes if node.op == "placeholder")
    order = [n for n in source.nodes if n.op not in ("placeholder", "output", "get_attr")]
    order.sort(key=level.__getitem__)  # stable: still every node after its inputs
    sizes = _sizes(adaptive)
    place = {node: index for index, node in enumerate(order)}
    cuts = [0]
    for number in range(len(stages) - 1):
        first = max(place[n] for n in sites if level[n] == number) + 1
        last = min(place[n] for n in sites if level[n] == number + 1)
        cuts.append(min(range(first, last + 1), key=lambda p: _handed_over(order, place, p, sizes)))
    cuts.append(len(order))
    parts = []
    for number, stage in enumerate(stages or [None]):
        nodes = order[cuts[number] : cuts[number + 1]]
        parts.append(_part(stage, nodes, [placeholder, *order], source))
    return parts


def _levels(
    source: fx.Graph, sites: Mapping[fx.Node, int]
) -> tuple[list[int | None], dict[fx.Node, int]]:
    """The stage of each part, and the first part in which a node can be."""
    stages: list[int | None] = []
    level: dict[fx.Node, int] = {}
    for node in source.nodes:
        level[node] = max((level[n] for n in node.all_input_nodes), default=0)
        if node in sites:
            later = range(level[node], len(stages))
            found = next((n for n in later if stages[n] == sites[node]), len(stages))
            if found == len(stages):
                stages.append(sites[node])
            level[node] = found
    return stages, level


def _part(stage: int | None, nodes: list[fx.Node], values: list[fx.Node], source: fx.Graph) -> Part:
    """A part of these nodes, with the constants that they read."""
    members = set(nodes)
    constants = {n for m in nodes for n in m.all_input_nodes if n.op == "get_attr"}
    return Part(
        stage=stage,
        nodes=tuple(n for n in source.nodes if n in members or n in constants),
        inputs=tuple(n for n in values if n not in members and any(u in members for u in n.users)),
        outputs=tuple(n for n in nodes if any(user not in members for user in n.users)),
    )


NO_TENSOR = 1 << 60  # what is no tensor cannot be handed over


def _handed_over(
    order: list[fx.Node], place: Mapping[fx.Node, int], cut: int, sizes: Mapping[fx.Node, int]
) -> int:
    """How many numbers the nodes before a cut give to those after it."""
    after = len(order)
    return sum(
        sizes.get(node, NO_TENSOR)
        for node in order[:cut]
        if any(place.get(user, after) >= cut for user in node.users)
    )


class _Sizes(fx.Interpreter):
    """Runs a program and notes how many numbers each value holds."""

    def __init__(self, module: fx.GraphModule):
        super().__init__(module)
        self.sizes: dict[fx.Node, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.sizes[n] = value.numel()
        return value


def _sizes(adaptive: AdaptiveNetwork) -> dict[fx.Node, int]:
    """Numbers that each node of the source gives for one clip; for tensors only."""
    plan = adaptive.plan
    static = static_program(adaptive, plan.num_frames, [True] * plan.num_stages, copy_weights=False)
    clip = torch.zeros(1, *plan.clip_shape, dtype=dtype_of(adaptive))
    module = isolated(static.module)
    assert isinstance(module, fx.GraphModule)
    with torch.no_grad(), own_caches(module), no_arithmetic():
        interpreter = _Sizes(module)
        interpreter.run(clip)
    by_name = {node.name: size for node, size in interpreter.sizes.items()}
    return {node: by_name[copy.name] for node, copy in static.nodes.items() if copy.name in by_name}
