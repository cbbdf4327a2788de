"""A network's parts, one after the other, compute what the network does."""

import pytest
import torch
from families import FAMILIES, shared_family
from models import shared_conversion
from odd_networks import HandsOverPairs, runs_whole

import ada3d_fx
from ada3d_fx import Ada3DError
from ada3d_fx.exporting.branches import Branches
from ada3d_fx.exporting.partition import partition
from ada3d_fx.exporting.programs import Programs


def cut(adaptive):
    programs = Programs(adaptive)
    parts = partition(programs)
    return parts, Branches(programs, parts)


def chained(parts, branches, clips, times, stages):
    """Run the parts one after the other."""
    times = torch.tensor(times).expand(len(clips), -1)
    values = dict(zip(branches.programs.inputs, (clips, times)))
    for part in parts:
        module = branches.module(part, clips.shape[2], [stages[k] for k in part.stages])
        with torch.no_grad():
            made = module(*[values[node] for node in branches.tensors(part.inputs)])
        values.update(zip(branches.tensors(part.outputs), made))
    return made[0]


def specialised(adaptive, lengths):
    """Some lengths, with a clip, times, decisions and the scores of the specialised network."""
    plan, generator = adaptive.plan, torch.Generator().manual_seed(0)
    unit = plan.frame_unit or plan.num_frames
    channels, _, height, width = plan.clip_shape
    for length in sorted({lengths[0], lengths[len(lengths) // 2], lengths[-1]}):
        clip = torch.randn(1, channels, length, height, width, dtype=torch.float64)
        stages = (torch.rand(plan.num_stages, generator=generator) < 0.5).tolist()
        with torch.no_grad():
            units = torch.randperm(plan.num_frames // unit, generator=generator)[: length // unit]
            times = [
                unit * u + frame for u in units.sort().values.tolist() for frame in range(unit)
            ]
            static = ada3d_fx.specialize(adaptive, length, stages, frames=times)
            yield length, clip, times, stages, static(clip)


@pytest.mark.parametrize("name", FAMILIES)
def test_parts_chained_are_the_specialised_network(name):
    adaptive = shared_family(name)[1]
    parts, branches = cut(adaptive)
    for length, clip, times, stages, wanted in specialised(adaptive, branches.programs.lengths):
        assert (chained(parts, branches, clip, times, stages) - wanted).abs().max() < 1e-9, length


@pytest.mark.parametrize("name", FAMILIES)
def test_every_stage_is_decided_in_parts_of_its_own(name):
    adaptive = shared_family(name)[1]
    parts, _ = cut(adaptive)
    decided = [k for part in parts for k in part.stages]
    assert sorted(set(decided)) == list(range(adaptive.plan.num_stages))
    assert all(one.stages != other.stages for one, other in zip(parts, parts[1:]))
    source = [n for n in adaptive.conversion.source.nodes if n.op not in ("placeholder", "output")]
    held = [n for part in parts for n in part.nodes if n.op != "get_attr"]
    assert len(held) == len(set(held)) and set(held) == {n for n in source if n.op != "get_attr"}


def test_stages_of_a_module_that_runs_whole_are_decided_together():
    parts, _ = cut(ada3d_fx.convert(runs_whole(3), (3, 8, 8, 8), stages="layer"))
    assert [part.stages for part in parts] == [(0, 1, 2)]
    parts, _ = cut(shared_family("custom")[1])
    assert [part.stages for part in parts] == [(0,), (1,), (2,)]


def test_cuts_are_where_the_least_is_handed_over():
    parts, branches = cut(shared_conversion("i3d")[1])
    numbers = [sum(branches.values_at(8)[n].numel() for n in p.inputs) for p in parts]
    assert [len(part.inputs) for part in parts] == [1] * 5
    assert numbers == [
        3 * 8 * 32 * 32,  # channels, frames, height, width of the clip
        8 * 8 * 8 * 8,  # behind the first pool
        32 * 8 * 8 * 8,  # res2's end
        64 * 8 * 4 * 4,  # res3's end
        256 * 8 * 1 * 1,  # within res5, whose first block has no temporal convolution
    ]
    two, _ = cut(shared_family("slowfast")[1])
    assert all(len(part.inputs) == 2 for part in two[1:])  # of the two pathways


def test_sizes_that_cross_a_cut_are_constants_of_each_length():
    parts, branches = cut(shared_family("mvit")[1])
    known = [
        (part, node)
        for part in parts
        for node in part.inputs
        if node not in branches.tensors([node])
    ]
    assert known
    differ = [p for p, n in known if branches.values_at(2)[n] != branches.values_at(8)[n]]
    assert differ and all(len(branches.classes(part)) > 1 for part in differ)


def test_lengths_with_their_own_branches():
    for name in ("slowfast", "c3d", "custom"):
        parts, branches = cut(shared_family(name)[1])
        classes = [branches.classes(part) for part in parts]
        assert all(sorted(sum(each, ())) == list(branches.programs.lengths) for each in classes)
        if name == "slowfast":
            assert [len(each) for each in classes] == [1] * 5
        if name == "c3d":  # pools whose windows are fitted to short clips
            assert len(classes[0]) == 1 and max(map(len, classes)) > 1
        if name == "custom":  # its code asks for the length
            assert [len(each) for each in classes] == [1, len(branches.programs.lengths), 1]


def test_tensors_in_a_tuple_are_not_handed_over():
    adaptive = ada3d_fx.convert(HandsOverPairs().eval(), (3, 4, 6, 6))
    if adaptive.plan.num_stages < 2:
        pytest.fail("the two convolutions are to be two stages")
    with pytest.raises(Ada3DError, match=r"in a list or tuple; export it with fixed="):
        partition(Programs(adaptive))
