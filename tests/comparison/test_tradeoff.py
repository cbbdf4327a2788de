"""The trade-off: trained at several values, and by the threshold of one checkpoint."""

import dataclasses
import json

import experiment_parts
import pytest
from mmaction.registry import MODELS

import ada3d_fx.mm  # noqa: F401
from ada3d_fx.comparison.run import Setup
from ada3d_fx.comparison.tradeoff import SWEPT, WITH_EXIT, curves, sweep_runs, tradeoff
from ada3d_fx.mm.config import load_config
from ada3d_fx.progress import Console
from ada3d_fx.provenance.made_from import MadeOtherwise


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tradeoff")
    return folder, experiment_parts.write(
        folder, experiment_parts.config_of(folder, testing={"greedy": "count"})
    )


def rows_of(folder, setup, *args, **options):
    text = tradeoff(setup, *args, **options)
    out = folder / setup.work_dir
    assert (out / "tradeoff.png").read_bytes()[:4] == b"\x89PNG"
    return json.loads((out / "tradeoff.json").read_text())["rows"], text


@pytest.mark.parametrize("calibrate_on", ["train", "val"])
def test_the_threshold_of_one_checkpoint(work, monkeypatch, calibrate_on):
    folder, model = work
    monkeypatch.chdir(folder)
    full = (model.full_macs + model.selector_macs) / 1e9
    setup = Setup("config.py", work_dir=f"thresholds_{calibrate_on}", calibrate_on=calibrate_on)
    targets = [0.3 * full, 0.6 * full]
    rows, text = rows_of(folder, setup, targets, "budget", "model.pth")
    assert rows[0]["threshold"] > rows[1]["threshold"]
    for row, share in zip(rows, (0.3, 0.6)):
        assert row["gmacs"] == pytest.approx(share * full, rel=0.3)
        assert 0 <= row["accuracy"] <= 100
    assert "target GMACs" in text


def test_a_curve_with_exits_beside_the_other(work, monkeypatch, tmp_path):
    """Of one checkpoint, at the same costs; below what every clip's policy costs, alone."""
    folder, _ = work
    monkeypatch.chdir(folder)
    options = [
        "model.exit=0.5",
        "model.training.classify=1",
        "model.testing.predict_with=both",
        *(
            f"{name}_dataloader.dataset.pipeline.{step}"
            for name in ("val", "test")
            for step in ("1.test_mode=True", "3.flip_ratio=0")
        ),
    ]  # nothing is drawn
    setup = Setup("config.py", options, work_dir=str(tmp_path / "exits"), calibrate_on="val")
    config = load_config("config.py", options)
    model = MODELS.build(config.model)
    least, full = model.selector_macs / 1e9, (model.full_macs + model.selector_macs) / 1e9
    said, console = [], Console()
    monkeypatch.setattr(console, "say", said.append)
    rows, text = rows_of(folder, setup, [least, 0.5 * full], "budget", "model.pth", console=console)
    names = [row["name"] for row in rows]
    assert names == [WITH_EXIT, "ada3d", WITH_EXIT]
    assert rows[0]["exited"] == 1 and rows[0]["gmacs"] == pytest.approx(least)
    assert "exit" not in rows[1] and rows[1]["exited"] == 0
    assert rows[0]["exit"] < rows[2]["exit"] and rows[0]["threshold"] > rows[2]["threshold"]
    assert any(line.startswith("without exits, a mean of") for line in said)
    assert "exit above" in text and "100.0%" in text
    assert set(curves(rows)) == {"ada3d", WITH_EXIT} and len(curves(rows)[WITH_EXIT]) == 2


@pytest.mark.slow
def test_a_sweep_trains_each_value_and_shares_the_warm_up(work, monkeypatch):
    folder, _ = work
    monkeypatch.chdir(folder)
    setup = Setup("config.py", recognizer_checkpoint="plain.pth", work_dir="out")
    rows, _ = rows_of(folder, setup, [0.5, 4], "gamma")
    assert [(row["setting"], row["name"]) for row in rows] == [
        (f"gamma {gamma}", name) for gamma in ("0.5", "4") for name in SWEPT
    ]
    assert (folder / "out" / "seed0" / "warmup" / "done").is_file()
    assert not list((folder / "out").glob("gamma_*/seed0/warmup"))
    found = curves(rows)
    assert len(found["upper"]) == 1 and len(found["ada3d"]) >= 1
    assert [row["made_by"][0]["rows"] for row in rows] == [[name] for name in SWEPT] * 2
    before = [path.stat().st_mtime_ns for path in sorted((folder / "out").rglob("*.pth"))]
    again, _ = rows_of(folder, setup, [0.5, 4], "gamma")
    assert again == rows
    changed = dataclasses.replace(setup, cfg_options=["train_dataloader.batch_size=2"])
    with pytest.raises(MadeOtherwise, match=r"gamma_4/seed0/ada3d: made from something else"):
        tradeoff(changed, [0.5, 4], "gamma")
    assert before == [path.stat().st_mtime_ns for path in sorted((folder / "out").rglob("*.pth"))]


def test_values_that_print_alike_have_folders_of_their_own(work, monkeypatch):
    """And nothing is trained in the folder of another value."""
    folder, _ = work
    monkeypatch.chdir(folder)
    setup = Setup("config.py", recognizer_checkpoint="plain.pth", work_dir="alike")
    runs = [sweep_runs(setup, value, "gamma", [0], [None], folder, Console())[0]
            for value in (2.0, 0.1234567, 0.1234568)]  # fmt: skip
    names = [run.folder.parent.name for run in runs]
    assert names == ["gamma_2", "gamma_0.1234567", "gamma_0.1234568"]
