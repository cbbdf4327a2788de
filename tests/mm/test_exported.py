"""An exported file in place of a checkpoint gives the checkpoint's rows, and says where it does not fit."""

import inference_parts
import numpy as np
import odd_videos
import pytest
import torch

import ada3d_fx
from ada3d_fx import Ada3DError
from ada3d_fx.mm import Ada3DInferencer
from ada3d_fx.mm.config import load_config

VIEWS = 2


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A checkpoint, and files of it with and without its selection network, and of one policy."""
    folder = tmp_path_factory.mktemp("work")
    model = inference_parts.write(folder, VIEWS)
    classes = ["in", "out", "left", "right"]
    for suffix in ("onnx", "xml"):
        ada3d_fx.export(
            model.recognizer, folder / f"selects.{suffix}", model.selector, classes=classes
        )
    ada3d_fx.export(model.recognizer, folder / "given.onnx")
    ada3d_fx.export(model.recognizer, folder / "fixed.onnx", fixed=(4, [1, 0, 1, 0, 1]))
    return folder


def inferencer(folder, checkpoint, config="config.py", **options):
    options = {"num_workers": 0, **options}
    return Ada3DInferencer(folder / config, folder / checkpoint, **options)


def rows(folder, checkpoint, config="config.py", **options):
    infer = inferencer(folder, checkpoint, config, **options)
    return infer(str(folder / "list.txt"), batch_size=5)["predictions"]


def check(mine, wanted):
    for row, other in zip(mine, wanted, strict=True):
        np.testing.assert_allclose(row["rec_scores"], other["rec_scores"], atol=1e-4)
        assert row["score"] == pytest.approx(other["score"], abs=1e-4)
        for name in row.keys() - {*inference_parts.MILLISECONDS, "score", "rec_scores", "class"}:
            assert row[name] == other[name], name


@pytest.mark.parametrize("suffix", ["onnx", "xml"])
@pytest.mark.parametrize("options", [{}, {"threshold": 0.7}, {"policy": "full"}])
def test_it_gives_the_rows_of_the_checkpoint(work, suffix, options):
    mine = rows(work, f"selects.{suffix}", **options)
    check(mine, rows(work, "model.pth", device="cpu", **options))
    assert {row["class"] for row in mine} <= {"in", "out", "left", "right"}
    assert (min(row["select_ms"] for row in mine) > 0) == ("policy" not in options)
    assert min(row["recognise_ms"] for row in mine) > 0
    if "policy" not in options:
        assert len({row["frames"] for row in mine}) > 2 and mine[0]["gmacs_selector"] > 0


@pytest.mark.parametrize("suffix", ["onnx", "xml"])
def test_both_predict_in_one_call(tmp_path, suffix):
    training, testing = {"classify": 1.0}, {"predict_with": "both", "threshold": 0.6}
    model = inference_parts.write(tmp_path, VIEWS, 4, training=training, testing=testing)
    path = tmp_path / f"both.{suffix}"
    ada3d_fx.export(model.recognizer, path, model.selector, threshold=0.6, predict_with="both")
    infer = inferencer(tmp_path, path.name)
    calls, run = [], infer.session.engine.run
    infer.session.engine.run = lambda *asked: calls.append(asked) or run(*asked)
    mine = infer(str(tmp_path / "list.txt"), batch_size=4)["predictions"]
    check(mine, rows(tmp_path, "model.pth", device="cpu"))
    assert len(calls) == 2 and {row["select_ms"] for row in mine} == {0.0}


def test_a_file_without_a_selection_network_keeps_everything(work):
    wanted = rows(work, "model.pth", device="cpu", policy="full")
    check(rows(work, "given.onnx"), wanted)
    plain = rows(work, "given.onnx", "plain.py")
    assert [row["predicted"] for row in plain] == [row["predicted"] for row in wanted]


def test_one_policy(work):
    """The clips of a file are of its policy's frames, which the pipeline must give."""
    mine = rows(work, "fixed.onnx")
    assert {(row["frames"], row["stages"]) for row in mine} == {("1111 1111", "10101 10101")}
    model = inferencer(work, "model.pth", device="cpu").model
    policy = ada3d_fx.Policy(torch.ones(1, 4).bool(), torch.tensor([[1, 0, 1, 0, 1]]).bool())
    assert {row["gmacs"] for row in mine} == {VIEWS * int(model.price(policy)) / 1e9}


def test_an_open_session_does_as_well(work):
    session = ada3d_fx.Session(work / "selects.onnx", threads=1)
    infer = Ada3DInferencer(work / "config.py", session, num_workers=0)
    check(infer(str(work / "list.txt"))["predictions"], rows(work, "selects.onnx"))
    assert infer.dials == {} and infer.session is session


def test_videos_of_another_size_are_rows_with_an_error(work, tmp_path):
    wide = odd_videos.write(tmp_path / "wide.mp4", height=48)
    videos = [str(work / "videos" / "0.mp4"), str(wide)]
    for workers in (0, 1):
        good, bad = inferencer(work, "selects.onnx", num_workers=workers)(videos)["predictions"]
        assert good["error"] is None and "the exported file takes 3 x 4 x 32 x 32" in bad["error"]


def with_pipeline(folder, *steps, **sampling):
    config = load_config(folder / "config.py")
    pipeline = config.test_dataloader.dataset.pipeline
    next(step for step in pipeline if step.type == "SampleFrames").update(sampling)
    pipeline[3:3] = steps
    return config


@pytest.mark.parametrize(
    "steps, sampling, told",
    [
        ((), {"clip_len": 6}, "6 x 32 x 32"),
        (({"type": "CenterCrop", "crop_size": 24},), {}, "4 x 24 x 24"),
        (({"type": "Resize", "scale": (40, 48), "keep_ratio": False},), {}, "4 x 48 x 40"),
    ],
)  # fmt: skip
def test_a_pipeline_for_other_clips_is_told(work, steps, sampling, told):
    config = with_pipeline(work, *steps, **sampling)
    with pytest.raises(Ada3DError, match=rf"clips of {told} .*is for clips of 4 x 32 x 32"):
        Ada3DInferencer(config, work / "selects.onnx")


@pytest.mark.parametrize(
    "file, options, words",
    [
        ("selects.onnx", {"gmacs": 1.0}, r"tools/export\.py --gmacs G"),
        ("selects.onnx", {"threshold": 1.5}, "at most 1"),
        ("selects.onnx", {"threshold": 1.0}, r"try 0\.99"),
        ("selects.onnx", {"threshold": 0.4, "policy": "full"}, "not full ones"),
        ("selects.onnx", {"policy": "random"}, "takes learned or full"),
        ("selects.onnx", {"device": "cuda:0"}, "runs on the CPU"),
        ("given.onnx", {"threshold": 0.4}, "has no selection network"),
        ("given.onnx", {"policy": "learned"}, "has no selection network"),
        ("fixed.onnx", {"policy": "full"}, "of one fixed policy"),
        ("none.onnx", {}, "no file at"),
        ("none.pt2", {}, "ends with .onnx, .xml"),
    ],
)
def test_what_a_file_cannot_do_is_told(work, file, options, words):
    with pytest.raises(Ada3DError, match=words):
        inferencer(work, file, **options)


def test_other_classes_are_told(work):
    config = load_config(work / "config.py")
    config.model.recognizer.cls_head.num_classes = 7
    with pytest.raises(Ada3DError, match="it scores 4 classes, the config's model 7"):
        Ada3DInferencer(config, work / "selects.onnx")
