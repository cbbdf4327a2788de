"""What the command-line tools share: configs, weights, runs, and errors without a traceback."""

from __future__ import annotations

import copy
import functools
import logging
import platform
import re
import shlex
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import mmaction
import mmengine
import torch
from mmaction.datasets.transforms import PackActionInputs
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner
from torch import nn

from .. import __version__
from ..cost.price import price_table
from ..distribution import PolicyDistribution
from ..errors import Ada3DError
from ..report import figures
from .build import load_checkpoint, load_recognizer
from .checks import inner_datasets
from .hooks import unwrap
from .recognizer import Ada3DRecognizer

# Parts of a checkpoint that only training reads, which may differ from the config's.
TRAINING_ONLY = ("frame_baseline.", "stage_baseline.", "cost_weight.")


def user_errors(main: Callable[[], None]) -> Callable[[], int]:
    """Print the user's mistakes as one message and return 2; anything else is ours and is
    raised."""

    @functools.wraps(main)
    def wrapped() -> int:
        try:
            main()
        except Ada3DError as error:
            # one from a data loader's worker process comes with its traceback in the message
            message = str(error).rsplit("Ada3DError: ", 1)[-1]
            print(f"error: {message.strip()}", file=sys.stderr)
            return 2
        return 0

    return wrapped


@contextmanager
def quiet() -> Iterator[None]:
    """Without what recognizers' constructors log and warn of."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def versions() -> dict[str, str | None]:
    """What a result was made with: this package, its commit if it is a checkout, and what it stands
    on."""
    return {
        "ada3d_fx": __version__,
        "commit": _commit(),
        "torch": torch.__version__,
        "fvcore": metadata.version("fvcore"),
        "mmaction2": mmaction.__version__,
        "mmengine": mmengine.__version__,
        "python": platform.python_version(),
    }


def provenance(config: str | Path, begin: float) -> dict:
    """What a tool's report says of its own making: command, config, seconds since ``begin`` (of
    `time.monotonic`) and versions."""
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "config": str(config),
        "seconds": round(time.monotonic() - begin, 1),
        "versions": versions(),
    }


def _commit() -> str | None:
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True
        )
    except FileNotFoundError:
        return None
    return found.stdout.strip() or None


def load_config(path: str | Path, options: Mapping | None = None) -> Config:
    """An MMEngine config file with ``--cfg-options`` merged, and its ``{name}``s filled in.

    A string such as ``'{data_root}/train.txt'`` takes the value of the config's own ``data_root``,
    whatever the options made of it.

    Raises:
        Ada3DError: no such file, or a {name} that the config lacks.
    """
    if not Path(path).is_file():
        raise Ada3DError(f"config: no file at {path}")
    config = Config.fromfile(path)
    if options:
        config.merge_from_dict(dict(options))
    values = {k: v for k, v in config.items() if isinstance(v, (str, int, float))}
    return Config(_fill(config.to_dict(), values), filename=str(path))


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


def load_weights(model: nn.Module, checkpoint: str | Path) -> None:
    """Load a checkpoint for testing; a tensor that is missing or out of place is an error.

    A plain recognizer's checkpoint serves an Ada3DRecognizer whose policies are not learned.

    Raises:
        Ada3DError: no such file, or not for this model.
    """
    model = unwrap(model)
    if isinstance(model, Ada3DRecognizer):
        weights = load_checkpoint(checkpoint)
        if not any(key.startswith("selector.") for key in weights) or model.selector is None:
            if model.test_policy == "learned" or model.predict_with != "recognizer":
                raise Ada3DError(
                    f"checkpoint: {checkpoint} holds no selection network, so there is neither a "
                    "learned policy nor a class score of it; try --policy full or random (with "
                    "--cfg-options model.predict_with=recognizer where the config predicts with both) "
                    "or a checkpoint of this config's run"
                )
            return load_recognizer(model.recognizer, checkpoint)
        missing = model.load_state_dict(weights, strict=False)
        unread = TRAINING_ONLY
        if model.predict_with == "recognizer":
            unread += ("selector.classifier.",)
        wrong = [
            key
            for key in missing.missing_keys + missing.unexpected_keys
            if not key.startswith(unread)
        ]
        if wrong:
            raise Ada3DError(
                f"checkpoint: {checkpoint} and the model differ in {len(wrong)} tensors: "
                + ", ".join(wrong[:4])
            )
        return None
    return load_recognizer(model, checkpoint)


def build_runner(config: Config) -> Runner:
    """MMEngine's Runner of this config."""
    return Runner.from_cfg(config)


def set_policy(config: Config, policy: str) -> None:
    """Apply ``--policy learned | full | random[:frames=F,stages=S]`` to an Ada3D config.

    Raises:
        Ada3DError: another word, fractions that are no numbers, or a plain recognizer's config.
    """
    name, _, usage = policy.partition(":")
    if config.model.get("type") != "Ada3DRecognizer":
        raise Ada3DError(f"--policy {policy}: the config's model is a plain recognizer")
    config.model.test_policy = name
    if not usage:
        return
    try:
        pairs = [item.split("=") for item in usage.split(",")]
        fractions = {key: float(value) for key, value in pairs}
    except ValueError:
        fractions = {}
    if name != "random" or not fractions or set(fractions) - {"frames", "stages"}:
        raise Ada3DError(
            f"--policy {policy}: try learned, full, random or random:frames=0.7,stages=0.4"
        )
    config.model.random_policy = {**(config.model.get("random_policy") or {}), **fractions}


def record_policies(config: Config, path: str) -> bool:
    """Make the config's PolicyCostMetric write its clips, with the names of their videos; whether
    there is one. The config's ``test_evaluator`` is a list then."""
    if not isinstance(config.test_evaluator, (list, tuple)):
        config.test_evaluator = [config.test_evaluator]
    metrics = [m for m in config.test_evaluator if m.get("type") == "PolicyCostMetric"]
    for metric in metrics:
        metric["out_file"] = path
    for dataset in inner_datasets(config.test_dataloader.dataset):
        for transform in dataset.get("pipeline") or ():
            if transform["type"] == "PackActionInputs":
                keys = transform.get("meta_keys", PackActionInputs().meta_keys)
                transform["meta_keys"] = tuple(dict.fromkeys([*keys, "filename", "frame_dir"]))
    return bool(metrics)


def training_list(config: Config) -> dict:
    """The config's test loader, over the training list: its videos as they are tested."""
    loader = copy.deepcopy(config.test_dataloader)
    for key in ("ann_file", "data_prefix"):
        loader.dataset[key] = config.train_dataloader.dataset[key]
    return loader


def calibrate(runner: Runner, loader, budget: float) -> float:
    """Set the model's ``test_threshold`` so that greedy policies on the clips of ``loader`` cost
    ``budget`` GMACs on average, selection network included; gives the threshold.

    Raises:
        Ada3DError: a budget that no threshold meets, or a model without learned policies.
    """
    model = unwrap(runner.model).eval()
    if getattr(model, "selector", None) is None or model.test_policy != "learned":
        raise Ada3DError("a budget is for learned policies: the model has none")
    frames, stages = [], []
    with torch.no_grad():
        for batch in loader:
            inputs = model.data_preprocessor(batch, training=False)["inputs"]
            found = model.selector(inputs.flatten(0, 1))
            frames.append(found.frame_logits.cpu())
            stages.append(found.stage_logits.cpu())
    plan = model.plan
    distribution = PolicyDistribution(
        torch.cat(frames), torch.cat(stages), plan.frame_unit, plan.num_frames
    )
    table = price_table(model.recognizer)
    target = budget * 1e9 - model.selector_macs
    model.test_threshold = table.threshold(distribution, target, model.greedy)
    return model.test_threshold


def examples(
    model, data: Mapping, label: str, names: Mapping[int, str], known: bool = False, views: int = 1
) -> list[figures.Example]:
    """What is decided for the first ``views`` clips of a video, ``data`` as a test pipeline packs
    it; the model is put into evaluation mode. ``label``: the class if ``known``, else the video's
    name."""
    model = unwrap(model).eval()
    sample = model.test_step(pseudo_collate([data]))[0]
    best = int(sample.pred_score.argmax())
    return [
        figures.Example(
            figures.pixels(clip), sample.policy_frames[view], sample.policy_stages[view],
            [stage.name for stage in model.plan.stages], label, names.get(best, str(best)),
            (int(sample.recognizer_macs[view]) + sample.selector_macs) / 1e9, known,
        )
        for view, clip in enumerate(data["inputs"][:views])
    ]  # fmt: skip


def class_names(config: Config) -> dict[int, str]:
    """The first word of each line of the config's ``class_file``, where there is one."""
    path = config.get("class_file")
    if not path or not Path(path).is_file():
        return {}
    lines = [line.split()[0] for line in Path(path).read_text().splitlines() if line.strip()]
    return dict(enumerate(lines))
