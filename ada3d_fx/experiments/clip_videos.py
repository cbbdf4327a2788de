"""The clips of long videos, each through Ada3D once: what a clip selector learns from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from mmengine.runner import Runner
from torch import Tensor

from ..errors import Ada3DError
from ..learn.clip_selector import previews


class Videos(NamedTuple):
    """The clips of a list: V videos of M clips each."""

    preview: Tensor  # [V, M, D], what the selection network sees of each clip
    scores: Tensor  # [V, M, classes]
    gmacs: Tensor  # [V, M], of the recognizer
    labels: Tensor  # [V]


@torch.no_grad()
def score_clips(runner: Runner, batches: Iterable) -> Videos:
    """Run every clip of a list through Ada3D.

    Args:
        runner: holds the trained model.
        batches: of the list's loader.

    Raises:
        Ada3DError: videos with several labels, or with one clip each.
    """
    model, parts = runner.model.eval(), []
    for batch in batches:
        data = model.data_preprocessor(batch, training=False)
        inputs, samples = data["inputs"], data["data_samples"]
        clips = inputs.flatten(0, 1)
        features = model.selector.frame_features(clips)
        scored = model.score(clips, features)
        macs = scored.spread(model.price(scored.policy))
        values = (previews(features), scored.scores, macs[:, None].double() / 1e9)
        preview, scores, gmacs = (v.unflatten(0, inputs.shape[:2]).cpu() for v in values)
        labels = torch.stack([sample.gt_label for sample in samples]).flatten().cpu()
        parts.append(Videos(preview, scores, gmacs[..., 0], labels))
    whole = Videos(*(torch.cat(column) for column in zip(*parts)))
    if len(whole.labels) != len(whole.preview):
        raise Ada3DError("select_clips: videos with several labels are not supported")
    if whole.preview.shape[1] < 2:
        raise Ada3DError(
            "the test pipeline gives one clip of each video; set num_clips of its SampleFrames"
        )
    return whole
