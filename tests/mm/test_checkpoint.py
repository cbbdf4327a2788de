"""With which checkpoint a training goes on: the last whole one of its own folder."""

import shutil

import mm_parts
import pytest
import torch
from mmengine.runner import Runner

import ada3d_fx.mm  # noqa: F401
from ada3d_fx.experiments.training import RunOptions, training_config
from ada3d_fx.mm.checkpoint import last_checkpoint


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with clips, a config, and a training of two epochs in ``work``."""
    folder = tmp_path_factory.mktemp("checkpoints")
    mm_parts.write_clips(folder)
    config = mm_parts.run_config(folder, folder / "work", epochs=2)
    config.dump(str(folder / "config.py"))
    Runner.from_cfg(config).train()
    return folder


@pytest.fixture
def work(trained, tmp_path):
    """A copy of the training's folder elsewhere."""
    shutil.copytree(trained / "work", tmp_path / "copy")
    return tmp_path / "copy"


def test_a_copied_folder_goes_on_with_its_own_checkpoint(trained, work):
    assert last_checkpoint(trained / "work") == str(trained / "work" / "epoch_2.pth")
    assert str(trained) in (work / "last_checkpoint").read_text()  # what MMEngine noted
    assert last_checkpoint(work) == str(work / "epoch_2.pth")


def test_checkpoints_without_a_note_are_not_trained_over(trained, work):
    (work / "last_checkpoint").unlink()
    assert last_checkpoint(work) == str(work / "epoch_2.pth")
    options = RunOptions(work_dir=str(work), resume="auto")
    config = training_config(str(trained / "config.py"), [], options)
    assert config.resume and config.load_from == str(work / "epoch_2.pth")


@pytest.mark.parametrize("damage", ["cut off", "empty", "foreign", "missing"])
def test_a_damaged_checkpoint_is_left_for_the_one_before(work, damage, caplog):
    path = work / "epoch_2.pth"
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        new = {"cut off": content[: len(content) // 2], "empty": b"", "foreign": b"not a model"}
        path.write_bytes(new[damage])
    assert last_checkpoint(work) == str(work / "epoch_1.pth")
    assert "epoch_2.pth" in caplog.text and "an earlier one is taken" in caplog.text


def test_nothing_to_go_on_with(tmp_path):
    assert last_checkpoint(tmp_path / "absent") is None
    torch.save({"state_dict": {}}, tmp_path / "best_epoch_3.pth")
    assert last_checkpoint(tmp_path) is None
