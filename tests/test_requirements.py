"""A missing or wrong package is told with the command that mends it, before anything large is imported."""

import os
import re
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

from ada3d_fx import Ada3DError, requirements
from ada3d_fx.requirements import explained

ROOT = Path(__file__).resolve().parents[1]
SITE = Path(sysconfig.get_paths()["purelib"])
RELEASES = {
    "torch": ">=2.4",
    "torchvision": ">=0.19",
    "mmengine": ">=0.10.5,<0.11",
    "mmcv-lite": "==2.1.0",
    "setuptools": ">=77.0.3,<81",
}


def add_package(folder, name, version, *requires):
    """What pip leaves of an installed package beside its modules."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {r}" for r in requires)]
    (info / "METADATA").write_text("\n".join(["Metadata-Version: 2.1", *lines, ""]))


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A folder whose packages are found before those of this environment."""
    folder = tmp_path / "packages"
    add_package(
        folder, "ada3d_fx", "0.1.0", *(n + r for n, r in RELEASES.items()), 'x>=1; extra == "dev"'
    )
    monkeypatch.syspath_prepend(str(folder))
    return folder


def told(*names):
    with pytest.raises(requirements.MissingRequirement) as error:
        requirements.check(names)
    return str(error.value)


def test_this_environment_has_what_is_needed():
    requirements.check(requirements.CORE + requirements.FRAMEWORK)


def test_it_costs_next_to_nothing():
    requirements.check(requirements.CORE + requirements.FRAMEWORK)
    start = time.process_time()
    requirements.check(requirements.CORE + requirements.FRAMEWORK)
    assert time.process_time() - start < 0.1  # some 5 ms


@pytest.mark.parametrize(
    "name, version, says, command",
    [
        ("torch", "2.3.1+cu121", "torch 2.3.1+cu121 is installed; torch>=2.4", '"torch>=2.4" torchvision'),
        ("mmengine", "0.11.0", "mmengine 0.11.0 is installed", '"mmengine>=0.10.5,<0.11"'),
        ("mmengine", "0.10.4", "mmengine 0.10.4 is installed", '"mmengine>=0.10.5,<0.11"'),
        ("mmcv-lite", "2.2.0", "mmcv-lite 2.2.0 is installed; mmcv-lite>=2,<2.2", "mmcv-lite==2.1.0"),
    ],
)  # fmt: skip
def test_a_wrong_release(packages, name, version, says, command):
    add_package(packages, name, version)
    message = told(name)
    assert says in message
    assert f"\ntry: {sys.executable} -m pip install --upgrade {command}" in message


@pytest.mark.parametrize(
    "name, version",
    [
        ("torch", "2.4.0a0+git1234"),
        ("torch", "3.0"),
        ("mmengine", "0.10.5"),
        ("mmcv-lite", "2.0.1"),
        ("mmcv-lite", "2.1.0"),
        ("setuptools", "40.0"),  # it has pkg_resources
    ],
)
def test_a_release_that_works_is_taken(packages, name, version):
    add_package(packages, name, version)
    requirements.check([name])


def test_the_full_mmcv_serves_as_well_unless_it_is_too_new(packages, monkeypatch):
    real = requirements._version
    without_lite = lambda name: None if name == "mmcv-lite" else real(name)  # noqa: E731
    monkeypatch.setattr(requirements, "_version", without_lite)
    add_package(packages, "mmcv", "2.1.0")
    requirements.check(["mmcv-lite"])
    (packages / "mmcv-2.1.0.dist-info").rename(packages / "gone")
    add_package(packages, "mmcv", "2.2.0")
    assert "pip uninstall mmcv && " in told("mmcv-lite")


def test_torchvision_for_another_torch(packages):
    add_package(packages, "torch", "2.5.1+cpu")
    add_package(packages, "torchvision", "0.19.0", "numpy", "torch ==2.4.0", "pillow")
    message = told("torchvision")
    assert "torchvision 0.19.0 is for torch 2.4, but torch 2.5.1+cpu is installed" in message
    assert message.endswith("pip install --upgrade torch torchvision")
    (packages / "torch-2.5.1+cpu.dist-info").rename(packages / "gone")
    add_package(packages, "torch", "2.4.1+cpu")
    requirements.check(["torchvision"])


def test_setuptools_without_what_mmengine_needs(packages, monkeypatch):
    add_package(packages, "setuptools", "82.0.0")
    monkeypatch.setattr(requirements, "find_spec", lambda name: None)
    message = told("setuptools")
    assert "setuptools 82.0.0 has no pkg_resources" in message
    assert '"setuptools>=77.0.3,<81"' in message


def test_all_problems_are_told_at_once(packages):
    add_package(packages, "torch", "2.0.0")
    add_package(packages, "mmengine", "1.0.0")
    message = told("torch", "mmengine", "absent")
    assert message.count("\n  - ") == 3 and "absent is not installed" in message
    assert message.endswith('"torch>=2.4" torchvision "mmengine>=0.10.5,<0.11" absent')


def test_what_setup_py_writes_can_be_read():
    for line in re.findall(r'^    "([a-z].*)",', (ROOT / "setup.py").read_text(), re.MULTILINE):
        name, releases = re.fullmatch(r"([\w-]+)(.*)", line).groups()
        assert releases, f"{name} has no lower bound"
        lower = re.search(r"[>=]=([\w.]+)", releases)[1]
        assert requirements.satisfies(lower, releases)
        assert not requirements.satisfies("0", releases)


def test_a_module_that_is_needed_for_one_thing():
    assert requirements.module("json", "a test") is sys.modules["json"]
    with pytest.raises(Ada3DError, match=r"absent is not installed; PyAVInit needs it\ntry: "):
        requirements.module("absent", "PyAVInit")


def test_an_import_that_fails_for_want_of_a_package():
    with pytest.raises(Ada3DError, match="absent is not installed"), explained():
        import absent.inner  # noqa: F401
    with pytest.raises(ModuleNotFoundError), explained():
        import ada3d_fx.absent  # noqa: F401


def test_an_import_that_fails_for_its_numpy(packages):
    (packages / "compiled.py").write_text(
        "raise ImportError('numpy.core.multiarray failed to import')"
    )
    with pytest.raises(Ada3DError, match="compiled was built for another NumPy"), explained():
        import compiled  # noqa: F401
    with pytest.raises(ImportError, match="cannot import name"), explained():
        from json import absent  # noqa: F401


def run_without(tmp_path, *absent, tool="train.py"):
    """Start a tool in an environment that lacks packages: links to all of this one's but theirs."""
    site = tmp_path / "site"
    site.mkdir()
    for path in SITE.iterdir():
        if not any(re.match(rf"{name}(-\d|\.|$)", path.name) for name in absent):
            (site / path.name).symlink_to(path)
    return subprocess.run(
        [sys.executable, "-S", "-W", "ignore", str(ROOT / "tools" / tool), "--help"],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{site}"},
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip


@pytest.mark.parametrize(
    "absent, says",
    [
        (["torch"], "torch is not installed"),
        (["mmengine"], "mmengine is not installed"),
        *(
            pytest.param(absent, f"{name} is not installed", marks=pytest.mark.slow)
            for absent, name in (
                (["mmaction2", "mmaction"], "mmaction2"),
                (["mmcv_lite", "mmcv"], "mmcv-lite"),
                (["scipy"], "scipy"),
                (["cv2"], "opencv-python"),
            )
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_tool_says_what_is_missing(tmp_path, absent, says):
    done = run_without(tmp_path, *absent)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("error: packages that ada3d_fx needs:\n  - " + says), done.stderr
    assert "\ntry: " in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_tool_starts_in_an_environment_made_so(tmp_path):
    done = run_without(tmp_path, "absent")
    assert done.returncode == 0 and "usage:" in done.stdout, done.stderr


@pytest.mark.slow
def test_generating_clips_says_what_it_needs(tmp_path):
    done = run_without(tmp_path, "av", tool="generate_clips.py")
    assert "av is not installed; writing videos needs it\ntry: " in done.stderr
