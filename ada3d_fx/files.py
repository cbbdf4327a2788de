"""Files that are whole or not there: what is written stands beside the file until it is done."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

LEFT_BEHIND = 3600.0  # seconds after which an unfinished file counts as a killed process's
STREAMS = {"/dev/stdout": 1, "/dev/stderr": 2}  # and /dev/fd/N


@contextmanager
def whole(path: str | Path, durable: bool = True) -> Iterator[Path]:
    """Give a path to write to, whose file takes the place of ``path`` when the block ends.

    A process that is killed leaves the old file, or none; unfinished files of such processes, which
    are hidden, are removed by the next one that writes ``path`` an hour later or more. A link stays
    and its target is replaced, a file keeps its permissions, and a pipe or a device is given all
    bytes at the end.

    Args:
        path: the file to write; its folder is made if need be.
        durable: wait until it is on the disk, so that it outlives a power failure too; 5 ms for a
            small file.

    Yields:
        A path to an empty file with the same ending.

    Raises:
        OSError: the file cannot be written; ``filename`` names it.
    """
    check(path)
    if _is_stream(path):
        with TemporaryDirectory() as folder:
            unfinished = Path(folder, "part").with_suffix(Path(path).suffix)
            unfinished.touch()
            yield unfinished
            _pour(unfinished, path)
        return
    with _named(path):
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        _forget_unfinished(target, _end_of(target))
        unfinished = target.with_name(_begin_of(target) + secrets.token_hex(4) + _end_of(target))
        unfinished.open("xb").close()
        try:
            if target.exists():
                unfinished.chmod(stat.S_IMODE(target.stat().st_mode))
            yield unfinished
            if durable:
                with unfinished.open("rb+") as file:
                    os.fsync(file.fileno())
            os.replace(unfinished, target)
        finally:
            unfinished.unlink(missing_ok=True)


@contextmanager
def folder_beside(path: str | Path) -> Iterator[Path]:
    """Give a folder, on the disk of ``path``, in which files are made that take its place together.

    It is hidden, and removed when the block ends. That of a process that was killed is removed by the
    next one for the same ``path``, an hour later or more.

    Args:
        path: the file to write; its folder is made if need be.

    Raises:
        OSError: nothing can be written there; ``filename`` names ``path``.
    """
    check(path)
    target = Path(path)
    with _named(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        _forget_unfinished(target, ".parts")
        begin = _begin_of(target)
        with TemporaryDirectory(dir=target.parent, prefix=begin, suffix=".parts") as folder:
            yield Path(folder)


def write_bytes(path: str | Path, data: bytes, durable: bool = True) -> None:
    """Write a file, the whole of it or nothing.

    Raises:
        OSError: the file cannot be written; ``filename`` names it.
    """
    with whole(path, durable) as unfinished:
        unfinished.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write a text in UTF-8, the whole of it or nothing.

    File names that are not UTF-8 are written as the bytes that they are.

    Raises:
        OSError: the file cannot be written; ``filename`` names it.
    """
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def append(path: str | Path, line: str) -> None:
    """Append a line to a journal, whose last line may be cut off when the process is killed.

    Raises:
        OSError: the file cannot be written; ``filename`` names it.
    """
    with _named(path), open(path, "ab") as file:
        file.write(line.encode("utf-8", "surrogateescape"))


def drop_unfinished_line(path: str | Path) -> None:
    """Cut a journal off behind its last whole line: what follows is of a process that was killed.

    Raises:
        OSError: the file cannot be read or written; ``filename`` names it.
    """
    with _named(path), open(path, "rb+") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 2**16)
            file.seek(start)
            last = file.read(end - start).rfind(b"\n")
            if last >= 0:
                end = start + last + 1
                break
            end = start
        file.truncate(end)


@contextmanager
def locked(path: str | Path) -> Iterator[int | None]:
    """Hold a file as this process's own, for as long as the block and the process last.

    Not so in processes that this one forks. Where files cannot be locked, nothing is held.

    Args:
        path: the file; it is made, and stays.

    Yields:
        None; or where another process holds it, that process's number, or 0 if that is not known.

    Raises:
        OSError: the file cannot be written; ``filename`` names it.
    """
    import fcntl  # which not every system has

    with _named(path), open(path, "ab+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                file.seek(0)
                told = file.read(20)
                yield int(told) if told.isdigit() else 0
                return
        else:
            file.truncate(0)
            file.write(str(os.getpid()).encode())
            file.flush()
        yield None


def check(path: str | Path) -> None:
    """Check that a file could be written, before the work whose result it shall hold.

    Raises:
        OSError: it is a folder, is write-protected, or its folder is no place to write.
    """
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "the name holds a NUL character", repr(str(path)))
    if _is_stream(path):
        return
    with _named(path):
        target = Path(os.path.realpath(path))
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "a folder is there", str(path))
        if target.exists() and not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, "the file is write-protected", str(path))
        folder = next(parent for parent in target.parents if os.path.lexists(parent))
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{folder} is no folder", str(path))
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, f"the folder {folder} is not writable", str(path))


@contextmanager
def _named(path: str | Path) -> Iterator[None]:
    """Name the file in errors of its writing, which name the unfinished one or none."""
    try:
        yield
    except OSError as error:
        unfinished = re.search(r"\.[0-9a-f]{8}\.part", str(error.filename))
        if error.errno is None or (error.filename is not None and not unfinished):
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def _is_stream(path: str | Path) -> bool:
    """Tell whether a path is that of a pipe, a device or an open file."""
    name = str(path)
    opened = name in STREAMS or re.fullmatch(r"(/dev|/proc/self)/fd/[0-9]+", name)
    return bool(opened) or (os.path.exists(path) and not os.path.isfile(path)
                            and not os.path.isdir(path))  # fmt: skip


def _pour(source: Path, path: str | Path) -> None:
    """Write a file's bytes to a pipe, a device or an open file."""
    name = str(path)
    opened: str | Path | int = path
    if name in STREAMS or os.path.dirname(name) in ("/dev/fd", "/proc/self/fd"):
        sys.stdout.flush()  # what was printed before comes before
        opened = os.dup(STREAMS.get(name) or int(Path(name).name))
    with _named(path), source.open("rb") as file, open(opened, "wb") as stream:
        shutil.copyfileobj(file, stream)


def _begin_of(path: Path) -> str:
    return f".{path.stem[:40]}."  # a name of the greatest length has room for what is added


def _end_of(path: Path) -> str:
    return f".part{path.suffix}"


def _forget_unfinished(path: Path, end: str) -> None:
    begin = _begin_of(path)
    with contextlib.suppress(OSError):  # another process was faster, or the folder is not listed
        for found in path.parent.iterdir():
            old = found.name.startswith(begin) and found.name.endswith(end)
            if old and time.time() - found.lstat().st_mtime > LEFT_BEHIND:
                shutil.rmtree(found) if found.is_dir() else found.unlink()
