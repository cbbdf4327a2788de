"""Clips with each frame's difference to the one before it, for recognizers that see what moves."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from mmaction.models.data_preprocessors import ActionDataPreprocessor
from mmaction.registry import MODELS
from torch import Tensor

from ..errors import Ada3DError
from ..learn.heads import since_before

TYPE = "DifferencePreprocessor"


@MODELS.register_module()
class DifferencePreprocessor(ActionDataPreprocessor):
    """MMAction2's ActionDataPreprocessor, which adds each frame's difference to the one before it.

    Clips have 6 channels then: those of the frame, and the differences of them, normalised alike; the
    first frame's are 0. They are made of whole clips, so what a kept frame shows does not depend on
    which others are kept. The recognizer's first convolution must take 6 channels; the selection
    network is given the first three.
    """

    def preprocess(
        self, inputs: list[Tensor], data_samples: list, training: bool = False
    ) -> tuple[Tensor, list]:
        """Normalise and blend as ActionDataPreprocessor does, and add the differences.

        Args:
            inputs: of each video [views, 3, T, H, W].
            data_samples: one for each.
            training: whether clips are blended.

        Returns:
            [B, views, 6, T, H, W], and the samples.

        Raises:
            Ada3DError: inputs of another shape.
        """
        if inputs[0].ndim != 5 or inputs[0].shape[1] != 3:
            raise Ada3DError(
                f"{TYPE}: a video's clips have shape {list(inputs[0].shape)}, expected [views, 3, T, H, W]; "
                "does the pipeline end with FormatShape(input_format='NCTHW')?"
            )
        clips, data_samples = super().preprocess(inputs, data_samples, training)
        return with_differences(clips, channels=2), data_samples


def with_differences(clips: Tensor, channels: int = 1) -> Tensor:
    """Add to each frame of clips its difference to the one before it, as further channels.

    Args:
        clips: [..., C, T, H, W].
        channels: which axis C is.

    Returns:
        [..., 2 C, T, H, W].
    """
    differences = since_before(clips.movedim(channels + 1, 1)).movedim(1, channels + 1)
    return torch.cat([clips, differences], channels)


def check_channels(preprocessor: Mapping, clip_shape: tuple[int, int, int, int]) -> None:
    """Check that a recognizer whose clips have differences is converted for 6 channels.

    Raises:
        Ada3DError: it is not.
    """
    if preprocessor.get("type") == TYPE and clip_shape[0] != 6:
        raise Ada3DError(
            f"clip_shape={tuple(clip_shape)}: with a {TYPE} clips have 6 channels; set clip_shape="
            f"{(6, *clip_shape[1:])}, and in_channels=6 in the recognizer's backbone"
        )


def widened(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Widen the first convolution of a recognizer of frames to one of frames and differences.

    Args:
        own: tensors of the recognizer that takes 6 channels.
        weights: of one that takes 3, or of any other, which are returned as they are.

    Returns:
        The weights; what differences are multiplied with starts at zero.
    """

    def fits(key: str, value: Tensor) -> bool:
        shape = own[key].shape if key in own else value.shape
        return (
            value.ndim in (4, 5)
            and value.shape[1] == 3
            and shape == (shape[0], 6, *value.shape[2:])
        )

    return {
        key: torch.cat([value, torch.zeros_like(value)], 1) if fits(key, value) else value
        for key, value in weights.items()
    }
