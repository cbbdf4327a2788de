"""Look for bad input before time is lost: files, lists, labels, videos."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from typing import Any

from .. import requirements
from ..errors import Ada3DError
from ..videos.broken import limit_of
from ..videos.lists import VideoList, ann_file, require_list
from ..videos.probe import probe
from .config import inner_datasets

# What a component needs whose type starts so: the module.
NEEDED = {"Decord": "decord", "PyAV": "av", "OpenCV": "cv2", "TensorboardVisBackend": "tensorboard"}


def check_config(config: Mapping, splits: tuple[str, ...], videos: int | None = 4) -> None:
    """Check what a run will read.

    Args:
        config: the run's config.
        splits: those that it reads, of 'train', 'val' and 'test'.
        videos: how many videos of each list are looked at; None: all. None of them
            is if the config allows for broken ones (``broken_videos``).

    Raises:
        Ada3DError: a file is missing, a list empty or malformed, a label not one of the model's
            classes, or a video does not decode. The message names file and line.
    """
    check_packages([config.get("visualizer"), *(config.get(f"{s}_dataloader") for s in splits)])
    if limit_of(config):
        videos = 0
    for dataset, num_classes in listed_datasets(config, splits):
        check_dataset(dataset, num_classes, videos)


def check_packages(part: Any) -> None:
    """Check that what the components of a config import when they are built or run is installed.

    Raises:
        Ada3DError: a package is missing; the message has the command that installs it.
    """
    if isinstance(part, (list, tuple)):
        for inner in part:
            check_packages(inner)
    elif isinstance(part, Mapping):
        kind = part.get("type")
        for start, module in NEEDED.items():
            if isinstance(kind, str) and kind.startswith(start):
                requirements.module(module, f"{kind} in the config")
        check_packages(list(part.values()))


def listed_datasets(
    config: Mapping, splits: tuple[str, ...]
) -> Iterator[tuple[Mapping, int | None]]:
    """Yield the datasets of a config, each list once, with the number of the model's classes."""
    model = config.get("model") or {}
    recognizer = model.get("recognizer", model) or {}
    head = recognizer.get("cls_head") if isinstance(recognizer, Mapping) else None
    known = set()
    for split in splits:
        loader = config.get(f"{split}_dataloader")
        for dataset in inner_datasets(loader.get("dataset") if loader else None):
            key = (ann_file(dataset), str(dataset.get("data_prefix")))
            if key not in known:
                known.add(key)
                yield dataset, (head or {}).get("num_classes")


def check_dataset(dataset: Mapping, num_classes: int | None, videos: int | None = 4) -> None:
    """Check one list of videos or of folders of frames, and some of what it lists.

    Of other kinds of lists only the file is looked for.

    Args:
        dataset: the config of the dataset.
        num_classes: classes of the model; None: unknown.
        videos: how many of its videos are looked at; None: all of them.

    Raises:
        Ada3DError: see `check_config`.
    """
    require_list(ann_file(dataset))
    listed = VideoList.of(dataset, num_classes)
    if listed is None:
        return
    for _ in listed.entries():
        pass  # all lines are read before the first video is
    for entry in itertools.islice(listed.entries(), videos):
        where = f"{listed.path}, line {entry.line}"
        if listed.frames:
            check_folder(entry.path, where)
        else:
            check_video(entry.path, where)


def check_folder(folder: str, where: str) -> None:
    """Check that a folder of frames is there.

    Raises:
        Ada3DError: it is not.
    """
    if not os.path.isdir(folder):
        raise Ada3DError(f"{where}: no folder of frames at {folder}; check data_prefix")


def check_video(video: str, where: str) -> None:
    """Decode the first and the last frame of a video.

    Args:
        video: the file.
        where: what lists it, for the message.

    Raises:
        Ada3DError: it is missing, or does not decode.
    """
    for module in ("av", "decord"):
        requirements.module(module, "looking at videos")
    video = video_file(video)
    error = probe(video, whole=False)["error"]
    if error:
        raise Ada3DError(f"{where}: the video {video} {error}")


def video_file(path: str) -> str:
    """Return the file that MMAction2 opens for a listed path: DecordInit adds what is missing."""
    return path if os.path.splitext(path)[1] else path + ".mp4"
