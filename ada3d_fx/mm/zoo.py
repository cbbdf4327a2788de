"""The recognizers that MMAction2 ships, and the clips that a recognizer's config makes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import mmaction
import mmengine
from mmengine.config import Config

from ..errors import Ada3DError
from .checks import inner_datasets


class Shipped(NamedTuple):
    """A shipped config: its path below MMAction2's ``configs`` folder, and its content."""

    name: str
    config: Config

    @property
    def family(self) -> str:
        return Path(self.name).parent.name


def configs_folder() -> Path:
    """Where the installed MMAction2 keeps its configs.

    Raises:
        Ada3DError: an installation without them.
    """
    package = Path(mmaction.__file__).parent
    for folder in (package / ".mim" / "configs", package.parent / "configs"):
        if (folder / "recognition").is_dir():
            return folder
    raise Ada3DError(f"MMAction2 at {package} has no configs; install it from its wheel")


def shipped_recognizers() -> Iterator[Shipped]:
    """Every shipped config whose model is a Recognizer3D, in the order of their paths."""
    folder = configs_folder()
    for path in sorted(folder.rglob("*.py")):
        if "_base_" in path.parts:
            continue
        config = Config.fromfile(path)
        if isinstance(config.get("model"), dict) and config.model.get("type") == "Recognizer3D":
            yield Shipped(str(path.relative_to(folder)), config)


class Listed(NamedTuple):
    """What MMAction2's metafile says of a shipped config: FLOPs in units of 10^9, and the clip of
    its resolution (of the test pipeline, where it says only how videos were resized)."""

    name: str
    config: Config
    giga: float
    clip_shape: tuple[int, int, int, int]


def listed_flops(families: Sequence[str]) -> Iterator[Listed]:
    """The 3D recognizers of these folders whose FLOPs MMAction2 lists, in the metafile's order.

    Raises:
        Ada3DError: a folder without a metafile.
    """
    for family in families:
        path = configs_folder() / "recognition" / family / "metafile.yml"
        if not path.is_file():
            raise Ada3DError(f"MMAction2 has no metafile for {family!r}: no file at {path}")
        for entry in mmengine.load(path)["Models"]:
            about = entry["Metadata"]
            config = Config.fromfile(configs_folder().parent / entry["Config"])
            if "FLOPs" not in about or config.model.type != "Recognizer3D":
                continue
            flops = str(about["FLOPs"])
            giga = float(flops[:-1]) if flops.endswith("G") else float(flops) / 1e9
            channels, frames, *size = clip_shape_of(config)
            square = re.fullmatch(r"(\d+)x\1", str(about["Resolution"]))
            size = [int(square[1])] * 2 if square else size
            yield Listed(entry["Config"], config, giga, (channels, frames, *size))


def parse_shape(text: str) -> tuple[int, int, int, int]:
    """'3,8,224,224' -> (3, 8, 224, 224): C, T, H, W.

    Raises:
        Ada3DError: anything else.
    """
    try:
        shape = tuple(int(n) for n in text.split(","))
    except ValueError:
        shape = ()
    if len(shape) != 4 or min(shape) < 1:
        raise Ada3DError(f"--shape {text}: expected C,T,H,W, such as 3,8,224,224")
    return shape


def clip_shape_of(config: Config) -> tuple[int, int, int, int]:
    """(C, T, H, W) of the clips of a config's test pipeline (else of its training pipeline; else as
    its model says).

    Raises:
        Ada3DError: no pipeline that says how many frames a clip has and how large they are.
    """
    model = config.model.get("recognizer") or config.model  # of an Ada3D config
    backbone = model.get("backbone") or {}
    for loader in ("test_dataloader", "val_dataloader", "train_dataloader"):
        pipeline = _pipeline(config.get(loader) or {})
        frames = [_frames(t["clip_len"]) for t in pipeline if "clip_len" in t]
        sizes = [size for size in map(_size, pipeline) if size]
        if frames and sizes:
            return (backbone.get("in_channels", 3), frames[0], *sizes[-1])
    size = backbone.get("input_resolution") or backbone.get("img_size")
    if size and config.get("num_frames"):
        return (backbone.get("in_channels", 3), config.num_frames, size, size)
    raise Ada3DError(
        "no pipeline with a sampling transform (clip_len) and a crop or resize to a fixed size; "
        "give the shape of a clip, --shape C,T,H,W"
    )


def _pipeline(loader: dict) -> list:
    dataset = next(inner_datasets(loader.get("dataset")), {})
    return [t for t in dataset.get("pipeline") or [] if isinstance(t, dict)]


def _frames(clip_len: int | dict) -> int:
    return clip_len if isinstance(clip_len, int) else max(clip_len.values())  # by modality


def _size(transform: dict) -> tuple[int, int] | None:
    if "crop_size" in transform:
        size = transform["crop_size"]
        return (size, size) if isinstance(size, int) else (size[1], size[0])
    scale = transform.get("scale")
    fixed = isinstance(scale, (tuple, list)) and not transform.get("keep_ratio", True)
    return (scale[1], scale[0]) if fixed else None
