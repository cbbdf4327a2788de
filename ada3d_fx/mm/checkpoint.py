"""Checkpoints -> models, with every tensor that does not fit named."""

from __future__ import annotations

import copy
import functools
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.runner import Runner
from torch import Tensor, nn

from ..errors import Ada3DError
from ..learn.backbones import state_of
from ..learn.selector import SelectionNetwork
from ..weights import read_file
from .build import build_recognizer
from .differences import DifferencePreprocessor, widened
from .optim import unwrap

# Parts of a checkpoint that only training reads, which may differ from the config's.
TRAINING_ONLY = ("estimator.",)


def load_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Read the state dict of a checkpoint file, on the CPU.

    Raises:
        Ada3DError: no such file, or not a checkpoint.
    """
    return state_of(read_file(path, "checkpoint"), path, "checkpoint")


def last_checkpoint(
    folder: str | Path, check: Callable[[Path], object] = load_checkpoint
) -> str | None:
    """Find the checkpoint with which the training of a work dir goes on; None where there is none.

    It is the last whole one in that very folder: MMEngine's note of the last checkpoint holds the
    path at which it was written, which in a copied folder is another's, and may be missing; and a
    file may have been cut off.

    Args:
        folder: the work dir.
        check: raises an Ada3DError for a checkpoint that will not do.
    """
    folder = Path(folder)
    note = folder / "last_checkpoint"
    noted = note.read_bytes().decode("utf-8", "replace").strip() if note.is_file() else ""
    candidates = [folder / Path(noted).name] if noted else []
    numbered = [
        (int(match[1]), path)
        for path in folder.glob("*.pth")
        if (match := re.fullmatch(r"(?:epoch|iter)_(\d+)\.pth", path.name))
    ]
    candidates += [path for _, path in sorted(numbered, reverse=True) if path not in candidates]
    for path in candidates:
        try:
            check(path)
        except Ada3DError as error:
            logging.getLogger(__name__).warning("%s; an earlier one is taken", error)
        else:
            return str(path)
    return None


def go_on(runner: Runner, folder: str | Path) -> None:
    """Make a runner go on with the last checkpoint of a work dir that fits it.

    Raises:
        Ada3DError: there are whole checkpoints, and none fits.
    """
    path = last_checkpoint(folder, functools.partial(check_resumable, runner))
    if path is None and (other := last_checkpoint(folder)) is not None:
        check_resumable(runner, other)  # tells why
    # what the runner's constructor makes of the config's entries of these names
    runner._load_from, runner._resume = path, path is not None


def check_start(runner: Runner) -> None:
    """Check the checkpoint, if there is one, that a runner will load or go on with.

    Raises:
        Ada3DError: one that cannot be read or is for something else.
    """
    path = runner._load_from
    if path is None or "://" in str(path):
        return
    if runner._resume:
        return check_resumable(runner, path)
    own, weights = unwrap(runner.model).state_dict(), load_checkpoint(path)
    unfit = [k for k, v in weights.items() if k not in own or own[k].shape != v.shape]
    if len(unfit) == len(weights):
        raise Ada3DError(
            f"load_from: none of the {len(weights)} tensors of {path} has a place in the model; is it "
            "for another one? A plain recognizer's goes into model.recognizer_checkpoint"
        )
    if unfit:
        logging.getLogger(__name__).warning(
            "load_from: %d of the %d tensors of %s have no place in the model and are left out: %s",
            len(unfit), len(weights), path, ", ".join(unfit[:4]),
        )  # fmt: skip
    return None


def check_resumable(runner: Runner, path: str | Path) -> None:
    """Check that a checkpoint is of a training such as a runner's, so that it can go on with it.

    Raises:
        Ada3DError: no checkpoint of a training; or one of another model, optimizer or phases.
    """
    content = read_file(path, "--resume")
    weights = state_of(content, path, "--resume")
    meta = content.get("meta")
    lacks = [key for key in ("meta", "message_hub", "optimizer") if key not in content]
    if lacks or not isinstance(meta, Mapping) or not {"epoch", "iter"} <= set(meta):
        raise Ada3DError(
            f"--resume: {path} is no checkpoint of a training: it lacks {', '.join(lacks or ['meta'])};"
            " to start from its weights: --cfg-options load_from=..."
        )
    if "config" in meta:  # MMEngine would run it; it writes none itself
        raise Ada3DError(f"--resume: {path} holds a config as code, which is never run")
    check_tensors(
        f"--resume: {path}", "the model", unwrap(runner.model).state_dict(), weights,
        "Was it trained with this config?",
    )  # fmt: skip
    wrapper = runner.build_optim_wrapper(copy.deepcopy(runner.optim_wrapper))
    differs = unlike_groups(wrapper.state_dict(), content["optimizer"])
    differs = differs or unlike_phases(runner, meta)
    if differs:
        raise Ada3DError(
            f"--resume: {path} is of another training: {differs}. Go on with its own config, or start "
            "in another work dir from its weights: --cfg-options load_from=..."
        )


def unlike_groups(own: Mapping, saved: Any) -> str | None:
    """Tell how the state of an optimizer differs from what a saved one is of."""
    groups = saved.get("param_groups") if isinstance(saved, Mapping) else None
    if not isinstance(groups, list) or not all(isinstance(group, Mapping) for group in groups):
        return "it has no state of an optimizer"
    sizes, theirs = ([len(g.get("params", ())) for g in x] for x in (own["param_groups"], groups))
    if sizes != theirs:
        return f"its optimizer has groups of {theirs} parameters instead of {sizes}"
    for mine, other in zip(own["param_groups"], groups):
        lost, new = sorted(set(other) - set(mine)), sorted(set(mine) - set(other))
        if lost and new:  # one of them alone is another version of torch
            return f"its optimizer has {', '.join(lost)} instead of {', '.join(new)}"
    return None


def unlike_phases(runner: Runner, meta: Mapping) -> str | None:
    """Tell how the phases of a checkpoint, as far as it is trained, differ from a runner's.

    The last one that it has begun may be of another length, if that is not less than what is done.
    """
    mine = next((hook.phases for hook in runner.hooks if hasattr(hook, "phases")), [])
    mine, theirs = [vars(phase) for phase in mine], meta.get("phases")
    if not mine or not theirs:
        return None
    unit = "epochs" if mine[0]["epochs"] else "iters"
    if not all(phase[unit] for phase in [*mine, *theirs]):
        return None  # some are counted in epochs and some in iterations
    done = meta["epoch" if unit == "epochs" else "iter"]
    for index, phase in enumerate(theirs):
        if done <= 0:
            return None
        ours = mine[index] if index < len(mine) else {"name": "missing", unit: 0}
        length = phase[unit]
        enough = ours[unit] == length if done > length else ours[unit] >= done
        if ours["name"] != phase["name"] or not enough:
            return (
                f"its phase {index + 1} is {phase['name']} of {length} {unit}, not {ours['name']} of "
                f"{ours[unit]}"
            )
        done -= length
    return None


def load_recognizer(model: nn.Module, path: str | Path) -> None:
    """Load a plain recognizer's checkpoint, or the recognizer out of one of Ada3DRecognizer's.

    Raises:
        Ada3DError: no such file, or tensors that do not fit; the message names them.
    """
    weights = load_checkpoint(path)
    if any(key.startswith("recognizer.") for key in weights):
        weights = part_of(weights, "recognizer.")
    if isinstance(getattr(model, "data_preprocessor", None), DifferencePreprocessor):
        weights = widened(model.state_dict(), weights)  # where it saw no differences
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
    wrong += [
        f"{key} of {str(weights[key].dtype).removeprefix('torch.')} numbers"
        for key, value in own.items()
        if key in weights and not _same_kind(value, weights[key]) and not key.startswith(unread)
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


def _same_kind(own: Tensor, other: Tensor) -> bool:
    """Tell whether one tensor can be copied into the other without another meaning."""
    plain = other.layout is torch.strided and not other.is_quantized
    return (
        plain
        and own.is_floating_point() == other.is_floating_point()
        and (own.is_complex() == other.is_complex())
    )
