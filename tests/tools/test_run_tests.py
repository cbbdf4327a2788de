"""The check command: which checks it runs, and in how many processes."""

import os
import re
import shutil
import subprocess
import sys
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


# Stands for Python 3.10 and for that of the environment that it makes.
OLDEST = f"""#!/usr/bin/env bash
case "$1 $2 $3" in
    "-c import"*) echo 3; exit "${{WRONG:-0}}" ;;
    "-m venv --clear") mkdir -p "$4/bin"; cp "$0" "$4/bin/python" ;;
    "-m "*) echo "run: $*" ;;
    *) exec "{sys.executable}" "$@" ;;
esac
"""


def required():
    """What setup.py requires, each with its lower bound first."""
    return re.findall(
        r'^    "([a-z][\w-]*[>=]=.*)",', (ROOT / "setup.py").read_text(), re.MULTILINE
    )


@pytest.fixture
def oldest(tmp_path):
    """Runs the test of the oldest releases in a checkout of its own."""
    python = tmp_path / "python3.10"
    python.write_text(OLDEST)
    python.chmod(0o755)
    for name in ("tools/setup_env.sh", "tools/test_oldest.sh", "setup.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    # what pip notes of setup.py when it installs the checkout
    info = tmp_path / "packages" / "ada3d_fx-0.1.0.dist-info"
    info.mkdir(parents=True)
    requires = [f"Requires-Dist: {line}" for line in required()]
    head = ["Metadata-Version: 2.1", "Name: ada3d_fx", "Version: 0.1.0"]
    extra = 'Requires-Dist: pytest>=8; extra == "dev"'
    (info / "METADATA").write_text("\n".join([*head, *requires, extra, ""]))

    def run(*arguments, **environment):
        return subprocess.run(
            ["bash", str(tmp_path / "tools" / "test_oldest.sh"), *arguments],
            env={
                **os.environ, "ADA3D_PYTHON310": str(python), "PYTHONPATH": str(info.parent),
                **environment,
            },
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    return run


def test_the_oldest_releases_are_those_of_setup_py(tmp_path, oldest):
    done = oldest("-x")
    assert done.returncode == 0, done.stderr
    constraints = tmp_path / ".venv-oldest" / "oldest.txt"
    assert lines(done)[1:] == [
        "pip install --quiet --no-deps --editable .",
        f"pip install --quiet --constraint {constraints} --editable .[dev]",
        "pytest -n 3 --dist worksteal -x",
    ]
    pins = constraints.read_text().split()
    assert pins == [re.sub(">=", "==", line.split(",")[0]) for line in required()]
    assert "torch==2.4" in pins and "mmaction2==1.2.0" in pins
    assert lines(oldest("-x")) == ["pytest -n 3 --dist worksteal -x"]  # nothing is installed again


def test_without_python_3_10_the_oldest_releases_are_not_tested(oldest):
    done = oldest(WRONG="1")
    assert done.returncode == 1 and done.stdout == ""
    assert "is no Python 3.10; install one, or name it with ADA3D_PYTHON310=FILE" in done.stderr
