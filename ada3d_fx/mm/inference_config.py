"""Configs made ready for inference, and the videos that they say how to find."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mmengine.config import Config

from ..errors import Ada3DError, require_number
from ..videos.inputs import Videos, find_videos
from ..videos.streaming import check_pipeline
from . import schema
from .checks import check_packages
from .config import forget_start, inner_datasets, require, set_policy


class InferenceOptions(NamedTuple):
    """What an inferencer does otherwise than its config says."""

    policy: str | None = None  # 'learned' or 'full'
    threshold: float | None = None  # what the greedy policy's probabilities must exceed
    gmacs: float | None = None  # GMACs per clip for which the threshold is set
    calibrate_on: str = "val"  # the list on which it is set
    data_prefix: str | None = None  # the folder to which lists are relative


def prepare_config(config: Config, options: InferenceOptions, exported: bool = False) -> None:
    """Make a config one for inference: set what the options say, and take training out of its way.

    Args:
        config: it is changed.
        options: what is done otherwise than the config says.
        exported: the model is an exported file, which decides as it was exported to.

    Raises:
        Ada3DError: no test pipeline for videos, options that the model has not, or recorded policies.
    """
    require(config, "test_dataloader")
    steps = dataset_of(config).get("pipeline") or []
    check_pipeline(steps)
    check_packages(list(steps))
    if exported:
        return
    model = config.model
    if options.policy:
        set_policy(config, options.policy)
    given = [name for name in ("threshold", "gmacs") if getattr(options, name) is not None]
    if model.get("type") != "Ada3DRecognizer":
        if given:
            raise Ada3DError(f"--{given[0]} is for learned policies: the model has none")
        return
    if len(given) > 1:
        raise Ada3DError("--gmacs sets the threshold; give either it or --threshold")
    testing = dict(model.get("testing") or {})
    if given and testing.get("policy", "learned") != "learned":
        raise Ada3DError(f"--{given[0]} is for learned policies, not {testing['policy']} ones")
    if options.threshold is not None:
        require_number("--threshold", options.threshold, 0.0, 1.0, above=True)
        if options.threshold == 1:
            raise Ada3DError("--threshold 1: no probability is above it; try 0.99")
        testing["threshold"] = options.threshold
    if testing.get("policy") == "recorded":
        raise Ada3DError(
            "testing.policy='recorded' goes by the test list; tools/test.py runs it. Try --policy "
            "learned or full"
        )
    model.testing = testing
    forget_start(config)
    if "training" in model:
        model.training = {k: v for k, v in model.training.items() if k != "distill"}
    schema.check(config)


def find(
    config: Config, inputs: Any, data_prefix: str | None = None, must_exist: bool = True
) -> Videos:
    """Find the videos of paths, folders, patterns and lists, see `find_videos`.

    Args:
        config: says how lists are read.
        inputs: as `find_videos` takes them.
        data_prefix: the folder to which lists are relative; None: the config's.
        must_exist: as `find_videos` takes it.
    """
    dataset = dict(dataset_of(config))
    if data_prefix is not None:
        dataset.pop("data_root", None)
        dataset["data_prefix"] = data_prefix
    return find_videos(inputs, dataset, num_classes_of(config), must_exist)


def dataset_of(config: Config) -> Mapping:
    """Return the config of the dataset whose videos are tested."""
    return next(inner_datasets(config.test_dataloader.dataset), {})


def num_classes_of(config: Config) -> int | None:
    """Return how many classes the model has; None: its config does not say it."""
    recognizer = config.model.get("recognizer", config.model)
    if not isinstance(recognizer, Mapping):
        return None
    return (recognizer.get("cls_head") or {}).get("num_classes")
