"""One look at a whole config before anything is built of it: keys, types and bounds.

What a part takes is read from the signature of what it is built of, so nothing here is to be kept up
to date with it. Only where MMEngine itself picks a config apart do the tables below say so.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any

import torchvision
from mmaction import registry as mm
from mmengine.model import BaseModel
from mmengine.registry import Registry
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from ..convert import convert
from ..errors import Ada3DError
from ..learn.backbones import mobilenet_v2
from ..learn.estimators import Estimator
from ..videos.broken import limit_of
from .build import DEFAULT_TYPES, MOBILENETS, SelectorParts
from .options import check_exit, check_fixed_policy
from .signatures import Signature, clearly_wrong, dataclass_in, described, fits, signature_of

SEEDS = (0, 2**32 - 1)  # NumPy's
# In these, and no user's, no open signature takes a name that is nearly one of those that it names:
# tests/mm/test_schema.py checks all configs that they ship.
PACKAGES = ("ada3d_fx", "mmaction", "mmengine", "mmcv", "torch")
MISSPELT = 0.85  # similarity at which a key that may be something else is taken for a misspelling


@dataclass(frozen=True)
class Place:
    """What is built of the config at a key."""

    registry: Registry
    default: str | None = None  # the type where the config names none
    given: tuple[str, ...] = ()  # what the builder passes itself
    read: tuple[str, ...] = ("type", "_scope_")  # keys that the builder takes out first
    required: bool = True  # a dict without a type is an error
    parts: type | None = None  # what the builder takes out first, as a dataclass


READ = Place.read
PARTS = Place(mm.MODELS, required=False)
# The parts of what is built from each registry, by their keys.
NESTED: dict[Registry, dict[str, Place]] = {
    mm.MODELS: {
        **dict.fromkeys(
            ("backbone", "neck", "cls_head", "loss_cls", "data_preprocessor", "recognizer"), PARTS
        ),
        "selector": Place(mm.MODELS, DEFAULT_TYPES["selector"], ("plan",), parts=SelectorParts),
        "head": Place(mm.MODELS, DEFAULT_TYPES["head"], ("features", "plan")),
        "objective": Place(mm.MODELS, DEFAULT_TYPES["objective"]),
    },
    mm.DATASETS: {
        **dict.fromkeys(("dataset", "datasets"), Place(mm.DATASETS)),
        "pipeline": Place(mm.TRANSFORMS),
    },
    mm.OPTIM_WRAPPERS: {"optimizer": Place(mm.OPTIMIZERS, given=("params",))},
    mm.METRICS: {"metrics": Place(mm.METRICS)},
    mm.VISUALIZERS: {"vis_backends": Place(mm.VISBACKENDS, given=("save_dir",))},
}  # fmt: skip
DATASET = Place(mm.DATASETS)
SAMPLERS = Place(mm.DATA_SAMPLERS, given=("dataset", "seed", "sampler", "batch_size"))
HOOKS = Place(mm.HOOKS, read=(*READ, "priority"))
LOOP = ("runner", "dataloader", "evaluator")
# What MMEngine's Runner builds of the entries at the top of a config.
RUNNER_PARTS: dict[str, Place] = {
    "model": Place(mm.MODELS),
    "data_preprocessor": PARTS,
    "train_cfg": Place(mm.LOOPS, given=LOOP, read=(*READ, "by_epoch")),
    "val_cfg": Place(mm.LOOPS, "ValLoop", LOOP),
    "test_cfg": Place(mm.LOOPS, "TestLoop", LOOP),
    "optim_wrapper": Place(
        mm.OPTIM_WRAPPERS, "OptimWrapper", read=(*READ, "constructor", "paramwise_cfg")
    ),
    "param_scheduler": Place(
        mm.PARAM_SCHEDULERS, given=("optimizer", "param_name"),
        read=(*READ, "convert_to_iter_based", "epoch_length"),
    ),
    "val_evaluator": Place(mm.METRICS),
    "test_evaluator": Place(mm.METRICS),
    "custom_hooks": HOOKS,
    "visualizer": Place(mm.VISUALIZERS),
    "log_processor": Place(mm.LOG_PROCESSORS, "LogProcessor"),
}  # fmt: skip
OTHER_TOP_KEYS = (
    "custom_imports",
    "class_file",
    "num_frames",
    "broken_videos",
)  # which something else reads
LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
# Keys of a loader that MMEngine takes out before the rest goes to torch's DataLoader.
LOADER_READS = ("num_batch_per_epoch", "disable_subprocess_warning")
# The least of numbers that MMEngine and torch check late, or not at all.
LEAST = {
    **{loader: {"batch_size": 1, "num_workers": 0} for loader in LOADERS},
    "train_cfg": {"max_epochs": 1, "max_iters": 1, "val_interval": 1, "val_begin": 0},
    "auto_scale_lr": {"base_batch_size": 1},
}


def check(config: Mapping, added: Iterable[str] = ()) -> None:
    """Check the keys, types and bounds of a config's entries.

    Args:
        config: all of it, with its options merged.
        added: keys at its top that it has from options alone.

    Raises:
        Ada3DError: all wrong entries, each with its full dotted key.
    """
    found = [*_stray(config, added), *_entries(config)]
    wrong = list({entry.partition(": ")[0]: entry for entry in reversed(found)}.values())[::-1]
    if wrong:
        head = f"config: {len(wrong)} entries are wrong:\n  - " if len(wrong) > 1 else ""
        raise Ada3DError(head + "\n  - ".join(wrong))


def _stray(config: Mapping, added: Iterable[str]) -> Iterator[str]:
    """Find entries at the top of a config that nothing reads although they look as if it should."""
    runner = [*signature_of(Runner).hints, *OTHER_TOP_KEYS]
    for key in added:
        if key not in runner:
            near = _near(key, [name for name in (*config, *runner) if name != key])
            yield f"{key}={_short(config[key])}: there is no {key!r} in the config{near}"
    for key, value in config.items():
        near = difflib.get_close_matches(key, runner, 1, MISSPELT)
        if near and not {key, near[0]} & {*added, *(k for k in runner if k in config)}:
            yield f"{key}={_short(value)}: there is no {key!r}; did you mean {near[0]!r}?"


def _entries(config: Mapping) -> Iterator[str]:
    runner = signature_of(Runner)
    for key, value in config.items():
        if key in LOADERS and isinstance(value, Mapping):
            yield from _loader(key, value)
        elif key == "default_hooks" and isinstance(value, Mapping):
            for name, hook in value.items():
                yield from [] if hook is None else _built(f"{key}.{name}", hook, HOOKS)
        elif key == "optim_wrapper" and isinstance(value, Mapping):
            one = "optimizer" in value or "constructor" not in value  # else several, by their names
            yield from _built(key, value, RUNNER_PARTS[key]) if one else ()
        elif key == "train_cfg" and isinstance(value, Mapping) and "type" not in value:
            loop = EpochBasedTrainLoop if value.get("by_epoch", True) else IterBasedTrainLoop
            yield from _built(key, {"type": loop, **value}, RUNNER_PARTS[key])
        elif key == "broken_videos":
            yield from _told_by(limit_of, config)
        elif key in RUNNER_PARTS and value is not None:
            yield from _built(key, value, RUNNER_PARTS[key])
        if key in runner.hints and not fits(value, runner.hints[key]):
            yield _mistyped(key, value, runner.hints[key])
        elif isinstance(value, Mapping):
            yield from _elsewhere(key, value)
            for name, least in LEAST.get(key, {}).items():
                yield from _too_small(f"{key}.{name}", value.get(name, least), least)


def _elsewhere(key: str, value: Mapping) -> Iterator[str]:
    """Check what no registry builds, or what is told apart from that."""
    if key == "randomness":
        yield from _randomness(value)
    elif key == "auto_scale_lr":
        known = Signature({"enable": bool, "base_batch_size": int})
        yield from _options(key, value, known)
    elif key == "optim_wrapper" and isinstance(value.get("constructor"), str):
        kind = value["constructor"]
        if _target(kind, mm.OPTIM_WRAPPER_CONSTRUCTORS) is None:
            near = _near(kind, _names(mm.OPTIM_WRAPPER_CONSTRUCTORS))
            yield f"{key}.constructor={kind!r}: there is no {kind!r}{near}"
    elif key == "model":
        kind = _target(value.get("type"), mm.MODELS)
        if isinstance(value.get("exit"), (int, float)) and not isinstance(value["exit"], bool):
            yield from _told_by(check_exit, value["exit"])
        if isinstance(value.get("fixed_policy"), str):
            yield from _told_by(check_fixed_policy, value["fixed_policy"])
        if inspect.isclass(kind) and not issubclass(kind, BaseModel):
            yield (
                f"model.type={value['type']!r}: it is no recognizer; try Recognizer3D, with this as "
                "its backbone if it is one, or Ada3DRecognizer"
            )


def _told_by(read: Callable[[Any], Any], value: Any) -> Iterator[str]:
    try:
        read(value)
    except Ada3DError as error:
        yield str(error).replace("; expected", ": expected", 1)


def _loader(path: str, loader: Mapping) -> Iterator[str]:
    """Check a data loader's config, which MMEngine deals out to several classes."""
    places = {"dataset": DATASET, "sampler": SAMPLERS, "batch_sampler": SAMPLERS}
    for key, place in places.items():
        if isinstance(loader.get(key), Mapping):
            yield from _built(f"{path}.{key}", loader[key], place)
    known = signature_of(DataLoader)
    known = known._replace(hints={**known.hints, **dict.fromkeys((*places, *LOADER_READS), Any)})
    rest = {key: value for key, value in loader.items() if key not in places}
    yield from _options(path, rest, known, strict=False, needed=False)
    if not loader.get("num_workers", 0):
        for key in ("persistent_workers", "prefetch_factor"):
            if loader.get(key):
                yield (
                    f"{path}.{key}={loader[key]!r}: it needs num_workers above 0; set it to "
                    f"{False if key == 'persistent_workers' else None} too"
                )


def _randomness(randomness: Mapping) -> Iterator[str]:
    known = signature_of(Runner.set_randomness).without(["self"])
    yield from _options("randomness", randomness, known, strict=False, needed=False)
    seed = randomness.get("seed")
    whole = isinstance(seed, int) and not isinstance(seed, bool)
    if seed is not None and not (whole and SEEDS[0] <= seed <= SEEDS[1]):
        yield (
            f"randomness.seed={_short(seed)}: expected a whole number from {SEEDS[0]} to {SEEDS[1]}"
        )


def _too_small(path: str, value: Any, least: int) -> Iterator[str]:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not (whole and value >= least):
        yield f"{path}={_short(value)}: expected a whole number of at least {least}"


def _built(path: str, config: Any, place: Place) -> Iterator[str]:
    """Check the config of what a registry builds, or a list of such, and of its parts."""
    if isinstance(config, (list, tuple)):
        for index, one in enumerate(config):
            yield from _built(f"{path}.{index}", one, place)
        return
    if not isinstance(config, Mapping):
        allowed = not (place.required or place.default) or callable(config)
        if config is not None and _is_plain(config) and not (allowed and isinstance(config, str)):
            yield f"{path}={_short(config)}: expected a dict with a type"
        return
    kind = config.get("type", place.default)
    if kind is None:
        if place.required and "metrics" not in config:
            yield f"{path}={_short(config)}: it has no type"
        return
    target = _target(kind, place.registry)
    if target is None:
        if place.required or place.default:
            yield f"{path}.type={kind!r}: there is no {kind!r}{_near(kind, _names(place.registry))}"
        return
    found = list(_of_target(path, config, place, target))
    yield from found
    if not found:
        yield from _refused(path, config, target)
    for key, inner in NESTED.get(place.registry, {}).items():
        nested = config.get(key) is not None
        if nested and key == "backbone" and path.endswith("selector"):
            yield from _selector_backbone(f"{path}.{key}", config[key])
        elif nested:
            yield from _built(f"{path}.{key}", config[key], inner)


def _of_target(path: str, config: Mapping, place: Place, target: Callable) -> Iterator[str]:
    """Check the options of the class or function that a config names."""
    known = signature_of(target).without(place.given)
    if place.parts:
        parts = signature_of(place.parts)
        known = Signature({**known.hints, **parts.hints}, (), known.is_open)
    read = place.read if _is_ours(target) else (*place.read, *place.given)  # it may be overruled
    options = {key: value for key, value in config.items() if key not in read}
    if _is_ours(target) and "convert_options" in options:
        converts = signature_of(convert).without(["model", "clip_shape"])
        inner = options["convert_options"] or {}
        if isinstance(inner, Mapping):
            yield from _options(f"{path}.convert_options", inner, converts)
    guess = known.is_open and _package(target) in PACKAGES
    yield from _options(path, options, known, strict=_is_ours(target), guess=guess)


def _selector_backbone(path: str, config: Any) -> Iterator[str]:
    kind = config.get("type") if isinstance(config, Mapping) else None
    if kind in MOBILENETS:
        options = {key: value for key, value in config.items() if key != "type"}
        yield from _options(path, options, signature_of(mobilenet_v2))
    elif not (isinstance(kind, str) and kind.startswith("torchvision.")):
        yield from _built(path, config, Place(mm.MODELS))
    elif kind.removeprefix("torchvision.") not in torchvision.models.list_models():
        names = [f"torchvision.{name}" for name in torchvision.models.list_models()]
        yield f"{path}.type={kind!r}: there is no {kind!r}{_near(kind, names)}"


def _options(
    path: str,
    options: Mapping,
    known: Signature,
    strict: bool = True,
    needed: bool = True,
    guess: bool = False,
) -> Iterator[str]:
    """Check options against a signature.

    Args:
        path: the dotted key of what has them.
        options: they.
        known: those that there are.
        strict: the annotations are meant to the letter.
        needed: options without a default must be there.
        guess: what an open signature does not name, but nearly, is a misspelling.
    """
    for key, value in options.items():
        here = f"{path}.{key}"
        if key not in known.hints:
            near = guess and difflib.get_close_matches(key, known.hints, 1, MISSPELT)
            if not known.is_open or near:
                near = _near(key, known.hints)
                yield f"{here}={_short(value)}: there is no {key!r}{near}"
            continue
        hint = known.hints[key]
        if not fits(value, hint) if strict else clearly_wrong(value, hint):
            yield _mistyped(here, value, hint)
        elif strict and (group := dataclass_in(hint)) and not is_dataclass(value):
            yield from _groups(here, value, group)
    for key in known.required if needed else ():
        if key not in options:
            yield f"{path}: it has no {key!r}, which it needs"


def _groups(path: str, value: Any, group: type) -> Iterator[str]:
    """Check options that are kept together, or a list of such."""
    several = isinstance(value, (list, tuple))
    for index, one in enumerate(value) if several else [(None, value)]:
        if isinstance(one, Mapping):
            here = path if index is None else f"{path}.{index}"
            found = list(_options(here, one, signature_of(group)))
            yield from found or _refused(here, one, group)


def _refused(path: str, config: Mapping, target: Callable) -> Iterator[str]:
    """Make what is cheap to make and ours, and tell every option that it refuses."""
    group = is_dataclass(target)
    places = (mm.HOOKS, mm.METRICS, mm.TRANSFORMS)
    cheap = any(target is place.get(target.__name__) for place in places) if not group else True
    estimator = inspect.isclass(target) and issubclass(target, Estimator)
    if not _is_ours(target) or not (cheap or estimator):
        return
    options = {key: value for key, value in config.items() if key not in HOOKS.read}
    while True:
        try:
            target(**options)
        except Ada3DError as error:
            message = str(error)
            named = [key for key in options if re.search(rf"\b{key}(=| ')", message)]
            if named or len(options) == len(config) - len(set(HOOKS.read) & set(config)):
                yield _at(path, message, options)
            if not named:
                return
            for key in named:
                del options[key]
        except TypeError:  # what is left lacks an option that was refused
            return
        else:
            return


def _at(path: str, message: str, options: Mapping) -> str:
    """Word a refusal: 'objective: gamma=-1; expected ...' -> 'model.objective.gamma=-1; expected ...'."""
    where, _, rest = message.partition(": ")
    rest = rest if where.isidentifier() else message
    key, value = re.match(r"(\w*)(.?)", rest).groups()
    if key in options and value in ("=", " "):
        return f"{path}.{rest}".replace("; expected", ": expected", 1)
    return f"{path}: {rest}"


# --------------------------------------------------------------------------------------- words


def _target(kind: Any, registry: Registry) -> Callable | None:
    """Find what a type names; None where there is no such thing."""
    if not isinstance(kind, str):
        return kind if callable(kind) else None
    try:
        return registry.get(kind)
    except (RuntimeError, ImportError, AttributeError, ValueError):  # so MMEngine says it
        return None


def _is_ours(target: Callable) -> bool:
    return _package(target) == PACKAGES[0]


def _package(target: Callable) -> str:
    return getattr(target, "__module__", "").split(".")[0]


def _is_plain(value: Any) -> bool:
    return isinstance(value, (str, bool, int, float))


def _names(registry: Registry) -> list[str]:
    names: list[str] = []
    here: Registry | None = registry
    while here is not None:
        names += here.module_dict
        here = here.parent
    return names


def _near(name: Any, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(str(name), known, 1, 0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there are {', '.join(known)}" if 0 < len(known) <= 16 else ""


def _mistyped(path: str, value: Any, hint: Any) -> str:
    return f"{path}={_short(value)}: expected {described(hint)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
