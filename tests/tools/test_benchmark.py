"""The benchmark times what it says, checks that it times the same thing, and names bad options."""

import json

import benchmark
import pytest
import torch
from models import CLIP, resnet3d

import ada3d_fx
from ada3d_fx import Ada3DError

CONFIG = "mmaction_configs/demo_stage0.py"


def run(monkeypatch, *options):
    monkeypatch.setattr("sys.argv", ["benchmark.py", *options])
    return benchmark.main()


@pytest.mark.parametrize("config", [CONFIG, "mmaction_configs/ada3d_demo.py"])
def test_rows_of_one_interleaved_run(monkeypatch, tmp_path, capsys, config):
    out = tmp_path / "times.json"
    options = [config, "--clips", "2", "--shape", "3", "8", "32", "32", "--repeats", "1"]
    assert run(monkeypatch, *options, "--budget", "7/16:1/5", "--json", str(out)) == 0
    result = json.loads(out.read_text())
    names = [row["name"] for row in result["rows"]]
    assert names[:2] == ["dense, eager", "dense, channels_last_3d"]
    assert names[2:] == [
        "packed, full policy",
        "packed, all stages 2D",
        "packed, 7 of 16 frames, 2 of 10 stages",
    ]
    assert result["relative_difference_of_full_policy"] < 1e-4
    assert all(row["seconds"] > 0 for row in result["rows"])
    assert result["rows"][2]["macs"] == 1 > result["rows"][3]["macs"] > result["rows"][4]["macs"]
    assert "packed, all stages 2D" in capsys.readouterr().out


def test_budgets_are_kept_to_the_decision():
    plan = ada3d_fx.convert(resnet3d("i3d"), CLIP).plan
    policy = benchmark.budget_policy(plan, 4, 23 / 32, 9 / 20, torch.Generator().manual_seed(0))
    assert int(policy.num_frames.sum()) == 23 and int(policy.num_stages.sum()) == 9


@pytest.mark.parametrize("text", ["0.5", "a:b", "1/0:1", "0.5:0.5:0.5"])
def test_bad_budgets_are_named(text):
    with pytest.raises(Ada3DError, match="FRAMES:STAGES"):
        benchmark.parse_budget(text)


def test_a_missing_config_is_named(monkeypatch, capsys):
    assert run(monkeypatch, "nowhere.py") == 2
    assert "nowhere.py" in capsys.readouterr().err
