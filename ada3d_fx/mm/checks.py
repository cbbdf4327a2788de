"""Look for bad input before time is lost: files, lists, labels, videos."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..errors import Ada3DError
from .config import inner_datasets


def check_config(config: Mapping, splits: tuple[str, ...], videos: int | None = 4) -> None:
    """Check what a run will read.

    Args:
        config: the run's config.
        splits: those that it reads, of 'train', 'val' and 'test'.
        videos: how many videos of each list are decoded; None: all of them.

    Raises:
        Ada3DError: a file is missing, a list empty or malformed, a label not one of the model's
            classes, or a video does not decode. The message names file and line.
    """
    model = config.get("model") or {}
    head = (model.get("recognizer", model) or {}).get("cls_head") or {}
    checked = set()
    for split in splits:
        loader = config.get(f"{split}_dataloader")
        for dataset in inner_datasets(loader.get("dataset") if loader else None):
            ann_file = dataset.get("ann_file")
            key = (ann_file, str(dataset.get("data_prefix")))
            if key not in checked:
                checked.add(key)
                check_dataset(dataset, head.get("num_classes"), videos)


def check_dataset(dataset: Mapping, num_classes: int | None, videos: int | None = 4) -> None:
    """Check one list in MMAction2's format, ``path label [label ...]``, and some of its videos.

    Args:
        dataset: the config of the dataset.
        num_classes: classes of the model; None: unknown.
        videos: how many of its videos are decoded; None: all of them.

    Raises:
        Ada3DError: see `check_config`.
    """
    path = Path(dataset.get("ann_file") or "")
    if not path.is_file():
        raise Ada3DError(f"annotation file: nothing at {path}; check data_root and ann_file")
    if path.suffix == ".json" or dataset.get("type") != "VideoDataset":
        return
    prefix = dataset.get("data_prefix") or {}
    folder = Path(prefix.get("video", "") if isinstance(prefix, Mapping) else prefix)
    separator = dataset.get("delimiter") or " "
    rows = [line.strip() for line in path.read_text().splitlines()]
    entries = []
    for number, row in enumerate(rows, 1):
        if not row:
            continue
        fields = row.split(separator)
        labels = fields[1:]
        if not labels or not all(label.lstrip("-").isdigit() for label in labels):
            raise Ada3DError(f"{path}, line {number}: {row!r} is not 'video label [label ...]'")
        wrong = [x for x in labels if num_classes and not 0 <= int(x) < num_classes]
        if wrong:
            raise Ada3DError(
                f"{path}, line {number}: label {wrong[0]} is outside the {num_classes} classes of "
                "the model (num_classes of cls_head)"
            )
        if len(labels) > 1 and not dataset.get("multi_class"):
            raise Ada3DError(
                f"{path}, line {number}: {len(labels)} labels; set multi_class=True and "
                "num_classes in the dataset"
            )
        entries.append((number, folder / fields[0]))
    if not entries:
        raise Ada3DError(f"annotation file: {path} lists no video")
    for number, video in entries[:videos]:
        check_video(video, f"{path}, line {number}")


def check_video(video: Path, where: str) -> None:
    """Decode the first and the last frame of a video.

    Args:
        video: the file.
        where: what lists it, for the message.

    Raises:
        Ada3DError: it is missing, or does not decode.
    """
    import decord

    if not video.is_file():
        raise Ada3DError(f"{where}: no video at {video}; check data_prefix")
    try:
        reader = decord.VideoReader(str(video), num_threads=1)
        for index in {0, len(reader) - 1}:
            reader[index].asnumpy()
    except (decord.DECORDError, RuntimeError, IndexError) as error:
        raise Ada3DError(f"{where}: the video {video} does not decode: {error}") from error
