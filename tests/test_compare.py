"""The comparison: equal budgets, equal steps, a whole report."""

import json
import sys

import compare
import mm_parts
import pytest
from mmaction.registry import MODELS

import ada3d_fx.mm  # noqa: F401
from ada3d_fx import Policy


def test_random_policies_are_matched_to_the_budget():
    model = MODELS.build(mm_parts.model(selector=None, training_stage="random"))
    target = 0.4 * model.full_macs / 1e9
    usage = compare.match_usage(model, 0.6, 0.2, target)
    assert usage["frames"] / usage["stages"] == pytest.approx(3)
    cost = model.price(Policy.random(model.plan, 20_000, **usage)).double().mean().item() / 1e9
    assert cost == pytest.approx(target, rel=0.02)


def test_usage_stops_at_everything():
    model = MODELS.build(mm_parts.model(selector=None, training_stage="random"))
    usage = compare.match_usage(model, 1.0, 0.9, 10 * model.full_macs / 1e9)
    assert usage == pytest.approx({"frames": 1.0, "stages": 1.0})


def test_random_ft_takes_as_many_steps():
    stages = [
        {"name": "warmup", "epochs": 3, "recognizer_lr": 0.1},
        {"name": "selection", "epochs": 4, "selector_lr": 0.2},
        {"name": "joint", "epochs": 5, "recognizer_lr": 0.3, "schedule": "cosine"},
    ]
    random = compare.random_stages(stages)
    assert [(s["name"], s["epochs"], s["recognizer_lr"]) for s in random] == [
        ("random", 3, 0.1),
        ("random", 9, 0.3),
    ]


def test_comparison_leaves_its_report(tmp_path, monkeypatch, capsys):
    mm_parts.write_clips(tmp_path)
    config = mm_parts.run_config(tmp_path, tmp_path / "work")
    config.dump(str(tmp_path / "config.py"))
    plain = MODELS.build(config.model)
    plain.init_weights()
    import torch

    torch.save(plain.recognizer.state_dict(), tmp_path / "plain.pth")
    arguments = [str(tmp_path / "config.py"), "--recognizer", str(tmp_path / "plain.pth")]
    arguments += ["--work-dir", str(tmp_path / "out"), "--pictures", "2"]
    monkeypatch.setattr(sys, "argv", ["compare.py", *arguments])
    assert compare.main() == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    rows = {row["name"]: row for row in report["rows"]}
    assert list(rows) == ["upper", "random", "random_ft", "ada3d"]
    assert rows["upper"]["frames"] == 4 and rows["upper"]["gmacs_selector"] == 0
    ours = rows["ada3d"]
    assert ours["gmacs"] == pytest.approx(ours["gmacs_recognizer"] + ours["gmacs_selector"])
    assert ours["gmacs_selector"] > 0
    assert report["gmacs_share"] == pytest.approx(ours["gmacs"] / rows["upper"]["gmacs"])
    assert {kind["kind"] for kind in report["kinds"]} == {"even", "odd"}
    assert {"command", "seed", "versions", "seconds"} <= set(report)
    assert "commit" in report["versions"]
    assert (tmp_path / "out" / "policies.png").is_file()
    assert "random_ft" in capsys.readouterr().out
    assert (tmp_path / "out" / "report.md").read_text().startswith("| policy")
