"""What was decided for videos, from the command line."""

import json

import command_lines
import experiment_parts

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
