"""What was decided for videos, from the command line."""

import json
import os
import subprocess
import sys

import command_lines
import experiment_parts
import pytest

import ada3d_fx.mm  # noqa: F401


def test_pictures_and_rows(tmp_path):
    experiment_parts.write(tmp_path, experiment_parts.config_of(tmp_path, count=3))
    videos = [tmp_path / "videos" / f"{i}.mp4" for i in range(2)]
    (tmp_path / "list.txt").unlink()  # no list is needed
    paths = {
        "--out": tmp_path / "p.png",
        "--gif": tmp_path / "p.gif",
        "--json": tmp_path / "p.json",
    }
    options = [part for pair in paths.items() for part in pair]
    before = set(tmp_path.iterdir())
    # in a process of its own, nothing is registered beforehand
    done = command_lines.start(
        "visualize_policy", "config.py", "model.pth", *videos, *options, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert set(tmp_path.iterdir()) - before == set(paths.values())
    assert paths["--out"].read_bytes()[:4] == b"\x89PNG"
    assert paths["--gif"].read_bytes()[:3] == b"GIF"
    rows = json.loads(paths["--json"].read_text())
    assert [row["video"] for row in rows] == ["0.mp4", "1.mp4"]
    assert all(len(row["frames"]) == 4 and len(row["stages"]) == 5 for row in rows)
    assert all(row["gmacs"] > 0 for row in rows)
    assert "1.mp4" in done.stdout and not done.stderr


@pytest.mark.slow
def test_videos_of_any_name_in_any_locale(tmp_path):
    experiment_parts.write(tmp_path, experiment_parts.config_of(tmp_path, count=2))
    names = ["vid\u00e9o_²\u65e5$a$.mp4".encode(), b"caf\xe9.mp4"]
    for i, name in enumerate(names):
        (tmp_path / "videos" / f"{i}.mp4").rename(tmp_path / os.fsdecode(name))
    tool = str(command_lines.ROOT / "tools" / "visualize_policy.py")
    done = subprocess.run(
        [sys.executable, tool, "config.py", "model.pth", *names, "--out", b"\xc3\xa9.png",
         "--json", b"\xc3\xa9.json"],
        capture_output=True, cwd=tmp_path, check=False,
        env={"PYTHONPATH": str(command_lines.ROOT), "PATH": os.environ["PATH"], "LC_ALL": "C",
             "PYTHONUTF8": "0"},
    )  # fmt: skip
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert all(name in done.stdout for name in names)
    assert len(json.loads((tmp_path / "\u00e9.json").read_text())) == 2
    assert (tmp_path / "\u00e9.png").is_file()
