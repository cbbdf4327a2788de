"""A small model, clips and lists for inference, whose pipeline draws nothing at random."""

from __future__ import annotations

from pathlib import Path

import experiment_parts
import mm_parts
import torch
from mmengine.config import Config

MILLISECONDS = ("decode_ms", "select_ms", "recognise_ms")


def config_of(folder: Path, views: int = 1, count: int = 8, **model_options) -> Config:
    """The config of `experiment_parts` without flips, with several clips of each video."""
    config = experiment_parts.config_of(folder, count, **model_options)
    for name in ("train", "val", "test"):
        steps = config[f"{name}_dataloader"].dataset.pipeline
        steps = [step for step in steps if step.type != "Flip"]
        for step in steps:
            if step.type == "SampleFrames":
                step.update(num_clips=views, test_mode=True)
        config[f"{name}_dataloader"].dataset.pipeline = steps
    return config


def write(folder: Path, views: int = 1, count: int = 8, **model_options) -> torch.nn.Module:
    """Leave config.py, plain.py, model.pth and plain.pth; policies differ from clip to clip."""
    config = config_of(folder, views, count, **model_options)
    config.model.selector.max_logit = None
    model = experiment_parts.write(folder, config)
    with torch.no_grad():
        clips = torch.stack([torch.rand(mm_parts.CLIP_SHAPE) / (1 + i % 4) for i in range(64)])
        for module in model.selector.modules():
            if hasattr(module, "momentum"):
                module.momentum = None  # of BatchNorm: all of what it sees next
        model.selector.train()((255 * clips - 120) / 60)
        for parameter in model.selector.head.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape) * (parameter.ndim > 1))
        model.recognizer.cls_head.fc_cls.weight.mul_(100)  # scores that differ, too
    model.selector.eval()
    torch.save(model.state_dict(), folder / "model.pth")
    torch.save(model.recognizer.state_dict(), folder / "plain.pth")
    config.model = mm_parts.recognizer()
    config.test_evaluator = config.test_evaluator[:1]
    config.dump(str(folder / "plain.py"))
    return model


def timeless(rows) -> list[dict]:
    """Rows without milliseconds; scores in float32 differ in their last digits from batch to batch."""
    left = [{k: v for k, v in row.items() if k not in MILLISECONDS} for row in rows]
    return [{**row, "score": row["score"] and round(row["score"], 5)} for row in left]
