"""Which neighbouring parts are exported as one.

An engine lays a value out anew where one part hands it to the next, which takes as long as reading and
writing it. A part of several stages has a branch for each of their decisions together, and an engine
lays the weights out for each branch. So parts are joined where much is handed over, as long as there are
few branches and what they hold is bounded.
"""

from __future__ import annotations

from typing import NamedTuple

from .branches import Branches
from .partition import Part, part_of

BRANCHES = 8  # of a joined part
WEIGHTS = 4  # times the network's: what the branches of a joined part may hold


class _Joined(NamedTuple):
    """The first parts of a network, some of them joined."""

    taken: int  # numbers that they take in, all together
    held: int  # weights of all their branches
    parts: tuple[Part, ...]


def join(branches: Branches) -> Branches:
    """Join neighbouring parts so that the fewest numbers are handed over.

    Args:
        branches: of the parts as `partition` cut them.
    """
    parts, limit = branches.parts, WEIGHTS * sum(_weights(branches, p) for p in branches.parts)
    best = [_Joined(0, 0, ())]
    for end in range(1, len(parts) + 1):
        ways = []
        for start in reversed(range(end)):
            part = _joined(branches, parts[start:end])
            held = _copies(branches, part) * _weights(branches, part)
            if start < end - 1 and (_copies(branches, part) > BRANCHES or held > limit):
                break
            before = best[start]
            ways.append(
                _Joined(
                    before.taken + _taken(branches, part), before.held + held,
                    (*before.parts, part),
                )
            )  # fmt: skip
        best.append(min(ways, key=lambda way: way[:2]))
    return Branches(branches.programs, best[-1].parts)


def _joined(branches: Branches, parts: tuple[Part, ...]) -> Part:
    """Consecutive parts as one."""
    if len(parts) == 1:
        return parts[0]
    stages = tuple(sorted({stage for part in parts for stage in part.stages}))
    nodes = [n for part in parts for n in part.nodes if n.op != "get_attr"]
    return part_of(stages, nodes, branches.programs.adaptive.conversion.source)


def _copies(branches: Branches, part: Part) -> int:
    """How many branches a part has."""
    return len(branches.classes(part)) * 2 ** len(part.stages)


def _weights(branches: Branches, part: Part) -> int:
    """How many numbers the weights of a part have."""
    called = {str(node.target) for node in part.nodes if node.op == "call_module"}
    modules = [branches.root.get_submodule(path) for path in called]
    return sum(p.numel() for p in {p for module in modules for p in module.parameters()})


def _taken(branches: Branches, part: Part) -> int:
    """How many numbers a part takes in, of a whole clip."""
    values = branches.values_at(branches.programs.plan.num_frames)
    return sum(values[node].numel() for node in branches.tensors(part.inputs))
