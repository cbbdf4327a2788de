"""Tests of a trained model: policies recorded, thresholds set, decisions shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
from mmaction.datasets.transforms import PackActionInputs
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner
from torch import Tensor

from ..cost.price import price_table
from ..distribution import PolicyDistribution
from ..errors import Ada3DError
from ..exits import certainty, sure, tied
from ..learn.reward import correctness
from ..policy import Policy
from ..report import policy_pictures
from .config import inner_datasets
from .optim import unwrap
from .steps import labels_of
from .video_runner import in_list_order


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


class Thresholds(NamedTuple):
    """What decides in tests."""

    # Of the greedy policies.
    policy: float
    # The confidence that a clip must exceed to exit; None: no clip exits.
    exit: float | None

    def entries(self) -> dict[str, float]:
        """Return what a row tells of them."""
        return {"threshold": self.policy} | ({} if self.exit is None else {"exit": self.exit})

    def __str__(self) -> str:
        exits = "" if self.exit is None else f", of exits: {self.exit:.4f}"
        return f"{self.policy:.4f}{exits}"


def calibrate(
    runner: Runner, loader, gmacs: float, track: Callable[[Iterable], Iterable] = iter
) -> Thresholds:
    """Set the threshold at which greedy policies cost ``gmacs`` on average, and return it.

    Where clips may exit, the confidence that they need is set together with it, see `tied`: both are
    moved from what the config says. In several processes all have the thresholds that one would
    have. The recognizer does not run.

    Args:
        runner: the thresholds of its model are set.
        loader: the clips on which the cost is measured.
        gmacs: GMACs per clip, selection network included.
        track: goes through the loader; it may show the progress.

    Raises:
        Ada3DError: a cost that no threshold gives, or a model without learned policies.
    """
    model = unwrap(runner.model).eval()
    if getattr(model, "selector", None) is None or model.testing_options.policy != "learned":
        raise Ada3DError("--gmacs is for learned policies: the model has none")
    distribution, certainties = _decided(model, loader, track)
    start, options = model.exit_start, model.testing_options

    def exit_at(threshold: float) -> float:
        return tied(threshold, start)

    exits = model.exit is not None
    options.threshold = price_table(model.recognizer).threshold(
        distribution, gmacs * 1e9, options.greedy, model.selector_macs,
        (lambda threshold: sure(certainties, exit_at(threshold))) if exits else None,
    )  # fmt: skip
    model.exit = exit_at(options.threshold) if exits else None
    return Thresholds(options.threshold, model.exit)


@torch.no_grad()
def _decided(
    model, loader, track: Callable[[Iterable], Iterable]
) -> tuple[PolicyDistribution, Tensor | None]:
    """Return the policies' distribution of a list's clips, and if they may exit their certainties.

    The clips are in the list's order, whatever process had which.
    """
    videos: list[tuple[Tensor, ...]] = []  # of a video's clips
    for batch in track(loader):
        inputs = model.data_preprocessor(batch, training=False)["inputs"]
        features = model.selector.frame_features(inputs.flatten(0, 1))
        decided = model.selector.distribution(features)
        parts = [decided.frame_logits, decided.stage_logits]
        if model.exit is not None:
            parts.append(certainty(model.class_scores(features)))
        videos += zip(*(part.cpu().unflatten(0, inputs.shape[:2]) for part in parts))
    frames, stages, *sure_of = (torch.cat(part) for part in zip(*in_list_order(videos, loader)))
    plan = model.plan
    distribution = PolicyDistribution(frames, stages, plan.frame_unit, plan.num_frames)
    return distribution, sure_of[0] if sure_of else None


@torch.no_grad()
def right_under(model, batches: Iterable, policies: Policy, most: int) -> tuple[Tensor, int]:
    """Count the clips that the recognizer predicts rightly under each of M policies.

    Of videos with several views the middle one counts.

    Args:
        model: an Ada3DRecognizer; it is put into evaluation mode.
        batches: of videos, as a test pipeline packs them.
        policies: M; each is executed for all clips.
        most: clips beyond so many do not count.

    Returns:
        int64 [M], and how many clips there were.
    """
    model = unwrap(model).eval()
    right, clips = torch.zeros(len(policies), dtype=torch.int64), 0
    for batch in batches:
        packed = model.data_preprocessor(batch, training=False)
        inputs = packed["inputs"][: most - clips, packed["inputs"].shape[1] // 2]
        labels = labels_of(packed["data_samples"][: most - clips], inputs.device)
        for i in range(len(policies)):
            policy = policies[i].repeat_interleave(len(inputs)).to(inputs.device)
            scores = model.recognizer(inputs, policy)
            right[i] += int(correctness(scores, labels).sum())
        clips += len(inputs)
    return right, clips


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
