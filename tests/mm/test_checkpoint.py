"""With which checkpoint a training goes on: the last whole one of its own folder."""

import pickle
import shutil
import zipfile

import mm_parts
import pytest
import torch
from mmengine.runner import Runner

import ada3d_fx.mm  # noqa: F401
from ada3d_fx import Ada3DError
from ada3d_fx.experiments.training import RunOptions, training_config
from ada3d_fx.learn.backbones import load_backbone
from ada3d_fx.mm.checkpoint import (
    check_resumable,
    check_start,
    go_on,
    last_checkpoint,
    load_checkpoint,
    load_recognizer,
    load_selector,
    load_weights,
)


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


def test_a_config_that_resumes_goes_on_with_its_own_folder(trained, work):
    """MMEngine goes by its note, whose path is that of the folder from which this one was copied."""
    options = RunOptions(work_dir=str(work))
    config = training_config(str(trained / "config.py"), ["resume=True"], options)
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


class Code:
    """What a file must never run when it is read."""

    def __reduce__(self):
        return (open, (CANARY, "w"))


CANARY = "canary-of-a-checkpoint.txt"


def write_odd(path, kind):
    """Write a file that is no checkpoint."""
    tensors = {"a.weight": torch.ones(3, 2), "a.bias": torch.ones(3)}
    saved = {
        "list": [1, 2], "tensor": torch.ones(3), "text": "text", "None": None, "empty dict": {},
        "nested": {"state_dict": {"model": tensors}}, "no tensors": {"epoch": 3, "model": [1]},
        "numbers": {1: torch.ones(2)}, "code": {"state_dict": Code()},
        "module": torch.nn.Linear(2, 2),
    }  # fmt: skip
    if kind in saved:
        torch.save(saved[kind], path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.txt", "text")
    elif kind == "pickled code":
        path.write_bytes(pickle.dumps(Code()))
    elif kind == "cut off":
        torch.save(tensors, path)
        path.write_bytes(path.read_bytes()[:700])
    else:
        path.write_bytes(
            {"text file": b"hello", "empty file": b"", "noise": bytes(range(256))}[kind]
        )


ODD = {
    "list": "holds a list", "tensor": "holds a Tensor", "text": "holds a str",
    "None": "holds a NoneType", "empty dict": "holds no tensors", "nested": "'model', a dict",
    "no tensors": "'model', a list", "numbers": "1, a Tensor", "code": "never run",
    "module": "never run", "folder": "a folder at", "zip": "cut off, or no file of torch's",
    "pickled code": "cannot be read", "cut off": "cut off", "text file": "cut off",
    "empty file": "it is empty", "noise": "cut off",
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
def test_odd_files_are_refused_in_one_line(kind, runner, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "odd.pth"
    write_odd(path, kind)
    readers = {
        "checkpoint": load_checkpoint,
        "selection backbone": lambda path: load_backbone(runner.model.selector.backbone, path),
        "--resume": lambda path: check_resumable(runner, path),
        "test": lambda path: load_weights(runner.model, path),
        "recognizer": lambda path: load_recognizer(runner.model.recognizer, path),
        "selector": lambda path: load_selector(runner.model.selector, path),
    }
    for reader in readers.values():
        with pytest.raises(Ada3DError) as error:
            reader(path)
        assert ODD[kind] in str(error.value) and str(path) in str(error.value)
        assert "\n" not in str(error.value)
    assert not (tmp_path / CANARY).exists()


@pytest.fixture(scope="module")
def runner(trained):
    """A runner of the training's config, in another folder."""
    config = mm_parts.run_config(trained, trained / "another", epochs=3)
    return Runner.from_cfg(config)


def changed(path, **entries):
    """Change entries of a checkpoint; a function is given the old one."""
    content = torch.load(path, weights_only=True)
    for key, value in entries.items():
        content[key] = value(content[key]) if callable(value) else value
    torch.save(content, path)


def other_model(weights):
    return {f"backbone.{k}": v for k, v in weights.items()}


def other_classes(weights):
    return {k: v[:3] if "fc_cls" in k else v for k, v in weights.items()}


def in_whole_numbers(weights):
    return {k: v.int() if k.endswith("fc_cls.weight") else v for k, v in weights.items()}


def broken(weights):
    return {k: v * float("nan") if k.endswith("fc_cls.weight") else v for k, v in weights.items()}


def with_phases(*names):
    def change(meta):
        phases = [{**meta["phases"][0], "name": name, "epochs": 1} for name in names]
        return {**meta, "phases": phases}

    return change


ADAM = {"lr": 1, "betas": (0.9, 0.99), "eps": 1, "amsgrad": False, "weight_decay": 0}
FOREIGN = {
    "another model": ({"state_dict": other_model}, "does not fit the model"),
    "other classes": ({"state_dict": other_classes}, "fc_cls"),
    "other numbers": ({"state_dict": in_whole_numbers}, "int32 numbers"),
    "NaN": ({"state_dict": broken}, "not finite"),
    "fewer parameters": (
        {"optimizer": lambda o: {**o, "param_groups": o["param_groups"][:1]}}, "its optimizer",
    ),
    "another optimizer": (
        {"optimizer": lambda o: {
            **o, "param_groups": [{**ADAM, "params": g["params"]} for g in o["param_groups"]]}},
        "betas",
    ),
    "no optimizer": ({"optimizer": None}, "no state of an optimizer"),
    "no training": ({"meta": {}}, "no checkpoint of a training"),
    "other phases": ({"meta": with_phases("warmup", "joint")}, "phase 2 is joint"),
    "code": ({"meta": lambda m: {**m, "config": "import os"}}, "never run"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_checkpoint_is_left_for_the_one_before(kind, runner, work, caplog):
    entries, why = FOREIGN[kind]
    changed(work / "epoch_2.pth", **entries)
    with pytest.raises(Ada3DError, match=why):
        check_resumable(runner, work / "epoch_2.pth")
    go_on(runner, work)
    assert (runner._load_from, runner._resume) == (str(work / "epoch_1.pth"), True)
    assert why in caplog.text and "an earlier one is taken" in caplog.text


def test_a_work_dir_of_another_training_is_not_trained_over(runner, work):
    for path in work.glob("epoch_*.pth"):
        changed(path, state_dict=other_model)
    with pytest.raises(Ada3DError, match="does not fit the model"):
        go_on(runner, work)


def test_a_longer_training_goes_on(runner, work):
    """The runner has one phase more than the checkpoint's training."""
    check_resumable(runner, work / "epoch_2.pth")
    changed(work / "epoch_2.pth", state_dict=lambda w: {f"module.{k}": v for k, v in w.items()})
    go_on(runner, work)
    assert runner._load_from == str(work / "epoch_2.pth")


def test_weights_to_start_from(runner, work, caplog, monkeypatch):
    path = work / "epoch_2.pth"
    monkeypatch.setattr(runner, "_resume", False)
    monkeypatch.setattr(runner, "_load_from", str(path))
    check_start(runner)
    assert not caplog.text
    changed(path, state_dict=other_classes)
    check_start(runner)
    assert "load_from: 2 of the" in caplog.text
    changed(path, state_dict=other_model)
    with pytest.raises(Ada3DError, match="load_from: none of the"):
        check_start(runner)
    monkeypatch.setattr(runner, "_load_from", str(work / "absent.pth"))
    with pytest.raises(Ada3DError, match="no file at"):
        check_start(runner)
