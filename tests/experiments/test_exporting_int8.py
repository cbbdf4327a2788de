"""Clips of a config's list for int8, and the tool that takes them."""

import importlib.util

import command_lines
import inference_parts
import pytest
import torch

import ada3d_fx
from ada3d_fx import Ada3DError
from ada3d_fx.experiments.calibration_clips import calibration_clips
from ada3d_fx.mm.inferencer import Ada3DInferencer
from ada3d_fx.progress import Console

needs_nncf = pytest.mark.skipif(
    importlib.util.find_spec("nncf") is None, reason="nncf, of the extra `int8`, is not installed"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("work")
    inference_parts.write(made, views=3)
    return made


def inferencer(folder):
    return Ada3DInferencer(
        str(folder / "config.py"), str(folder / "model.pth"), "cpu", num_workers=0
    )


def test_clips_are_the_middle_ones_of_evenly_spaced_videos(folder):
    made = inferencer(folder)
    clips = calibration_clips(made.cfg, made.model, "val", 4, Console())
    assert clips.shape[0] == 4 and clips.dtype == torch.float32
    videos = [str(folder / "videos" / f"{i}.mp4") for i in (0, 2, 4, 6)]
    decoded = [clip for batch in made.preprocess(made._inputs_to_list(videos)) for _, clip in batch]
    middle = torch.stack(decoded[1::3])[:, None]
    wanted = made.model.data_preprocessor({"inputs": list(middle), "data_samples": None})["inputs"]
    assert torch.equal(clips, wanted.flatten(0, 1).float())
    everything = calibration_clips(made.cfg, made.model, "val", 100, Console())
    assert torch.equal(everything[::2], clips)


def test_broken_videos_are_left_out(tmp_path, capsys):
    inference_parts.write(tmp_path, count=4)
    (tmp_path / "videos" / "1.mp4").write_bytes(b"no video")
    made = inferencer(tmp_path)
    made.cfg.broken_videos = {"limit": 4}
    assert len(calibration_clips(made.cfg, made.model, "val", 4, Console())) == 3
    assert "left out: " in capsys.readouterr().err
    for video in (tmp_path / "videos").iterdir():
        video.write_bytes(b"no video")
    with pytest.raises(Ada3DError, match="no video of the val list decodes"):
        calibration_clips(made.cfg, made.model, "val", 4, Console())


@needs_nncf
@pytest.mark.slow
def test_the_tool(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    status = command_lines.run(
        monkeypatch, "export", "config.py", "model.pth", "--to", "openvino", "--out", "int8.xml",
        "--policy", "full", "--int8", "--calibrate-on", "train", "--calibration-clips", "8", "--agreement", "0.5",
    )  # fmt: skip
    said = capsys.readouterr()
    assert status == 0 and "of 8 calibration clips get the label of float32" in said.out
    described = ada3d_fx.Session("int8.xml").description
    assert described.precision == "int8" and described.parity["clips"] == 8
    assert "nncf" not in (said.out + said.err).lower()


def test_the_tool_says_what_cannot_be_quantised(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    status = command_lines.run(
        monkeypatch, "export", "config.py", "model.pth", "--to", "torch", "--policy", "full", "--int8"
    )  # fmt: skip
    assert status != 0 and "int8 is for .onnx and .xml" in capsys.readouterr().err
