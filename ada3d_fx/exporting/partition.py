"""Where an exported network may switch: its program, cut into parts with one stage each.

In an exported graph a clip is scored by itself, and a part is computed by one of two branches: with
the temporal convolutions of its stage, or with their centre slices. So nothing is masked, gathered
by taps or computed twice; what a branch runs is what a dense network of the same size runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from ..convert import AdaptiveNetwork
from ..errors import Ada3DError
from .programs import Programs, holds_tensors


@dataclass(frozen=True)
class Part:
    """Consecutive operations of the network in which one stage decides."""

    # numbers of the stages: none where nothing is decided in it, several where the convolutions of
    # several are in one module that runs as a whole
    stages: tuple[int, ...]
    nodes: tuple[fx.Node, ...]  # of the network's source, in its order
    inputs: tuple[fx.Node, ...]  # nodes outside whose values it takes
    outputs: tuple[fx.Node, ...]  # nodes inside whose values are used outside


def partition(programs: Programs) -> list[Part]:
    """Cut the network's program into parts, each at the place with the least to hand over.

    A stage whose convolutions come before and after another's has several parts.

    Args:
        programs: of the network.

    Raises:
        Ada3DError: the code hands over tensors in a container wherever it could be cut.
    """
    source = programs.adaptive.conversion.source
    sites = _sites(programs.adaptive, source)
    stages, level = _levels(source, sites)
    order = [n for n in source.nodes if n.op not in ("placeholder", "output", "get_attr")]
    order.sort(key=level.__getitem__)  # stable: still every node after its inputs
    sizes = _sizes(programs)
    place = {node: index for index, node in enumerate(order)}
    cuts = [0]
    for number in range(len(stages) - 1):
        first = max(place[n] for n in sites if level[n] == number) + 1
        last = min(place[n] for n in sites if level[n] == number + 1)
        costs = {p: _handed_over(order, place, p, sizes) for p in range(first, last + 1)}
        cuts.append(min(costs, key=costs.__getitem__))
        if costs[cuts[-1]][0] >= CONTAINER:
            raise Ada3DError(
                f"export: between {order[first - 1].target} and {order[last].target} the network hands "
                "over tensors in a list or tuple; export it with fixed="
            )
    cuts.append(len(order))
    parts = []
    for number, decided in enumerate(stages or [()]):
        nodes = order[cuts[number] : cuts[number + 1]]
        parts.append(part_of(decided, nodes, source))
    return parts


def _sites(adaptive: AdaptiveNetwork, source: fx.Graph) -> dict[fx.Node, tuple[int, ...]]:
    """The calls in which stages decide; one of a whole block has all that are in it."""
    stage_of = {site: k for k, stage in enumerate(adaptive.plan.stages) for site in stage.sites}
    sites: dict[fx.Node, tuple[int, ...]] = {}
    for node in source.nodes:
        if node.op == "call_module":
            path = str(node.target)
            inside = {k for s, k in stage_of.items() if s == path or s.startswith(f"{path}.")}
            if inside:
                sites[node] = tuple(sorted(inside))
    return sites


def _levels(
    source: fx.Graph, sites: Mapping[fx.Node, tuple[int, ...]]
) -> tuple[list[tuple[int, ...]], dict[fx.Node, int]]:
    """The stages of each part, and the first part in which a node can be."""
    stages: list[tuple[int, ...]] = []
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


def part_of(stages: tuple[int, ...], nodes: Sequence[fx.Node], source: fx.Graph) -> Part:
    """Make a part of these nodes, with the constants that they read.

    Args:
        stages: that decide in it.
        nodes: all that are computed in it.
        source: the network's program.
    """
    members = set(nodes)
    constants = {n for m in nodes for n in m.all_input_nodes if n.op == "get_attr"}
    taken = {n for m in nodes for n in m.all_input_nodes if n not in members and n not in constants}
    return Part(
        stages=stages,
        nodes=tuple(n for n in source.nodes if n in members or n in constants),
        inputs=tuple(n for n in source.nodes if n in taken),
        outputs=tuple(n for n in nodes if any(user not in members for user in n.users)),
    )


CONTAINER = 1 << 60  # tensors in a list or tuple cannot be handed over


def _handed_over(
    order: list[fx.Node], place: Mapping[fx.Node, int], cut: int, sizes: Mapping[fx.Node, int]
) -> tuple[int, int]:
    """How many numbers the nodes before a cut give to those after it, and in how many values."""
    after = len(order)
    given = [n for n in order[:cut] if any(place.get(user, after) >= cut for user in n.users)]
    return sum(sizes[node] for node in given), len(given)


def _sizes(programs: Programs) -> dict[fx.Node, int]:
    """Numbers that each node of the source gives for one clip; none for what is no tensor.

    Sizes and such are known for each length: they are constants of the branches.
    """
    sizes: dict[fx.Node, int] = {}

    def note(node: fx.Node, value: Any) -> None:
        if isinstance(value, Tensor):
            sizes[node] = value.numel()
        else:
            sizes[node] = CONTAINER if holds_tensors(value) else 0

    programs.run(programs.plan.num_frames, note)
    return sizes
