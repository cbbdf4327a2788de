"""What a folder of generated clips says of itself: its options, and the digest of each clip."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import files
from ..errors import Ada3DError
from ..progress import Console
from ..report import reading, records

DONE, JOURNAL = "generated.json", "generated.part"
Options = Mapping[str, Any]
Texts = Mapping[str, str]  # lists and classes: file name -> text


def digest(data: bytes) -> str:
    """Return the SHA-256 of a clip's bytes."""
    return hashlib.sha256(data).hexdigest()


@dataclass
class ClipRecord:
    """The record of a folder: ``generated.json``, written when all is done.

    Until then there is a journal, ``generated.part``: a line of JSON with the options of the run and
    of what it replaces, then a line ``digest path`` for each clip. Of a killed run its last line may
    be cut off.
    """

    folder: Path
    options: Options  # of the run
    digests: dict[str, str] = field(default_factory=dict)  # clip's path in the folder -> SHA-256
    done: bool = False  # ``generated.json`` is of these options
    stopped: bool = False  # there is a journal of these options
    replaced: Options | None = None  # the options of what was in the folder, where they differ

    @classmethod
    def read(cls, folder: Path, options: Options, console: Console) -> ClipRecord:
        """Read what there is of these options, and say what else was found."""
        found = _read_done(folder, console)
        if found and found[0] == options:
            if not found[1]:
                console.say(
                    f"{folder}: an earlier version kept no digests; its clips are made again"
                )
            return cls(folder, options, found[1], done=True)
        journal = _read_journal(folder)
        if journal and journal[0] == options:
            return cls(folder, options, journal[1], stopped=True, replaced=journal[2])
        replaced = found[0] if found else journal[0] if journal else None
        if replaced is not None:
            words = [f"{name} {replaced.get(name)}, now {value}" for name, value in options.items()
                     if replaced.get(name) != value]  # fmt: skip
            console.say(f"{folder}: clips of other options are replaced ({'; '.join(words)})")
        return cls(folder, options, replaced=replaced)

    def is_whole(self, path: str) -> bool:
        """Tell whether a clip is there, and as it was written."""
        file = self.folder / path
        known = self.digests.get(path)
        return known is not None and file.is_file() and digest(file.read_bytes()) == known

    def begin(self, kept: Collection[str]) -> None:
        """Begin the journal, with the clips that are kept, unless the folder was done before."""
        if self.done:
            return
        self.digests = {path: self.digests[path] for path in kept}
        lines = [json.dumps({"options": self.options, "replaced": self.replaced})]
        lines += [f"{known} {path}" for path, known in self.digests.items()]
        files.write_text(self.folder / JOURNAL, "\n".join(lines) + "\n")
        (self.folder / DONE).unlink(missing_ok=True)

    def add(self, path: str, data: bytes) -> None:
        """Write a clip, and note its digest."""
        # whole even when the process is killed; what a power failure takes is seen by its digest
        files.write_bytes(self.folder / path, data, durable=False)
        self.digests[path] = digest(data)
        if not self.done:
            files.append(self.folder / JOURNAL, f"{self.digests[path]} {path}\n")

    def finish(self) -> None:
        """Write the record."""
        written = {**self.options, "digests": dict(sorted(self.digests.items()))}
        records.write_json(self.folder / DONE, written)
        (self.folder / JOURNAL).unlink(missing_ok=True)

    def check_texts(self, texts: Callable[[Options], Texts]) -> None:
        """Check that no list would be lost: each is missing, or one of those that this tool writes.

        Args:
            texts: the lists of a folder with these options.

        Raises:
            Ada3DError: a list that was edited or cut off, or is none of this tool's.
        """
        ours = [texts(options) for options in (self.options, self.replaced) if options is not None]
        changed = [
            name
            for name in ours[0]
            if (path := self.folder / name).exists()
            and path.read_bytes() not in [one[name].encode() for one in ours]
        ]
        if changed:
            raise Ada3DError(
                f"{self.folder}: {', '.join(changed)} differ from what tools/generate_clips.py writes: "
                "edited, cut off, or another's. Move them away or delete them and run this again, or "
                "give another --out; nothing was changed"
            )


@contextmanager
def alone(folder: Path, console: Console) -> Iterator[None]:
    """Wait until no other process generates clips in a folder, and keep others from it.

    A lock of a killed process ends with it. Where the file system has no locks, processes of the
    same options still do not disturb each other: both write the same files, each as a whole.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            opened = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, opened)
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                console.say(f"{folder}: waiting for another process that generates clips there")
                fcntl.flock(opened, fcntl.LOCK_EX)
        yield


def _read_done(folder: Path, console: Console) -> tuple[Options, dict[str, str]] | None:
    path = folder / DONE
    if not path.exists():
        return None
    try:
        record = reading.read_json(path, "its clips are made again")
        reading.check(record, {"num_train": int, "num_val": int, "digests?": {}})
    except Ada3DError as error:
        console.say(str(error))
    except ValueError as error:
        console.say(f"{path} is no record of generated clips: {error}; its clips are made again")
    else:
        return record, record.pop("digests", None) or {}
    return None


def _read_journal(folder: Path) -> tuple[Options, dict[str, str], Options | None] | None:
    path = folder / JOURNAL
    if not path.is_file():
        return None
    first, *lines = path.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
    try:
        header = json.loads(first)
        kind = {"num_train": int, "num_val": int}
        reading.check(header, {"options": kind, "replaced?": kind})
    except ValueError:
        return None
    pairs = [line.split(" ", 1) for line in lines if " " in line]
    return header["options"], {path: known for known, path in pairs}, header["replaced"]
