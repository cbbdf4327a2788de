"""An exported file in place of a checkpoint: its `Session`, and what of the config it still needs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from mmaction.registry import MODELS
from mmengine.config import Config
from mmengine.model import BaseModel
from torch import Tensor

from ..errors import Ada3DError, require_number
from ..runtime.engines import OF_SUFFIX
from ..runtime.session import Session
from .config import recognizer_config, tested_size
from .inference_config import InferenceOptions, num_classes_of


class ExportedModel(BaseModel):
    """The parts of a config's model around its network: what prepares clips, and what averages scores.

    No backbone is built, and no weights are needed.

    Args:
        model: the config's.
    """

    def __init__(self, model: Mapping):
        adaptive = model.get("type") == "Ada3DRecognizer"
        config = recognizer_config(model["recognizer"] if adaptive else model)
        own = (model if adaptive else {}).get("data_preprocessor")
        default = {"type": "ActionDataPreprocessor"}
        if adaptive:  # as Ada3DRecognizer has it
            default["format_shape"] = "NCTHW"
        super().__init__(dict(own or config.get("data_preprocessor") or default))
        self.cls_head = MODELS.build(config["cls_head"])

    def forward(self, inputs: Tensor, data_samples: list | None = None, mode: str = "tensor"):
        """Refuse: `SessionScorer` calls the parts."""
        raise NotImplementedError


def is_exported(path: object) -> bool:
    """Tell whether a path is that of an exported file rather than of a checkpoint."""
    return isinstance(path, Session) or Path(str(path)).suffix in (*OF_SUFFIX, ".pt2")


def open_session(
    path: str | Path | Session, config: Config, options: InferenceOptions, device: str | None = None
) -> Session:
    """Open an exported file, and check that it fits a config and options.

    Args:
        path: the file; or its session, which is checked only.
        config: whose pipeline makes the clips.
        options: of the inferencer.
        device: such as 'cpu'.

    Raises:
        Ada3DError: no such file, clips or classes that are not the config's, or options that are not
            for such a file.
    """
    if device not in (None, "cpu"):
        raise Ada3DError(f"--device {device}: an exported file runs on the CPU")
    session = path if isinstance(path, Session) else Session(path, threads=torch.get_num_threads())
    _check_options(session, options)
    _check_fit(session, config)
    return session


def _check_options(session: Session, options: InferenceOptions) -> None:
    file, described = session.path, session.description
    if options.gmacs is not None:
        raise Ada3DError(
            f"--gmacs: {file} gives decisions, not probabilities; set the threshold for a cost where "
            "it is exported, tools/export.py --gmacs G"
        )
    if options.threshold is not None:
        if not described.selects:
            raise Ada3DError(
                f"--threshold is for learned policies: {file} has no selection network"
            )
        require_number("--threshold", options.threshold, 0.0, 1.0, above=True)
        if options.threshold == 1:
            raise Ada3DError("--threshold 1: no probability is above it; try 0.99")
    if options.policy is None:
        return
    if options.policy not in ("learned", "full"):
        raise Ada3DError(f"--policy {options.policy}: an exported file takes learned or full")
    if described.fixed is not None:
        raise Ada3DError(f"--policy {options.policy}: {file} is of one fixed policy")
    if options.policy == "learned" and not described.selects:
        raise Ada3DError(f"--policy learned: {file} has no selection network")
    if options.policy == "full" and options.threshold is not None:
        raise Ada3DError("--threshold is for learned policies, not full ones")


def _check_fit(session: Session, config: Config) -> None:
    described = session.description
    frames, size = tested_size(config)
    wanted = (described.num_frames, described.clip_shape[2:])
    given = (frames or wanted[0], size or wanted[1])
    if given != wanted:
        told = [f"{t} x {h} x {w}" for t, (h, w) in (given, wanted)]
        raise Ada3DError(
            f"{session.path}: the config's test pipeline makes clips of {told[0]} (T x H x W), but the "
            f"file is for clips of {told[1]}. Export it with --clip-shape, or set the pipeline's sizes "
            "with --cfg-options"
        )
    classes = num_classes_of(config)
    if classes is not None and classes != described.num_classes:
        raise Ada3DError(
            f"{session.path}: it scores {described.num_classes} classes, the config's model {classes}"
        )
