"""The recognizers that MMAction2 ships."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import mmaction
import mmengine
from mmengine.config import Config

from ..errors import Ada3DError
from .config import clip_shape_of


class Shipped(NamedTuple):
    """A shipped config."""

    name: str  # its path below MMAction2's ``configs`` folder
    config: Config

    @property
    def family(self) -> str:
        """The name of its folder."""
        return Path(self.name).parent.name


def configs_folder() -> Path:
    """Find where the installed MMAction2 keeps its configs.

    Raises:
        Ada3DError: an installation without them.
    """
    package = Path(mmaction.__file__).parent
    for folder in (package / ".mim" / "configs", package.parent / "configs"):
        if (folder / "recognition").is_dir():
            return folder
    raise Ada3DError(f"MMAction2 at {package} has no configs; install it from its wheel")


def shipped_recognizers() -> Iterator[Shipped]:
    """Yield every shipped config whose model is a Recognizer3D, in the order of their paths."""
    folder = configs_folder()
    for path in sorted(folder.rglob("*.py")):
        if "_base_" in path.parts:
            continue
        config = Config.fromfile(path)
        if isinstance(config.get("model"), dict) and config.model.get("type") == "Recognizer3D":
            yield Shipped(str(path.relative_to(folder)), config)


class Listed(NamedTuple):
    """What MMAction2's metafile says of a shipped config."""

    name: str  # its path below MMAction2's package
    config: Config
    giga: float  # FLOPs, in units of 10^9
    # (C, T, H, W) of the listed resolution, or where that tells only how videos were resized of the
    # test pipeline.
    clip_shape: tuple[int, int, int, int]


def listed_flops(families: Sequence[str]) -> Iterator[Listed]:
    """Yield the 3D recognizers whose FLOPs MMAction2 lists, in the metafile's order.

    Args:
        families: folders of MMAction2's configs.

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
