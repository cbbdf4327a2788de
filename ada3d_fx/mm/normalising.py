"""What a data preprocessor does to clips in inference, without the memory that it takes meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmaction.models import ActionDataPreprocessor
from torch import Tensor, nn

from ..packed.module_state import is_watched


def prepared(preprocessor: nn.Module, clips: Sequence[Tensor]) -> Tensor:
    """Preprocess clips, each as a video of one view.

    MMAction2's own preprocessor subtracts and divides a whole batch at once, into fresh memory each
    time, which waits for memory. Where it does no more than that to pixels on a CPU, the same is done
    clip by clip, in place, to the very same numbers; anything else goes through the preprocessor.

    Args:
        preprocessor: the model's.
        clips: [C, T, H, W] of one shape, as a test pipeline gives them.

    Returns:
        [N, 1, C, T, H, W].
    """
    if not _only_normalises(preprocessor, clips):
        data = {"inputs": [clip[None] for clip in clips], "data_samples": None}
        return preprocessor(data, training=False)["inputs"]
    normalised = torch.empty(len(clips), 1, *clips[0].shape)
    for place, clip in zip(normalised[:, 0], clips):
        place.copy_(clip).sub_(preprocessor.mean).div_(preprocessor.std)
    return normalised


def _only_normalises(preprocessor: nn.Module, clips: Sequence[Tensor]) -> bool:
    """Whether all that is done is (pixels - mean) / std, in float32 on the CPU."""
    return (
        type(preprocessor) is ActionDataPreprocessor
        and preprocessor._enable_normalize
        and preprocessor.format_shape == "NCTHW"
        and not preprocessor.to_rgb
        and not is_watched(preprocessor)
        and preprocessor.device.type == preprocessor.mean.device.type == "cpu"
        and preprocessor.mean.dtype == preprocessor.std.dtype == torch.float32
        and all(_is_pixels(clip) and clip.shape == clips[0].shape for clip in clips)
    )


def _is_pixels(clip: Tensor) -> bool:
    return clip.dtype == torch.uint8 and clip.ndim == 4 and clip.device.type == "cpu"
