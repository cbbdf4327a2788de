"""Rows with one policy for all clips: what is tried, what is found, and what is trained under it."""

import dataclasses
import json
import math
from pathlib import Path

import experiment_parts
import pytest
import torch

import ada3d_fx.mm  # noqa: F401
from ada3d_fx import Ada3DError
from ada3d_fx.comparison import fixed_policies
from ada3d_fx.comparison.compare import compare
from ada3d_fx.comparison.fixed_policies import (
    LEAST_SHARE,
    candidates_of,
    evenly,
    frame_patterns,
    ranked,
    stage_sets,
)
from ada3d_fx.comparison.rows import FULL, PEERS
from ada3d_fx.comparison.run import ComparisonRun, Setup
from ada3d_fx.cost.price import price_table
from ada3d_fx.mm.build import build_runner
from ada3d_fx.mm.checkpoint import load_weights


def config_of(folder):
    """Greedy policies keep two of four frames and all stages, since the selection network is frozen."""
    config = experiment_parts.config_of(folder, testing={"greedy": "count"})
    config.model.selector.frame_prob = 0.5
    for phase in config.custom_hooks[0]["phases"]:
        phase["selector_lr"] = 0.0
    return config


def setup_of(folder, **options):
    return Setup(
        str(folder / "config.py"), recognizer_checkpoint=str(folder / "plain.pth"),
        work_dir=str(folder / "out"), **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A comparison with the rows of one policy."""
    folder = tmp_path_factory.mktemp("fixed")
    experiment_parts.write(folder, config_of(folder))
    compare(setup_of(folder), ["ada3d", *PEERS])
    return folder


@pytest.fixture(scope="module")
def table(made):
    """The prices of its recognizer: 4 frames, 5 stages."""
    return price_table(ComparisonRun(setup_of(made), seed=0).model.recognizer)


def result_of(folder, name):
    return json.loads((folder / "out" / "seed0" / name / "result.json").read_text())


# ------------------------------------------------------------------------------ what is tried


@pytest.mark.parametrize("units", [1, 2, 5, 8, 16, 32])
def test_patterns_keep_as_many_units_as_they_should(units):
    for kept in range(1, units + 1):
        patterns = frame_patterns(units, kept)
        assert len(set(patterns)) == len(patterns)
        assert all(len(pattern) == units and sum(pattern) == kept for pattern in patterns)
        if (every := math.comb(units, kept)) <= 30:
            assert len(patterns) == every
    assert "".join("01"[bit] for bit in frame_patterns(16, 4)[0]) == "0010001000100010"


def test_sets_of_few_stages_are_all_and_of_many_a_few():
    assert len(set(stage_sets(5))) == 32 and stage_sets(0) == [()]
    many = stage_sets(16)
    assert len(set(many)) == len(many) < 64
    assert {sum(on) for on in many} == set(range(17))
    assert (True,) * 3 + (False,) * 13 in many and (False,) * 13 + (True,) * 3 in many


def test_what_is_tried_costs_what_is_allowed_or_little_less(table):
    for share in (0.3, 0.5, 0.8, 1.0, 1.1):
        allowed = round(share * table.full)
        found = candidates_of(table, allowed)
        prices = table.look_up(found.policies.num_frames, found.policies.stages)
        assert torch.equal(prices, found.macs)
        assert (found.macs <= allowed).all() and (found.macs >= LEAST_SHARE * allowed).all()
        assert len(set(found.words)) == len(found.words)
    every = {(n, on) for n, on, macs in table.every() if 0.85 * allowed <= macs <= allowed}
    assert {tuple(row) for row in zip(found.policies.num_frames.tolist(),
            map(tuple, found.policies.stages.tolist()))} == every  # fmt: skip


def test_a_price_that_nothing_has_is_met_from_below_or_by_the_cheapest(table):
    cheapest = min(macs for _, _, macs in table.every())
    assert set(candidates_of(table, cheapest // 2).macs.tolist()) == {cheapest}
    most = candidates_of(table, 3 * table.full).macs
    assert most.max() == table.full and most.min() >= LEAST_SHARE * table.full


def test_evenly_spaced_frames_are_as_many_as_the_price_allows(table):
    full = table.full / 1e9
    assert evenly(table, full)["policy"] == "1111/11111"
    less = evenly(table, full * 0.999)
    assert less["policy"] == "1011/11111" and less["gmacs"] < less["allowed_gmacs"]
    least = evenly(table, full / 100)
    assert least["policy"] == "0010/11111" and least["gmacs"] > least["allowed_gmacs"]


def test_what_is_right_most_often_comes_first_and_of_equals_the_cheaper():
    assert ranked(torch.tensor([3, 5, 5, 4]), torch.tensor([1, 9, 7, 1])) == [2, 1, 3, 0]


# ------------------------------------------------------------------------------ what is found


def test_the_policy_that_is_right_for_all_clips_is_found(tmp_path):
    """The labels are what the recognizer predicts under one policy, and not what under others."""
    config = config_of(tmp_path)
    experiment_parts.write(tmp_path, config)
    phases = config.custom_hooks[0]["phases"]
    config.custom_hooks[0]["phases"] = phases[1:]  # no warm-up: the search is of plain.pth
    config.train_cfg.max_epochs = 2
    pipeline = (
        config.test_dataloader.dataset.pipeline
    )  # without augmentation: clips are the same twice
    pipeline[1]["test_mode"] = True
    pipeline.remove(next(step for step in pipeline if step["type"] == "Flip"))
    config.dump(str(tmp_path / "config.py"))
    run = ComparisonRun(setup_of(tmp_path), seed=0)
    allowed = run.model.full_macs * 0.6 / 1e9
    tried = candidates_of(price_table(run.model.recognizer), round(allowed * 1e9)).words
    label_by(tmp_path, config, tried[-1])
    run = ComparisonRun(setup_of(tmp_path), seed=0)
    found = fixed_policies.search(run, allowed, FULL)
    assert found["accuracy"] == 100 and found["clips"] == 8 and found["tried"] == len(tried)
    assert found["best"][1]["accuracy"] < 100 and found["policy"] == tried[-1]


def label_by(folder, config, words):
    """Write the list anew: labels are the predictions of plain.pth under a policy."""
    config.model.fixed_policy, config.model.testing.policy = words, "fixed"
    config.work_dir, config.experiment_name = str(folder / "labels"), "labels"
    runner = build_runner(config)
    load_weights(runner.model, folder / "plain.pth")
    samples = [
        one for batch in runner.test_dataloader for one in runner.model.eval().test_step(batch)
    ]
    labels = [int(sample.pred_score.argmax()) for sample in samples]
    (folder / "list.txt").write_text("".join(f"{i}.mp4 {n}\n" for i, n in enumerate(labels)))


# ------------------------------------------------------------------------------ the rows


@pytest.mark.parametrize("name", PEERS)
def test_all_clips_of_a_row_have_its_policy_at_ada3ds_price(made, name):
    result, ours = result_of(made, name), result_of(made, "ada3d")["row"]
    told = result["told"]["fixed_policy"]
    assert {f"{clip['frames']}/{clip['stages']}" for clip in result["clips"]} == {told["policy"]}
    assert result["row"]["gmacs"] == pytest.approx(told["gmacs"], rel=1e-5)
    assert told["gmacs"] <= told["allowed_gmacs"] == ours["gmacs"]
    assert result["row"]["gmacs_selector"] == 0


def test_the_recognizer_is_trained_from_the_warm_up_under_the_policy(made):
    log = "".join(path.read_text() for path in (made / "out/seed0/static_ft").rglob("*.log"))
    assert "fixed, 4 iterations" in log and "warmup, 2 iterations" not in log
    kept = result_of(made, "static_ft")["told"]["fixed_policy"]["policy"].partition("/")[0]
    assert f"kept_frames: {kept.count('1')}.0000" in log


def test_the_report_names_the_policies(made):
    report = json.loads((made / "out" / "report.json").read_text())
    (found,) = report["fixed_policies"]["static_ft"]
    text = (made / "out" / "report.txt").read_text()
    assert f"static_ft (seed 0): {found['policy']} for all clips" in text
    assert f"of {found['tried']} policies it is right most often" in text
    assert found["tried"] > 1 and found["clips"] == 8 and len(found["best"]) > 1
    assert list(report["fixed_policies"]) == list(PEERS) and "upper_small (seed 0)" in text


def test_a_search_is_used_again_and_one_of_other_clips_is_told(made, monkeypatch):
    def states():
        paths = [*made.rglob("result.json"), *made.rglob("found.json"), *made.rglob("*.pth")]
        return {path: path.stat().st_mtime_ns for path in paths}

    before = states()
    compare(setup_of(made), PEERS)
    assert states() == before
    monkeypatch.setattr(fixed_policies, "CLIPS", 3)  # of a batch of four
    with pytest.raises(Ada3DError, match=r"static_search: made from .*\n  search.clips: 512 -> 3"):
        compare(setup_of(made), PEERS)
    assert states() == before
    compare(dataclasses.replace(setup_of(made), redo=True), PEERS)
    old, new = (Path(made, "out/seed0", name) for name in ("static_search.old-1", "static_search"))
    assert old.is_dir() and json.loads((new / "found.json").read_text())["found"]["clips"] == 3
    assert result_of(made, "static_ft")["told"]["fixed_policy"]["clips"] == 3
    whole = (new / "found.json").read_text()
    (new / "found.json").write_text(whole[:50])  # cut off: it is searched again
    compare(setup_of(made), PEERS)
    assert (new / "found.json").read_text() == whole
