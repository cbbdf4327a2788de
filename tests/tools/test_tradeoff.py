"""The trade-off: trained at several budgets, and turned at test time."""

import json
import sys

import mm_parts
import pytest
import torch
import tradeoff
from mmaction.registry import MODELS
from mmengine.registry import init_default_scope

import ada3d_fx.mm  # noqa: F401


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tradeoff")
    init_default_scope("mmaction")
    mm_parts.write_clips(folder)
    config = mm_parts.run_config(folder, folder / "work", testing={"greedy": "count"})
    config.dump(str(folder / "config.py"))
    model = MODELS.build(config.model)
    model.init_weights()
    torch.save(model.state_dict(), folder / "model.pth")
    torch.save(model.recognizer.state_dict(), folder / "plain.pth")
    return folder, model


def run(monkeypatch, folder, *options):
    arguments = ["tradeoff.py", folder / "config.py", "--work-dir", "out", *options]
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", list(map(str, arguments)))
    assert tradeoff.main() == 0
    assert (folder / "out" / "tradeoff.png").read_bytes()[:4] == b"\x89PNG"
    return json.loads((folder / "out" / "tradeoff.json").read_text())["rows"]


def test_the_dial_of_one_checkpoint(work, monkeypatch, capsys):
    folder, model = work
    full = (model.full_macs + model.selector_macs) / 1e9
    targets = f"{0.3 * full},{0.6 * full}"
    rows = run(monkeypatch, folder, "--checkpoint", folder / "model.pth", "--targets", targets)
    assert rows[0]["threshold"] > rows[1]["threshold"]
    for row, share in zip(rows, (0.3, 0.6)):
        assert row["gmacs"] == pytest.approx(share * full, rel=0.3)
        assert 0 <= row["accuracy"] <= 100
    assert "target GMACs" in capsys.readouterr().out


@pytest.mark.slow
def test_a_sweep_trains_each_value_and_shares_the_warm_up(work, monkeypatch):
    folder, _ = work
    rows = run(monkeypatch, folder, "--recognizer", folder / "plain.pth", "--gammas", "0.5,4")
    assert [(row["setting"], row["name"]) for row in rows] == [
        (f"gamma {gamma}", name) for gamma in ("0.5", "4") for name in tradeoff.SWEPT
    ]
    assert (folder / "out" / "seed0" / "warmup" / "done").is_file()
    assert not list((folder / "out").glob("gamma_*/seed0/warmup"))
    curves = tradeoff.curves(rows)
    assert len(curves["upper"]) == 1 and len(curves["ada3d"]) >= 1


@pytest.mark.parametrize(
    "wrong", [["--gammas", "a,b"], ["--targets", "0.1"], [], ["--gammas", "1", "--seeds", "x"]]
)
def test_bad_options_are_told(work, monkeypatch, capsys, wrong):
    monkeypatch.setattr(sys, "argv", ["tradeoff.py", str(work[0] / "config.py"), *wrong])
    with pytest.raises(SystemExit):
        tradeoff.main()
    assert "error" in capsys.readouterr().err
