"""Read annotation lists as MMAction2's datasets do, and refuse what they would misread."""

from __future__ import annotations

import codecs
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..errors import Ada3DError

# How an encoding that MMAction2 does not read begins: the longer marks first.
OTHER_ENCODINGS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
VIDEO_TYPES = ("VideoDataset", "RepeatAugDataset")
FRAME_TYPES = ("RawframeDataset",)


class Entry(NamedTuple):
    """What one line of a list says."""

    line: int  # counted from 1
    path: str  # of the video, or of the folder of frames
    labels: tuple[int, ...]
    frames: int | None  # how many images there are in a folder of frames


@dataclass(frozen=True)
class VideoList:
    """A list of videos, or of folders of frames, and how its lines are to be read."""

    path: str
    prefix: str = ""  # the folder to which the list's paths are relative
    delimiter: str | None = " "  # between path and labels; None: any blanks
    frames: bool = False  # folders of frames: RawframeDataset's lines
    with_offset: bool = False  # of such lines
    multi_class: bool = False
    num_classes: int | None = None
    labels_needed: bool = True  # a line without any is an error

    @classmethod
    def of(cls, dataset: Mapping, num_classes: int | None = None) -> VideoList | None:
        """Return the list of a dataset's config; None: the dataset has lists of another kind.

        Args:
            dataset: the config.
            num_classes: classes of the model; None: unknown.
        """
        kind = dataset.get("type")
        name = (kind if isinstance(kind, str) else getattr(kind, "__name__", "")).split(".")[-1]
        path = ann_file(dataset)
        if name not in (*VIDEO_TYPES, *FRAME_TYPES) or path.endswith(".json"):
            return None
        frames = name in FRAME_TYPES
        prefix = dataset.get("data_prefix") or {}
        if isinstance(prefix, Mapping):
            prefix = prefix.get("img" if frames else "video")
        counts = [count for count in (num_classes, dataset.get("num_classes")) if count]
        return cls(
            path, _under(dataset, prefix or ""), None if frames else dataset.get("delimiter", " "),
            frames, bool(dataset.get("with_offset")), bool(dataset.get("multi_class")),
            min(counts, default=None),
        )  # fmt: skip

    def entries(self, bad: Callable[[int, str], None] | None = None) -> Iterator[Entry]:
        """Read the lines one after the other.

        Args:
            bad: is told number and fault of lines that MMAction2 would misread, which are left out
                then; None: the first such line is an error.

        Raises:
            Ada3DError: no such file, another encoding, or a bad line. The message names file and
                line, and says what to try.
        """
        count, empty = 0, []
        for number, line in read_lines(self.path):
            if not line.strip():
                empty.append(number)
                continue
            count += 1
            try:
                entry = self._entry(number, line.strip())
            except Ada3DError as error:
                if bad is None:
                    raise
                bad(number, str(error))
            else:
                yield entry
        if not count:
            raise Ada3DError(f"annotation file: {self.path} lists no video")
        if empty:
            fault = (
                f"{self.path}, line {empty[0]}: it is empty, which MMAction2 takes for a video "
                f"without a name; remove empty lines ({len(empty)}): sed -i '/^\\s*$/d' FILE"
            )
            if bad is None:
                raise Ada3DError(fault)
            bad(empty[0], fault)

    def _entry(self, number: int, line: str) -> Entry:
        fields = line.split(self.delimiter)
        where, given = f"{self.path}, line {number}", 1
        frames = None
        if self.frames:
            given = 3 if self.with_offset else 2
            if len(fields) < given or not fields[given - 1].isdecimal():
                wanted = "folder offset frames label" if self.with_offset else "folder frames label"
                raise Ada3DError(f"{where}: {line!r} is not '{wanted} [label ...]'")
            frames = int(fields[given - 1])
        labels = self._labels(where, line, fields[given:])
        return Entry(number, os.path.join(self.prefix, fields[0]), labels, frames)

    def _labels(self, where: str, line: str, fields: list[str]) -> tuple[int, ...]:
        try:
            labels = tuple(int(field) for field in fields)
        except ValueError:
            labels = ()
        if not fields and not self.labels_needed:
            return ()
        if not labels:
            raise Ada3DError(f"{where}: {line!r} is not 'video label [label ...]'{self._why(line)}")
        for label in labels:
            if label < 0 or label >= (self.num_classes or label + 1):
                classes = f"the {self.num_classes} classes" if self.num_classes else "the classes"
                raise Ada3DError(
                    f"{where}: label {label} is outside {classes} of the model, which are counted "
                    "from 0 (num_classes of cls_head)"
                )
        if len(labels) > 1 and not self.multi_class:
            raise Ada3DError(
                f"{where}: {len(labels)} labels; set multi_class=True and num_classes in the dataset"
            )
        return labels

    def _why(self, line: str) -> str:
        """Say what may be wrong with a line that is not as it should be."""
        if self.delimiter not in (None, "\t") and "\t" in line:
            return f"; there is a tab in it: set delimiter='\\t' in the dataset, or use {self.delimiter!r}"
        if self.delimiter and len(line.split(self.delimiter)) > 2:
            return (
                f"; fields are separated by one {self.delimiter!r} each, which file names cannot "
                "contain: rename the files, or set delimiter in the dataset to what names lack"
            )
        return ""


def ann_file(dataset: Mapping) -> str:
    """Return the path of a dataset's list, under its ``data_root`` if it has one."""
    return _under(dataset, str(dataset.get("ann_file") or ""))


def require_list(path: str) -> None:
    """Check that a list is a file that can be read.

    Raises:
        Ada3DError: nothing there, a folder, or no permission.
    """
    if os.path.isdir(path):
        raise Ada3DError(f"annotation file: {path} is a folder; name a file in it")
    if not path or "\0" in path or not Path(path).is_file():
        raise Ada3DError(f"annotation file: nothing at {path!r}; check data_root and ann_file")
    if not os.access(path, os.R_OK):
        raise Ada3DError(f"annotation file: no permission to read {path}")


def read_lines(path: str) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line of a list in UTF-8, one after the other.

    Raises:
        Ada3DError: no such file, or another encoding.
    """
    require_list(path)
    with open(path, "rb") as file:
        _require_utf8(path, file.read(4))
        file.seek(0)
        number = 0
        for raw in file:
            ended = raw.removesuffix(b"\n").removesuffix(b"\r")
            for part in ended.split(b"\r"):  # MMAction2 reads with universal newlines
                number += 1
                yield number, _decoded(part, f"{path}, line {number}")


def _require_utf8(path: str, start: bytes) -> None:
    for mark, name in OTHER_ENCODINGS:
        if start.startswith(mark):
            raise Ada3DError(
                f"{path}: it is in {name}, and lists are read in UTF-8; convert it: "
                f"iconv -f {name} -t UTF-8 {path} > NEW"
            )
    if start.startswith(codecs.BOM_UTF8):
        raise Ada3DError(
            f"{path}, line 1: it begins with a byte-order mark, which MMAction2 takes for a part of "
            "the first name; save it without (UTF-8 without BOM), such as by: sed -i "
            "'1s/^\\xEF\\xBB\\xBF//' FILE"
        )


def _decoded(raw: bytes, where: str) -> str:
    if b"\0" in raw:
        raise Ada3DError(
            f"{where}: there is a NUL byte in it, so this is no list in UTF-8; if it is in UTF-16, "
            "convert it: iconv -f UTF-16LE -t UTF-8 FILE > NEW"
        )
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Ada3DError(
            f"{where}: byte {raw[error.start]:#04x} in column {error.start + 1} is not UTF-8, in "
            "which lists are read; convert it: iconv -f LATIN1 -t UTF-8 FILE > NEW (or from what it "
            "is in)"
        ) from error


def _under(dataset: Mapping, path: str) -> str:
    root = dataset.get("data_root")
    return os.path.join(root, path) if root else path
