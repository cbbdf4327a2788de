"""Runs over lists: rows in order, none lost and none twice, whatever kills them; and their summary."""

import csv
import json
import re
import shutil

import inference_parts
import numpy as np
import pytest
import torch
from killed_tools import Moment, Server

from ada3d_fx import Ada3DError, export
from ada3d_fx.experiments.evaluation import EvaluationOptions, evaluate
from ada3d_fx.experiments.inference import InferenceOptions, RunOptions, infer
from ada3d_fx.experiments.journal import Journal
from ada3d_fx.mm import Ada3DInferencer
from ada3d_fx.mm.results import COLUMNS
from ada3d_fx.progress import Console

COUNT = 12


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """config.py, model.pth and a list of twelve videos, of which the sixth and the last are broken."""
    folder = tmp_path_factory.mktemp("work")
    inference_parts.write(folder, views=2, count=COUNT)
    (folder / "videos" / "5.mp4").write_bytes(b"no video")
    (folder / "videos" / "11.mp4").unlink()
    return folder


def run(folder, *inputs, config="config.py", checkpoint="model.pth", cfg_options=(), **options):
    options = {"workers": 0, "device": "cpu", **options}
    inputs = inputs or (str(folder / "list.txt"),)
    files = str(folder / config), cfg_options, str(folder / checkpoint)
    return infer(*files, inputs, RunOptions(**options), Console())


def rows_of(path):
    return [json.loads(line) for line in path.open(encoding="utf-8")]


def timeless(path):
    return inference_parts.timeless(rows_of(path))


@pytest.fixture(scope="module")
def whole(work, tmp_path_factory):
    """The rows of an unbroken run, and what it prints."""
    out = tmp_path_factory.mktemp("whole") / "r.jsonl"
    told = run(work, out=str(out))
    return timeless(out), told


def test_rows_are_whole_and_in_order(work, whole):
    rows, told = whole
    assert [row["index"] for row in rows] == list(range(COUNT))
    assert [row["video"] for row in rows] == [f"{work}/videos/{i}.mp4" for i in range(COUNT)]
    assert [row["index"] for row in rows if row["error"]] == [5, 11]
    assert set(rows[0]) | set(inference_parts.MILLISECONDS) == {"model", *COLUMNS}
    for word in (f"{COUNT} predicted in", "accuracy %", "config", "decode ms", "0.mp4", "error"):
        assert word in told


def test_the_summary_is_the_test_tools(work, tmp_path):
    (tmp_path / "whole.txt").write_text(
        "".join(f"{i}.mp4 {i % 4}\n" for i in range(COUNT) if i not in (5, 11))
    )
    run(work, str(tmp_path / "whole.txt"), json=str(tmp_path / "s.json"))
    row = json.loads((tmp_path / "s.json").read_text())["rows"][0]
    options = EvaluationOptions(work_dir=str(tmp_path), json=str(tmp_path / "t.json"))
    entries = [f"test_dataloader.dataset.ann_file={tmp_path / 'whole.txt'}"]
    evaluate(str(work / "config.py"), entries, str(work / "model.pth"), options, Console())
    tested = json.loads((tmp_path / "t.json").read_text())["row"]
    assert row["accuracy"] == pytest.approx(tested["accuracy"])
    assert row["gmacs"] == pytest.approx(2 * tested["gmacs"]) and row["clips"] == 2
    assert row["gmacs_selector"] == pytest.approx(2 * tested["gmacs_selector"])
    assert (row["videos"], row["errors"]) == (COUNT - 2, 0)


def test_a_run_goes_on_from_parts_of_any_number_of_processes(work, whole, tmp_path):
    out = tmp_path / "r.jsonl"
    run(work, out=str(out))
    lines = out.read_text().splitlines(keepends=True)
    out.unlink()
    (tmp_path / "r.rank0.jsonl").write_text("".join([*lines[4:7], *lines[:2], lines[9][:40]]))
    (tmp_path / "r.rank7.jsonl").write_text("".join([lines[2], lines[10][:-1]]))
    told = run(work, out=str(out))
    assert f"{COUNT - 6} predicted in" in told and timeless(out) == whole[0]
    kept = [0, 1, 2, 4, 5, 6]  # to the microsecond: they were not made again
    assert [rows_of(out)[i] for i in kept] == [json.loads(lines[i]) for i in kept]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.jsonl", "r.made_from.json"]
    assert "all were there" in run(work, out=str(out))


def test_killed_after_the_result_it_only_tidies_up(work, tmp_path):
    out = tmp_path / "r.jsonl"
    run(work, out=str(out))
    before = out.read_bytes()
    (tmp_path / "r.rank0.jsonl").write_bytes(before)
    assert "all were there" in run(work, out=str(out))
    assert out.read_bytes() == before and not list(tmp_path.glob("*rank*"))


def test_what_was_made_from_something_else_is_refused(work, tmp_path):
    out = tmp_path / "r.jsonl"
    run(work, out=str(out))
    state = torch.load(work / "model.pth", weights_only=True)
    state["recognizer.cls_head.fc_cls.bias"] += 1
    torch.save(state, work / "other.pth")
    (tmp_path / "list.txt").write_text((work / "list.txt").read_text() + "0.mp4\n")
    changes = {
        "checkpoint: ": {"checkpoint": "other.pth"},
        "input: 12 videos": {"model": InferenceOptions(data_prefix="elsewhere")},
        "model.testing.threshold": {"model": InferenceOptions(threshold=0.4)},
        "scores: False -> True": {"scores": True},
        "pipeline": {"cfg_options": ["test_dataloader.dataset.pipeline.1.num_clips=1"]},
    }
    for words, options in changes.items():
        with pytest.raises(Ada3DError, match=re.escape(words)) as told:
            run(work, out=str(out), **options)
        assert "--redo" in str(told.value)
    with pytest.raises(Ada3DError, match="-> 13 videos"):
        run(work, str(tmp_path / "list.txt"), out=str(out))
    run(work, out=str(out), redo=True)  # nothing is different: nothing is made
    assert not list(tmp_path.glob("*.old-1"))
    before = out.read_bytes()
    run(work, out=str(out), redo=True, checkpoint="other.pth")
    assert (tmp_path / "r.jsonl.old-1").read_bytes() == before != out.read_bytes()


def test_foreign_parts_are_told(work, tmp_path):
    out = tmp_path / "r.jsonl"
    run(work, out=str(out))
    line = out.read_text().splitlines(keepends=True)[0]
    out.unlink()
    for bad, words in (
        ("{}\n", "'index'"),
        ("[]\n", "not an object"),
        ("half\n", "line 2"),
        (line.replace("0.mp4", "1.mp4"), "0.mp4, not"),
        (line.replace('"index": 0', '"index": 99'), "no row of this run"),
        (line.replace('"model": "config"', '"model": "other"'), "no row of this run"),
    ):
        (tmp_path / "r.rank0.jsonl").write_text(line + bad)
        with pytest.raises(Ada3DError, match=words):
            run(work, out=str(out))
        assert not out.exists()


def test_a_table_for_spreadsheets(work, whole, tmp_path):
    out = tmp_path / "r.csv"
    told = run(work, out=str(out), scores=True)
    rows = list(csv.DictReader(out.open(encoding="utf-8", newline="")))
    assert list(rows[0]) == ["model", *COLUMNS, "scores"]
    for row, wanted in zip(rows, whole[0], strict=True):
        for name in ("index", "video", "label", "predicted", "frames", "gmacs", "error"):
            assert row[name] == ("" if wanted[name] is None else str(wanted[name])), name
    assert len(rows[0]["scores"].split()) == 4 and not rows[5]["scores"]
    assert "all were there" in run(work, out=str(out), scores=True)
    first = [line.split()[:6] for line in told.splitlines() if line.startswith("config ")]
    again = run(work, out=str(out), scores=True).splitlines()
    assert first == [line.split()[:6] for line in again if line.startswith("config ")]
    with pytest.raises(Ada3DError, match=r"\.jsonl or a \.csv"):
        run(work, out=str(tmp_path / "r.txt"))


def test_two_models_in_one_table(work, whole, tmp_path):
    out = tmp_path / "r.jsonl"
    also = (str(work / "plain.py"), str(work / "plain.pth"))
    told = run(work, out=str(out), also=also)
    rows = timeless(out)
    assert [row for row in rows if row["model"] == "config"] == whole[0]
    plain = [row for row in rows if row["model"] == "plain"]
    assert [(row["index"], row["model"]) for row in rows[:3]] == [
        (0, "config"),
        (0, "plain"),
        (1, "config"),
    ]
    assert len(plain) == COUNT and plain[0]["frames"] is None
    assert re.search(r"^plain +12 +2 ", told, re.MULTILINE)
    lines = out.read_text().splitlines(keepends=True)
    out.unlink()
    (tmp_path / "r.rank0.jsonl").write_text("".join(lines[3:8]))
    assert f"{2 * COUNT - 5} predicted" in run(work, out=str(out), also=also)
    assert timeless(out) == rows


@pytest.fixture(scope="module")
def exported(work):
    """A checkpoint's files for both engines."""
    model = Ada3DInferencer(work / "config.py", work / "model.pth", "cpu").model
    for suffix in ("onnx", "xml"):
        export(model.recognizer, work / f"model.{suffix}", model.selector)
    return work


@pytest.mark.parametrize("ending", ["onnx", "xml"])
def test_a_checkpoint_and_its_exported_file_agree(exported, whole, tmp_path, ending):
    files = str(exported / "config.py"), str(exported / f"model.{ending}")
    out, summary = tmp_path / "r.jsonl", tmp_path / "s.json"
    told = run(exported, out=str(out), also=files, scores=True, json=str(summary))
    assert "of 10 videos that both predict, 0 have another label, 0 another policy" in told
    found = json.loads(summary.read_text(encoding="utf-8"))["agreement"]
    assert found["videos"] == COUNT - 2 and found["other_labels"] == found["other_policies"] == 0
    assert 0 < found["scores"] < 1e-4
    rows = [row for row in rows_of(out) if row["model"] == f"config, model.{ending}"]
    assert [row["error"] for row in rows] == [row["error"] for row in whole[0]]
    assert [row["gmacs"] for row in rows] == [row["gmacs"] for row in whole[0]]


def test_disagreement_is_counted(work, tmp_path):
    also = (str(work / "plain.py"), str(work / "other.pth"))
    state = torch.load(work / "plain.pth", weights_only=True)
    torch.save({k: v * (-1) ** ("fc_cls" in k) for k, v in state.items()}, work / "other.pth")
    out = tmp_path / "r.csv"
    told = run(work, out=str(out), also=also, scores=True, json=str(tmp_path / "s.json"))
    rows = list(csv.DictReader(out.open(encoding="utf-8", newline="")))
    pairs = [(a, b) for a, b in zip(rows[::2], rows[1::2]) if a["predicted"]]
    differ = sum(a["predicted"] != b["predicted"] for a, b in pairs)
    off = max(
        abs(float(x) - float(y))
        for a, b in pairs
        for x, y in zip(a["scores"].split(), b["scores"].split(), strict=True)
    )
    assert differ and f"of 10 videos that both predict, {differ} have another label;" in told
    found = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))["agreement"]
    assert found["other_policies"] is None and found["scores"] == pytest.approx(off)


def test_another_file_or_its_weights_are_told(exported, tmp_path):
    """Of an .xml the weights lie in the .bin beside it."""
    out = tmp_path / "r.jsonl"
    for suffix in ("xml", "bin"):
        shutil.copy(exported / f"model.{suffix}", tmp_path / f"file.{suffix}")
    files = {"checkpoint": str(tmp_path / "file.xml")}
    run(exported, out=str(out), **files)
    assert "all were there" in run(exported, out=str(out), **files)
    with pytest.raises(Ada3DError, match=r"--threshold: None -> 0\.4"):
        run(exported, out=str(out), model=InferenceOptions(threshold=0.4), **files)
    with pytest.raises(Ada3DError, match="--policy: None -> full"):
        run(exported, out=str(out), model=InferenceOptions(policy="full"), **files)
    with pytest.raises(Ada3DError, match=r"checkpoint: .* tensors"):
        run(exported, out=str(out))
    weights = bytearray((tmp_path / "file.bin").read_bytes())
    weights[1000] ^= 1
    (tmp_path / "file.bin").write_bytes(weights)
    with pytest.raises(Ada3DError, match=r"checkpoint: .*and .* bytes"):
        run(exported, out=str(out), **files)


def test_an_exported_file_that_does_not_fit_is_told_before_anything_is_there(exported, tmp_path):
    entries = ["test_dataloader.dataset.pipeline.1.clip_len=2"]
    for out, options, words in (
        ("a.jsonl", {"cfg_options": entries}, "clips of 2 x 32 x 32 .* 4 x 32 x 32"),
        ("b.jsonl", {"model": InferenceOptions(gmacs=1.0)}, r"tools/export\.py --gmacs"),
        ("c.jsonl", {"device": "cuda:0"}, "runs on the CPU"),
    ):
        with pytest.raises(Ada3DError, match=words):
            run(
                exported, "no/such.txt", out=str(tmp_path / out), checkpoint="model.onnx", **options
            )
    assert list(tmp_path.iterdir()) == []


def test_a_threshold_is_found_once(work, tmp_path, capsys):
    model = InferenceOptions(gmacs=0.0012, calibrate_on="train")
    out = tmp_path / "r.jsonl"
    (work / "good.txt").write_text("".join(f"{i}.mp4 {i % 4}\n" for i in range(5)))
    entries = [f"train_dataloader.dataset.ann_file={work / 'good.txt'}"]
    run(work, out=str(out), model=model, cfg_options=entries)
    assert "for 0.0012 GMACs per clip: threshold" in capsys.readouterr().err
    wanted = timeless(out)
    lines = out.read_text().splitlines(keepends=True)
    out.unlink()
    (tmp_path / "r.rank0.jsonl").write_text("".join(lines[:3]))
    run(work, out=str(out), model=model, cfg_options=entries)
    assert "threshold" not in capsys.readouterr().err and timeless(out) == wanted
    with pytest.raises(Ada3DError, match=r"--gmacs: 0\.0012 -> 0\.0015"):
        run(work, out=str(out), model=model._replace(gmacs=0.0015), cfg_options=entries)


def test_pictures_and_animations(work, tmp_path):
    videos = [str(work / "videos" / f"{i}.mp4") for i in (0, 5)]
    run(work, *videos, pictures=str(tmp_path / "p"), animations=str(tmp_path / "a"))
    assert [path.name for path in (tmp_path / "p" / "config").iterdir()] == ["000000_0.png"]
    assert [path.name for path in (tmp_path / "a" / "config").iterdir()] == ["000000_0.gif"]


def test_several_processes_need_a_file(work):
    with pytest.raises(Ada3DError, match="--out"):
        run(work, launcher="pytorch")


def test_rows_are_merged_from_what_is_there_only(tmp_path):
    journal = Journal(tmp_path / "r.jsonl", 3, lambda row: row["index"])
    journal.begin({"a": 1})
    journal.add({"index": 2}, 1)
    journal.add({"index": 0}, 0)
    with pytest.raises(Ada3DError, match="1 of 3 rows are missing"):
        journal.merge(["index"])
    journal.add({"index": 1}, 0)
    journal.merge(["index"])
    assert [row["index"] for row in journal.rows()] == [0, 1, 2] and not journal.parts()


@pytest.mark.slow
def test_killed_at_any_write_it_goes_on(work, whole, tmp_path):
    """With SIGKILL, at its writes: when a row is appended, and when all are put in order."""
    arguments = [work / "config.py", work / "model.pth", work / "list.txt", "--device", "cpu"]
    with Server() as server:
        unbroken = server.run(
            "infer", [*arguments, "--out", tmp_path / "u" / "r.jsonl"], tmp_path / "u"
        )
        assert unbroken.status == 0 and unbroken.writes > COUNT, unbroken.output
        rng = np.random.default_rng(0)
        folder = tmp_path / "killed"
        folder.mkdir()
        for write in sorted(rng.integers(1, unbroken.writes, 4)):
            # the second of two kills is at a later write than what is left
            ended = server.run(
                "infer", [*arguments, "--out", folder / "r.jsonl"], folder, Moment(write=int(write))
            )
            assert ended.status in (None, 0), ended.output
        ended = server.run("infer", [*arguments, "--out", folder / "r.jsonl"], folder)
        assert ended.status == 0, ended.output
    assert timeless(folder / "r.jsonl") == whole[0]
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) == [
        "r.jsonl", "r.made_from.json",
    ]  # fmt: skip
