"""Tools as they are typed: in this process, or in one of their own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOLS = sorted(path.stem for path in (ROOT / "tools").glob("*.py"))


@cache
def load(name: str):
    """The module of tools/NAME.py, under a name that no other module has."""
    spec = importlib.util.spec_from_file_location(f"tool_{name}", ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(monkeypatch, name: str, *arguments) -> int:
    """The exit status of a tool that runs in this process."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
    try:
        return load(name).main()
    except SystemExit as left:  # by argparse
        return left.code


def parse(monkeypatch, name: str, *arguments):
    """What a tool parses, without doing anything."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
    return load(name).parse_args()


def start(name: str, *arguments, cwd=None):
    """A tool in a process of its own, as nothing is imported or registered beforehand."""
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / f"{name}.py"), *map(str, arguments)],
        capture_output=True, text=True, cwd=cwd, check=False,
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
