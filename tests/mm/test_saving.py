"""Checkpoints are whole, the best one is that of an unbroken run, and a copy leaves its origin alone."""

import resource
import shutil

import experiment_parts
import pytest
import torch
from mmengine.hooks import Hook

import ada3d_fx.mm  # noqa: F401
from ada3d_fx.mm import console
from ada3d_fx.mm.checkpoint import last_checkpoint, load_checkpoint

BEST = "best_policy_reward_epoch_3.pth"


class Count(Hook):
    """Counts validations."""

    def __init__(self):
        self.validations = 0

    def before_val_epoch(self, runner):
        self.validations += 1


class Stop(Hook):
    """Interrupts the run between the last checkpoint and its validation."""

    def before_val_epoch(self, runner):
        if runner.epoch == 3:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An unbroken run, and an interrupted one; one checkpoint and the best one are kept."""
    path = tmp_path_factory.mktemp("saving")
    config = experiment_parts.config_of(path, testing={"greedy": "count"})
    config.default_hooks.checkpoint.max_keep_ckpts = 1
    train(config, path / "unbroken")
    with pytest.raises(KeyboardInterrupt):
        train(config, path / "interrupted", Stop())
    return path, config


def train(config, work_dir, *hooks):
    config.work_dir = str(work_dir)
    config.experiment_name = str(work_dir).replace("/", "_")
    config.load_from = last_checkpoint(work_dir) if work_dir.is_dir() else None
    config.resume = config.load_from is not None
    runner = console.build_runner(config)
    for hook in hooks:
        runner.register_hook(hook)
    runner.train()
    return runner


def checkpoints(work_dir):
    return {path.name: load_checkpoint(path) for path in work_dir.glob("*.pth")}


def test_an_interrupted_validation_is_made_up_for_in_the_very_folder(folder):
    """Resumed in a copy: it has the unbroken run's checkpoints, and the other folder all of its own."""
    path, config = folder
    before = {p: p.stat().st_mtime_ns for p in (path / "interrupted").rglob("*.pth")}
    old_best = [p.name for p in before if p.name.startswith("best")]
    assert old_best and BEST not in old_best
    shutil.copytree(path / "interrupted", path / "copy")
    count = Count()
    runner = train(config, path / "copy", count)
    noted = torch.load(path / "copy" / "epoch_3.pth", weights_only=True)["message_hub"]
    assert noted["runtime_info"]["best_ckpt"] == str(path / "copy" / BEST)
    assert runner.message_hub.get_info("best_ckpt") == str(path / "copy" / BEST)
    train(config, path / "copy", count)
    assert count.validations == 1  # what was validated is not validated again
    found, expected = checkpoints(path / "copy"), checkpoints(path / "unbroken")
    assert set(found) == set(expected) == {"epoch_3.pth", BEST}
    for name, weights in expected.items():
        assert all(torch.equal(found[name][key], weights[key]) for key in weights)
    assert {p: p.stat().st_mtime_ns for p in (path / "interrupted").rglob("*.pth")} == before


def test_a_checkpoint_is_replaced_by_a_whole_one_only(folder, tmp_path):
    """On a disk that is full, or where files may have 5,000 bytes only."""
    path, config = folder
    shutil.copytree(path / "unbroken", tmp_path / "run")
    runner = train(config, tmp_path / "run")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        with pytest.raises(OSError):
            runner.save_checkpoint(str(tmp_path / "run"), "epoch_3.pth")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert set(checkpoints(tmp_path / "run")) == {"epoch_3.pth", BEST}  # and both can be read
