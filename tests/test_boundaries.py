"""The core imports no mm* package, imports only point back, and both tests can fail."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ada3d_fx

PACKAGE = Path(ada3d_fx.__file__).parent
# File order is data order: a module may import only from those before it.
ORDER = [
    "errors",
    "policy",
    "segments",
    "scores",
    "trace",
    "rules",
    "shapes",
    "layouts",
    "stages",
    "ops",
    "parts",
    "rewrite",
    "fold",
    "convert",
    "count",
    "flops",
    "backbones",
    "selection",
    "reinforce",
    "clips",
    "results",
    "report",
    "draw",
]

PROBE = """
import sys
{before}
import ada3d_fx
found = sorted(m for m in sys.modules if m.split(".")[0] in ("mmengine", "mmcv", "mmaction"))
sys.exit("imported: " + ", ".join(found[:3]) if found else 0)
"""


def probe(before=""):
    return subprocess.run(
        [sys.executable, "-c", PROBE.format(before=before)], capture_output=True, text=True
    )


def test_the_core_imports_no_mm_package():
    result = probe()
    assert result.returncode == 0, result.stderr


def test_that_test_can_fail():
    assert "mmengine" in probe("import mmengine").stderr


def back_arrows(name, source):
    """Modules imported by ``name`` (outside of TYPE_CHECKING) that do not come before it."""
    tree = ast.parse(source)
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    imported = [
        (node.module or "").split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level == 1 and id(node) not in hidden
    ]
    return [m for m in imported if m and (m not in ORDER or ORDER.index(m) >= ORDER.index(name))]


def test_imports_point_back():
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert modules <= set(ORDER), modules - set(ORDER)
    for name in modules:
        assert back_arrows(name, (PACKAGE / f"{name}.py").read_text()) == [], name


@pytest.mark.parametrize("line", ["from .convert import convert", "from .mm import compat"])
def test_forward_arrows_are_seen(line):
    assert back_arrows("policy", line)
