"""Bad input is told before a run starts, by name, and the tools print it without a traceback."""

import subprocess
import sys
from pathlib import Path

import mm_parts
import pytest
import torch

from ada3d_fx import Ada3DError, compat, requirements
from ada3d_fx.cli import user_errors
from ada3d_fx.mm.checkpoint import load_checkpoint
from ada3d_fx.mm.checks import check_config
from ada3d_fx.mm.config import load_config, set_policy

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path):
    mm_parts.write_clips(tmp_path, 4)
    return mm_parts.run_config(tmp_path, tmp_path / "work")


def rewrite(config, text):
    Path(config.train_dataloader.dataset.ann_file).write_text(text)


def test_good_input_passes(config):
    check_config(config, ("train", "val", "test"), videos=None)


def test_missing_annotation_file(config):
    config.train_dataloader.dataset.ann_file = "absent.txt"
    with pytest.raises(Ada3DError, match=r"absent\.txt"):
        check_config(config, ("train",))


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "lists no video"),
        ("\n\n", "lists no video"),
        ("0.mp4 4\n", "label 4 is outside the 4 classes"),
        ("0.mp4 -1\n", "label -1"),
        ("0.mp4\n", "line 1"),
        ("0.mp4 0\n1.mp4 walk\n", "line 2"),
        ("0.mp4 0 1\n", "multi_class"),
        ("absent.mp4 0\n", r"absent\.mp4"),
    ],
)
def test_bad_lists(config, text, message):
    rewrite(config, text)
    with pytest.raises(Ada3DError, match=message):
        check_config(config, ("train",))


def test_video_that_does_not_decode(config):
    video = Path(config.train_dataloader.dataset.data_prefix.video, "1.mp4")
    video.write_bytes(b"no video at all")
    with pytest.raises(Ada3DError, match=r"1\.mp4 does not decode"):
        check_config(config, ("train",))


def test_labels_within_wrapped_datasets(config):
    rewrite(config, "0.mp4 9\n")
    inner = config.train_dataloader.dataset
    config.train_dataloader.dataset = {"type": "RepeatDataset", "times": 2, "dataset": inner}
    with pytest.raises(Ada3DError, match="label 9"):
        check_config(config, ("train",))


def test_checkpoints_that_are_none(tmp_path):
    with pytest.raises(Ada3DError, match="no file at"):
        load_checkpoint(tmp_path / "absent.pth")
    (tmp_path / "text.pth").write_text("text")
    with pytest.raises(Ada3DError, match="cannot be read"):
        load_checkpoint(tmp_path / "text.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(Ada3DError, match="no state dict"):
        load_checkpoint(tmp_path / "list.pth")


def test_names_in_configs_are_filled_after_options(tmp_path):
    path = tmp_path / "config.py"
    model = "model = dict(type='Recognizer3D', backbone=dict(type='C3D', pretrained='{}/a.pth'))\n"
    path.write_text("root = 'data'\nlists = '{root}/lists'\n" + model.replace("{}", "{lists}"))
    assert load_config(path).model.backbone.pretrained == "data/lists/a.pth"
    elsewhere = load_config(path, {"root": "elsewhere"})
    assert elsewhere.model.backbone.pretrained == "elsewhere/lists/a.pth"
    path.write_text(model.replace("{}", "{absent}"))
    with pytest.raises(Ada3DError, match="absent"):
        load_config(path)
    with pytest.raises(Ada3DError, match="no file"):
        load_config(tmp_path / "none.py")


def test_policy_option(config):
    set_policy(config, "random:frames=0.5,stages=0.25")
    assert config.model.testing.policy == "random"
    assert config.model.random_policy == {"frames": 0.5, "stages": 0.25}
    set_policy(config, "1011/10100")
    assert config.model.testing.policy == "fixed" and config.model.fixed_policy == "1011/10100"
    for wrong in ("random:frames=many", "random:clips=1", "full:frames=0.5", "3/10100"):
        with pytest.raises(Ada3DError, match="--policy"):
            set_policy(config, wrong)
    config.model.type = "Recognizer3D"
    with pytest.raises(Ada3DError, match="plain recognizer"):
        set_policy(config, "full")


def test_only_our_errors_become_messages(capsys):
    def fails(error):
        def main():
            raise error

        return user_errors(main)()

    assert fails(Ada3DError("the file is gone")) == 2
    assert capsys.readouterr().err == "error: the file is gone\n"
    assert fails(Ada3DError("Caught it in worker 0.\nTraceback\nx.Ada3DError: gone\n")) == 2
    assert capsys.readouterr().err == "error: gone\n"
    with pytest.raises(ZeroDivisionError):
        fails(ZeroDivisionError())


@pytest.mark.parametrize("tool", ["train.py", "test.py", "compare.py"])
def test_tools_name_a_missing_file_and_exit_2(tool, tmp_path):
    arguments = [str(tmp_path / "absent.py")] + (["none.pth"] if tool == "test.py" else [])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(ROOT / "tools" / tool), *arguments],
        capture_output=True, text=True, env={"PYTHONPATH": str(ROOT), "PATH": ""}, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    assert "absent.py" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "kind, module, package",
    [("DecordInit", "decord", "decord"), ("PyAVInit", "av", "av"), ("OpenCVInit", "cv2", "opencv-python")],
)  # fmt: skip
def test_a_pipeline_whose_package_is_missing(tmp_path, monkeypatch, kind, module, package):
    config = mm_parts.run_config(tmp_path, tmp_path)
    config.train_dataloader.dataset.pipeline[0].type = kind
    config.visualizer = None
    monkeypatch.setattr(requirements, "find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(
        Ada3DError, match=f"{package} is not installed; {kind} in the config needs it"
    ):
        check_config(config, ("train",))


def test_a_backend_of_the_visualizer_whose_package_is_missing(tmp_path, monkeypatch):
    config = mm_parts.run_config(tmp_path, tmp_path)
    config.train_dataloader.dataset.pipeline = []
    monkeypatch.setattr(requirements, "find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "tensorboard", raising=False)
    with pytest.raises(Ada3DError, match="tensorboard is not installed; TensorboardVisBackend"):
        check_config(config, ("train",))


def test_compat_is_idle_where_nothing_is_missing():
    assert compat.apply() == []


def test_compat_allows_no_attribute_but_those_of_the_log():
    from mmengine.logging.history_buffer import HistoryBuffer

    read = compat._checkpoint_getattr()
    assert read(HistoryBuffer, "mean") is HistoryBuffer.mean
    for owner, name in ((HistoryBuffer, "__init__"), (torch, "load")):
        with pytest.raises(Exception, match="may not read"):
            read(owner, name)
