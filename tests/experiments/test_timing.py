"""The benchmark times what it says, and checks that it times the same thing."""

import json

import pytest
import torch
from models import CLIP, resnet3d

import ada3d_fx
from ada3d_fx import Ada3DError
from ada3d_fx.experiments import timing

CONFIG = "mmaction_configs/demo_stage0.py"


@pytest.mark.parametrize("config", [CONFIG, "mmaction_configs/ada3d_demo.py"])
def test_rows_of_one_interleaved_run(tmp_path, config):
    out = tmp_path / "times.json"
    found = timing.measure(
        config, clip_shape=(3, 8, 32, 32), clips=2, usages=[(7 / 16, 1 / 5)], repeats=1,
        json=str(out),
    )  # fmt: skip
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
    assert "packed, all stages 2D" in timing.text(found)


def test_usages_are_kept_to_the_decision():
    plan = ada3d_fx.convert(resnet3d("i3d"), CLIP).plan
    policy = timing.usage_policy(plan, 4, 23 / 32, 9 / 20, torch.Generator().manual_seed(0))
    assert int(policy.num_frames.sum()) == 23 and int(policy.num_stages.sum()) == 9


def test_nothing_to_time_is_told():
    with pytest.raises(Ada3DError, match="--clips 0"):
        timing.measure(CONFIG, clips=0)


@pytest.mark.parametrize("name", ["foo", "cuda:77", "meta:x"])
def test_a_device_that_is_none_is_told(name):
    with pytest.raises(Ada3DError, match=f"--device {name}"):
        timing.usable_device(name)
    assert timing.usable_device("cpu") == torch.device("cpu")
