"""The comparison: equal budgets, equal steps, a whole report."""

import argparse
import json
import sys
from pathlib import Path

import compare
import mm_parts
import pytest
import torch
from mmaction.registry import MODELS
from mmengine.registry import init_default_scope

import ada3d_fx.mm  # noqa: F401
from ada3d_fx import Policy
from ada3d_fx.mm.build import build_runner
from ada3d_fx.mm.checkpoint import load_checkpoint


def test_random_policies_are_matched_to_the_budget():
    model = MODELS.build(mm_parts.model(selector=None, training={"phase": "random"}))
    target = 0.4 * model.full_macs / 1e9
    usage = compare.match_usage(model, 0.6, 0.2, target)
    assert usage["frames"] / usage["stages"] == pytest.approx(3)
    cost = model.price(Policy.random(model.plan, 20_000, **usage)).double().mean().item() / 1e9
    assert cost == pytest.approx(target, rel=0.02)


def test_usage_stops_at_everything():
    model = MODELS.build(mm_parts.model(selector=None, training={"phase": "random"}))
    usage = compare.match_usage(model, 1.0, 0.9, 10 * model.full_macs / 1e9)
    assert usage == pytest.approx({"frames": 1.0, "stages": 1.0})


def test_random_ft_takes_as_many_steps():
    stages = [
        {"name": "warmup", "epochs": 3, "recognizer_lr": 0.1},
        {"name": "pretrain", "epochs": 7, "selector_lr": 0.2},
        {"name": "selection", "epochs": 4, "selector_lr": 0.2},
        {"name": "joint", "epochs": 5, "recognizer_lr": 0.3, "schedule": "cosine"},
    ]
    random = compare.random_phases(stages)
    assert [(s["name"], s["epochs"], s["recognizer_lr"]) for s in random] == [
        ("warmup", 3, 0.1),
        ("random", 9, 0.3),
    ]


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    """Arguments of a comparison of two folds of noise, with all rows."""
    folder = tmp_path_factory.mktemp("comparison")
    init_default_scope("mmaction")
    mm_parts.write_clips(folder)
    config = mm_parts.run_config(folder, folder / "work")
    config.fold = 0
    config.dump(str(folder / "config.py"))
    for fold in (0, 1):
        plain = MODELS.build(config.model)
        plain.init_weights()
        torch.save(plain.recognizer.state_dict(), folder / f"plain{fold}.pth")
    return [str(folder / "config.py"), "--recognizer", str(folder / "plain{fold}.pth"),
            "--work-dir", str(folder / "out")]  # fmt: skip


def run(monkeypatch, arguments, *options):
    """As it is typed: the work dir is a relative path."""
    out = Path(arguments[-1])
    monkeypatch.chdir(out.parent)
    monkeypatch.setattr(sys, "argv", ["compare.py", *arguments[:-1], out.name, *options])
    assert compare.main() == 0
    return json.loads((out / "report.json").read_text())


def test_comparison_leaves_its_report(comparison, monkeypatch, capsys):
    report = run(monkeypatch, comparison, "--folds", "0,1", "--pictures", "2")
    out = Path(comparison[-1])
    rows = {row["name"]: row for row in report["rows"]}
    assert list(rows) == ["upper", "random", "random_ft", "ada3d"]
    assert rows["upper"]["frames"] == 4 and rows["upper"]["gmacs_selector"] == 0
    ours = rows["ada3d"]
    assert ours["runs"] == 2 and ours["videos"] == 16
    assert ours["gmacs"] == pytest.approx(ours["gmacs_recognizer"] + ours["gmacs_selector"])
    assert ours["gmacs_selector"] > 0 and rows["random_ft"]["gmacs_selector"] == 0
    assert report["gmacs_share"] == pytest.approx(ours["gmacs"] / rows["upper"]["gmacs"])
    assert {kind["kind"] for kind in report["kinds"]} == {"even", "odd"}
    assert [row["videos"] for row in report["classes"]] == [4, 4, 4, 4]
    assert {"command", "seeds", "versions", "seconds"} <= set(report)
    assert "commit" in report["versions"]
    names = [gap["name"] for gap in report["differences"]]
    assert names == [f"ada3d - {name}" for name in ("upper", "random", "random_ft")]
    assert (out / "policies.png").is_file() and (out / "usage.png").is_file()
    assert "random_ft" in capsys.readouterr().out
    assert (out / "report.md").read_text().startswith("| policy")


BOTH = ("model.testing.predict_with=both", "model.training.classify=1")


def without_folds(comparison):
    return [argument.replace("{fold}", "0") for argument in comparison]


@pytest.mark.slow
def test_variants_are_rows_with_other_entries(comparison, monkeypatch):
    """One shares the warm-up; one changes the selection network and trains its own."""
    comparison = without_folds(comparison)
    report = run(
        monkeypatch, comparison, "--rows", "ada3d",
        *("--variant", "dearer", "model.objective.gamma=3", "model.objective.entropy=0.1"),
        *("--variant", "uniform", "model.selector.head.type=MeanHead"),
    )  # fmt: skip
    assert [row["name"] for row in report["rows"]][-2:] == ["dearer", "uniform"]
    assert [gap["name"] for gap in report["differences"]][-2:] == [
        "ada3d - dearer",
        "ada3d - uniform",
    ]
    out = Path(comparison[-1]) / "seed0"
    logs = {
        name: "".join(path.read_text() for path in (out / name).rglob("*.log"))
        for name in ("dearer", "uniform")
    }
    assert "gamma=3" in logs["dearer"] and "entropy=0.1" in logs["dearer"]
    assert "warmup, 2 iterations" not in logs["dearer"]
    assert "warmup, 2 iterations" in logs["uniform"] and "type='MeanHead'" in logs["uniform"]


@pytest.mark.parametrize("variant", [["ada3d", "model.testing.greedy=count"], ["nothing"]])
def test_variants_need_a_name_of_their_own_and_entries(variant, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["compare.py", "config.py", "--variant", *variant])
    with pytest.raises(SystemExit):
        compare.main()
    assert "--variant takes a name of its own" in capsys.readouterr().err


@pytest.mark.slow
def test_what_is_there_is_not_made_again_and_rows_can_be_added(comparison, monkeypatch):
    comparison = without_folds(comparison)
    run(monkeypatch, comparison)
    out = Path(comparison[-1]) / "seed0"
    before = (out / "ada3d" / "result.json").stat().st_mtime_ns
    report = run(monkeypatch, comparison, "--rows", "all")
    assert (out / "ada3d" / "result.json").stat().st_mtime_ns == before
    rows = {row["name"]: row for row in report["rows"]}
    assert set(rows) == {*compare.ROWS, *compare.ABLATIONS}
    log = "".join(path.read_text() for path in (out / "no_phase1").rglob("*.log"))
    assert "joint, 2 iterations" in log and "selection, " not in log
    assert rows["random_frames"]["frames"] == pytest.approx(rows["ada3d"]["frames"], abs=1)
    assert rows["upper_ft"]["gmacs"] == rows["upper"]["gmacs"] and rows["upper_ft"]["frames"] == 4
    clips = {
        name: json.loads((out / name / "result.json").read_text())["clips"]
        for name in ("ada3d", "shuffled")
    }
    policies = {name: [(c["frames"], c["stages"]) for c in clips[name]] for name in clips}
    assert policies["shuffled"] != policies["ada3d"] or len(set(policies["ada3d"])) == 1
    assert sorted(policies["shuffled"]) == sorted(policies["ada3d"])
    assert rows["shuffled"]["gmacs"] == pytest.approx(rows["ada3d"]["gmacs"])
    same = run(monkeypatch, comparison, "--report-only")
    assert same["rows"] == report["rows"] and same["differences"] == report["differences"]


def test_what_each_network_predicts_alone_and_with_the_other(comparison, monkeypatch, tmp_path):
    """Rows of a config whose networks predict together; each of its own weights and cost."""
    comparison = [*without_folds(comparison)[:-1], str(tmp_path / "both")]
    rows = ("upper", "ada3d", "random_ft", *compare.SCORES)
    arguments = [comparison[0], "--rows", ",".join(rows), "--cfg-options", *BOTH, *comparison[1:]]
    report = run(monkeypatch, arguments)
    found = {row["name"]: row for row in report["rows"]}
    assert set(found) == set(rows)
    ours, alone = found["ada3d"], found["selector_only"]
    assert found["upper"]["gmacs_selector"] == found["random_ft"]["gmacs_selector"] == 0
    only = found["recognizer_only"]
    assert only["gmacs_recognizer"] == ours["gmacs_recognizer"]
    assert 0 < only["gmacs_selector"] < ours["gmacs_selector"]
    assert alone["frames"] == alone["gmacs_recognizer"] == 0
    assert alone["gmacs"] == alone["gmacs_selector"] == found["upper_both"]["gmacs_selector"]
    assert found["upper_both"]["gmacs_recognizer"] == found["upper"]["gmacs"]
    names = [gap["name"] for gap in report["differences"]]
    assert {"ada3d - selector_only", "recognizer_only - random_ft"} <= set(names)
    assert "recognizer_only - ada3d" not in names
    assert found["random_ft_both"]["gmacs"] == pytest.approx(ours["gmacs"], rel=0.2)  # 8 clips
    folder = tmp_path / "both" / "seed0"
    results = {name: json.loads((folder / name / "result.json").read_text()) for name in rows}
    assert results["upper_both"]["checkpoint"] == results["ada3d"]["checkpoint"]


def test_rows_of_both_networks_are_for_configs_that_predict_with_both(
    comparison, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "argv", ["compare.py", *comparison, "--rows", "ada3d,selector_only"])
    assert compare.main() == 2
    assert "selector_only: for a config with predict_with='both'" in capsys.readouterr().err


def test_ada3d_in_a_comparison_is_an_unbroken_run(comparison, monkeypatch, tmp_path):
    """The warm-up is trained once for all rows; going on from it changes nothing."""
    comparison = without_folds(comparison)
    run(monkeypatch, comparison)
    path, _, start, _, folder = comparison
    args = argparse.Namespace(config=path, cfg_options=None, work_dir=folder, recognizer=start)
    config = compare.Run(args, seed=0, fold=None).config
    config.work_dir, config.experiment_name = str(tmp_path / "unbroken"), "unbroken"
    build_runner(config).train()
    ours = load_checkpoint(Path(comparison[-1]) / "seed0" / "ada3d" / "epoch_3.pth")
    theirs = load_checkpoint(tmp_path / "unbroken" / "epoch_3.pth")
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
