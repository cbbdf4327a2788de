"""Steps of training that are timed: what they compute is what training computes."""

import json

import pytest
import torch

from ada3d_fx import Ada3DError
from ada3d_fx.timing import benchmark
from ada3d_fx.timing import networks as timed_networks
from ada3d_fx.timing import text as timing_text
from ada3d_fx.timing import training as training_timing
from ada3d_fx.timing.networks import Request

CONFIG, SHAPE = "mmaction_configs/demo_stage0.py", (3, 8, 32, 32)
USAGES = [(0.5, 0.4)]


def request(**options):
    return Request(CONFIG, (), SHAPE, (2,), USAGES, repeats=1, training=True, **options)


@pytest.fixture(scope="module")
def steps():
    networks = timed_networks.make_networks(request(), torch.device("cpu"))
    return training_timing.TrainingSteps(networks, 2, request(samples=3))


def test_rows_of_one_interleaved_run(tmp_path):
    out, picture = tmp_path / "times.json", tmp_path / "times.png"
    benchmark.measure(request(samples=2), str(out), str(picture))
    result = json.loads(out.read_text())
    (table,) = result["tables"]
    rows = {row["name"]: row for row in table["training"]}
    assert set(training_timing.PEERS) < set(rows) and picture.stat().st_size
    assert all(len(row["rounds"]) == 1 and row["seconds"] > 0 for row in rows.values())
    assert rows[training_timing.FINE_TUNING]["macs"] == 1
    assert (
        rows[training_timing.FIRST]["multiply_adds"]
        < (rows[training_timing.FIRST_MASKED]["multiply_adds"])
    )
    packed = rows[training_timing.SECOND]
    peer = packed["faster"][training_timing.FINE_TUNING]
    seconds = rows[training_timing.FINE_TUNING]["seconds"]
    assert peer["times"] == pytest.approx(seconds / packed["seconds"])
    text = timing_text.text(result)
    assert "2 clips of 3 x 8 x 32 x 32 with 2 policies each" in text
    assert "phase 1, packed:" in text and "times as fast as phase 1, clip by clip" in text


@pytest.mark.parametrize("phase", [1, 2])
def test_one_phase_alone_is_timed(steps, phase):
    (table,) = benchmark.measure(request(samples=2, phase=phase))["tables"]
    rows = {row["name"]: row for row in table["training"]}
    both = [*training_timing.PEERS, *sum(training_timing.PEERS.values(), ())]
    assert set(rows) == {name for name in both if name.startswith(f"phase {phase}")}
    packed = rows[{1: training_timing.FIRST, 2: training_timing.SECOND}[phase]]
    assert set(packed["faster"]) == set(training_timing.PEERS[packed["name"]]) & set(rows)
    dense = 4 * timed_networks.full_price(steps.networks.adaptive)  # fine-tuning's
    assert packed["macs"] == pytest.approx(packed["multiply_adds"] / dense)


def test_a_phase_is_of_training():
    with pytest.raises(Ada3DError, match="--phase 1 is of steps of training; add --training"):
        benchmark.check(Request(CONFIG, phase=1))


def test_policies_have_the_usage_that_is_asked_for(steps):
    assert len(steps.policy) == 6
    assert int(steps.policy.num_frames.sum()) == 24  # half of six times eight
    assert int(steps.policy.num_stages.sum()) == round(0.4 * 6 * steps.policy.stages.shape[1])


@pytest.mark.parametrize("joint", [False, True])
def test_packed_and_clip_by_clip_are_the_same_step(steps, joint):
    """In evaluation mode, where BatchNorm is the same for one clip as for a batch."""
    adaptive, index = steps.networks.adaptive.eval(), torch.arange(2).repeat_interleave(3)
    with torch.set_grad_enabled(joint):
        found = [
            execute(adaptive, steps.policy, index) for execute in (steps._packed, steps._alone)
        ]
    assert found[0].requires_grad == joint
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_what_learns_in_a_step_gets_gradients(steps):
    recognizer, selector = steps.networks.adaptive, steps.selector
    runs = {run.name: run for run in steps.runs()}

    def learning(name):
        step = runs[name].call
        step()
        learned = {p for p, state in step.optimizer.state.items() if "momentum_buffer" in state}
        parts = (recognizer, selector, steps.saving, steps.networks.recognizer)
        return [bool(learned.intersection(part.parameters())) for part in parts]

    assert learning(training_timing.FINE_TUNING) == [False, False, False, True]
    assert learning(training_timing.FIRST) == [False, True, False, False]
    assert learning(training_timing.SECOND) == [True, True, False, False]
    assert learning(training_timing.SECOND_SAVING) == [False, True, True, False]
    assert all(p.grad is None for p in recognizer.parameters())


@pytest.mark.parametrize(
    "options, message",
    [
        ({"engines": ("openvino",)}, "only torch trains"),
        ({"compiled": True}, "--compile is of inference"),
        ({"policy": "p.json"}, "--policy is of inference"),
        ({"samples": 1}, "--samples 1: expected at least 2"),
    ],
)
def test_bad_input_is_told(options, message):
    with pytest.raises(Ada3DError, match=message):
        benchmark.measure(request(**options))
