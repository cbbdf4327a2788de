"""Whether what this package needs is installed, in releases that it works with.

The releases are those of setup.py, as the metadata of the installed package has them. A checkout
that was never installed has none; there, only what is missing is told.
"""

from __future__ import annotations

import importlib
import operator
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, TracebackType
from typing import NamedTuple

from .errors import Ada3DError

# What is imported at once, without MMAction2 and with it; `module` asks for the rest where it is used.
CORE = ("torch", "numpy", "fvcore")
FRAMEWORK = (
    "torchvision", "matplotlib", "pillow", "mmengine", "mmcv-lite", "mmaction2", "rich", "setuptools",
)  # fmt: skip
# Packages whose module has another name.
MODULES = {
    "pillow": "PIL",
    "mmcv-lite": "mmcv",
    "mmaction2": "mmaction",
    "setuptools": "pkg_resources",
    "opencv-python": "cv2",
    "pyyaml": "yaml",
}
COMPARISONS = {">=": operator.ge, "<": operator.lt, "==": operator.eq}
# What MMAction2 1.2 asserts, of mmcv-lite or of the full mmcv.
MMCV = ">=2,<2.2"


class MissingRequirement(Ada3DError, ImportError):
    """What this package needs is missing, or of a release that does not work."""


class Problem(NamedTuple):
    """What is wrong, and the arguments of pip that mend it."""

    told: str
    install: list[str]


def check(packages: Iterable[str]) -> None:
    """Check that packages are there in the releases that setup.py names, without importing them.

    Args:
        packages: `CORE` or `FRAMEWORK`.

    Raises:
        MissingRequirement: with all problems, and the command that mends them.
    """
    wanted = _wanted()
    problems = [found for name in packages if (found := _problem(name, wanted.get(name, "")))]
    if problems:
        raise _missing(problems)


def module(name: str, needed_by: str) -> ModuleType:
    """Import a module of a package that is needed for one thing only.

    Args:
        name: of the module, such as 'decord'.
        needed_by: what needs it, for the message.

    Raises:
        MissingRequirement: it is not installed.
    """
    if name not in sys.modules and find_spec(name) is None:
        package = _package_of(name)
        told = f"{package} is not installed; {needed_by} needs it"
        raise _missing([Problem(told, [package + _wanted().get(package, "")])])
    return importlib.import_module(name)


@contextmanager
def explained() -> Iterator[None]:
    """Say what to install where an import within fails for want of a package, or of its NumPy.

    Raises:
        MissingRequirement: instead of such an ImportError; others are raised as they are.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if not name or name == __name__.partition(".")[0] or find_spec(name) is not None:
            raise
        package = _package_of(name)
        raise _missing([Problem(f"{package} is not installed", [package])]) from error
    except ImportError as error:
        if not re.search(r"numpy\S* failed to import|_ARRAY_API", str(error)):
            raise
        name = _package_of(_importing(error.__traceback__))
        told = f"{name} was built for another NumPy than {_version('numpy')}, which is installed"
        raise _missing([Problem(told, [name])]) from error


def _problem(name: str, releases: str) -> Problem | None:
    """Tell what is wrong with a package; None: nothing."""
    module = MODULES.get(name, name)
    version = _version(name)
    install = [name + releases]
    if name == "mmcv-lite":
        version, releases = version or _version("mmcv"), MMCV
    if name == "setuptools" and version and find_spec(module) is None:
        told = f"setuptools {version} has no {module}, by which MMEngine finds packages' configs"
        return Problem(told, install)
    if version is None:
        if find_spec(module) is None:
            return Problem(f"{name} is not installed", install)
        return None  # it is there, of an unknown release
    if name == "torch":
        install = ["torch" + releases, "torchvision"]  # which must fit it
    if name != "setuptools" and not satisfies(version, releases):
        return Problem(f"{name} {version} is installed; {name}{releases} is needed", install)
    if name == "torchvision":
        return _unfitting_torchvision(version)
    return None


def _unfitting_torchvision(version: str) -> Problem | None:
    """Tell where torchvision was built for another minor release of torch."""
    torch = _version("torch")
    pins = [re.match(r"torch *\(?==(\d+\.\d+)\b", line) for line in _requires("torchvision")]
    pin = next((match[1] for match in pins if match), None)
    if torch is None or pin is None or _numbers(torch)[:2] == _numbers(pin):
        return None
    told = f"torchvision {version} is for torch {pin}, but torch {torch} is installed"
    return Problem(told, ["torch", "torchvision"])


def _missing(problems: list[Problem]) -> MissingRequirement:
    """Make the error; whoever does not catch it sees the message and no traceback."""
    before = sys.excepthook

    def show(kind: type, error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, MissingRequirement):
            print(f"error: {error}", file=sys.stderr)
        else:
            before(kind, error, trace)

    sys.excepthook = show
    told = "".join(f"\n  - {problem.told}" for problem in problems)
    return MissingRequirement(f"packages that ada3d_fx needs:{told}\ntry: {_command(problems)}")


def _command(problems: list[Problem]) -> str:
    pip = f"{sys.executable} -m pip"
    root = Path(__file__).parents[1]
    if not _requires("ada3d_fx") and (root / "setup.py").is_file():
        return f"{pip} install --editable {root}"
    words = list(dict.fromkeys(word for problem in problems for word in problem.install))
    install = f"{pip} install --upgrade " + " ".join(
        f'"{word}"' if re.search("[<>]", word) else word for word in words
    )
    # both hold the module mmcv
    full = any(word.startswith("mmcv-lite") for word in words) and _version("mmcv")
    return f"{pip} uninstall mmcv && {install}" if full else install


def _package_of(module: str) -> str:
    return next((package for package, name in MODULES.items() if name == module), module)


def _importing(trace: TracebackType | None) -> str:
    """Return the package whose import failed: the innermost that is not NumPy or Python's own."""
    names = []
    while trace is not None:
        names.append(str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0])
        trace = trace.tb_next
    own = {"numpy", "importlib", "contextlib"}
    return next((name for name in reversed(names) if name and name not in own), "a package")


def _wanted() -> dict[str, str]:
    """Return the releases that setup.py names, such as {'torch': '>=2.4'}, without extras."""
    lines = [line for line in _requires("ada3d_fx") if ";" not in line]
    matches = [re.match(r"([\w.-]+) *\(?([^)]*)", line) for line in lines]
    return {match[1]: match[2].replace(" ", "") for match in matches if match}


def _requires(package: str) -> list[str]:
    try:
        return metadata.requires(package) or []
    except metadata.PackageNotFoundError:
        return []


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def satisfies(version: str, releases: str) -> bool:
    """Tell whether a version is one of ``releases``, such as '>=2.4,<3' or '==2.1.0'.

    What follows a plus does not count, and a pre-release counts as its release.
    """
    have = _numbers(version.partition("+")[0])
    for condition in filter(None, releases.split(",")):
        match = re.fullmatch(r"(>=|<|==)(.*)", condition)
        if match is None:
            raise ValueError(f"{condition!r} is not >=, < or == with a version")
        want = _numbers(match[2])
        length = max(len(have), len(want))
        left, right = ((*part, *[0] * (length - len(part))) for part in (have, want))
        if not COMPARISONS[match[1]](left, right):
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))
