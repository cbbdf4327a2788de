"""A recognizer, a selector, clips and a runner, all as small as they can be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from mmaction.structures import ActionDataSample
from mmengine.config import Config

from ada3d_fx.experiments.generated_clips import write_video

CLIP_SHAPE = (3, 4, 32, 32)
CLASSES = 4


def recognizer(**head) -> dict:
    return {
        "type": "Recognizer3D",
        "backbone": {
            "type": "ResNet3d",
            "depth": 18,
            "base_channels": 4,
            "pretrained": None,
            "pretrained2d": False,
            "conv1_kernel": (3, 3, 3),
            "conv1_stride_t": 1,
            "pool1_stride_t": 1,
            "with_pool2": False,
            "inflate": (1, 1, 1, 1),
            "zero_init_residual": False,
        },
        "cls_head": {
            "type": "I3DHead",
            "num_classes": CLASSES,
            "in_channels": 32,
            "dropout_ratio": 0.0,
            "average_clips": "prob",
            **head,
        },
        "data_preprocessor": {
            "type": "ActionDataPreprocessor",
            "mean": [120.0] * 3,
            "std": [60.0] * 3,
            "format_shape": "NCTHW",
        },
    }


def selector(**options) -> dict:
    return {
        "type": "SelectionNetwork",
        "backbone": {"type": "SmallConvNet", "channels": (4, 6)},
        "input_size": 16,
        "head": {"type": "FrameHead", "hidden": 8},
        **options,
    }


def model(head: dict | None = None, **options) -> dict:
    return {
        "type": "Ada3DRecognizer",
        "recognizer": recognizer(**(head or {})),
        "selector": selector(pretrain="frame"),
        "objective": {"samples": 2},
        "clip_shape": CLIP_SHAPE,
        **options,
    }


def batch(n: int = 3, views: int = 1, multi_label: bool = False):
    """Inputs [n, views, C, T, H, W] and their data samples."""
    generator = torch.Generator().manual_seed(7)
    samples = []
    for i in range(n):
        label = torch.zeros(CLASSES) if multi_label else i % CLASSES
        if multi_label:
            label[[i % CLASSES, (i + 1) % CLASSES]] = 1
        samples.append(ActionDataSample().set_gt_label(label))
    return torch.randn(n, views, *CLIP_SHAPE, generator=generator), samples


def write_clips(folder: Path, count: int = 8) -> Path:
    """A list file of encoded videos of noise, 8 frames of 32x32."""
    rng = np.random.default_rng(0)
    lines = []
    for i in range(count):
        path = folder / "videos" / f"{i}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        frames = rng.integers(0, 255, (8, 32, 32, 3)).astype(np.uint8) // (1 + i % CLASSES)
        write_video(path, frames)
        lines.append(f"{i}.mp4 {i % CLASSES}\n")
    (folder / "list.txt").write_text("".join(lines))
    return folder / "list.txt"


def run_config(folder: Path, work_dir: Path, epochs: int = 3, **model_options) -> Config:
    """One epoch each of the warm-up, the selection and the joint phase over the clips of `write_clips`."""
    names = ["warmup", "selection", "joint"][:epochs]
    loader = {
        "batch_size": 4,
        "num_workers": 0,
        "sampler": {"type": "DefaultSampler", "shuffle": True},
        "dataset": {
            "type": "VideoDataset",
            "ann_file": str(folder / "list.txt"),
            "data_prefix": {"video": str(folder / "videos")},
            "pipeline": [
                {"type": "DecordInit"},
                {"type": "SampleFrames", "clip_len": 4, "frame_interval": 1, "num_clips": 1},
                {"type": "DecordDecode"},
                {"type": "Flip", "flip_ratio": 0.5},
                {"type": "FormatShape", "input_format": "NCTHW"},
                {"type": "PackActionInputs"},
            ],
        },
    }
    evaluator = [
        {"type": "AccMetric", "metric_list": ("top_k_accuracy", "mean_class_accuracy"),
         "metric_options": {"top_k_accuracy": {"topk": (1,)}}},
        {"type": "PolicyCostMetric", "kinds": {"even": [0, 2], "odd": [1, 3]}},
    ]  # fmt: skip
    rates = {"recognizer_lr": 1e-2, "selector_lr": 1e-2}
    return Config(
        {
            "default_scope": "mmaction",
            "model": model(**model_options),
            "train_dataloader": loader,
            "val_dataloader": {**loader, "sampler": {"type": "DefaultSampler", "shuffle": False}},
            "test_dataloader": {**loader, "sampler": {"type": "DefaultSampler", "shuffle": False}},
            "val_evaluator": evaluator,
            "test_evaluator": evaluator,
            "train_cfg": {"type": "EpochBasedTrainLoop", "max_epochs": epochs, "val_interval": 1},
            "val_cfg": {"type": "ValLoop"},
            "test_cfg": {"type": "TestLoop"},
            "optim_wrapper": {
                "constructor": "Ada3DOptimWrapperConstructor",
                "optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-2},
            },
            "custom_hooks": [
                {
                    "type": "TrainingPhaseHook",
                    "phases": [{"name": name, "epochs": 1, **rates} for name in names],
                },
                {"type": "PolicyLogHook", "interval": 1},
            ],
            "default_hooks": {
                "logger": {"type": "LoggerHook", "interval": 1},
                "checkpoint": {
                    "type": "CheckpointHook", "interval": 1, "save_best": "policy/reward",
                    "rule": "greater",
                },
            },
            "randomness": {"seed": 3},
            "work_dir": str(work_dir),
            "experiment_name": work_dir.name,
            "visualizer": {
                "type": "ActionVisualizer",
                "vis_backends": [{"type": "LocalVisBackend"}, {"type": "TensorboardVisBackend"}],
            },
        }
    )  # fmt: skip
