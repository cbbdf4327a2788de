"""What is to be inferred: videos, folders, patterns and MMAction2's lists, as one list in little memory."""

from __future__ import annotations

import array
import dataclasses
import glob
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import Ada3DError
from .lists import VideoList
from .probe import CONTAINERS

LISTS = (".txt", ".csv", ".tsv", ".list")  # endings of lists


class Video(NamedTuple):
    """One video, or one folder of frames."""

    path: str
    labels: tuple[int, ...] = ()  # as its list has it
    frames: int | None = None  # how many images there are in a folder of frames
    source: str = ""  # the list, and the line


class Videos:
    """A list of videos in one block of bytes, which processes share and nothing grows.

    A million of them take some 150 MB.

    Args:
        videos: the videos.
    """

    def __init__(self, videos: Iterable[Video]):
        block, self._starts = bytearray(), array.array("q", [0])
        for video in videos:
            block += json.dumps(video).encode()
            self._starts.append(len(block))
        self._block = bytes(block)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> Video:
        path, labels, frames, source = json.loads(
            self._block[self._starts[index] : self._starts[index + 1]]
        )
        return Video(path, tuple(labels), frames, source)

    def __iter__(self) -> Iterator[Video]:
        return (self[index] for index in range(len(self)))

    @property
    def digest(self) -> str:
        """A digest of the names and labels, in their order."""
        sha = hashlib.sha256()
        for video in self:
            sha.update(json.dumps(video[:3]).encode() + b"\n")
        return f"{len(self)} videos, sha256 {sha.hexdigest()[:16]}"


def find_videos(
    inputs: str | Path | Sequence[str | Path], dataset: Mapping, num_classes: int | None = None,
    must_exist: bool = True,
) -> Videos:  # fmt: skip
    """Find what is to be inferred.

    Args:
        inputs: each a video, a folder (all videos in it and below), a pattern such as
            ``'clips/*.mp4'``, or a list as the config's dataset reads it (.txt); in a list, labels
            may be missing.
        dataset: of the config; says how lists are read, and to which folder they are relative.
        num_classes: classes of the model, for the labels of lists.
        must_exist: whether it is an error that a file is not there, or no video in a folder;
            otherwise that becomes a video that does not decode.

    Raises:
        Ada3DError: nothing there, no video in a folder, or a bad list.
    """
    every = [inputs] if isinstance(inputs, (str, os.PathLike)) else inputs
    found = Videos(
        video for one in every for video in _videos(one, dataset, num_classes, must_exist)
    )
    if not len(found):
        raise Ada3DError("no videos: give files, folders, patterns or lists")
    return found


def _videos(
    given: str | Path, dataset: Mapping, num_classes: int | None, must_exist: bool
) -> Iterator[Video]:
    if not isinstance(given, (str, os.PathLike)):
        raise Ada3DError(f"inputs: {given!r} is no path; give paths of videos, folders or lists")
    path = os.fspath(given)
    if "\0" in path:
        raise Ada3DError(f"inputs: {path!r} has a NUL character in its name")
    if os.path.isdir(path):
        yield from _in_folder(path, must_exist)
    elif os.path.isfile(path) and path.lower().endswith(LISTS):
        yield from _in_list(path, dataset, num_classes)
    elif os.path.lexists(path) or not (must_exist or glob.has_magic(path)):
        yield Video(path)
    elif glob.has_magic(path):
        matched = sorted(one for one in glob.iglob(path, recursive=True) if os.path.isfile(one))
        if not matched:
            raise Ada3DError(f"inputs: no file is like {path}")
        yield from map(Video, matched)
    else:
        raise Ada3DError(f"inputs: nothing at {path}; give a video, a folder, a pattern or a list")


def _in_folder(folder: str, must_exist: bool) -> Iterator[Video]:
    found = False
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if os.path.splitext(name)[1].lower() in CONTAINERS:
                found = True
                yield Video(os.path.join(place, name))
    if not found and not must_exist:
        yield Video(folder)
    elif not found:
        raise Ada3DError(
            f"inputs: no video in the folder {folder}; videos end with {', '.join(CONTAINERS)}"
        )


def _in_list(path: str, dataset: Mapping, num_classes: int | None) -> Iterator[Video]:
    listed = VideoList.of({**dataset, "ann_file": os.path.abspath(path)}, num_classes)
    listed = listed or VideoList(path, num_classes=num_classes)
    for entry in dataclasses.replace(listed, path=path, labels_needed=False).entries():
        yield Video(entry.path, entry.labels, entry.frames, f"{path}, line {entry.line}")
