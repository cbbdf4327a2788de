"""Clips of a config's list, as the network takes them, on which an exported file is quantised."""

from __future__ import annotations

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import Tensor, nn

from ..errors import Ada3DError
from ..mm.checks import check_config
from ..mm.config import calibration_list
from ..progress import Console
from ..videos.broken import BrokenVideo
from ..videos.loader import VideoLoader


def calibration_clips(
    config: Config, model: nn.Module, name: str, count: int, console: Console
) -> Tensor:
    """Decode clips of evenly spaced videos of a list, by the test pipeline; the middle one of each.

    Args:
        config: has the list.
        model: whose preprocessor normalises them.
        name: of the list, 'train' or 'val'.
        count: of the videos; all, where there are fewer. Broken ones are left out.
        console: where progress is shown.

    Returns:
        float32 [N, C, T, H, W].

    Raises:
        Ada3DError: no such list, or no video of it that decodes.
    """
    check_config(config, (name,))
    loader = Runner.build_dataloader(calibration_list(config, name), seed=0)
    videos = VideoLoader.of(loader, config).dataset
    count = min(count, len(videos))
    chosen = [i * len(videos) // count for i in range(count)]
    clips = []
    for index in console.track(chosen, "decoding calibration clips"):
        data = videos[index]
        if isinstance(data, BrokenVideo):
            console.say(f"left out: {data}")
            continue
        views = data["inputs"]
        batch = {"inputs": [views[len(views) // 2][None]], "data_samples": None}
        clips.append(model.data_preprocessor(batch, training=False)["inputs"].flatten(0, 1).float())
    if not clips:
        raise Ada3DError(f"--int8: no video of the {name} list decodes")
    return torch.cat(clips)
