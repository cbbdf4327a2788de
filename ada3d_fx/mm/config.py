"""Read configs: files with options merged, and what a model, a pipeline or a list in them says."""

from __future__ import annotations

import argparse
import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mmengine.config import Config, DictAction

from ..errors import Ada3DError
from ..report import records
from ..videos.lists import read_lines
from . import schema

# what a config file raises that is wrong itself or based on one that is
FILE_ERRORS = (
    SyntaxError, NameError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError,
    AssertionError, ImportError, OSError, RuntimeError,
)  # fmt: skip
TEST_POLICIES = ("learned", "full", "random", "fixed", "file")  # the kinds of --policy at test time


def load_config(path: str | Path, options: Mapping | Sequence[str] | None = None) -> Config:
    """Read an MMEngine config file, merge ``--cfg-options``, fill its ``{name}``s in and check it.

    A string such as ``'{data_root}/train.txt'`` takes the value of the config's own ``data_root``,
    whatever the options made of it.

    Args:
        path: the config file.
        options: entries to set, as a mapping or as they are typed, KEY=VALUE.

    Raises:
        Ada3DError: no such file, or one that does not run; an option that the config has no place
            for, a {name} that the config lacks, or entries that are wrong, see `schema.check`.
    """
    config = read_file(path)
    written = set(config)
    if options:
        entries = options if isinstance(options, Mapping) else parse_options(options)
        merge(config, entries, f"--cfg-options: {path}")
    values = {k: v for k, v in config.items() if isinstance(v, (str, int, float))}
    filled = Config(_fill(config.to_dict(), values), filename=str(path))
    if not isinstance(filled.get("model"), Mapping):
        raise Ada3DError(f"config: {path} has no model")
    schema.check(filled, set(filled) - written)
    return filled


def read_file(path: str | Path, what: str = "config") -> Config:
    """Read an MMEngine config file, with the files that it is based on.

    Args:
        path: the file.
        what: names it in messages.

    Raises:
        Ada3DError: no such file, no config, or one that does not run to its end.
    """
    if not Path(path).is_file():
        raise Ada3DError(f"{what}: no file at {path}")
    try:
        return Config.fromfile(path)
    except FILE_ERRORS as error:
        place = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        reason = str(error).partition("\n")[0] or "no message"
        raise Ada3DError(
            f"{what}: {path} cannot be read{place}: {type(error).__name__}: {reason}"
        ) from error


def merge(config: Config, entries: Mapping, source: str) -> None:
    """Set entries of a config by their dotted keys.

    Args:
        config: it is changed.
        entries: as ``{'model.objective.gamma': 4}``.
        source: what they are from, for the message.

    Raises:
        Ada3DError: the config has no place for them.
    """
    try:
        config.merge_from_dict(dict(entries))
    except (LookupError, TypeError, ValueError, AssertionError, AttributeError) as error:
        why = str(error)[:200]  # MMEngine's message may hold the whole list
        raise Ada3DError(f"{source} has no place for them: {why}") from error


def require(config: Mapping, *keys: str) -> None:
    """Check that a config has what a run needs.

    Raises:
        Ada3DError: an entry is missing or None.
    """
    missing = [key for key in keys if config.get(key) is None]
    if missing:
        raise Ada3DError(f"config: it has no {', '.join(missing)}, which this run needs")


def parse_options(pairs: Sequence[str]) -> dict:
    """Parse KEY=VALUE pairs as MMEngine's DictAction does: ``['a.b=1']`` -> ``{'a.b': 1}``.

    But text keeps its spaces, which paths may have.

    Raises:
        Ada3DError: a pair without a key or without an equals sign, or with brackets left open.
    """
    for pair in pairs:
        if not pair.partition("=")[1] or pair.startswith(("=", "-")):
            raise Ada3DError(f"{pair!r}: expected KEY=VALUE, such as model.objective.gamma=4")
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", nargs="+", action=DictAction)
    try:
        parsed = parser.parse_args(["--pairs", *pairs]).pairs if pairs else {}
    except AssertionError as error:
        raise Ada3DError(f"--cfg-options: {error}; expected pairs of () or []") from error
    typed = {key: value.strip("'\"") for key, _, value in (pair.partition("=") for pair in pairs)}
    return {key: typed[key] if isinstance(v, str) else v for key, v in parsed.items()}


def _fill(node, values: Mapping):
    if isinstance(node, Mapping):
        return {key: _fill(value, values) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return type(node)(_fill(value, values) for value in node)
    if not isinstance(node, str):
        return node

    def value_of(match: re.Match) -> str:
        if match[1] not in values:
            raise Ada3DError(f"config: {node!r} names {match[1]}, which the config does not set")
        return str(_fill(values[match[1]], values))

    return re.sub(r"\{([a-z]\w*)\}", value_of, node)


def set_policy(config: Config, policy: str) -> None:
    """Apply ``--policy learned | full | random[:frames=F,stages=S] | FRAMES/STAGES | FILE``.

    FRAMES/STAGES are bits: the policy of all clips. A FILE holds recorded policies: those of the test
    list's clips, in its order.

    Args:
        config: an Ada3D config; it is changed.
        policy: what was typed.

    Raises:
        Ada3DError: another word, fractions that are no numbers, no such file, or a plain
            recognizer's config.
    """
    choice = records.parse_policy(policy, TEST_POLICIES, ("frames", "stages"))
    if config.model.get("type") != "Ada3DRecognizer":
        raise Ada3DError(f"--policy {policy}: the config's model is a plain recognizer")
    if choice.kind == "file" and not Path(choice.text).is_file():
        raise Ada3DError(f"--policy {policy}: no file at {policy}")
    testing = {**(config.model.get("testing") or {})}
    testing.pop("policy_file", None)
    testing["policy"] = "recorded" if choice.kind == "file" else choice.kind
    if choice.kind == "file":
        testing["policy_file"] = choice.text
    if choice.kind == "fixed":
        config.model.fixed_policy = choice.text
    config.model.testing = testing
    if choice.options:
        config.model.random_policy = {**(config.model.get("random_policy") or {}), **choice.options}


def calibration_list(config: Config, name: str) -> dict:
    """Return the loader of the list on which a threshold is set: 'train' or 'val'."""
    return training_list(config) if name == "train" else config.val_dataloader


def training_list(config: Config) -> dict:
    """Return the config's test loader over the training list: its videos as they are tested."""
    loader = copy.deepcopy(config.test_dataloader)
    for key in ("ann_file", "data_prefix"):
        loader.dataset[key] = config.train_dataloader.dataset[key]
    return loader


def class_names(config: Config) -> dict[int, str]:
    """Return the classes' names: the first word of each line of the config's ``class_file``.

    Nothing where there is no such file.

    Raises:
        Ada3DError: the file is not in UTF-8.
    """
    path = config.get("class_file")
    if not path or not Path(path).is_file():
        return {}
    lines = [line.split()[0] for _, line in read_lines(path) if line.strip()]
    return dict(enumerate(lines))


def recognizer_config(recognizer: Mapping | str) -> dict:
    """Return the model config of a plain recognizer.

    Args:
        recognizer: the model config itself, or the path of the config file that holds it.

    Raises:
        Ada3DError: no such file, no model in it, or no backbone or type in the model.
    """
    source = "recognizer"
    if isinstance(recognizer, (str, Path)):
        source = str(recognizer)
        recognizer = read_file(recognizer, "recognizer").get("model", {})
    if not isinstance(recognizer, Mapping):
        raise Ada3DError(f"{source}: expected a dict or a file's path, not {recognizer!r}")
    config = Config(dict(recognizer)).to_dict()  # a copy: builders take entries out of it
    for key in ("type", "backbone"):
        if key not in config:
            raise Ada3DError(
                f"{source}: the model has no {key!r}; give the `model` of an MMAction2 recognizer "
                "config, such as dict(type='Recognizer3D', backbone=..., cls_head=...)"
            )
    return config


def inner_datasets(dataset: Mapping | None) -> Iterator[Mapping]:
    """Yield the datasets with lists of their own, within any wrappers."""
    if not dataset:
        return
    inner = dataset.get("dataset", dataset.get("datasets"))
    if inner is None:
        yield dataset
    for one in inner if isinstance(inner, (list, tuple)) else [inner]:
        yield from inner_datasets(one)


def clip_shape_of(config: Config) -> tuple[int, int, int, int]:
    """Return (C, T, H, W) of the clips of a config's test pipeline.

    Where that does not say it, of its training pipeline, or else as its model says.

    Raises:
        Ada3DError: no pipeline that says how many frames a clip has and how large they are.
    """
    model = config.model.get("recognizer") or config.model  # of an Ada3D config
    backbone = model.get("backbone") or {}
    for loader in ("test_dataloader", "val_dataloader", "train_dataloader"):
        pipeline = _pipeline(config.get(loader) or {})
        frames = [_frames(t["clip_len"]) for t in pipeline if "clip_len" in t]
        sizes = [size for size in map(_size, pipeline) if size]
        if frames and sizes:
            return (backbone.get("in_channels", 3), frames[0], *sizes[-1])
    size = backbone.get("input_resolution") or backbone.get("img_size")
    if size and config.get("num_frames"):
        return (backbone.get("in_channels", 3), config.num_frames, size, size)
    raise Ada3DError(
        "no pipeline with a sampling transform (clip_len) and a crop or resize to a fixed size; "
        "give the shape of a clip, --clip-shape C,T,H,W"
    )


def tested_size(config: Config) -> tuple[int | None, tuple[int, int] | None]:
    """Return T, and H and W, of the clips of a config's test pipeline; None where it does not say it."""
    pipeline = _pipeline(config.get("test_dataloader") or {})
    frames = [_frames(t["clip_len"]) for t in pipeline if "clip_len" in t]
    sizes = [size for size in map(_size, pipeline) if size]
    return next(iter(frames), None), sizes[-1] if sizes else None


def _pipeline(loader: dict) -> list:
    dataset = next(inner_datasets(loader.get("dataset")), {})
    return [t for t in dataset.get("pipeline") or [] if isinstance(t, dict)]


def _frames(clip_len: int | dict) -> int:
    return clip_len if isinstance(clip_len, int) else max(clip_len.values())  # by modality


def _size(transform: dict) -> tuple[int, int] | None:
    if "crop_size" in transform:
        size = transform["crop_size"]
        return (size, size) if isinstance(size, int) else (size[1], size[0])
    scale = transform.get("scale")
    # Resize keeps the sides' ratio unless it is told not to, and decoding into memory never does
    keeps = transform.get("type") != "InMemoryDecordInit" and transform.get("keep_ratio", True)
    fixed = isinstance(scale, (tuple, list)) and not keeps
    return (scale[1], scale[0]) if fixed else None


def forget_start(config: Config) -> None:
    """Take out of an Ada3D config the files that its training starts from; a checkpoint holds all."""
    if config.model.get("type") == "Ada3DRecognizer":
        config.model.recognizer_checkpoint = config.model.selector_checkpoint = None
