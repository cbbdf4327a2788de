"""2D backbones for the selection network, their weights, and what they make of an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import Ada3DError
from ..weights import read_file


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


def state_of(content: Any, path: str | Path, what: str) -> dict[str, Tensor]:
    """Return the state dict of what a file holds: tensors by their names.

    It may be the ``state_dict`` of a checkpoint; the prefix 'module.' of a distributed wrapper is left
    out.

    Args:
        content: see `read_file`.
        path: the file, for messages.
        what: names it in messages.

    Raises:
        Ada3DError: something else than tensors, or none.
    """
    state = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(state, Mapping):
        raise Ada3DError(f"{what}: {path} holds a {type(state).__name__}, no state dict")
    state = {k: v for k, v in state.items() if not str(k).endswith("_extra_state")}
    other = [f"{k!r}, a {type(v).__name__}" for k, v in state.items() if not _is_entry(k, v)]
    if other:
        raise Ada3DError(
            f"{what}: {path} is no state dict: it holds {len(other)} entries that are no tensors: "
            f"{'; '.join(other[:4])}. Where one of them is the state dict, save that alone"
        )
    if not state:
        raise Ada3DError(f"{what}: {path} holds no tensors")
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state


def _is_entry(key: Any, value: Any) -> bool:
    return isinstance(key, str) and isinstance(value, Tensor)


def load_backbone(backbone: nn.Module, path: str | Path) -> None:
    """Load pretrained weights into a 2D backbone.

    Args:
        backbone: the network.
        path: a state dict, float16 or float32; a classifier in it is ignored.

    Raises:
        Ada3DError: no such file, not a state dict, or tensors missing, of another shape or not
            finite.
    """
    weights = state_of(read_file(path, "selection backbone"), path, "selection backbone")
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
    broken = [k for k, value in fitting.items() if not value.isfinite().all()]
    if broken:
        raise Ada3DError(
            f"selection backbone: {path} holds numbers that are not finite: {', '.join(broken[:4])}"
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
