"""What the selection network costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from .count import count


class Selector(Protocol):
    """What a price needs to know of a selection network (`learn.selector.SelectionNetwork`)."""

    input_size: int | None
    num_features: int
    backbone: nn.Module

    @property
    def in_channels(self) -> int:
        """Channels of the backbone's images."""
        ...

    @property
    def head(self) -> nn.Module:
        """Features [N, T, D] -> logits."""
        ...

    def classify(self, features: Tensor) -> Tensor:
        """Features [N, T, D] -> class scores."""
        ...


def selector_price(
    selector: Selector,
    clip_shape: Sequence[int],
    convention: str = "fvcore",
    *,
    decide: bool = True,
    classify: bool = False,
) -> int:
    """Count the multiply-adds of the selection network for one clip, by fvcore.

    All T frames go through its backbone. The resizing of the frames is not counted.

    Args:
        selector: the selection network.
        clip_shape: (C, T, H, W) of the clip.
        convention: as in `count`.
        decide: whether its head chooses a policy.
        classify: whether its classifier runs.

    Returns:
        Multiply-adds.

    Raises:
        Ada3DError: an unknown convention.
    """
    _, t, height, width = clip_shape
    side = selector.input_size
    image = torch.zeros(1, selector.in_channels, side or height, side or width)
    features = torch.zeros(1, t, selector.num_features)
    total = t * count(selector.backbone, (image,), convention).total
    if decide:
        total += count(selector.head, (features,), convention).total
    if classify:
        total += count(_Classify(selector), (features,), convention).total
    return total


class _Classify(nn.Module):
    """`SelectionNetwork.classify` as a module, to be counted."""

    def __init__(self, selector: Selector):
        super().__init__()
        self.selector = selector

    def forward(self, features: Tensor) -> Tensor:
        return self.selector.classify(features)
