"""Read files of weights without running code that a file may hold."""

from __future__ import annotations

import pickle
import re
import struct
import tarfile
import warnings
from pathlib import Path
from typing import IO, Any

import torch
from torch.torch_version import TorchVersion

from .errors import Ada3DError

# What torch.load raises for files that hold something else, are cut off, or have wrong bytes.
UNREADABLE = (
    pickle.PickleError, RuntimeError, EOFError, LookupError, ValueError, TypeError,
    AttributeError, AssertionError, OSError, ArithmeticError, MemoryError, struct.error,
)  # fmt: skip
# Before, torch.load ran the code of a TorchScript archive whatever `weights_only` said
# (CVE-2025-32434), and took tar files, whose reader knew few limits.
REFUSES_ARCHIVES = TorchVersion("2.6")


def read_file(path: str | Path, what: str, map_location: Any = "cpu") -> Any:
    """Read what ``torch.save`` wrote: tensors, plain values, and classes that are allowed by name.

    Args:
        path: the file.
        what: names it in messages.
        map_location: where tensors go, as in ``torch.load``.

    Raises:
        Ada3DError: no such file, or one that torch cannot read; no code of it has run.
    """
    if not Path(path).is_file():
        found = "a folder" if Path(path).is_dir() else "no file"
        raise Ada3DError(f"{what}: {found} at {path}")
    try:
        with open(path, "rb") as file:
            return _load(file, map_location)
    except UNREADABLE as error:
        empty = not Path(path).stat().st_size
        reason = "it is empty" if empty else _reason(error)
        raise Ada3DError(f"{what}: {path} cannot be read: {reason}") from error


def read(file: str | Path | IO[bytes], map_location: Any = None) -> Any:
    """Read as ``torch.load`` does, a path or an open file; see `read_file`."""
    if isinstance(file, (str, Path)):
        return read_file(file, "checkpoint", map_location)
    try:
        return _load(file, map_location)
    except UNREADABLE as error:
        raise Ada3DError(f"checkpoint: it cannot be read: {_reason(error)}") from error


def _load(file: IO[bytes], map_location: Any) -> Any:
    if TorchVersion(torch.__version__) < REFUSES_ARCHIVES:
        _refuse_archives(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of what it then raises for
        return torch.load(file, map_location=map_location, weights_only=True)


def _reason(error: BaseException) -> str:
    """Say what torch found, without the advice to read the file with less care around it."""
    found = error.__context__ if isinstance(error, pickle.UnpicklingError) else None
    text = str(found or error).strip()
    code = re.search(r"GLOBAL ([\w.]+\.\w+)|Unsupported class (\S+)", text)
    if code:
        return f"it holds {code[1] or code[2]}, which is no data and is never run"
    if "TorchScript" in text:
        return "it is a TorchScript archive, which holds code; that is never run"
    told = text.partition("\n")[0].partition(". ")[0][:80]
    return f"it is cut off, or no file of torch's ({type(error).__name__}: {told})"


def _refuse_archives(file: IO[bytes]) -> None:
    """Raise for a TorchScript archive and for a tar file, by the tests of torch's own reader."""
    start = file.tell()
    try:
        if torch.serialization._is_zipfile(file):
            with torch.serialization._open_zipfile_reader(file) as archive:
                if torch.serialization._is_torchscript_zip(archive):
                    raise pickle.UnpicklingError("a TorchScript archive")
            return
        file.seek(start)
        try:
            tarfile.open(fileobj=file, mode="r:").close()
        except tarfile.TarError:
            return
        raise pickle.UnpicklingError("a tar file, as torch wrote before 1.0")
    finally:
        file.seek(start)
