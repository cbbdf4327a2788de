"""Files that pass for checkpoints and would run code: they make a file or a folder that tests look for."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import torch

HOSTILE = ("zip", "legacy", "TorchScript")


class _Payload:
    """When unpickled, makes a folder."""

    def __init__(self, mark: Path):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


class _Script(torch.nn.Module):
    """When its archive is loaded, writes a file: the code of `__setstate__` is in the archive."""

    def __init__(self, mark: Path):
        super().__init__()
        self.mark = str(mark)

    @torch.jit.export
    def __getstate__(self):
        return (self.mark, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]):
        self.mark = state[0]
        self.training = state[1]
        torch.save(torch.zeros(1), state[0])

    def forward(self, x):
        return x


def write_hostile(kind: str, path: Path, mark: Path, beside: dict | None = None) -> Path:
    """Write a file that makes `mark` when it is read without care.

    Args:
        kind: one of `HOSTILE`.
        path: of the file.
        mark: what it makes.
        beside: what a real checkpoint holds, where the kind has room for it.
    """
    if kind == "TorchScript":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer releases of torch deprecate it
            torch.jit.script(_Script(mark)).save(str(path))
    else:
        content = {**(beside or {"state_dict": {}}), "extra": _Payload(mark)}
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    return path
