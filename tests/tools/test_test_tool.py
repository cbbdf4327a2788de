"""tools/test.py: each clip's policy and price, and the paper's columns."""

import subprocess
import sys
from pathlib import Path

import mm_parts
import pytest
import torch
from mmaction.registry import MODELS
from mmengine.registry import init_default_scope

import ada3d_fx.mm  # noqa: F401
from ada3d_fx import Ada3DError, Policy
from ada3d_fx.mm.metric import PolicyCostMetric, row_of
from ada3d_fx.report import records

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A config, its clips and a checkpoint of an untrained model with its selector."""
    folder = tmp_path_factory.mktemp("work")
    mm_parts.write_clips(folder)
    init_default_scope("mmaction")
    config = mm_parts.run_config(folder, folder / "work")
    config.dump(str(folder / "config.py"))
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    model.init_weights()
    torch.save(model.state_dict(), folder / "model.pth")
    return folder, model


def run(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-W", "ignore", str(ROOT / "tools" / "test.py"),
         str(folder / "config.py"), str(folder / "model.pth"), *map(str, arguments)],
        capture_output=True, text=True, cwd=folder, env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_every_clip_is_recorded_with_its_price(work, kind, tmp_path):
    folder, model = work
    done = run(folder, "--policies", tmp_path / f"p.{kind}", "--policy", "random:frames=0.5")
    assert done.returncode == 0, done.stderr
    clips = records.read_clips(tmp_path / f"p.{kind}")
    assert [clip["video"].rpartition("/")[2] for clip in clips] == [f"{i}.mp4" for i in range(8)]
    assert [clip["label"] for clip in clips] == [i % 4 for i in range(8)]
    assert [clip["macs"] for clip in clips] == model.price(records.policies_of(clips)).tolist()
    assert {clip["selector_macs"] for clip in clips} == {0}
    for word in ("#3D", "#Frame", "accuracy %", "GMACs per clip: 10 %", "kept frames", "###",
                 "distinct policies of 8 clips"):  # fmt: skip
        assert word in done.stdout, word


def test_policies_go_to_the_work_dir_and_count_the_selector(work, tmp_path):
    folder, model = work
    assert run(folder, "--work-dir", tmp_path).returncode == 0
    clips = records.read_clips(tmp_path / "policies.json")
    assert {clip["selector_macs"] for clip in clips} == {model.selector_macs}


@pytest.mark.slow
def test_a_budget_is_held(work, tmp_path):
    folder, model = work
    budget = 0.5 * model.full_macs / 1e9 + model.selector_macs / 1e9
    count = ["--cfg-options", "model.testing.greedy=count"]  # the clips are flipped at random
    done = run(folder, "--policies", tmp_path / "p.json", "--budget", budget, *count)
    assert done.returncode == 0, done.stderr
    assert "threshold for" in done.stdout
    clips = records.read_clips(tmp_path / "p.json")
    mean = sum(clip["macs"] + clip["selector_macs"] for clip in clips) / len(clips) / 1e9
    assert 0.5 * budget < mean < 1.2 * budget
    done = run(folder, "--budget", 1e-6)
    assert done.returncode == 2 and "cannot be had" in done.stderr


def test_a_file_of_another_kind_is_refused_before_the_test(work):
    done = run(work[0], "--policies", "p.txt")
    assert done.returncode == 2 and "a .json or a .csv file" in done.stderr
    with pytest.raises(Ada3DError, match=r"json or a \.csv"):
        PolicyCostMetric(out_file="p.npz")


def test_each_view_is_a_clip():
    metric = PolicyCostMetric()
    policy = Policy(torch.tensor([[True, False], [True, True]]), torch.tensor([[True], [False]]))
    sample = {"policy_frames": policy.frames, "policy_stages": policy.stages, "reward": 0.0,
              "recognizer_macs": torch.tensor([3_000, 5_000]), "selector_macs": 1_000,
              "pred_score": torch.tensor([0.1, 0.9])}  # fmt: skip
    metric.process(None, [sample, {**sample, "filename": "b.mp4"}])
    from ada3d_fx.mm.metric import clip_records

    rows = clip_records(metric.results)
    assert [(row["video"], row["view"], row["macs"]) for row in rows] == [
        ("0", 0, 3000), ("0", 1, 5000), ("b.mp4", 0, 3000), ("b.mp4", 1, 5000),
    ]  # fmt: skip
    assert rows[0] | {"frames": "10", "stages": "1", "num_frames": 1, "label": None} == rows[0]
    found = metric.compute_metrics(metric.results)
    assert found["gmacs"] == pytest.approx(5e-6) and found["distinct_policies"] == 2


def test_rows_of_metrics():
    row = row_of("ours", {"acc/top1": 0.5, "policy/gmacs": 1.5, "policy/accuracy_static": 0.25})
    assert row == {"name": "ours", "accuracy": 50.0, "gmacs": 1.5, "accuracy_static": 25.0}
    assert row_of("x", {"acc/mean_average_precision": 0.1})["accuracy"] == pytest.approx(10)
    assert row_of("x", {})["accuracy"] is None
