"""Checkpoints -> models, with every tensor that does not fit named."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from ..errors import Ada3DError
from ..learn.backbones import UNREADABLE
from ..learn.selector import SelectionNetwork
from .build import build_recognizer


def load_checkpoint(path: str | Path) -> dict:
    """The state dict of a checkpoint file, on the CPU.

    Raises:
        Ada3DError: no such file, or not a checkpoint.
    """
    if not Path(path).is_file():
        raise Ada3DError(f"checkpoint: no file at {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise Ada3DError(f"checkpoint: {path} cannot be read: {error}") from error
    if not isinstance(checkpoint, dict):
        raise Ada3DError(f"checkpoint: {path} holds a {type(checkpoint).__name__}, no state dict")
    return checkpoint.get("state_dict", checkpoint)


def load_recognizer(model: nn.Module, path: str | Path) -> None:
    """Load a plain recognizer's checkpoint, or the recognizer out of one of Ada3DRecognizer's.

    Raises:
        Ada3DError: no such file, or tensors that do not fit; the message names them.
    """
    weights, own = load_checkpoint(path), model.state_dict()
    if any(key.startswith("recognizer.") for key in weights):
        weights = {
            key.removeprefix("recognizer."): value
            for key, value in weights.items()
            if key.startswith("recognizer.")
        }
    unlike = [
        f"{key} {list(weights[key].shape)} instead of {list(value.shape)}"
        for key, value in own.items()
        if key in weights and weights[key].shape != value.shape
    ]
    missing = [f"{key} is missing" for key in own if key not in weights]
    extra = [f"{key} has no place" for key in weights if key not in own]
    wrong = unlike + missing + extra
    if wrong:
        raise Ada3DError(
            f"checkpoint: {path} does not fit the recognizer in {len(wrong)} tensors: "
            + "; ".join(wrong[:4])
            + ". Is it for another backbone, or another number of classes?"
        )
    model.load_state_dict(weights)


def initial_weights(config: Mapping, checkpoint: str | Path | None) -> dict:
    """The state dict with which the recognizer starts: its checkpoint's, else its own init's."""
    model = build_recognizer(config)
    if checkpoint is None:
        model.init_weights()
    else:
        load_recognizer(model, checkpoint)
    return model.state_dict()


def load_selector(selector: SelectionNetwork, path: str | Path) -> None:
    """Load the selection network of an Ada3D checkpoint, trained with another recognizer or on
    other classes (table 3); its classifier is left.

    Raises:
        Ada3DError: no such file, no selection network in it, or one of another backbone or plan.
    """
    weights = load_checkpoint(path)
    name = "selector."
    found = {k.removeprefix(name): v for k, v in weights.items() if k.startswith(name)}
    if not found:
        raise Ada3DError(
            f"selector_checkpoint: {path} holds no selection network; is it an Ada3D checkpoint?"
        )
    own = selector.state_dict()
    left = {key for key in (*own, *found) if key.startswith("classifier.")}
    unlike = [
        f"{key} {list(found[key].shape) if key in found else 'missing'} instead of "
        f"{list(own[key].shape) if key in own else 'nothing'}"
        for key in dict.fromkeys((*own, *found))
        if key not in left
        and (key not in own or key not in found or own[key].shape != found[key].shape)
    ]
    if unlike:
        raise Ada3DError(
            f"selector_checkpoint: {path} does not fit the selection network in {len(unlike)} "
            f"tensors: {'; '.join(unlike[:4])}. Its backbone, its aggregation, the number of stages "
            "and (for aggregation 'uniform') of frames must be the same"
        )
    selector.load_state_dict({k: v for k, v in found.items() if k not in left}, strict=False)
