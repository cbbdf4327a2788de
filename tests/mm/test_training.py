"""MMEngine's Runner over encoded clips: phases, resume, logs, evaluation."""

import logging

import mm_parts
import pytest
import torch
from mmaction.registry import MODELS
from mmengine.runner import Runner

import ada3d_fx.mm  # noqa: F401
from ada3d_fx import Ada3DError
from ada3d_fx.learn.diagnose import collapse, stalled
from ada3d_fx.mm import console
from ada3d_fx.mm.checkpoint import load_checkpoint, load_weights
from ada3d_fx.mm.hooks import InvalidLossHook, TrainingPhaseHook
from ada3d_fx.mm.testing import examples, record_policies
from ada3d_fx.report import records


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    mm_parts.write_clips(folder)
    return folder


@pytest.fixture(scope="module")
def trained(clips, tmp_path_factory):
    """An unbroken run of all three phases."""
    work_dir = tmp_path_factory.mktemp("unbroken")
    Runner.from_cfg(mm_parts.run_config(clips, work_dir)).train()
    return work_dir


def test_run_leaves_checkpoints_the_best_one_and_tensorboard_logs(trained):
    assert (trained / "epoch_3.pth").is_file()
    assert list(trained.glob("best_policy_reward_epoch_*.pth"))
    assert list(trained.rglob("events.out.tfevents*"))
    log = next(trained.rglob("*.log")).read_text()
    for word in ("warmup", "selection", "joint", "reward_frames", "advantage", "entropy_stages",
                 "kept_frames", "active_stages", "gmacs", "distinct_policies", "loss_cls",
                 "policy/gmacs_p90", "policy/frames_even", "policies after 1 of 2"):  # fmt: skip
        assert word in log, word


def test_the_selection_phase_left_the_recognizer_as_the_warmup_made_it(trained):
    before, after, later = (load_checkpoint(trained / f"epoch_{i}.pth") for i in (1, 2, 3))
    keys = [key for key in before if key.startswith("recognizer.")]
    assert all(torch.equal(before[key], after[key]) for key in keys)
    assert not all(torch.equal(after[key], later[key]) for key in keys)
    assert any(
        not torch.equal(before[key], after[key]) for key in before if key.startswith("selector.")
    )


@pytest.mark.parametrize("epoch", [1, 2])
def test_resumed_run_ends_as_the_unbroken_one(epoch, clips, trained, tmp_path):
    config = mm_parts.run_config(clips, tmp_path / "resumed")
    config.resume, config.load_from = True, str(trained / f"epoch_{epoch}.pth")
    torch.manual_seed(99)
    Runner.from_cfg(config).train()
    ours, theirs = (
        load_checkpoint(folder / "epoch_3.pth") for folder in (tmp_path / "resumed", trained)
    )
    for key, value in theirs.items():
        assert torch.equal(ours[key], value), key


def test_tested_weights_give_the_validated_metrics(clips, trained, tmp_path):
    runner = Runner.from_cfg(mm_parts.run_config(clips, tmp_path / "test"))
    load_weights(runner.model, trained / "epoch_3.pth")
    metrics = runner.test()
    assert 1 <= metrics["policy/frames"] <= 4 and 0 <= metrics["policy/stages"] <= 5
    selector = runner.model.selector_macs / 1e9
    assert metrics["policy/gmacs"] == pytest.approx(metrics["policy/gmacs_recognizer"] + selector)
    assert metrics["policy/gmacs_p10"] <= metrics["policy/gmacs_p90"] <= metrics["policy/gmacs_max"]
    even, odd = metrics["policy/frames_even"], metrics["policy/frames_odd"]
    assert metrics["policy/frames"] == pytest.approx((even + odd) / 2)


def test_examples_are_what_the_test_decides(clips, trained, tmp_path):
    """A runner's model starts in training mode; examples are those of evaluation mode."""
    config = mm_parts.run_config(clips, tmp_path)
    steps = config.test_dataloader.dataset.pipeline
    config.test_dataloader.dataset.pipeline = [step for step in steps if step["type"] != "Flip"]
    record_policies(config, str(tmp_path / "clips.json"))
    runner = Runner.from_cfg(config)
    load_weights(runner.model, trained / "epoch_3.pth")
    runner.test()
    dataset = runner.test_dataloader.dataset
    for index, record in enumerate(records.read_clips(tmp_path / "clips.json")):
        (example,) = examples(runner.model.train(), dataset[index], "x", {})
        assert example.gmacs * 1e9 == pytest.approx(record["macs"] + record["selector_macs"])
        assert example.prediction == str(record["predicted"])
    assert not runner.model.training


def test_plain_checkpoint_serves_policies_that_are_not_learned(clips, trained, tmp_path):
    weights = load_checkpoint(trained / "epoch_3.pth")
    plain = {k.removeprefix("recognizer."): v for k, v in weights.items() if k[:4] == "reco"}
    torch.save({"state_dict": plain}, tmp_path / "plain.pth")
    runner = Runner.from_cfg(
        mm_parts.run_config(clips, tmp_path / "full", testing={"policy": "full"})
    )
    load_weights(runner.model, tmp_path / "plain.pth")
    assert runner.test()["policy/frames"] == 4
    runner.model.testing_options.policy = "learned"
    with pytest.raises(Ada3DError, match="no selection network"):
        load_weights(runner.model, tmp_path / "plain.pth")


@pytest.mark.parametrize(
    "phases, message",
    [
        ([{"name": "joint"}], "one of epochs and iters"),
        ([{"name": "joint", "epochs": 1, "lr": 1.0}], "lr"),
        ([{"name": "phase2", "epochs": 1}], "phase2"),
    ],
)
def test_wrong_phases_are_named(phases, message):
    with pytest.raises(Ada3DError, match=message):
        TrainingPhaseHook(phases)


def test_phases_must_fill_the_run(clips, tmp_path):
    config = mm_parts.run_config(clips, tmp_path / "short")
    config.train_cfg.max_epochs = 5
    with pytest.raises(Ada3DError, match="their sum"):
        Runner.from_cfg(config).train()


def test_collapse_is_named():
    some = torch.tensor([[True, True, False], [False, True, True]])
    assert collapse(some, some) == []
    assert "one pattern" in collapse(some[:1].expand(2, -1), some[:1].expand(2, -1))[0]
    full = torch.ones(2, 3, dtype=torch.bool)
    assert any("everything is kept of 100 %" in m for m in collapse(full, full))
    one = torch.eye(3, dtype=torch.bool)[[0, 1]]
    assert collapse(one, some) == ["one frame is kept of 100 % of the clips (is gamma too low?)"]
    assert any("one frame" in m for m in collapse(one, torch.zeros(2, 2, dtype=torch.bool)))
    assert collapse(torch.cat([one.repeat(9, 1), some]), some.repeat(10, 1)) == [
        "one frame is kept of 90 % of the clips (is gamma too low?)"
    ]
    assert collapse(torch.cat([one.repeat(8, 1), some, some]), some.repeat(10, 1)) == []
    pairs = one.repeat_interleave(2, dim=1)
    assert collapse(pairs, some) == [] == collapse(one, some, unit=None)
    assert collapse(pairs, some, unit=2) == [
        "one unit of 2 frames is kept of 100 % of the clips (is gamma too low?)"
    ]


def test_collapse_is_warned_of(clips, tmp_path, caplog):
    selector = mm_parts.selector(frame_prob=0.999, stage_prob=0.999)
    runner = Runner.from_cfg(mm_parts.run_config(clips, tmp_path / "collapsed", selector=selector))
    runner.logger.propagate = True
    with caplog.at_level(logging.WARNING):
        runner.test()
    assert (
        "collapsed" in caplog.text
        or "one pattern" in next((tmp_path / "collapsed").rglob("*.log")).read_text()
    )


def test_a_checkpoint_trained_to_a_budget_is_tested_without_one(tmp_path):
    torch.manual_seed(0)
    trained = MODELS.build(mm_parts.model(objective={"samples": 2, "budget": 1.0}))
    torch.save(trained.state_dict(), tmp_path / "model.pth")
    plain = MODELS.build(mm_parts.model(selector=mm_parts.selector()))  # no frame classifier either
    load_weights(plain, tmp_path / "model.pth")
    assert torch.equal(plain.selector.head.frame_out.weight, trained.selector.head.frame_out.weight)
    torch.save(plain.state_dict(), tmp_path / "no_classifier.pth")
    both = MODELS.build(
        mm_parts.model(testing={"predict_with": "both"}, training={"classify": 1.0})
    )
    with pytest.raises(
        Ada3DError, match=r"does not fit the model in 2 tensors: selector.classifier"
    ):
        load_weights(both, tmp_path / "no_classifier.pth")
    torch.save({f"recognizer.{k}": v for k, v in plain.recognizer.state_dict().items()},
               tmp_path / "no_selector.pth")  # fmt: skip
    both.testing_options.policy = "full"
    with pytest.raises(Ada3DError, match="holds no selection network"):
        load_weights(both, tmp_path / "no_selector.pth")


def test_what_keeps_policies_from_learning_is_said():
    assert stalled({"distinct_policies": 3.0, "correct": 0.9, "advantage": 0.2}) == []
    (one,) = stalled({"distinct_policies": 1.0, "correct": 0.9, "advantage": 0.2})
    assert "one greedy policy throughout" in one
    (one,) = stalled({"distinct_policies": 3.0, "correct": 0.99, "advantage": 0.2})
    assert "rewards saturate: 99.0 %" in one
    (one,) = stalled({"distinct_policies": 3.0, "correct": 0.9, "advantage": 0.0})
    assert "earn the same reward" in one


def test_a_checkpoint_of_a_diverged_training_is_refused(tmp_path):
    model = MODELS.build(mm_parts.model())
    weights = model.state_dict()
    weights["recognizer.cls_head.fc_cls.bias"][1] = float("nan")
    torch.save(weights, tmp_path / "nan.pth")
    with pytest.raises(Ada3DError, match=r"not finite in 1 tensors: recognizer\.cls_head\.fc_cls"):
        load_weights(model, tmp_path / "nan.pth")
    with pytest.raises(Ada3DError, match=r"not finite in 1 tensors: cls_head\.fc_cls\.bias"):
        MODELS.build(mm_parts.model(recognizer_checkpoint=str(tmp_path / "nan.pth"))).init_weights()


@pytest.mark.parametrize("stop", [True, False])
def test_a_loss_that_is_no_number_ends_the_training_unless_told_otherwise(stop, clips, tmp_path):
    config = mm_parts.run_config(clips, tmp_path / "diverged")
    rates = {"recognizer_lr": 1e30, "selector_lr": 1e30}
    for phase in config.custom_hooks[0]["phases"]:
        phase.update(rates)
    if not stop:
        config.custom_hooks.append({"type": "InvalidLossHook", "stop": False})
    runner = console.build_runner(config)
    assert sum(isinstance(hook, InvalidLossHook) for hook in runner.hooks) == 1
    if stop:
        with pytest.raises(Ada3DError, match="the loss is not a finite number in iteration 2"):
            runner.train()
        assert not list((tmp_path / "diverged").glob("*.pth"))  # nothing was made of it
    else:
        runner.train()
        log = next((tmp_path / "diverged").rglob("*.log")).read_text()
        assert log.count("the loss is not a finite number") == 1
