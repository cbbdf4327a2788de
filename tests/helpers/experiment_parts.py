"""Configs of small experiments as files, with clips and untrained checkpoints beside them."""

from __future__ import annotations

from pathlib import Path

import mm_parts
import torch
from mmaction.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from ada3d_fx.progress import Console


def config_of(folder: Path, count: int = 8, **model_options) -> Config:
    """The run of `mm_parts.run_config` over clips that are written now.

    Nothing is logged but to the log file, and lists are not packed: both take longer than the run.
    """
    mm_parts.write_clips(folder, count)
    config = mm_parts.run_config(folder, folder / "work", **model_options)
    config.visualizer.vis_backends = []
    for name in ("train", "val", "test"):
        config[f"{name}_dataloader"].dataset.serialize_data = False
    return config


def write(folder: Path, config: Config) -> torch.nn.Module:
    """Leave config.py, model.pth and plain.pth (its recognizer alone) in the folder."""
    init_default_scope("mmaction")
    torch.manual_seed(0)
    config.dump(str(folder / "config.py"))
    model = MODELS.build(config.model)
    model.init_weights()
    torch.save(model.state_dict(), folder / "model.pth")
    torch.save(model.recognizer.state_dict(), folder / "plain.pth")
    return model


class Said(Console):
    """A console that keeps what is said in ``lines``."""

    def __init__(self):
        super().__init__()
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)
