"""Wherever a file of weights is read, by us or by MMEngine, no code in it runs."""

import functools
import http.server
import threading
from pathlib import Path

import mm_parts
import pytest
import torch
from hostile import HOSTILE, write_hostile
from mmaction.registry import MODELS
from mmengine.model import initialize
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader

import ada3d_fx.mm  # noqa: F401
from ada3d_fx import Ada3DError
from ada3d_fx.learn.backbones import SmallConvNet, load_backbone
from ada3d_fx.mm.checkpoint import (
    initial_weights,
    last_checkpoint,
    load_recognizer,
    load_selector,
    load_weights,
)


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    mm_parts.write_clips(folder, count=4)
    return Runner.from_cfg(mm_parts.run_config(folder, folder / "work", epochs=1))


def through_backbone(runner, path):
    config = mm_parts.recognizer()
    config["backbone"].update(pretrained=str(path), pretrained2d=True)
    MODELS.build(config).init_weights()


def through_init_cfg(runner, path):
    initialize(torch.nn.Linear(2, 2), {"type": "Pretrained", "checkpoint": str(path)})


# The name of each place, and how a file is read there.
PLACES = {
    "--resume FILE": lambda runner, path: runner.resume(str(path)),
    "load_from": lambda runner, path: runner.load_checkpoint(str(path)),
    "recognizer_checkpoint": lambda runner, path: initial_weights(mm_parts.recognizer(), path),
    "selector_checkpoint": lambda runner, path: load_selector(runner.model.selector, path),
    "selector.weights": lambda runner, path: load_backbone(SmallConvNet(), path),
    "backbone.pretrained": through_backbone,
    "init_cfg": through_init_cfg,
    "test.py CHECKPOINT": lambda runner, path: load_weights(runner.model, path),
    "the teacher": lambda runner, path: load_recognizer(runner.model.recognizer, path),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("place", PLACES)
def test_no_code_of_a_file_runs(place, kind, runner, tmp_path):
    content = {"state_dict": runner.model.state_dict(), "meta": {"epoch": 1, "iter": 2}}
    path = write_hostile(kind, tmp_path / "epoch_1.pth", tmp_path / "ran", content)
    with pytest.raises(Ada3DError, match=r"epoch_1\.pth cannot be read: "):
        PLACES[place](runner, path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", HOSTILE)
def test_resuming_takes_an_earlier_checkpoint(kind, tmp_path):
    torch.save({"state_dict": {"a": torch.ones(1)}}, tmp_path / "epoch_1.pth")
    path = write_hostile(kind, tmp_path / "epoch_2.pth", tmp_path / "ran")
    (tmp_path / "last_checkpoint").write_text(str(path))
    assert last_checkpoint(tmp_path) == str(tmp_path / "epoch_1.pth")
    assert not (tmp_path / "ran").exists()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        """Nothing."""


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A folder and its address on this machine; downloads go to another folder."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "served").mkdir()
    handler = functools.partial(Quiet, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield tmp_path / "served", f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("kind", HOSTILE)
def test_no_code_of_a_download_runs(kind, served, tmp_path):
    folder, address = served
    write_hostile(kind, folder / "model.pth", tmp_path / "ran")
    with pytest.raises(Ada3DError, match="cannot be read: "):
        CheckpointLoader.load_checkpoint(f"{address}/model.pth")
    assert not (tmp_path / "ran").exists()


def test_a_download_is_read_and_kept(served):
    folder, address = served
    torch.save({"state_dict": {"a": torch.ones(2)}}, folder / "model.pth")
    for _ in range(2):
        read = CheckpointLoader.load_checkpoint(f"{address}/model.pth?version=1", "cpu")
        assert torch.equal(read["state_dict"]["a"], torch.ones(2))
        (folder / "model.pth").unlink(missing_ok=True)  # the second time, there is a copy
    assert Path(torch.hub.get_dir(), "checkpoints", "model.pth").is_file()
