"""Prices, policies, verdicts and files; no data and no checkpoints are read."""

import csv
import json

import mm_parts
import pytest
import torch
from mmengine.config import Config

from ada3d_fx import Ada3DError, Policy, convert, price
from ada3d_fx.cost.selector import selector_price
from ada3d_fx.experiments.listed import compare_listed
from ada3d_fx.experiments.price_report import PAPERS_SELECTOR
from ada3d_fx.experiments.pricing import Output, analyze
from ada3d_fx.mm.build import build_recognizer, build_selector
from ada3d_fx.mm.zoo import listed_flops
from ada3d_fx.report import records


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """An Ada3D config whose data and checkpoint do not exist."""
    made = Config({
        "model": mm_parts.model(recognizer_checkpoint="nowhere.pth"),
        "train_dataloader": {"dataset": {"type": "VideoDataset", "ann_file": "nowhere.txt", "pipeline": []}},
    })  # fmt: skip
    path = tmp_path_factory.mktemp("pricing") / "config.py"
    made.dump(str(path))
    return str(path)


@pytest.fixture(scope="module")
def net():
    return convert(build_recognizer(mm_parts.recognizer()), mm_parts.CLIP_SHAPE)


def test_prices_policies_and_files(config, net, tmp_path):
    paths = {kind: str(tmp_path / f"out.{kind}") for kind in ("json", "csv", "png")}
    policies = ["full", "1010/10100", "3/00000", "random:frames=0.5,stages=0.2,seed=3,n=50"]
    output = Output(policies, executed=2, times=True, json=paths["json"], csv=paths["csv"],
                    picture=paths["png"])  # fmt: skip
    text = analyze(config, views=10, output=output)
    for word in ("stages: K=5", "with selection", "verdict: ", "a video of 10 clips", "executed",
                 "SmallConvNet on 16x16", "not counted", "look-up, one clip"):  # fmt: skip
        assert word in text, word
    found = json.loads((tmp_path / "out.json").read_text())
    full = int(price(net, Policy.full(net.plan, 1)))
    rows = {row["name"]: row for row in found["policies"]}
    assert list(rows) == policies
    assert found["prices"][-1]["full"] == full == found["payoff"]["original"]
    assert rows["full"]["gmacs"] == pytest.approx(full / 1e9)
    literal = Policy(torch.tensor([[1, 0, 1, 0]]).bool(), torch.tensor([[1, 0, 1, 0, 0]]).bool())
    assert rows["1010/10100"]["gmacs"] == pytest.approx(int(price(net, literal)) / 1e9)
    random = Policy.random(net.plan, 50, 0.5, 0.2, torch.Generator().manual_seed(3))
    row = rows[policies[-1]]
    assert row["gmacs"] == pytest.approx(price(net, random).double().mean().item() / 1e9)
    assert row["total"] == pytest.approx(row["gmacs"] + found["selector"] / 1e9)
    assert row["per_video"] == pytest.approx(10 * row["total"])
    assert row["distinct"] == random.num_distinct
    assert row["executed"]["macs"] <= row["executed"]["price"]
    assert {"verdict", "pays", "usages"} <= set(found["payoff"])
    with (tmp_path / "out.csv").open() as file:
        assert [row["name"] for row in csv.DictReader(file)] == policies
    assert (tmp_path / "out.png").read_bytes()[:4] == b"\x89PNG"


def test_selector_and_convention(config, tmp_path):
    def result(**options):
        analyze(config, output=Output(json=str(tmp_path / "a.json")), **options)
        return json.loads((tmp_path / "a.json").read_text())

    whole, bare = result(), result(convention="paper")
    assert bare["selector"] < whole["selector"]
    assert bare["payoff"]["original"] < whole["payoff"]["original"]
    off = result(selector=False)
    assert off["selector"] == 0 and off["payoff"]["break_even_frames"] == 1
    longer = result(clip_shape=(3, 8, 32, 32))
    assert longer["clip_shape"] == [3, 8, 32, 32] and len(longer["prices"]) == 8
    assert longer["selector"] > whole["selector"]


def test_every_policy(config, net, tmp_path):
    analyze(config, output=Output(every=True, csv=str(tmp_path / "all.csv")))
    with (tmp_path / "all.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 2**5
    every = Policy(
        torch.tensor([[i < int(row["frames"]) for i in range(4)] for row in rows]),
        torch.tensor([[bit == "1" for bit in row["stages"]] for row in rows]),
    )
    assert [int(row["macs"]) for row in rows] == price(net, every).tolist()


def test_recorded_policies(config, net, tmp_path):
    policy = Policy.random(net.plan, 5, generator=torch.Generator().manual_seed(0))
    clips = [
        {"video": f"{i}.mp4", "view": 0, "label": i, "predicted": 0, "macs": 1, "selector_macs": 0,
         **records.policy_words(policy.frames[i], policy.stages[i])}
        for i in range(5)
    ]  # fmt: skip
    for kind in ("json", "csv"):
        path = tmp_path / f"policies.{kind}"
        records.write_policies(path, clips)
        assert records.read_clips(path) == clips
        analyze(config, output=Output([str(path)], json=str(tmp_path / "a.json")))
        (row,) = json.loads((tmp_path / "a.json").read_text())["policies"]
        assert row["clips"] == 5
        assert row["gmacs"] == pytest.approx(price(net, policy).double().mean().item() / 1e9)


@pytest.mark.parametrize("exiting", [1, 3])
def test_recorded_clips_that_exit_cost_nothing(config, net, tmp_path, exiting):
    policy = Policy.random(net.plan, 3, generator=torch.Generator().manual_seed(0))
    kept = torch.arange(3) >= exiting
    clips = [
        {**dict.fromkeys(records.POLICY_FIELDS, 0), "video": "x",
         **records.policy_words(policy.frames[i] & kept[i], policy.stages[i] & kept[i])}
        for i in range(3)
    ]  # fmt: skip
    path = tmp_path / "policies.csv"
    records.write_policies(path, clips)
    output = Output([str(path)], json=str(tmp_path / "a.json"), executed=4)
    text = analyze(config, output=output)
    (row,) = json.loads((tmp_path / "a.json").read_text())["policies"]
    assert row["clips"] == 3 and row["exited"] == exiting / 3 and f"{exiting / 3:.1%}" in text
    cost = (price(net, policy) * kept).double().mean().item() / 1e9
    assert row["gmacs"] == pytest.approx(cost)
    assert row["frames"] == pytest.approx((policy.num_frames * kept).double().mean().item())
    assert ("executed" in row) == (exiting < 3)


def test_a_plain_config_gets_the_papers_selector(tmp_path):
    Config({"model": mm_parts.recognizer()}).dump(str(tmp_path / "plain.py"))
    text = analyze(str(tmp_path / "plain.py"), clip_shape=(3, 4, 32, 32))
    assert "mobilenet_v2 on 112x112 (the paper's)" in text
    assert "verdict: cannot pay with this selection network: " in text


def test_clips_of_other_channels_need_no_selector(tmp_path):
    model = mm_parts.recognizer()
    model["backbone"]["in_channels"] = 17
    path = str(tmp_path / "pose.py")
    Config({"model": model}).dump(path)
    with pytest.raises(Ada3DError, match="try --selector off"):
        analyze(path, clip_shape=(17, 4, 32, 32))
    analyze(path, clip_shape=(17, 4, 32, 32), selector=False)


def test_what_mmaction2_lists():
    entries = list(listed_flops(["x3d", "c3d"]))
    assert [(round(e.giga, 2), e.clip_shape) for e in entries] == [
        (2.97, (3, 13, 160, 160)), (6.49, (3, 16, 224, 224)), (38.5, (3, 16, 112, 112)),
    ]  # fmt: skip
    with pytest.raises(Ada3DError, match="no metafile for 'nothing'"):
        list(listed_flops(["nothing"]))


def test_the_listed_figures_at_the_size_that_gives_them():
    (line,) = [line for line in compare_listed(["c3d"]).splitlines() if "c3d" in line]
    cells = [cell.strip() for cell in line.split("|")]
    assert cells[4:6] == ["16x112x112", "38.5"] and 0.99 < float(cells[7]) < 1.01


def test_the_papers_selection_network_costs_what_it_prints(net):
    """Sec. 4.1: 0.08 GFLOPs per frame at 112x112."""
    selector = build_selector(PAPERS_SELECTOR, net.plan)
    per_frame = selector_price(selector, (3, 4, 256, 256), "paper") / 4
    assert round(per_frame / 1e9, 2) == 0.08
