"""Tests of a trained model: policies recorded, thresholds set, decisions shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from mmaction.datasets.transforms import PackActionInputs
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner
from torch import Tensor

from ..cost.price import price_table
from ..distribution import PolicyDistribution
from ..errors import Ada3DError
from ..report import policy_pictures
from .broken import in_list_order
from .config import inner_datasets
from .optim import unwrap


def record_policies(config: Config, path: str) -> bool:
    """Make the config's PolicyCostMetric write its clips, with the names of their videos.

    The config's ``test_evaluator`` is a list then.

    Args:
        config: it is changed.
        path: the file of policies to be written.

    Returns:
        Whether the config has a PolicyCostMetric.
    """
    if not isinstance(config.test_evaluator, (list, tuple)):
        config.test_evaluator = [config.test_evaluator]
    metrics = [m for m in config.test_evaluator if m.get("type") == "PolicyCostMetric"]
    for metric in metrics:
        metric["out_file"] = path
    for dataset in inner_datasets(config.test_dataloader.dataset):
        for transform in dataset.get("pipeline") or ():
            if transform["type"] == "PackActionInputs":
                keys = transform.get("meta_keys", PackActionInputs().meta_keys)
                transform["meta_keys"] = tuple(dict.fromkeys([*keys, "filename", "frame_dir"]))
    return bool(metrics)


def calibrate(
    runner: Runner, loader, gmacs: float, track: Callable[[Iterable], Iterable] = iter
) -> float:
    """Set the threshold at which greedy policies cost ``gmacs`` on average, and return it.

    In several processes all have the threshold that one would have.

    Args:
        runner: the threshold of its model's ``testing_options`` is set.
        loader: the clips on which the cost is measured.
        gmacs: GMACs per clip, selection network included.
        track: goes through the loader; it may show the progress.

    Raises:
        Ada3DError: a cost that no threshold gives, or a model without learned policies.
    """
    model = unwrap(runner.model).eval()
    if getattr(model, "selector", None) is None or model.testing_options.policy != "learned":
        raise Ada3DError("--gmacs is for learned policies: the model has none")
    videos: list[tuple[Tensor, Tensor]] = []  # logits of a video's clips: of frames, of stages
    with torch.no_grad():
        for batch in track(loader):
            inputs = model.data_preprocessor(batch, training=False)["inputs"]
            decided = model.selector(inputs.flatten(0, 1))
            logits = (decided.frame_logits.cpu(), decided.stage_logits.cpu())
            videos += zip(*(part.unflatten(0, inputs.shape[:2]) for part in logits))
    frames, stages = zip(*in_list_order(videos, loader))
    plan = model.plan
    distribution = PolicyDistribution(
        torch.cat(frames), torch.cat(stages), plan.frame_unit, plan.num_frames
    )
    table = price_table(model.recognizer)
    target = gmacs * 1e9 - model.selector_macs
    options = model.testing_options
    options.threshold = table.threshold(distribution, target, options.greedy)
    return options.threshold


def examples(
    model,
    data: Mapping,
    label: str,
    names: Mapping[int, str],
    labelled: bool = False,
    views: int = 1,
) -> list[policy_pictures.Example]:
    """Return what is decided for the first clips of a video.

    Args:
        model: an Ada3DRecognizer; it is put into evaluation mode.
        data: the video, as a test pipeline packs it.
        label: the class if ``labelled``, else the video's name.
        names: of the classes.
        labelled: whether the label is a class.
        views: how many clips.
    """
    model = unwrap(model).eval()
    sample = model.test_step(pseudo_collate([data]))[0]
    best = int(sample.pred_score.argmax())
    return [
        policy_pictures.Example(
            policy_pictures.pixels(clip), sample.policy_frames[view], sample.policy_stages[view],
            [stage.name for stage in model.plan.stages], label, names.get(best, str(best)),
            (int(sample.recognizer_macs[view]) + sample.selector_macs) / 1e9, labelled,
        )
        for view, clip in enumerate(data["inputs"][:views])
    ]  # fmt: skip
