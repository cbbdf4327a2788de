"""Joined parts compute what the parts do, and hand over less, within bounds."""

import pytest
from families import FAMILIES, shared_family
from models import shared_conversion
from test_partition import chained, cut, specialised

from ada3d_fx.exporting import joining
from ada3d_fx.exporting.joining import BRANCHES, WEIGHTS, join


def joined(adaptive):
    return join(cut(adaptive)[1])


def taken(branches):
    """Numbers that all parts take in, of a whole clip."""
    values = branches.values_at(branches.programs.plan.num_frames)
    return sum(values[n].numel() for part in branches.parts for n in branches.tensors(part.inputs))


@pytest.mark.parametrize("name", FAMILIES)
def test_joined_parts_chained_are_the_specialised_network(name):
    adaptive = shared_family(name)[1]
    branches = joined(adaptive)
    for length, clip, times, stages, wanted in specialised(adaptive, branches.programs.lengths):
        made = chained(branches.parts, branches, clip, times, stages)
        assert (made - wanted).abs().max() < 1e-9, length


@pytest.mark.parametrize("name", FAMILIES)
def test_less_is_handed_over_and_branches_are_bounded(name):
    adaptive = shared_family(name)[1]
    parts, apart = cut(adaptive)
    branches = joined(adaptive)
    assert len(branches.parts) <= len(parts) and taken(branches) <= taken(apart)
    held = [n for part in branches.parts for n in part.nodes if n.op != "get_attr"]
    cut_before = [n for part in parts for n in part.nodes if n.op != "get_attr"]
    assert len(held) == len(set(held)) and set(held) == set(cut_before)
    weights = sum(p.numel() for p in adaptive.parameters())
    for part in branches.parts:
        if part.stages not in [one.stages for one in parts]:
            copies = len(branches.classes(part)) * 2 ** len(part.stages)
            own = {
                p
                for node in part.nodes
                if node.op == "call_module"
                for p in branches.root.get_submodule(str(node.target)).parameters()
            }
            assert copies <= BRANCHES
            assert copies * sum(p.numel() for p in own) <= WEIGHTS * weights


def test_large_values_are_not_handed_over():
    assert [part.stages for part in joined(shared_conversion("i3d")[1]).parts] == [
        (0, 1, 2),
        (3, 4),
    ]
    slowfast = joined(shared_family("slowfast")[1])
    assert len(slowfast.parts) < 5


def test_without_room_for_branches_nothing_is_joined(monkeypatch):
    adaptive = shared_conversion("i3d")[1]
    monkeypatch.setattr(joining, "BRANCHES", 2)
    assert [part.stages for part in joined(adaptive).parts] == [(k,) for k in range(5)]
    monkeypatch.setattr(joining, "BRANCHES", 8)
    monkeypatch.setattr(joining, "WEIGHTS", 0)
    assert [part.stages for part in joined(adaptive).parts] == [(k,) for k in range(5)]
