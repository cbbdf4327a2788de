"""Checkpoints -> models, with every tensor that does not fit named."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import Ada3DError
from ..learn.backbones import UNREADABLE
from ..learn.selector import SelectionNetwork
from .build import build_recognizer
from .optim import unwrap

# Parts of a checkpoint that only training reads, which may differ from the config's.
TRAINING_ONLY = ("estimator.",)


def load_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Read the state dict of a checkpoint file, on the CPU.

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


def last_checkpoint(folder: str | Path) -> str | None:
    """Find the checkpoint with which the training of a work dir goes on; None where there is none.

    It is the last whole one in that very folder: MMEngine's note of the last checkpoint holds the
    path at which it was written, which in a copied folder is another's, and may be missing; and a
    file may have been cut off.
    """
    folder = Path(folder)
    note = folder / "last_checkpoint"
    candidates = (
        [folder / Path(note.read_bytes().decode("utf-8", "replace").strip()).name]
        if note.is_file()
        else []
    )
    numbered = [
        (int(match[1]), path)
        for path in folder.glob("*.pth")
        if (match := re.fullmatch(r"(?:epoch|iter)_(\d+)\.pth", path.name))
    ]
    candidates += [path for _, path in sorted(numbered, reverse=True) if path not in candidates]
    for path in candidates:
        try:
            load_checkpoint(path)
        except Ada3DError as error:
            logging.getLogger(__name__).warning("%s; an earlier one is taken", error)
        else:
            return str(path)
    return None


def load_recognizer(model: nn.Module, path: str | Path) -> None:
    """Load a plain recognizer's checkpoint, or the recognizer out of one of Ada3DRecognizer's.

    Raises:
        Ada3DError: no such file, or tensors that do not fit; the message names them.
    """
    weights = load_checkpoint(path)
    if any(key.startswith("recognizer.") for key in weights):
        weights = part_of(weights, "recognizer.")
    check_tensors(
        f"checkpoint: {path}", "the recognizer", model.state_dict(), weights,
        "Is it for another backbone, or another number of classes?",
    )  # fmt: skip
    model.load_state_dict(weights)


def initial_weights(config: Mapping, checkpoint: str | Path | None) -> dict[str, Tensor]:
    """Return the weights with which the recognizer starts: its checkpoint's, else its own init's."""
    model = build_recognizer(config)
    if checkpoint is None:
        model.init_weights()
    else:
        load_recognizer(model, checkpoint)
    return model.state_dict()


def load_selector(selector: SelectionNetwork, path: str | Path) -> None:
    """Load the selection network of an Ada3D checkpoint; its classifier stays out.

    It may have been trained with another recognizer or on other classes (table 3).

    Raises:
        Ada3DError: no such file, no selection network in it, or one of another backbone or plan.
    """
    weights = part_of(load_checkpoint(path), "selector.")
    if not weights:
        raise Ada3DError(
            f"selector_checkpoint: {path} holds no selection network; is it an Ada3D checkpoint?"
        )
    weights = {k: v for k, v in weights.items() if not k.startswith("classifier.")}
    check_tensors(
        f"selector_checkpoint: {path}", "the selection network", selector.state_dict(), weights,
        "Its backbone, its head, the number of stages and (for a MeanHead) of frames must be the same.",
        unread=("classifier.",),
    )  # fmt: skip
    selector.load_state_dict(weights, strict=False)


def load_weights(model: nn.Module, checkpoint: str | Path) -> None:
    """Load a checkpoint for testing; a tensor that is missing or out of place is an error.

    A plain recognizer's checkpoint serves an Ada3DRecognizer whose policies are not learned.

    Raises:
        Ada3DError: no such file, or not for this model.
    """
    model = unwrap(model)
    options = getattr(model, "testing_options", None)
    if options is None:  # a plain recognizer
        return load_recognizer(model, checkpoint)
    weights = load_checkpoint(checkpoint)
    if not part_of(weights, "selector.") or model.selector is None:
        if options.policy == "learned" or options.predict_with != "recognizer":
            raise Ada3DError(
                f"checkpoint: {checkpoint} holds no selection network, so there is neither a learned "
                "policy nor a class score of it; try --policy full or random (with --cfg-options "
                "model.testing.predict_with=recognizer where the config predicts with both) or a "
                "checkpoint of this config's run"
            )
        return load_recognizer(model.recognizer, checkpoint)
    unread = TRAINING_ONLY
    if options.predict_with == "recognizer":
        unread += ("selector.classifier.",)
    check_tensors(
        f"checkpoint: {checkpoint}", "the model", model.state_dict(), weights,
        "Was it trained with this config?", unread,
    )  # fmt: skip
    own = model.state_dict()
    fitting = {k: v for k, v in weights.items() if k in own and own[k].shape == v.shape}
    model.load_state_dict(fitting, strict=False)
    return None


def part_of(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors below ``prefix``, under their names there."""
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}


def check_tensors(
    source: str,
    target: str,
    own: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    hint: str,
    unread: tuple[str, ...] = (),
) -> None:
    """Check that the weights are a model's: the same names and shapes, and finite numbers.

    Args:
        source: where the weights are from, for the message.
        target: what they are for.
        own: the model's tensors.
        weights: the weights.
        hint: what to try.
        unread: prefixes of names that may be missing, unlike or too many.

    Raises:
        Ada3DError: they are not; the message counts the tensors and names the first four.
    """
    wrong = [
        f"{key} {list(weights[key].shape)} instead of {list(value.shape)}"
        for key, value in own.items()
        if key in weights and weights[key].shape != value.shape and not key.startswith(unread)
    ]
    wrong += [f"{k} is missing" for k in own if k not in weights and not k.startswith(unread)]
    wrong += [f"{k} has no place" for k in weights if k not in own and not k.startswith(unread)]
    broken = [
        key
        for key, value in weights.items()
        if value.is_floating_point() and not value.isfinite().all() and not key.startswith(unread)
    ]
    if broken and not wrong:
        raise Ada3DError(
            f"{source} holds numbers that are not finite in {len(broken)} tensors: "
            f"{', '.join(broken[:4])}; did its training diverge? Take an earlier checkpoint"
        )
    if wrong:
        raise Ada3DError(
            f"{source} does not fit {target} in {len(wrong)} tensors: {'; '.join(wrong[:4])}. {hint}"
        )
