"""The check command: which checks it runs, and in how many processes."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Stands for Python: says what it is asked to run; its machine has three cores.
FAKE = """#!/usr/bin/env bash
if [ "$1" = -c ]; then echo 3; else echo "run: $*"; fi
[ "$2" != "${FAILING:-}" ]
"""


def check(tmp_path, *arguments, **environment):
    python = tmp_path / "python"
    python.write_text(FAKE)
    python.chmod(0o755)
    return subprocess.run(
        ["bash", str(ROOT / "tools" / "run_tests.sh"), *arguments],
        env={**os.environ, "ADA3D_PYTHON": str(python), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def lines(done):
    return [line.removeprefix("run: -m ") for line in done.stdout.splitlines()]


def test_it_lints_formats_types_and_tests(tmp_path):
    done = check(tmp_path)
    assert done.returncode == 0, done.stderr
    assert lines(done) == [
        "ruff check .",
        "ruff format --check .",
        "mypy",
        "pytest -n 3 --dist worksteal",
    ]


@pytest.mark.parametrize(
    "arguments, command",
    [
        (["-m", "not zoo"], "pytest -n 3 --dist worksteal -m not zoo"),
        (["-n", "0"], "pytest -n 0"),
        (["-n2", "-x"], "pytest -n2 -x"),
        (["-p", "no:xdist"], "pytest -p no:xdist"),
    ],
)
def test_its_arguments_go_to_pytest(tmp_path, arguments, command):
    assert lines(check(tmp_path, *arguments))[-1] == command


@pytest.mark.parametrize("failing, runs", [("ruff", 1), ("mypy", 3), ("pytest", 4)])
def test_it_fails_where_a_check_fails(tmp_path, failing, runs):
    done = check(tmp_path, FAILING=failing)
    assert done.returncode != 0 and len(lines(done)) == runs
