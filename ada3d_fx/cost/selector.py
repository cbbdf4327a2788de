"""What the selection network costs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..learn.selector import SelectionNetwork
from .count import count


def selector_price(
    selector: SelectionNetwork,
    clip_shape: Sequence[int],
    convention: str = "fvcore",
    *,
    decide: bool = True,
    classify: bool = False,
) -> int:
    """Multiply-adds of the selection network for one clip (C, T, H, W): T frames through its
    backbone, and the heads where it is to ``decide``, its classifier where it is to ``classify``.

    By fvcore; ``convention`` as in `count`. The resizing of the frames is not counted.
    """
    _, t, height, width = clip_shape
    side = selector.input_size
    image = torch.zeros(1, selector.in_channels, side or height, side or width)
    features = torch.zeros(1, t, selector.norm.num_features)
    total = t * count(selector.backbone, (image,), convention).total
    if decide:
        total += count(selector.heads, (features,), convention).total
    if classify:
        total += count(_Classify(selector), (features,), convention).total
    return total


class _Classify(nn.Module):
    """`SelectionNetwork.classify` as a module, to be counted."""

    def __init__(self, selector: SelectionNetwork):
        super().__init__()
        self.selector = selector

    def forward(self, features: Tensor) -> Tensor:
        return self.selector.classify(features)
