"""What was decided for videos, as a picture, an animation and rows."""

import json
import subprocess
import sys
from pathlib import Path

import mm_parts
import pytest
import torch
import visualize_policy
from mmaction.registry import MODELS

import ada3d_fx.mm  # noqa: F401


@pytest.fixture
def work(tmp_path):
    mm_parts.write_clips(tmp_path, count=3)
    config = mm_parts.run_config(tmp_path, tmp_path / "work")
    config.dump(str(tmp_path / "config.py"))
    model = MODELS.build(config.model)
    model.init_weights()
    torch.save(model.state_dict(), tmp_path / "model.pth")
    return tmp_path


def run(monkeypatch, folder, videos, *options):
    arguments = ["x", folder / "config.py", folder / "model.pth", *videos, *options]
    monkeypatch.setattr(sys, "argv", list(map(str, arguments)))
    return visualize_policy.main()


def test_pictures_and_rows(work):
    videos = [work / "videos" / f"{i}.mp4" for i in range(2)]
    (work / "list.txt").unlink()  # no list is needed
    paths = {"--out": work / "p.png", "--gif": work / "p.gif", "--json": work / "p.json"}
    options = [str(part) for pair in paths.items() for part in pair]
    tool, before = Path(visualize_policy.__file__), set(work.iterdir())
    done = subprocess.run(  # a process of its own: nothing is registered beforehand
        [sys.executable, "-W", "ignore", tool, work / "config.py", work / "model.pth", *videos,
         *options],
        capture_output=True, text=True, env={"PYTHONPATH": str(tool.parents[1]), "PATH": ""},
        cwd=work,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert set(work.iterdir()) - before == set(paths.values())
    assert paths["--out"].read_bytes()[:4] == b"\x89PNG"
    assert paths["--gif"].read_bytes()[:3] == b"GIF"
    rows = json.loads(paths["--json"].read_text())
    assert [row["video"] for row in rows] == ["0.mp4", "1.mp4"]
    assert all(len(row["frames"]) == 4 and len(row["stages"]) == 5 for row in rows)
    assert all(row["gmacs"] > 0 for row in rows)
    assert "1.mp4" in done.stdout


def test_the_dial_is_turned_first(work, monkeypatch):
    videos = [work / "videos" / f"{i}.mp4" for i in range(3)]
    dear, cheap = work / "dear.json", work / "cheap.json"
    count = ["--cfg-options", "model.testing.greedy=count"]
    for path, budget in ((dear, 1.0), (cheap, 0.0009)):
        options = ["--out", work / "p.png", "--json", path, "--budget", budget]
        assert run(monkeypatch, work, videos, *options, *count) == 0
    cost = [sum(r["gmacs"] for r in json.loads(p.read_text())) for p in (dear, cheap)]
    assert cost[1] < cost[0]


def test_a_missing_video_is_named(work, monkeypatch, capsys):
    assert run(monkeypatch, work, ["nowhere.mp4"]) == 2
    assert "no video at nowhere.mp4" in capsys.readouterr().err
