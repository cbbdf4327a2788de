"""What a user has who installs the wheel: the package, the configs and the tools, without a checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("README.md", "LICENSE", "MANIFEST.in", "setup.py", "pyproject.toml")
FOLDERS = ("ada3d_fx", "mmaction_configs", "tools")

pytestmark = pytest.mark.slow


def names(folder, pattern):
    return {path.relative_to(ROOT / folder).as_posix() for path in (ROOT / folder).glob(pattern)}


def run(*command, cwd, **environment):
    outside = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env={**outside, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy of the checkout, so that nothing is written there."""
    copy = tmp_path_factory.mktemp("checkout")
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix in (".py", ".sh"):
                target = copy / path.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
    for name in SOURCES:
        (copy / name).write_bytes((ROOT / name).read_bytes())
    into = copy / "dist"
    options = ("--no-deps", "--no-build-isolation", "--quiet")
    run("-m", "pip", "wheel", *options, "--wheel-dir", into, ".", cwd=copy)
    assert not list((copy / "ada3d_fx").rglob(".mim")), "left in the source tree"
    (built,) = into.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory):
    """A folder with the installed wheel alone; what it depends on is this environment's."""
    into = tmp_path_factory.mktemp("site")
    options = ("--no-deps", "--no-index", "--quiet")
    run("-m", "pip", "install", *options, "--target", into, wheel, cwd=into)
    return into


def test_the_wheel_holds_package_configs_and_tools_and_nothing_else(wheel):
    held = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    mim = "ada3d_fx/.mim/"
    inside = {n for n in held if not n.startswith(mim)}
    assert inside == {f"ada3d_fx/{n}" for n in names("ada3d_fx", "**/*.py")}
    assert {n.removeprefix(f"{mim}configs/") for n in held if n.startswith(f"{mim}configs/")} == (
        names("mmaction_configs", "**/*.py")
    )
    assert {n.removeprefix(f"{mim}tools/") for n in held if n.startswith(f"{mim}tools/")} == (
        names("tools", "*.py")
    )


LOAD = """
from pathlib import Path
import ada3d_fx, ada3d_fx.mm
from ada3d_fx.mm.config import load_config
package = Path(ada3d_fx.__path__[0])
configs = sorted((package / ".mim" / "configs").glob("*.py"))
print(package, len([load_config(path) for path in configs]))
"""


def test_it_imports_and_its_configs_load_outside_of_a_checkout(site, tmp_path):
    package, count = run("-c", LOAD, cwd=tmp_path, PYTHONPATH=str(site)).split()[-2:]
    assert Path(package) == site / "ada3d_fx"
    assert int(count) == len(names("mmaction_configs", "*.py"))


@pytest.mark.parametrize("tool", sorted(names("tools", "*.py")))
def test_its_tools_start_outside_of_a_checkout(site, tmp_path, tool):
    path = site / "ada3d_fx" / ".mim" / "tools" / tool
    assert "usage:" in run(path, "--help", cwd=tmp_path, PYTHONPATH=str(site))


def test_a_tool_reads_a_packaged_config(site, tmp_path):
    mim = site / "ada3d_fx" / ".mim"
    command = (mim / "tools" / "analyze_flops.py", mim / "configs" / "ada3d_demo.py")
    assert "verdict: pays" in run(*command, cwd=tmp_path, PYTHONPATH=str(site))


def test_a_tool_that_names_configs_itself_finds_them(site, tmp_path):
    tool = site / "ada3d_fx" / ".mim" / "tools" / "check_paper.py"
    run(tool, "--json", "paper.json", cwd=tmp_path, PYTHONPATH=str(site))
    assert (tmp_path / "paper.json").stat().st_size
