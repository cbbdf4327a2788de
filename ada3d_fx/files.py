"""Files that are whole or not there: what is written stands beside the file until it is done."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LEFT_BEHIND = 3600.0  # seconds after which an unfinished file counts as a killed process's


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Give a path to write to, whose file takes the place of ``path`` when the block ends.

    A process that is killed leaves the old file, or none; unfinished files of such processes, which
    are hidden, are removed by the next one that writes ``path`` an hour later or more.

    Args:
        path: the file to write; its folder is made if need be.

    Yields:
        A path in the same folder, with the same ending.

    Raises:
        OSError: the file or its folder cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _forget_unfinished(path)
    unfinished = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part{path.suffix}")
    try:
        yield unfinished
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text in UTF-8, the whole of it or nothing.

    Raises:
        OSError: the file or its folder cannot be written.
    """
    with whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def _forget_unfinished(path: Path) -> None:
    begin, end = f".{path.stem}.", f".part{path.suffix}"
    for found in path.parent.iterdir():
        if found.name.startswith(begin) and found.name.endswith(end):
            try:
                if time.time() - found.stat().st_mtime > LEFT_BEHIND:
                    found.unlink()
            except FileNotFoundError:  # another process was faster
                continue
