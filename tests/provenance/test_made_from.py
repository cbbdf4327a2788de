"""Records of what a part was made from, and how differences are told."""

import json
import pickle
import shutil
from pathlib import Path

import experiment_parts
import pytest

import ada3d_fx.mm  # noqa: F401
from ada3d_fx.mm.config import load_config
from ada3d_fx.provenance import fingerprints, made_from
from ada3d_fx.provenance.made_from import MadeOtherwise, differences, record_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("made_from")
    config = experiment_parts.config_of(path)
    experiment_parts.write(path, config)
    config.model.recognizer_checkpoint = str(path / "plain.pth")  # which is there now
    config.fold, config.data_root = 0, "here"
    config.dump(str(path / "config.py"))
    return path


def record(folder, *options):
    return record_of(load_config(folder / "config.py", options))


@pytest.mark.parametrize(
    "option",
    [
        "work_dir=elsewhere",
        "experiment_name=b",
        "train_dataloader.num_workers=2",
        "train_dataloader.pin_memory=True",
        "default_hooks.logger.interval=9",
        "default_hooks.checkpoint.max_keep_ckpts=1",
        "custom_hooks.1.interval=9",  # PolicyLogHook
        "log_level=DEBUG",
        "visualizer.name=other",
        "load_from=a.pth",
        "resume=True",
        "data_root=elsewhere",  # it stands for itself only where it is used
    ],
)
def test_what_changes_no_result_does_not_count(folder, option):
    assert record(folder, option) == record(folder)


@pytest.mark.parametrize(
    "option, told",
    [
        ("model.objective.gamma=3.0", "model.objective.gamma: nothing -> 3.0"),
        ("train_dataloader.batch_size=2", "train_dataloader.batch_size: 4 -> 2"),
        ("custom_hooks.0.phases.1.epochs=2", "phases.phases.1.epochs: 1 -> 2"),
        ("randomness.seed=4", "randomness.seed: 3 -> 4"),
        ("test_dataloader.dataset.pipeline.1.clip_len=2",
         "test_dataloader.dataset.pipeline.1.clip_len: 4 -> 2"),
        ("fold=2", "fold: 0 -> 2"),
        ("model.clip_shape=(3,4,16,16)", "model.clip_shape: [3, 4, 32, 32] -> [3, 4, 16, 16]"),
    ],
)  # fmt: skip
def test_what_changes_results_is_told(folder, option, told):
    assert differences(record(folder), record(folder, option)) == [told]


def test_a_record_survives_its_file(folder, tmp_path):
    made = record(folder)
    made_from.write(tmp_path, made)
    assert made_from.read(tmp_path) == made
    (tmp_path / made_from.FILE).write_text(json.dumps({"made_from": made})[:-9])
    assert made_from.read(tmp_path) is None
    assert differences(made_from.read(tmp_path), made) == [made_from.UNKNOWN]


def test_a_copy_elsewhere_is_the_same_and_other_contents_are_not(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    text = (copy / "config.py").read_text().replace(str(folder), str(copy))
    (copy / "config.py").write_text(text)
    assert record(copy) == record(folder)
    (copy / "plain.pth").write_bytes((folder / "model.pth").read_bytes())
    (copy / "list.txt").write_text((copy / "list.txt").read_text().replace("7.mp4 3", "7.mp4 2"))
    with (copy / "videos" / "0.mp4").open("ab") as file:
        file.write(b"0")
    fingerprints._listed.cache_clear()
    found = " ".join(differences(record(folder), record(copy)))
    for key in ("model.recognizer_checkpoint", "train_dataloader.dataset.ann_file",
                "test_dataloader.dataset.data_prefix.video"):  # fmt: skip
        assert f"{key}: " in found
    assert "tensors, sha256" in found and "8 videos" in found


def test_code_versions_and_modules_of_the_users_own_count(folder, tmp_path, monkeypatch):
    (tmp_path / "my_parts.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = record(folder, "custom_imports.imports=my_parts")
    (tmp_path / "my_parts.py").write_text("x = 2\n")
    monkeypatch.setattr(fingerprints, "code", lambda: {"packed": "other"})
    monkeypatch.setattr(fingerprints, "packages", lambda: {"torch": "1.0"})
    found = differences(before, record(folder, "custom_imports.imports=my_parts"))
    told = [line.partition(":")[0] for line in found]
    assert {"code of my_parts", "code of ada3d_fx/packed", "version of torch"} <= set(told)


def test_parts_depend_on_their_part_of_the_config(folder):
    plain = record(folder)
    later = record(folder, "model.objective.gamma=3.0", "custom_hooks.0.phases.1.selector_lr=1")
    tested = record(folder, "test_dataloader.batch_size=2")
    assert made_from.for_training(tested) == made_from.for_training(plain)
    assert made_from.for_testing(tested) != made_from.for_testing(plain)
    longer = record(folder, "train_cfg.max_epochs=9")
    assert made_from.for_testing(longer) == made_from.for_testing(plain)
    assert made_from.for_training(longer) != made_from.for_training(plain)
    key = "model.objective.gamma"
    assert key in made_from.for_training(later) and key not in made_from.for_warmup(later)
    assert made_from.is_test(made_from.for_testing(plain)) and not made_from.is_test(plain)


def test_the_message_groups_what_differs_alike():
    lines = [f"a.{i}: 1 -> 2" for i in range(6)]
    error = MadeOtherwise(
        {Path("w/upper"): lines, Path("w/ada3d"): lines, Path("w/x"): ["b: 1 -> 3"]}
    )
    text = str(error)
    assert "w/upper, w/ada3d: made from something else:\n  a.0: 1 -> 2\n" in text
    assert "a.3: 1 -> 2\n  and 2 more\nw/x: made" in text and "--redo" in text
    assert str(pickle.loads(pickle.dumps(error))) == text


def test_what_is_set_aside_takes_the_first_free_number(tmp_path):
    for number in (1, 2):
        (tmp_path / "row").mkdir()
        (tmp_path / "row" / "a").write_text(str(number))
        assert made_from.set_aside(tmp_path / "row") == tmp_path / f"row.old-{number}"
    assert (tmp_path / "row.old-1" / "a").read_text() == "1"
