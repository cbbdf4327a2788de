"""Where a training's seconds go: parts that add up, in the phases in which they are."""

import json

import mm_parts
import pytest
from mmengine.runner import Runner

import ada3d_fx.mm  # noqa: F401
from ada3d_fx.experiments.training import RunOptions, train
from ada3d_fx.experiments.training_profile import by_phase
from ada3d_fx.mm import step_times, steps
from ada3d_fx.mm.stopwatch import Stopwatch
from ada3d_fx.progress import Console


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    mm_parts.write_clips(folder)
    return folder


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves where it is told."""
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    return now


def test_a_part_within_another_is_not_counted_twice(clock):
    watch = Stopwatch()
    watch.start()
    for part in ("outer", "inner"):
        watch.begin(part)
        clock[0] += 1
    watch.end("inner")
    clock[0] += 5
    with watch.part("inner"):
        clock[0] += 10
    watch.end("outer")
    clock[0] += 100  # of no part
    watch.begin("open")
    clock[0] += 1000
    watch.stop()
    assert watch.seconds == {"outer": 6, "inner": 11, "open": 1000}


def test_one_that_is_off_measures_nothing(clock):
    watch = Stopwatch()
    with watch.part("a"):
        watch.begin("b")
        clock[0] += 1
        watch.end("b")
        watch.end("a")
    watch.stop()
    assert not watch.seconds
    watch.start()
    clock[0] += 1
    watch.end("a")  # which did not begin
    watch.stop()
    assert not watch.seconds


def plain_config(folder, work_dir):
    config = mm_parts.run_config(folder, work_dir, epochs=2)
    config.model = mm_parts.recognizer()
    config.custom_hooks, config.val_evaluator = [], config.val_evaluator[:1]
    config.optim_wrapper = {"optimizer": {"type": "SGD", "lr": 0.1}}
    config.default_hooks.checkpoint.pop("save_best", None)
    return config


def trained(config):
    """The hook's epochs, and MMEngine's own times of all steps."""
    config.custom_hooks.append({"type": "StepTimesHook"})
    runner = Runner.from_cfg(config)
    times, after = [], runner.call_hook

    def call(name, **given):
        after(name, **given)
        if name == "after_train_iter":
            times.append(runner.message_hub.get_scalar("train/time").current())

    runner.call_hook = call
    runner.train()
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, step_times.StepTimesHook))
    assert not runner.model._forward_hooks and not runner.model.data_preprocessor._forward_hooks
    return hook.epochs, times


def check(epochs, times):
    assert [epoch["steps"] for epoch in epochs] == [2] * len(epochs)
    for number, epoch in enumerate(epochs):
        seconds = epoch["seconds"]
        assert list(seconds) == list(step_times.PARTS) and min(seconds.values()) >= 0
        assert sum(seconds.values()) == pytest.approx(sum(times[2 * number : 2 * number + 2]))
    for row in by_phase(epochs):
        assert sum(row["shares"].values()) == pytest.approx(1)


EVERY = {
    step_times.WAIT, step_times.NORMALISE, step_times.BACKWARD, step_times.STEP, step_times.REST
}  # fmt: skip


def test_shares_of_each_phase_add_up_to_its_steps(clips, tmp_path):
    epochs, times = trained(mm_parts.run_config(clips, tmp_path))
    check(epochs, times)
    assert [epoch["phase"] for epoch in epochs] == ["warmup", "selection", "joint"]
    for epoch in epochs:
        there = {name for name, value in epoch["seconds"].items() if value}
        classifies = {steps.CLASSIFY} if epoch["phase"] == "warmup" else set()
        assert there == EVERY | {steps.SELECT, steps.RECOGNISE} | classifies
    log = next(tmp_path.rglob("*.log")).read_text()
    assert "epoch 2, selection: 2 steps of" in log and "wait for data" in log


def test_a_plain_recognizer_has_no_selection_network(clips, tmp_path):
    epochs, times = trained(plain_config(clips, tmp_path))
    check(epochs, times)
    for epoch in epochs:
        assert epoch["phase"] == "training"
        assert {n for n, value in epoch["seconds"].items() if value} == EVERY | {steps.RECOGNISE}


def test_the_tool_tells_and_keeps_them(clips, tmp_path):
    path, work = tmp_path / "config.py", tmp_path / "work"
    mm_parts.run_config(clips, work).dump(str(path))
    told = train(str(path), [], RunOptions(profile=True, validate=False), Console())
    kept = json.loads((work / "step_times.json").read_text())
    assert [row["phase"] for row in kept["phases"]] == ["warmup", "selection", "joint"]
    assert len(kept["epochs"]) == 3 and "torch" in kept["versions"]
    assert all(word in told for word in ("seconds a step", "backward", "joint", "trained 6"))
    train(str(path), [], RunOptions(work_dir=str(tmp_path / "other"), validate=False), Console())
    assert not (tmp_path / "other" / "step_times.json").exists()
