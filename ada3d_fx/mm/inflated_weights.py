"""Weights of networks for images, fetched or read, and inflated."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torchvision
from torch import Tensor

from ..errors import Ada3DError
from ..learn.backbones import state_of
from ..weights import UNREADABLE, read_file
from .checkpoint import check_tensors
from .inflation import Init, inflate_weight, widen_input


def pretrained(net: str, weights: str) -> dict[str, Tensor]:
    """Return a 2D network's weights, by torchvision's names of today.

    Args:
        net: torchvision's name of it.
        weights: torchvision's name of its weights, which are fetched unless they are there already;
            or a file.

    Raises:
        Ada3DError: they cannot be fetched, or there is no such file, or it is no state dict.
    """
    what = f"InflatedNet: weights of {net}"
    known = torchvision.models.get_model_weights(net).__members__
    if weights in known:
        url = known[weights].url
        try:
            state = known[weights].get_state_dict(
                progress=False, check_hash=True, map_location="cpu", weights_only=True
            )
        except UNREADABLE as error:
            raise Ada3DError(
                f"{what}: {weights} cannot be fetched from {url}: {error}; fetch it where there is a "
                "network, and give the file's path as weights"
            ) from error
    elif Path(weights).is_file():
        state = state_of(read_file(weights, what), weights, what)
    else:
        raise Ada3DError(
            f"{what}: {weights!r} is neither a file nor one of torchvision's, {', '.join(known)}"
        )
    return dict(_named_as_today(state))


def _named_as_today(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Rename what files of DenseNets name as of old: norm.1 for norm1."""
    for key, value in state.items():
        yield re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", key), value


def inflated_state(
    own: Mapping[str, Tensor], flat: Mapping[str, Tensor], first: str, init: Init, source: str
) -> dict[str, Tensor]:
    """Inflate a 2D network's weights.

    Args:
        own: tensors of the network that they are for.
        flat: the weights, without those of a classifier.
        first: the kernel that may have further input channels.
        init: see `inflate_weight`.
        source: where they are from, for messages.

    Returns:
        The network's state dict.

    Raises:
        Ada3DError: tensors are missing, of another shape or not finite; the message names them.
    """
    images = {k: v[:, :, 0] if v.ndim == 5 else v for k, v in own.items()}
    images[first] = images[first][:, :3]
    counters = {k: v for k, v in own.items() if k.endswith("num_batches_tracked")}
    weights = {**counters, **flat}
    hint = "Is it for another network?"
    check_tensors(source, "the features of the network", images, weights, hint)
    inflated = {}
    for key, value in own.items():
        inflated[key] = weights[key].to(value.dtype)
        if value.ndim == 5:
            inflated[key] = inflate_weight(inflated[key], value.shape[2], init)
    inflated[first] = widen_input(inflated[first], own[first].shape[1])
    return inflated
