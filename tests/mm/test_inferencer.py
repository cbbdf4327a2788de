"""The inferencer: as tools/test.py predicts, whatever the batches; and what does not decode is a row."""

import json
import os
import pickle
import signal
from pathlib import Path

import inference_parts
import mm_parts
import numpy as np
import odd_videos
import pytest
import torch
from mmaction.registry import INFERENCERS, TRANSFORMS

from ada3d_fx import Ada3DError
from ada3d_fx.experiments.evaluation import EvaluationOptions, evaluate
from ada3d_fx.mm import Ada3DInferencer
from ada3d_fx.mm.config import load_config
from ada3d_fx.mm.results import COLUMNS
from ada3d_fx.progress import Console
from ada3d_fx.report import records
from ada3d_fx.videos.inputs import find_videos

VIEWS = 3


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    return folder, inference_parts.write(folder, VIEWS)


def inferencer(folder, config="config.py", checkpoint="model.pth", **options):
    options = {"device": "cpu", "num_workers": 0, **options}
    return Ada3DInferencer(folder / config, folder / checkpoint, **options)


def without_scores(rows):
    """Rows without what differs in its last digits from batch to batch, or is a time."""
    return [
        {k: v for k, v in row.items() if k != "rec_scores"}
        for row in inference_parts.timeless(rows)
    ]


def predicted_by_the_test_tool(folder, tmp_path, config="config.py", checkpoint="model.pth"):
    """What tools/test.py says of the list: predictions, and each clip's policy if there are some."""
    policies = str(tmp_path / "policies.json") if config == "config.py" else None
    options = EvaluationOptions(
        work_dir=str(tmp_path / "work"), dump=str(tmp_path / "p.pkl"), policies=policies
    )
    evaluate(str(folder / config), (), str(folder / checkpoint), options, Console())
    predictions = pickle.loads((tmp_path / "p.pkl").read_bytes())
    return predictions, records.read_clips(policies) if policies else None


def test_it_predicts_as_the_test_tool(work, tmp_path):
    folder, model = work
    predictions, clips = predicted_by_the_test_tool(folder, tmp_path)
    rows = inferencer(folder)(str(folder / "list.txt"), batch_size=5)["predictions"]
    assert [row["video"].rpartition("/")[2] for row in rows] == [f"{i}.mp4" for i in range(8)]
    assert [row["label"] for row in rows] == [i % 4 for i in range(8)]
    for index, (row, wanted) in enumerate(zip(rows, predictions, strict=True)):
        mine = clips[VIEWS * index : VIEWS * (index + 1)]
        assert row["predicted"] == int(wanted["pred_label"]) == row["rec_labels"][0][0]
        np.testing.assert_allclose(row["rec_scores"][0], wanted["pred_score"], rtol=1e-5)
        assert row["frames"] == " ".join(clip["frames"] for clip in mine)
        assert row["stages"] == " ".join(clip["stages"] for clip in mine)
        assert row["num_frames"] == sum(clip["num_frames"] for clip in mine) / VIEWS
        macs = sum(clip["macs"] + clip["selector_macs"] for clip in mine)
        assert row["gmacs"] == macs / 1e9 and row["clips"] == VIEWS
        assert row["gmacs_selector"] == VIEWS * model.selector_macs / 1e9
        assert min(row[name] for name in inference_parts.MILLISECONDS) > 0
    assert len({row["frames"] for row in rows}) >= 3 and len({row["predicted"] for row in rows}) > 1


def test_a_plain_recognizer_predicts_as_the_test_tool(work, tmp_path):
    folder, model = work
    predictions, _ = predicted_by_the_test_tool(folder, tmp_path, "plain.py", "plain.pth")
    rows = inferencer(folder, "plain.py", "plain.pth")(str(folder / "list.txt"))["predictions"]
    for row, wanted in zip(rows, predictions, strict=True):
        np.testing.assert_allclose(row["rec_scores"][0], wanted["pred_score"], rtol=1e-5)
        assert row["frames"] is None and row["gmacs_selector"] == 0 and row["select_ms"] == 0
        assert row["gmacs"] == VIEWS * model.full_macs / 1e9


@pytest.mark.parametrize("average", ["prob", "score", None])
def test_rows_do_not_depend_on_batches(work, average):
    """Law 2; in float64, but for scores, which the recognizer gives in float32."""
    folder, _ = work
    config = load_config(folder / "config.py")
    config.model.recognizer.cls_head.average_clips = average
    infer = Ada3DInferencer(config, folder / "model.pth", "cpu", num_workers=0)
    infer.model.double()
    wanted = infer(str(folder / "list.txt"), batch_size=1)["predictions"]
    for size in (2, 7, 100):
        rows = infer(str(folder / "list.txt"), batch_size=size)["predictions"]
        for row, other in zip(rows, wanted, strict=True):
            for name in row.keys() - set(inference_parts.MILLISECONDS):
                if name in ("score", "rec_scores"):
                    np.testing.assert_allclose(row[name], other[name], rtol=1e-6)
                else:
                    assert row[name] == other[name]


def test_workers_give_what_this_process_gives(work):
    folder, _ = work
    here, there = (
        inferencer(folder, num_workers=n)(str(folder / "list.txt"), batch_size=4)["predictions"]
        for n in (0, 2)
    )
    assert without_scores(here) == without_scores(there)


def test_videos_that_do_not_decode_are_rows(work, tmp_path):
    videos = odd_videos.odd_videos(tmp_path / "odd")
    del videos["truncated_avi"]  # crashes decord, see below
    rows = inferencer(work[0], num_workers=1)([*map(str, videos.values()), "no/where.mp4"])
    rows = rows["predictions"]
    assert [row["video"] for row in rows] == [*map(str, videos.values()), "no/where.mp4"]
    broken = {name for name, row in zip([*videos, "missing"], rows) if row["error"]}
    assert {"truncated", "empty", "text", "sound", "missing"} <= broken
    assert not broken & {"good", "front", "avi", "mkv", "wrong_ending", "short", "one_frame"}
    for row in rows:
        assert (row["predicted"] is None) == (row["error"] is not None) == (row["rec_labels"] == [])


@TRANSFORMS.register_module()
class DiesOnTheThird:
    """Ends its process, as a decoder that crashes does."""

    def __call__(self, results):
        if results["filename"].endswith("3.mp4"):
            os.kill(os.getpid(), signal.SIGKILL)
        return results


@pytest.mark.slow  # torch looks for dead workers every five seconds
def test_a_video_that_crashes_its_decoder_is_a_row(work):
    folder, _ = work
    config = load_config(folder / "config.py")
    config.test_dataloader.dataset.pipeline.insert(0, {"type": "DiesOnTheThird"})
    infer = Ada3DInferencer(config, folder / "model.pth", "cpu", num_workers=2)
    rows = infer(str(folder / "list.txt"))["predictions"]
    wanted = inferencer(folder)(str(folder / "list.txt"))["predictions"]
    assert "crashes its decoder" in rows[3]["error"]
    del rows[3], wanted[3]
    assert without_scores(rows) == without_scores(wanted)


def test_clips_of_several_sizes(work, tmp_path):
    """Only clips of one size share a batch."""
    paths = [odd_videos.write(tmp_path / f"{i}.mp4", height=32 + 16 * (i % 2)) for i in range(4)]
    infer = inferencer(work[0])
    together = infer([str(path) for path in paths], batch_size=64)["predictions"]
    alone = [infer(str(path))["predictions"][0] for path in paths]
    assert [row["predicted"] for row in together] == [row["predicted"] for row in alone]
    assert [row["frames"] for row in together] == [row["frames"] for row in alone]


def test_samples_files_and_pictures(work, tmp_path):
    folder, model = work
    infer = INFERENCERS.build(
        {"type": "Ada3DInferencer", "config": str(folder / "config.py"), "num_workers": 0,
         "checkpoint": str(folder / "model.pth"), "device": "cpu"}
    )  # fmt: skip
    videos = [str(folder / "videos" / f"{i}.mp4") for i in range(2)]
    done = infer([*videos, "none.mp4"], True, out_dir=str(tmp_path), pictures=True)
    samples = done["predictions"]
    assert samples[0].policy_frames.shape == (VIEWS, 4) and samples[0].filename == videos[0]
    assert (
        samples[0].recognizer_macs.tolist()
        == model.price(infer.model.testing_options and _policy(samples[0])).tolist()
    )
    assert "error" in samples[2] and "pred_score" not in samples[2]
    assert done["visualization"] == [f"{tmp_path}/00000{i}_{i}.png" for i in range(2)]
    assert all(Path(path).read_bytes()[:4] == b"\x89PNG" for path in done["visualization"])
    rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").open()]
    assert [row["video"] for row in rows] == [*videos, "none.mp4"]
    with pytest.raises(Ada3DError, match="needs out_dir"):
        infer(videos, pictures=True)


def _policy(sample):
    from ada3d_fx import Policy

    return Policy(sample.policy_frames, sample.policy_stages)


def test_a_batch_of_columns(work):
    """What Ray Data's map_batches gives and takes."""
    folder, _ = work
    videos = [str(folder / "videos" / f"{i}.mp4") for i in range(3)] + ["none.mp4"]
    batch = {"video": np.array(videos, dtype=object), "mine": np.arange(4)}
    infer = inferencer(folder)
    columns, rows = infer(batch), infer(videos)["predictions"]
    assert set(columns) == {"mine", *COLUMNS} - {"index", "label"}
    assert columns["mine"] is batch["mine"] and list(columns["video"]) == videos
    assert columns["predicted"][:3].tolist() == [row["predicted"] for row in rows[:3]]
    assert np.isnan(columns["predicted"][3]) and columns["error"][3] == rows[3]["error"]
    assert columns["frames"][0] == rows[0]["frames"] and columns["error"][0] == ""
    with pytest.raises(Ada3DError, match="column 'video'"):
        infer({"path": batch["video"]})


def test_dials(work):
    folder, model = work
    list_file = str(folder / "list.txt")
    full = inferencer(folder, policy="full")(list_file)["predictions"]
    assert {row["frames"] for row in full} == {" ".join(["1111"] * VIEWS)}
    assert {row["gmacs"] for row in full} == {VIEWS * model.full_macs / 1e9}
    kept = [
        np.mean(
            [row["num_frames"] for row in inferencer(folder, threshold=t)(list_file)["predictions"]]
        )
        for t in (0.1, 0.5, 0.9)
    ]
    assert 4 >= kept[0] > kept[1] > kept[2] >= 1
    gmacs = (0.5 * model.full_macs + model.selector_macs) / 1e9
    infer = inferencer(folder, gmacs=gmacs)
    rows = infer(list_file)["predictions"]
    mean = np.mean([row["gmacs"] for row in rows]) / VIEWS
    assert mean == pytest.approx(gmacs, rel=0.2) and infer.dials["threshold"] != 0.5
    other = inferencer(folder)
    other.set_dials(infer.dials)
    assert without_scores(other(list_file)["predictions"]) == without_scores(rows)


@pytest.mark.parametrize(
    "config, options, words",
    [
        ("plain.py", {"threshold": 0.5}, "the model has none"),
        ("plain.py", {"gmacs": 1.0}, "the model has none"),
        ("plain.py", {"policy": "full"}, "plain recognizer"),
        ("config.py", {"gmacs": 1.0, "threshold": 0.5}, "either it or --threshold"),
        ("config.py", {"threshold": 2.0}, "at most 1"),
        ("config.py", {"threshold": 1.0}, "try 0.99"),
        ("config.py", {"gmacs": 1.0, "policy": "full"}, "not full ones"),
        ("config.py", {"gmacs": 1e-9}, "cannot be had"),
        ("config.py", {"budget": 1.0}, "unknown options budget"),
        ("config.py", {"batch_size": 0}, "batch_size=0"),
        ("config.py", {"num_workers": -1}, "num_workers=-1"),
        ("config.py", {"device": "gpu"}, "--device gpu"),
        ("config.py", {"checkpoint": "none.pth"}, "no file at"),
        ("config.py", {"checkpoint": "config.py"}, "config.py"),
        ("nothing.py", {}, "no file at"),
    ],
)
def test_bad_input_is_told(work, config, options, words):
    checkpoint = options.pop("checkpoint", "model.pth" if config == "config.py" else "plain.pth")
    with pytest.raises(Ada3DError, match=words):
        inferencer(work[0], config, checkpoint, **options)


def test_recorded_policies_and_poses_are_refused(work):
    folder, _ = work
    config = load_config(folder / "config.py")
    config.model.testing = {"policy": "recorded", "policy_file": "p.csv"}
    with pytest.raises(Ada3DError, match=r"tools/test\.py runs it"):
        Ada3DInferencer(config, folder / "model.pth", "cpu")
    config = load_config(folder / "config.py")
    config.test_dataloader.dataset.pipeline = [{"type": "PoseDecode"}]
    with pytest.raises(Ada3DError, match="decodes no video"):
        Ada3DInferencer(config, folder / "model.pth", "cpu")


def test_a_pipeline_for_frames_takes_videos(work):
    """As in MMAction2's inferencer; and lists of folders of frames are read as they are."""
    folder, _ = work
    config = load_config(folder / "config.py")
    wanted = inferencer(folder)(str(folder / "videos"))["predictions"]
    dataset = config.test_dataloader.dataset
    steps = [
        {"type": "RawFrameDecode"} if s.type == "DecordDecode" else s for s in dataset.pipeline
    ]
    dataset.pipeline = [step for step in steps if step["type"] != "DecordInit"]
    infer = Ada3DInferencer(config, folder / "model.pth", "cpu", num_workers=0)
    rows = infer(str(folder / "videos"))["predictions"]
    assert without_scores(rows) == without_scores(wanted)


def test_lists_of_folders_of_frames(work, tmp_path):
    import cv2
    import decord

    folder, _ = work
    frames = decord.VideoReader(str(folder / "videos" / "0.mp4"))[:].asnumpy()
    (tmp_path / "0").mkdir()
    for number, frame in enumerate(frames, 1):
        cv2.imwrite(str(tmp_path / "0" / f"img_{number:05}.jpg"), frame[..., ::-1])
    (tmp_path / "frames.txt").write_text(f"0 {len(frames)} 2\nnone 8 1\n")
    config = load_config(folder / "config.py")
    dataset = config.test_dataloader.dataset
    dataset.type, dataset.data_prefix = "RawframeDataset", {"img": str(tmp_path)}
    infer = Ada3DInferencer(config, folder / "model.pth", "cpu", num_workers=0)
    rows = infer(str(tmp_path / "frames.txt"))["predictions"]
    assert rows[0]["label"] == 2 and rows[0]["error"] is None and rows[0]["clips"] == VIEWS
    assert rows[1]["error"] is not None


# --------------------------------------------------------------------------------- inputs


def names(videos):
    return [video.path for video in videos]


def test_folders_patterns_lists_and_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b/2.mp4", "b/10.MKV", "a/1.avi", "b/note.txt", "c.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "list.txt").write_text("x.mp4 3\ny.mp4\n")
    dataset = {"type": "VideoDataset", "ann_file": "other.txt", "data_prefix": {"video": "data"}}
    assert names(find_videos("b", dataset)) == ["b/10.MKV", "b/2.mp4"]
    every = [str(tmp_path / name) for name in ("c.mp4", "a/1.avi", "b/10.MKV", "b/2.mp4")]
    assert names(find_videos(tmp_path, dataset)) == every
    assert names(find_videos("?/*[1-9].*", dataset)) == ["a/1.avi", "b/2.mp4"]
    assert names(find_videos("**/*.mp4", dataset)) == ["b/2.mp4", "c.mp4"]
    listed = find_videos(["c.mp4", "list.txt", "a"], dataset)
    assert names(listed) == ["c.mp4", "data/x.mp4", "data/y.mp4", "a/1.avi"]
    assert [video.labels for video in listed] == [(), (3,), (), ()]
    assert listed.digest != find_videos(["list.txt", "c.mp4", "a"], dataset).digest
    assert names(find_videos(["none.mp4"], dataset, must_exist=False)) == ["none.mp4"]


@pytest.mark.parametrize(
    "given, words",
    [
        ("none.mp4", "nothing at none.mp4"),
        ("*.mp4", r"no file is like \*\.mp4"),
        ("empty", "no video in the folder empty"),
        ("bom.txt", "byte-order mark"),
        ("utf16.txt", "UTF-16"),
        ("label.txt", "label 7 is outside the 4 classes"),
        ("words.txt", "is not 'video label"),
        ("nothing.txt", "lists no video"),
        ("a\0b", "NUL"),
        ([], "no videos"),
        ([3], "no path"),
    ],
)
def test_bad_inputs_are_told(given, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "note.md").write_text("no video")
    (tmp_path / "bom.txt").write_bytes(b"\xef\xbb\xbfa.mp4 1\n")
    (tmp_path / "utf16.txt").write_bytes("a.mp4 1\n".encode("utf-16"))
    (tmp_path / "label.txt").write_text("a.mp4 7\n")
    (tmp_path / "words.txt").write_text("my video.mp4 1\n")
    (tmp_path / "nothing.txt").write_text("")
    with pytest.raises(Ada3DError, match=words):
        find_videos(given, {"type": "VideoDataset"}, mm_parts.CLASSES)


def test_the_model_is_put_to_evaluation_and_left_without_hooks(work):
    infer = inferencer(work[0])
    infer(str(work[0] / "videos" / "0.mp4"))
    assert not infer.model.training and not infer.model.recognizer.training
    assert (
        not infer.model.recognizer._forward_hooks and not infer.model.recognizer._forward_pre_hooks
    )
    assert not torch.is_inference_mode_enabled()
