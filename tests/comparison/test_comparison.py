"""The comparison: equal budgets, equal steps, a whole report."""

import dataclasses
import json
import shutil
from pathlib import Path

import experiment_parts
import pytest
import torch

import ada3d_fx.mm  # noqa: F401
from ada3d_fx import Ada3DError
from ada3d_fx.comparison import compare as comparison
from ada3d_fx.comparison import rows as comparison_rows
from ada3d_fx.comparison.compare import check_rows, compare, parse_variants
from ada3d_fx.comparison.run import ComparisonRun, Setup
from ada3d_fx.mm.build import build_runner
from ada3d_fx.mm.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    """A comparison of folds of noise."""
    folder = tmp_path_factory.mktemp("comparison")
    config = experiment_parts.config_of(folder)
    config.fold = 0
    experiment_parts.write(folder, config)
    for fold in (0, 1):
        shutil.copy(folder / "plain.pth", folder / f"plain{fold}.pth")
    return Setup(
        str(folder / "config.py"), recognizer_checkpoint=str(folder / "plain{fold}.pth"),
        work_dir=str(folder / "out"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def plain(setup):
    """The same without folds, in a folder of its own."""
    return dataclasses.replace(
        setup, recognizer_checkpoint=setup.recognizer_checkpoint.replace("{fold}", "0"),
        work_dir=setup.work_dir + "_plain",
    )  # fmt: skip


def report_of(setup, *args, **options):
    text = compare(setup, *args, **options)
    return json.loads(path_of(setup, "report.json").read_text()), text


def path_of(setup, *parts):
    return Path(setup.work_dir, *parts)


@pytest.fixture(scope="module")
def compared(setup):
    """The report of two folds, and the text for the console."""
    return report_of(setup, folds=[0, 1], pictures=2)


def test_comparison_leaves_its_report(setup, compared):
    report, text = compared
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
    assert path_of(setup, "policies.png").is_file() and path_of(setup, "usage.png").is_file()
    assert "random_ft" in text and "selection network" in text
    assert path_of(setup, "report.md").read_text().startswith("| policy")


def test_ada3d_in_a_comparison_is_an_unbroken_run(setup, compared, tmp_path):
    """The warm-up is trained once for all rows; going on from it changes nothing."""
    config = ComparisonRun(setup, seed=0, fold=0).config
    config.work_dir, config.experiment_name = str(tmp_path / "unbroken"), "unbroken"
    build_runner(config).train()
    ours = load_checkpoint(path_of(setup, "seed0_fold0", "ada3d", "epoch_3.pth"))
    theirs = load_checkpoint(tmp_path / "unbroken" / "epoch_3.pth")
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.slow
def test_variants_are_rows_with_other_entries(plain):
    """One shares the warm-up; one with another selection network, one with another estimator do not."""
    variants = parse_variants([
        ["dearer", "model.objective.gamma=3", "model.objective.entropy=0.1"],
        ["context", "model.selector.head.context=True"],
        [
            "soft", "model.objective.type=StraightThrough", "model.objective.reward_temperature=1",
            "model.objective.cost=usage",
        ],
    ])  # fmt: skip
    report, _ = report_of(dataclasses.replace(plain, variants=variants), ["ada3d"])
    assert [row["name"] for row in report["rows"]][-3:] == ["dearer", "context", "soft"]
    assert [gap["name"] for gap in report["differences"]][-3:] == [
        "ada3d - dearer",
        "ada3d - context",
        "ada3d - soft",
    ]
    logs = {
        name: "".join(p.read_text() for p in path_of(plain, "seed0", name).rglob("*.log"))
        for name in ("dearer", "context", "soft")
    }
    assert "gamma=3" in logs["dearer"] and "entropy=0.1" in logs["dearer"]
    assert "warmup, 2 iterations" not in logs["dearer"]
    assert "warmup, 2 iterations" in logs["context"] and "context=True" in logs["context"]
    assert "warmup, 2 iterations" in logs["soft"]


@pytest.mark.parametrize("variant", [["ada3d", "model.testing.greedy=count"], ["nothing"]])
def test_variants_need_a_name_of_their_own_and_entries(variant):
    with pytest.raises(Ada3DError, match="--variant takes a name of its own"):
        check_rows(["ada3d"], parse_variants([variant]))


def test_unknown_rows_are_named():
    with pytest.raises(Ada3DError, match="--rows: lower; there are upper, random"):
        check_rows(["upper", "lower"], {})


@pytest.mark.slow
def test_what_is_there_is_not_made_again_and_rows_can_be_added(plain):
    report_of(plain)
    out = path_of(plain, "seed0")
    before = (out / "ada3d" / "result.json").stat().st_mtime_ns
    report, _ = report_of(plain, ["all"])
    assert (out / "ada3d" / "result.json").stat().st_mtime_ns == before
    rows = {row["name"]: row for row in report["rows"]}
    assert set(rows) == {*comparison_rows.MAIN, *comparison_rows.PEERS, *comparison_rows.ABLATIONS}
    for name in comparison_rows.PEERS:
        assert rows[name]["gmacs"] <= rows["ada3d"]["gmacs"]
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
    same, _ = report_of(plain, ["all"], report_only=True)
    assert same["rows"] == report["rows"] and same["differences"] == report["differences"]


@pytest.mark.slow
def test_what_each_network_predicts_alone_and_with_the_other(plain, tmp_path):
    """Rows of a config whose networks predict together; each of its own weights and cost."""
    both = dataclasses.replace(
        plain, work_dir=str(tmp_path / "both"),
        cfg_options=["model.testing.predict_with=both", "model.training.classify=1"],
    )  # fmt: skip
    rows = ("upper", "ada3d", "random_ft", *comparison_rows.SCORES)
    report, _ = report_of(both, rows)
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


def test_rows_of_both_networks_are_for_configs_that_predict_with_both(plain):
    with pytest.raises(Ada3DError, match="selector_only: for a config with predict_with='both'"):
        compare(plain, ["ada3d", "selector_only"])


@pytest.mark.slow
def test_rows_of_a_config_whose_clips_exit(plain, tmp_path):
    """Ada3d's clips exit, and shuffled's as many; all others' are computed, each of them."""
    setup = dataclasses.replace(
        plain, work_dir=str(tmp_path / "exits"),
        cfg_options=["model.testing.predict_with=both", "model.training.classify=1",
                     "model.exit=1e-6"],
    )  # fmt: skip
    rows = ("upper", "ada3d", "shuffled", "selector_only", "upper_both")
    report, _ = report_of(setup, rows)
    found = {row["name"]: row for row in report["rows"]}
    for name in ("ada3d", "shuffled", "selector_only"):
        assert found[name]["exited"] == 1 and found[name]["frames"] == 0, name
    assert found["ada3d"]["accuracy"] == found["selector_only"]["accuracy"]
    for name in ("upper", "upper_both"):
        assert found[name]["exited"] == 0 and found[name]["frames"] == 4, name
    assert found["ada3d"]["gmacs"] == found["ada3d"]["gmacs_selector"]
    text = (tmp_path / "exits" / "report.md").read_text()
    assert "100.0%" in text
    weights = tmp_path / "exits" / "seed0" / "ada3d"
    before = [path.stat().st_mtime_ns for path in sorted(weights.glob("*.pth"))]
    other = dataclasses.replace(setup, cfg_options=[*setup.cfg_options[:2], "model.exit=1.0"])
    with pytest.raises(Ada3DError, match=r"ada3d/result.json: made from something else"):
        report_of(other, ["ada3d"])
    report, _ = report_of(dataclasses.replace(other, redo=True), ["ada3d"])
    assert report["rows"][0]["exited"] == 0  # tested again, not trained again
    assert before == [path.stat().st_mtime_ns for path in sorted(weights.glob("*.pth"))]


def test_the_recognizer_alone_needs_a_policy_of_every_clip(plain):
    model = {"exit": 0.9, "testing": {"predict_with": "both"}}
    with pytest.raises(Ada3DError, match="recognizer_only: clips that exit have no policy"):
        comparison.wanted_rows(["ada3d", "recognizer_only"], model)
    left = set(comparison_rows.ROWS) - set(comparison.wanted_rows(["all"], model))
    assert left == {"recognizer_only", "recognizer_shuffled"}
