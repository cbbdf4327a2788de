"""Packs: an exact inverse pair, runs that cover everything, and one table for the whole batch."""

import pytest
import torch

from ada3d_fx import Policy, Segments
from ada3d_fx.packed.packing import Packing, pack_frames, restore_order

TABLES = [(1,), (4,), (1, 1), (2, 2, 3), (3, 1, 1, 5), (2, 2, 2, 2)]


@pytest.mark.parametrize("lengths", TABLES)
@pytest.mark.parametrize("gates", ["on", "off", "mixed"])
def test_split_and_join_are_inverse_and_runs_cover_every_clip_once(lengths, gates):
    table = Segments(lengths)
    gate = [{"on": True, "off": False, "mixed": i % 2 == 0}[gates] for i in range(len(lengths))]
    runs = table.runs(gate)
    rows = torch.randn(table.num_rows, 3, 1, 2, 2).contiguous(memory_format=torch.channels_last_3d)
    parts = table.split(rows, runs)
    assert [p.shape[0] * p.shape[2] for p in parts] == [r.num_clips * r.length for r in runs]
    assert all(p.untyped_storage().data_ptr() == rows.untyped_storage().data_ptr() for p in parts)
    assert torch.equal(Segments.join(parts), rows)
    covered = [clip for run in runs for clip in range(run.first, run.first + run.num_clips)]
    assert covered == list(range(len(lengths)))
    for run in runs:
        assert {lengths[c] for c in range(run.first, run.first + run.num_clips)} == {run.length}
        assert {gate[c] for c in range(run.first, run.first + run.num_clips)} == {run.on}
    assert all(a.length != b.length or a.on != b.on for a, b in zip(runs, runs[1:]))


def test_clips_without_neighbours_are_clips_of_one_frame():
    table, gate = Segments((2, 3, 1)).split_ungated([False, True, False])
    assert table.lengths == (1, 1, 3, 1)
    assert gate == (False, False, True, False)


def test_resized_looks_every_length_up():
    assert Segments((1, 2, 4, 4)).resized((None, 1, 1, 2, 2)).lengths == (1, 1, 2, 2)


def test_pack_holds_the_kept_frames_in_order_and_clips_come_back_in_the_batchs_order():
    torch.manual_seed(0)
    clips = torch.randn(5, 2, 4, 3, 3)
    frames = torch.tensor(
        [[1, 1, 1, 1], [0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 1], [1, 0, 1, 0]]
    ).bool()
    stages = torch.tensor([[1, 0], [0, 0], [1, 1], [0, 1], [0, 0]]).bool()
    packing = Packing.of(Policy(frames, stages))
    assert packing.segments.lengths == tuple(sorted(packing.segments.lengths))
    rows = pack_frames(clips, packing)
    assert rows.shape == (10, 2, 1, 3, 3)
    expected = torch.cat([clips[i].transpose(0, 1)[frames[i]] for i in packing.order])
    assert torch.equal(rows[:, :, 0], expected)
    for k in range(2):
        assert packing.gates[k].on == tuple(bool(stages[i, k]) for i in packing.order)
    names = torch.arange(5)
    assert torch.equal(restore_order(names[list(packing.order)], packing), names)


def test_a_full_pack_is_one_run_and_gathers_nothing():
    packing = Packing.of(Policy(torch.ones(3, 4).bool(), torch.ones(3, 2).bool()))
    assert packing.rows is None
    assert [run.num_clips for run in packing.segments.runs(packing.gates[0].on)] == [3]


def test_equal_decisions_lie_side_by_side():
    policy = Policy(torch.ones(6, 4).bool(), torch.tensor([[1], [0], [1], [0], [1], [0]]).bool())
    packing = Packing.of(policy)
    assert len(packing.segments.runs(packing.gates[0].on)) == 2


def test_values_of_clips_are_repeated_for_their_frames():
    values = torch.arange(3.0).view(3, 1)
    assert Segments((2, 1, 3)).repeat_per_frame(values).flatten().tolist() == [0, 0, 1, 2, 2, 2]
    assert Segments((2, 2, 2)).repeat_per_frame(values).flatten().tolist() == [0, 0, 1, 1, 2, 2]
