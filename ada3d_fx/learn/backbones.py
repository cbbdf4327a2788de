"""2D backbones for the selection network, their weights, and what they make of an image."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import Ada3DError

# what torch.load raises for files that hold something else
UNREADABLE = (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError)


class SmallConvNet(nn.Module):
    """Strided 3x3 convolutions with BatchNorm and ReLU: images [B, 3, h, w] -> [B, D].

    For recognizers so small that MobileNetV2 (80 million multiply-adds a frame) would cost more
    than it saves.

    Args:
        channels: of each layer; the last is D. Each halves height and width.
        in_channels: of the images.
    """

    def __init__(self, channels: Sequence[int] = (8, 16, 32), in_channels: int = 3):
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((in_channels, *channels[:-1]), channels, strict=True):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        self.features = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Return the features of images: [B, C, h, w] -> [B, D]."""
        return self.features(images).mean((2, 3))


def mobilenet_v2(width_mult: float = 1.0) -> nn.Module:
    """Build torchvision's MobileNetV2 without its classifier; ``width_mult`` scales its channels."""
    from torchvision.models import mobilenet_v2 as build

    net = build(weights=None, width_mult=width_mult)
    net.classifier = nn.Identity()
    return net


def load_backbone(backbone: nn.Module, path: str | Path) -> None:
    """Load pretrained weights into a 2D backbone.

    Args:
        backbone: the network.
        path: a state dict, float16 or float32; a classifier in it is ignored.

    Raises:
        Ada3DError: no such file, not a state dict, or tensors missing or of another shape.
    """
    path = Path(path)
    if not path.is_file():
        raise Ada3DError(f"selection backbone: no weights file at {path}")
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise Ada3DError(f"selection backbone: {path} is no file of weights: {error}") from error
    weights = weights.get("state_dict", weights) if isinstance(weights, dict) else {}
    own = backbone.state_dict()
    needed = [k for k in own if not k.startswith(("classifier.", "fc."))]
    missing = [k for k in needed if k not in weights and not k.endswith("num_batches_tracked")]
    if missing:
        raise Ada3DError(
            f"selection backbone: {path} lacks {len(missing)} of {len(needed)} tensors of "
            f"{type(backbone).__name__}: {', '.join(missing[:4])} ...; is it for another network?"
        )
    fitting = {k: weights[k] for k in needed if k in weights}
    unlike = [k for k, value in fitting.items() if value.shape != own[k].shape]
    if unlike:
        k = unlike[0]
        raise Ada3DError(
            f"selection backbone: {k} has shape {list(fitting[k].shape)} in {path} but "
            f"{list(own[k].shape)} in {type(backbone).__name__} ({len(unlike)} such tensors); "
            "is its width the same?"
        )
    backbone.load_state_dict(fitting, strict=False)


def pooled(features: Tensor | Sequence[Tensor]) -> Tensor:
    """Reduce a backbone's output, [B, D] or [B, D, h', w'] or a tuple ending with such, to [B, D]."""
    last = features if isinstance(features, Tensor) else features[-1]
    return last.flatten(2).mean(2) if last.ndim > 2 else last


def feature_size(backbone: nn.Module, channels: int, side: int) -> int:
    """Return D of the features that a backbone makes of images [B, channels, side, side].

    Its modules stay in their modes.

    Raises:
        Ada3DError: a backbone that does not take such images.
    """
    states = [(module, module.training) for module in backbone.modules()]
    for module, _ in states:  # eval() itself may be overridden by frozen_stages and the like
        module.training = False
    try:
        with torch.no_grad():
            size = pooled(backbone(torch.zeros(1, channels, side, side))).shape[1]
    except RuntimeError as error:
        raise Ada3DError(
            f"SelectionNetwork: backbone {type(backbone).__name__} does not take images [B, "
            f"{channels}, {side}, {side}]: {error}. Does it have in_channels={channels}"
            + (
                " (motion=True gives each frame and its difference to the one before)?"
                if channels == 6
                else "?"
            )
        ) from error
    for module, training in states:
        module.training = training
    return size
