"""What a part of an experiment was made from, so that it is reused only where that is the same.

A record is flat: config entries by dotted keys, where a file stands for its contents; versions; and
digests of code. It is kept as made_from.json beside checkpoints, and within a row's result.json.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..errors import Ada3DError
from ..mm.config import recognizer_config
from ..report import records
from . import fingerprints

FILE = "made_from.json"
SHOWN = 4  # differences in a message
UNKNOWN = f"unknown: no whole {FILE} or result.json tells what it was made from"
Record = dict[str, Any]

# Entries of a config that change no result, and why not.
IGNORED = {
    "work_dir": "where the files go",
    "experiment_name": "what the log is called",
    "load_from": "a run begins with its own checkpoints or the warm-up's, which have records",
    "resume": "the same",
    "launcher": "who starts the processes",
    "log_level": "what is logged",
    "log_processor*": "what is logged",
    "vis_backends*": "what is drawn",
    "visualizer*": "what is drawn",
    "env_cfg.mp_cfg*": "how processes start",
    "env_cfg.dist_cfg*": "how processes talk",
    "*_dataloader.num_workers": "how fast; other augmentations of the same kind are drawn",
    "*_dataloader.persistent_workers": "how fast",
    "*_dataloader.prefetch_factor": "how fast",
    "*_dataloader.pin_memory": "how fast",
    "*_dataloader.timeout": "when to give up",
    "*_evaluator*.out_file": "where the policies go",
    "*_evaluator*.out_file_path": "where the predictions go",
    "default_hooks.checkpoint.interval": "how often; the last one is tested",
    "default_hooks.checkpoint.max_keep_ckpts": "how many; the last one is tested",
    "default_hooks.checkpoint.out_dir": "where the files go",
}
LOGGING_HOOKS = ("LoggerHook", "PolicyLogHook", "VisualizationHook", "IterTimerHook")
# Top-level strings that MMEngine reads. Others, such as data_root, stand for themselves only where
# the config uses them, and are compared there.
STRINGS = ("default_scope",)
ONLY_TRAINING = (
    *("train_dataloader", "train_cfg", "val_dataloader", "val_cfg", "val_evaluator"),
    *("optim_wrapper", "param_scheduler", "auto_scale_lr", "default_hooks", "phases"),
)
# And "told", what a result tells of how its row came about.
ONLY_TESTING = ("test_dataloader", "test_cfg", "test_evaluator", "calibration", "told")
# What a warm-up does not read.
AFTER_WARMUP = (
    "model.objective.",
    "model.training.classify",
    "model.testing.",
    "model.exit",
    "model.fixed_policy",
)
# The estimator learns after a warm-up, but the state of its kind is in the warm-up's checkpoint.
KIND_OF_ESTIMATOR = ("model.objective.type", "model.objective._delete_")
# What differs between the runs of a comparison: its seed, its fold and what that names.
OF_A_RUN = ("randomness.*", "fold", "*.ann_file", "*.data_prefix*", "model.recognizer_checkpoint")


class MadeOtherwise(Ada3DError):
    """What lies in a work dir was made from something else.

    Args:
        parts: the differences of each part, as `differences` gives them; kept as an attribute.
    """

    def __init__(self, parts: Mapping[Path, Sequence[str]]):
        self.parts = dict(parts)
        groups: dict[tuple[str, ...], list[str]] = {}
        for path, found in self.parts.items():
            groups.setdefault(tuple(found), []).append(str(path))
        lines = []
        for found, paths in groups.items():
            more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
            lines.append(f"{', '.join(paths[:SHOWN])}{more}: made from something else:")
            lines += [f"  {line}" for line in shortened(found)]
        lines.append(
            "Try --redo, which makes these parts anew and keeps the old ones beside them "
            "(NAME.old-1); or another --work-dir; or the old options"
        )
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple:
        return type(self), (self.parts,)


# -------------------------------------------------------------------------------------- records


def record_of(config: Config) -> Record:
    """Return the record of what a config would make, trained and tested."""
    entries = config.to_dict()
    for key in [k for k, v in entries.items() if isinstance(v, str) and k not in STRINGS]:
        del entries[key]
    model = entries.get("model") or {}
    if isinstance(model.get("recognizer"), str):
        model["recognizer"] = recognizer_config(model["recognizer"])
    for hook in entries.get("custom_hooks") or ():
        if hook.get("type") == "TrainingPhaseHook":  # which only trains
            entries["phases"] = hook
    for name in ("custom_hooks", "default_hooks"):
        entries[name] = _without_logs(entries.get(name) or {})
    record = entries_of(entries)
    imports = (entries.get("custom_imports") or {}).get("imports") or ()
    own = fingerprints.imported_code([imports] if isinstance(imports, str) else imports)
    record |= {f"version of {name}": version for name, version in fingerprints.packages().items()}
    record |= {f"code of ada3d_fx/{name}": sha for name, sha in fingerprints.code().items()}
    return record | {f"code of {name}": sha for name, sha in own.items()}


def entries_of(node: Any, key: str = "") -> Record:
    """Return the entries of a part of a config that can change a result, by dotted keys."""
    return {
        name: value
        for name, value in _flat(node, key)
        if not any(fnmatchcase(name, pattern) for pattern in IGNORED)
    }


def digest(values: Any) -> str:
    """Return a digest of what JSON can hold."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def for_training(record: Mapping[str, Any]) -> Record:
    """Return the part of a record on which a training depends."""
    return {k: v for k, v in _without(record, ONLY_TESTING).items() if k != "model.exit"}


def for_testing(record: Mapping[str, Any]) -> Record:
    """Return the part of a record on which the test of a given checkpoint depends."""
    return _without(record, ONLY_TRAINING)


def for_warmup(record: Mapping[str, Any]) -> Record:
    """Return the part of a record on which a warm-up depends."""
    return {k: v for k, v in for_training(record).items() if not k.startswith(AFTER_WARMUP)}


def read(path: Path) -> Record | None:
    """Read a folder's made_from.json; None where there is none, or none of this format."""
    try:
        made_from = json.loads((path / FILE).read_text(encoding="utf-8"))["made_from"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return made_from if isinstance(made_from, dict) else None


def write(folder: Path, record: Mapping[str, Any]) -> None:
    """Write a folder's made_from.json, the whole of it or nothing, if it says something else."""
    if read(folder) != record:
        records.write_json(folder / FILE, {"made_from": record})


def differences(old: Any, new: Mapping[str, Any], keys: Iterable[str] | None = None) -> list[str]:
    """Tell what differs between two records: ``model.objective.gamma: 2.0 -> 4.0``.

    Args:
        old: a record that was kept; anything else is unknown.
        new: the record to compare it with.
        keys: those that count; None: all.
    """
    if not isinstance(old, Mapping):
        return [UNKNOWN]
    counted = {**old, **new} if keys is None else keys
    return [
        f"{key}: {_word(old, key)} -> {_word(new, key)}"
        for key in sorted(counted, key=_first_told)
        if old.get(key, ...) != new.get(key, ...)
    ]


def shortened(lines: Sequence[str]) -> list[str]:
    """Return the first few lines, and how many more there are."""
    more = len(lines) - SHOWN
    return [*lines[:SHOWN], f"and {more} more"] if more > 0 else list(lines)


def own_keys(record: Mapping[str, Any], plain: Mapping[str, Any]) -> list[str]:
    """List the keys in which a row differs from the config that all rows share."""
    shared = for_testing(plain) if is_test(record) else plain
    return sorted(
        key for key in {**shared, **record} if shared.get(key, ...) != record.get(key, ...)
    )


def is_test(record: Mapping[str, Any]) -> bool:
    """Tell whether a record is of a test alone."""
    return not any(_top(key) in ONLY_TRAINING for key in record)


def unequal_rows(mine: Mapping, other: Mapping) -> list[str]:
    """Tell in what two results of a comparison differ but for what makes their rows and runs.

    Args:
        mine: a row's result, with its record as ``made_from`` and its ``own_keys``.
        other: another row's, or another run's.
    """
    records_of_both = [result.get("made_from") for result in (mine, other)]
    if not all(isinstance(record, Mapping) for record in records_of_both):
        return differences(None, {})
    own = {*mine.get("own_keys", ()), *other.get("own_keys", ())}
    one_tests = any(is_test(record) for record in records_of_both)
    same_run = all(mine.get(key) == other.get(key) for key in ("seed", "fold"))
    keys = [
        key
        for key in {**records_of_both[0], **records_of_both[1]}
        if key not in own
        and not (one_tests and _top(key) in (*ONLY_TRAINING, "calibration"))
        and (same_run or not any(fnmatchcase(key, pattern) for pattern in OF_A_RUN))
    ]
    return differences(*records_of_both, keys)


def set_aside(path: Path) -> Path:
    """Rename a file or folder to NAME.old-1, or the first number that is free; return the new path."""
    number = 1
    while (aside := path.with_name(f"{path.name}.old-{number}")).exists():
        number += 1
    return path.rename(aside)


# ----------------------------------------------------------------------------- configs as records


def _without_logs(hooks: Any) -> Any:
    """Leave out hooks that only log, and the one of phases, which is told apart."""
    unread = (*LOGGING_HOOKS, "TrainingPhaseHook")
    if isinstance(hooks, Mapping):
        return {k: v for k, v in hooks.items() if (v or {}).get("type") not in unread}
    return [hook for hook in hooks if hook.get("type") not in unread]


def _flat(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the entries of nested dictionaries and lists by dotted keys, ready for JSON."""
    if isinstance(node, Mapping) and node.get("ann_file"):
        node = _dataset(node)
    if isinstance(node, (list, tuple)) and any(isinstance(v, (Mapping, list, tuple)) for v in node):
        node = dict(enumerate(node))
    if isinstance(node, Mapping) and node:
        for name, value in node.items():
            yield from _flat(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, _plain(node)


def _dataset(dataset: Mapping) -> dict:
    """Replace the list and the videos of a dataset by what is in them."""
    root = dataset.get("data_root") or ""
    path = Path(root, dataset["ann_file"])
    prefix = dataset.get("data_prefix") or {}
    folders = dict(prefix) if isinstance(prefix, Mapping) else {"": prefix}
    told = {key: value for key, value in dataset.items() if key not in ("data_root", "data_prefix")}
    if path.is_file():
        told["ann_file"] = fingerprints.fingerprint(path)
        if path.suffix not in (".json", ".pkl"):  # whose format is the dataset's own
            folders = {
                name: fingerprints.listed(path, Path(root, folder), dataset.get("delimiter"))
                for name, folder in folders.items()
            }
    return {**told, "data_prefix": folders}


def _plain(value: Any) -> Any:
    """Return a value as JSON gives it back; a file stands for what is in it."""
    if isinstance(value, str):
        named = ("/" in value or "." in value) and "\0" not in value and len(value) < 1000
        return fingerprints.fingerprint(value) if named and Path(value).is_file() else value
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if abs(value) < float("inf") else repr(value)
    if isinstance(value, Mapping):  # an empty one
        return {}
    return getattr(value, "__qualname__", None) or repr(value)


def _without(record: Mapping[str, Any], tops: Sequence[str]) -> Record:
    return {key: value for key, value in record.items() if _top(key) not in tops}


def _top(key: str) -> str:
    return key.partition(".")[0]


def _first_told(key: str) -> tuple[bool, str]:
    return key.startswith(("code of", "version of")), key


def _word(record: Mapping[str, Any], key: str) -> str:
    text = str(record[key]) if key in record else "nothing"
    return text if len(text) <= 80 else f"{text[:77]}..."
