"""The main job as the README starts it, from clips to the table."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def demo(*options):
    return subprocess.run(
        ["bash", str(ROOT / "tools" / "demo.sh"), *options],
        env={**os.environ, "ADA3D_PYTHON": sys.executable, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_the_demo_makes_everything_in_a_folder(tmp_path):
    folder = os.path.relpath(tmp_path / "demo", ROOT)  # relative, as in the README
    done = demo("--small", folder)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads((tmp_path / "demo" / "report.json").read_text())
    assert [row["name"] for row in report["rows"]] == ["upper", "random", "random_ft", "ada3d"]
    assert {kind["kind"] for kind in report["kinds"]} == {"static", "motion"}
    assert f"done: {folder}/report.json" in done.stdout
    for name in ("report.md", "policies.png", "usage.png"):
        assert (tmp_path / "demo" / name).stat().st_size > 0
    everything = done.stdout + done.stderr
    assert len(everything.splitlines()) <= 60
    assert "\x1b" not in everything and "Warning" not in everything
    assert "joint: 5 iterations in " in everything
    again = demo("--small", folder)  # everything is there
    assert again.returncode == 0 and " iterations in " not in again.stdout + again.stderr


@pytest.mark.parametrize("options", [["--tiny"], ["a", "b"]])
def test_the_demo_refuses_what_it_does_not_know(options):
    done = demo(*options)
    assert done.returncode == 2 and "expected [--small] [FOLDER]" in done.stderr
