"""Digests of what a result is made from: contents, never paths or dates, so that copies are equal."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import io
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path

import torch

from .. import __version__
from ..errors import Ada3DError
from ..mm.checkpoint import load_checkpoint

PACKAGE = Path(__file__).parents[1]
# Folders and files of the package whose code changes no result, and why. All other code counts.
NO_CODE = {
    "export": "makes files for engines",
    "exporting": "makes files for engines",
    "__init__": "the public names",
    "errors": "messages",
    "files": "how files are written",
    "cli": "options, whose values are compared",
    "values": "options, whose values are compared",
    "progress": "what is shown",
    "report": "tables and pictures of results",
    "experiments": "options and reports; what rows are is compared as config entries",
    "comparison": "options and reports; what rows are is compared as config entries",
    "provenance": "what is compared",
    "timing": "makes no row of a comparison",
    "mm/console": "what is shown",
    "mm/checks": "stops before a run, or not",
    "mm/schema": "stops before a run, or not",
    "mm/signatures": "stops before a run, or not",
    "videos/probing": "stops before a run, or not",
    # of tools/infer.py, whose rows are told from others by the code of these files
    "runtime": "makes no row of a comparison",
    "mm/exported": "makes no row of a comparison",
    "mm/inference_config": "makes no row of a comparison",
    "mm/inferencer": "makes no row of a comparison",
    "videos/inputs": "makes no row of a comparison",
    "mm/results": "makes no row of a comparison",
    "mm/scoring": "makes no row of a comparison",
    "videos/streaming": "makes no row of a comparison",
}
# Files in these folders that count all the same: policies read, costs matched, tests made.
CODE_THERE = ("report/records", "comparison/matching", "comparison/run")
# Packages whose versions can change a result: arithmetic, random numbers, decoding, prices.
PACKAGES = ("torch", "torchvision", "mmengine", "mmaction2", "mmcv", "fvcore", "numpy", "decord")
ALIASES = {"mmcv": ("mmcv", "mmcv-lite"), "decord": ("decord", "eva-decord")}
WEIGHTS = (".pth", ".pt", ".ckpt")


def fingerprint(path: str | Path) -> str:
    """Tell the contents of a file in a few words; of a checkpoint, those of its weights alone.

    The weights of an exported .xml are in a .bin beside it, and count too.

    Raises:
        OSError: the file cannot be read.
    """
    path = Path(path)
    state, beside = path.stat(), path.with_suffix(".bin")
    told = _fingerprint(path, state.st_size, state.st_mtime_ns)
    if path.suffix == ".xml" and beside.is_file():
        return f"{told}, and {fingerprint(beside)}"
    return told


@cache
def _fingerprint(path: Path, size: int, changed: int) -> str:
    """Tell a file's contents; ``changed`` is there so that a file that changes is read again."""
    if path.suffix in WEIGHTS:
        try:
            return _weights(path)
        except Ada3DError:  # it is no checkpoint: its bytes count
            pass
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(2**20):
            sha.update(part)
    return f"{size} bytes, sha256 {sha.hexdigest()[:16]}"


def _weights(path: Path) -> str:
    """Tell the weights of a checkpoint; who wrote it, when, and its optimizer do not count."""
    weights, sha = load_checkpoint(path), hashlib.sha256()
    for name in sorted(weights):
        value = weights[name]
        if isinstance(value, torch.Tensor):
            sha.update(f"{name} {value.dtype} {list(value.shape)}".encode())
            sha.update(value.detach().reshape(-1).contiguous().view(torch.uint8).numpy().data)
        else:
            sha.update(f"{name} {value!r}".encode())
    return f"{len(weights)} tensors, sha256 {sha.hexdigest()[:16]}"


def listed(path: Path, folder: Path, delimiter: str | None = None) -> str:
    """Tell the videos that a list names, by their sizes.

    A folder of frames counts by how many files it has. Names and labels are told by the list's own
    fingerprint.

    Args:
        path: a text file whose lines begin with the name of a video.
        folder: where the videos are.
        delimiter: what ends a name; None: white space.
    """
    state = path.stat()
    return _listed(path, folder, delimiter, state.st_size, state.st_mtime_ns)


@cache
def _listed(path: Path, folder: Path, delimiter: str | None, size: int, changed: int) -> str:
    lines = path.read_bytes().decode("utf-8", "surrogateescape").splitlines()
    sizes = [_size(folder / line.split(delimiter)[0]) for line in lines if line.strip()]
    missing = sizes.count(-1)
    told = f"{len(sizes)} videos, {sum(sizes) + missing} bytes"
    return f"{told}{f', {missing} missing' if missing else ''}, sizes {_short(map(str, sizes))}"


def _size(video: Path) -> int:
    try:
        return sum(1 for _ in video.iterdir()) if video.is_dir() else video.stat().st_size
    except (OSError, ValueError):
        return -1


# ---------------------------------------------------------------------------------------- code


@cache
def code() -> dict[str, str]:
    """Return a digest of the code of each part of the package that can change a result."""
    texts: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).with_suffix("").as_posix()
        part = name.partition("/")[0]
        if part.startswith("."):  # configs and tools in a wheel
            continue
        if name in CODE_THERE:
            texts[name] = [_code(path)]
        elif not {part, name} & set(NO_CODE):
            texts.setdefault(part, []).extend((name, _code(path)))
    return {part: _short(text) for part, text in texts.items()}


def imported_code(names: Sequence[str]) -> dict[str, str]:
    """Return a digest of each module of the user's own that a config imports."""
    digests = {}
    for name in names:
        if name.partition(".")[0] not in ("ada3d_fx", "mmaction", "mmengine", "mmcv"):
            spec = importlib.util.find_spec(name)
            if spec and spec.origin and spec.origin.endswith(".py"):
                digests[name] = _short([_code(Path(spec.origin))])
    return digests


def _code(path: Path) -> str:
    return bare_code(path.read_text(encoding="utf-8"))


def bare_code(source: str) -> str:
    """Return a program without comments, docstrings and blank lines."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for first, last in _docstrings(ast.parse(source)):
        if lines[first - 1].lstrip()[:1] in tuple("\"'rR"):  # it has its lines for itself
            lines[first - 1 : last] = [""] * (last - first + 1)
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _docstrings(tree: ast.Module) -> Iterator[tuple[int, int]]:
    """Yield the first and the last line of each docstring."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            value = first.value if isinstance(first, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield first.lineno, first.end_lineno or first.lineno


@cache
def packages() -> dict[str, str | None]:
    """Return the versions of the packages that can change a result, without the kind of build."""
    found: dict[str, str | None] = {"ada3d_fx": __version__}
    for name in PACKAGES:
        found[name] = None
        for alias in ALIASES.get(name, (name,)):
            try:
                found[name] = metadata.version(alias).partition("+")[0]
                break
            except metadata.PackageNotFoundError:
                continue
    return found


def _short(parts: Iterable[str]) -> str:
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part.encode("utf-8", "surrogateescape") + b"\0")
    return sha.hexdigest()[:16]
