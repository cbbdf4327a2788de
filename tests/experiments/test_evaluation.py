"""The test of a checkpoint: each clip's policy and price, and the paper's columns."""

import json
import pickle

import experiment_parts
import pytest
import torch
from mmaction.registry import METRICS

import ada3d_fx.mm  # noqa: F401
from ada3d_fx import Ada3DError, Policy
from ada3d_fx.experiments.evaluation import EvaluationOptions, evaluate
from ada3d_fx.mm.metric import PolicyCostMetric, row_of
from ada3d_fx.progress import Console
from ada3d_fx.report import records


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A config, its clips and a checkpoint of an untrained model with its selector."""
    folder = tmp_path_factory.mktemp("work")
    return folder, experiment_parts.write(folder, experiment_parts.config_of(folder))


def run(folder, *cfg_options, **options):
    options.setdefault("work_dir", str(folder / "work"))
    files = str(folder / "config.py"), cfg_options, str(folder / "model.pth")
    return evaluate(*files, EvaluationOptions(**options), Console())


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_every_clip_is_recorded_with_its_price(work, kind, tmp_path):
    folder, model = work
    path = str(tmp_path / f"p.{kind}")
    text = run(folder, policies=path, policy="random:frames=0.5")
    clips = records.read_clips(path)
    assert [clip["video"].rpartition("/")[2] for clip in clips] == [f"{i}.mp4" for i in range(8)]
    assert [clip["label"] for clip in clips] == [i % 4 for i in range(8)]
    assert [clip["macs"] for clip in clips] == model.price(records.policies_of(clips)).tolist()
    assert {clip["selector_macs"] for clip in clips} == {0}
    for word in ("#3D", "#Frame", "accuracy %", "GMACs per clip: 10 %", "kept frames", "###",
                 "distinct policies of 8 clips"):  # fmt: skip
        assert word in text, word


def test_policies_go_to_the_work_dir_and_count_the_selector(work, tmp_path):
    folder, model = work
    dump = tmp_path / "p.pkl"
    run(folder, work_dir=str(tmp_path), json=str(tmp_path / "metrics.json"), dump=str(dump))
    clips = records.read_clips(tmp_path / "policies.json")
    assert {clip["selector_macs"] for clip in clips} == {model.selector_macs}
    row = json.loads((tmp_path / "metrics.json").read_text())["row"]
    mean = sum(clip["macs"] + clip["selector_macs"] for clip in clips) / len(clips) / 1e9
    assert row["gmacs"] == pytest.approx(mean)
    predictions = pickle.loads(dump.read_bytes())
    assert [p["gt_label"].item() for p in predictions] == [i % 4 for i in range(8)]


def test_what_training_started_from_need_not_be_there(work, tmp_path):
    """The tested checkpoint holds both networks."""
    folder, _ = work
    missing = [f"model.{name}_checkpoint='nowhere.pth'" for name in ("recognizer", "selector")]
    scores = {}
    for name, options in {"there": (), "missing": missing}.items():
        dump = tmp_path / f"{name}.pkl"
        run(folder, *options, work_dir=str(tmp_path / name), dump=str(dump))
        scores[name] = [p["pred_score"] for p in pickle.loads(dump.read_bytes())]
    assert all(map(torch.equal, scores["there"], scores["missing"]))


def test_recorded_policies_are_executed_again(work, tmp_path):
    folder, _ = work
    first, again = tmp_path / "first.csv", tmp_path / "again.json"
    run(folder, policies=str(first), policy="random:frames=0.5")
    run(folder, policies=str(again), policy=str(first))
    words = [[(c["frames"], c["stages"], c["macs"]) for c in records.read_clips(path)]
             for path in (first, again)]  # fmt: skip
    assert words[0] == words[1] and len(set(words[0])) > 1
    with pytest.raises(Ada3DError, match=r"no file at nowhere\.json"):
        run(folder, policy="nowhere.json")


@pytest.mark.parametrize("calibrate_on", ["val", "train"])
def test_a_cost_is_held(work, calibrate_on, tmp_path):
    folder, model = work
    gmacs = 0.5 * model.full_macs / 1e9 + model.selector_macs / 1e9
    path = str(tmp_path / "p.json")
    # kept frames are counted, as the clips are flipped at random
    run(folder, "model.testing.greedy=count", policies=path, gmacs=gmacs, calibrate_on=calibrate_on)
    clips = records.read_clips(path)
    mean = sum(clip["macs"] + clip["selector_macs"] for clip in clips) / len(clips) / 1e9
    assert 0.5 * gmacs < mean < 1.2 * gmacs
    with pytest.raises(Ada3DError, match="cannot be had"):
        run(folder, gmacs=1e-6)


def test_clips_that_exit_are_recorded_and_exit_again(tmp_path):
    """In the metrics, the file of policies, the summary and the log; from the selection network's
    cost on; and recorded policies give the same predictions and costs."""
    options = {"training": {"classify": 1.0}, "testing": {"predict_with": "both"}}
    config = experiment_parts.config_of(tmp_path, exit=0.4, **options)
    for loader in (config.test_dataloader, config.val_dataloader):  # nothing is drawn
        steps = [step for step in loader.dataset.pipeline if step["type"] != "Flip"]
        steps[1]["test_mode"] = True
        loader.dataset.pipeline = steps
    model = experiment_parts.write(tmp_path, config)
    with torch.no_grad():  # confidences that differ from clip to clip
        model.selector.classifier.weight.mul_(30)
    torch.save(model.state_dict(), tmp_path / "model.pth")
    only = model.selector_macs / 1e9
    shares = []
    for share in (0, 0.3, 1.01):
        gmacs, path = only + share * model.full_macs / 1e9, tmp_path / f"{share}.json"
        files = {"policies": str(path), "json": str(tmp_path / "m.json")}
        text = run(tmp_path, gmacs=gmacs, work_dir=str(tmp_path / f"work_{share}"), **files)
        row, clips = json.loads((tmp_path / "m.json").read_text())["row"], records.read_clips(path)
        exits = [clip for clip in clips if not clip["num_frames"]]
        assert row["exited"] == len(exits) / 8 and row["gmacs"] <= gmacs * (1 + 1e-9)
        mean = sum(clip["macs"] + clip["selector_macs"] for clip in clips) / 8e9
        assert row["gmacs"] == pytest.approx(mean)
        for clip in exits:
            assert (clip["macs"], clip["num_stages"]) == (0, 0) and "1" not in clip["frames"]
        told = f"{len(exits)} of 8 clips need no recognizer: no frame, no stage; "
        assert (told in text) == bool(exits)
        assert f"{len(exits) / 8:.1%}" in text or not exits
        shares.append(row["exited"])
        if share != 0.3:
            assert row["gmacs"] == pytest.approx(
                gmacs if share == 0 else only + model.full_macs / 1e9
            )
            continue
        again = str(tmp_path / "again.json")
        run(tmp_path, policy=str(path), policies=again, json=files["json"])
        assert records.read_clips(again) == clips
        assert json.loads((tmp_path / "m.json").read_text())["row"] == row
    assert shares[0] == 1 and 0 < shares[1] < 1 and shares[2] == 0
    log = next((tmp_path / "work_0.3").rglob("*.log")).read_text()
    assert f"of {8 * (1 - shares[1]):.0f} clips; {8 * shares[1]:.0f} more exit" in log
    with pytest.raises(Ada3DError, match=r"at least .* each \(the recognizer never runs\)"):
        run(tmp_path, gmacs=0.5 * only)


def test_a_file_of_another_kind_is_refused_before_the_test(work):
    with pytest.raises(Ada3DError, match=r"a \.json or a \.csv file"):
        run(work[0], policies="p.txt")
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
    assert found["exited"] == 0


def test_rows_of_metrics():
    row = row_of("ours", {"acc/top1": 0.5, "policy/gmacs": 1.5, "policy/accuracy_static": 0.25})
    assert row == {"name": "ours", "accuracy": 50.0, "gmacs": 1.5, "accuracy_static": 25.0}
    assert row_of("x", {"acc/mean_average_precision": 0.1})["accuracy"] == pytest.approx(10)
    assert row_of("x", {})["accuracy"] is None


def test_predictions_are_dumped_whole_or_not_at_all(tmp_path):
    path, before = tmp_path / "p.pkl", b"of an earlier test"
    path.write_bytes(before)
    metric = METRICS.build(dict(type="DumpPredictions", out_file_path=str(path)))
    with pytest.raises((AttributeError, pickle.PicklingError)):
        metric.compute_metrics([*range(100_000), lambda: 0])
    assert path.read_bytes() == before and not list(tmp_path.glob(".*"))
