"""A training run from a config and the options of MMAction2's own tools/train.py."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from mmengine.device import get_device

from ..errors import Ada3DError
from ..mm import console as mm_console
from ..mm import schema
from ..mm.checkpoint import check_start, go_on, last_checkpoint
from ..mm.checks import check_config
from ..mm.config import load_config, require
from ..mm.step_times import StepTimesHook
from ..progress import Console, is_main_process
from ..provenance import made_from
from ..provenance.command import provenance
from . import training_profile
from .data_check import check_before_training


@dataclass(frozen=True)
class RunOptions:
    """What a training run changes of its config."""

    work_dir: str | None = None  # None: the config's, or work_dirs/CONFIG
    resume: str | None = None  # a checkpoint, or 'auto' for the work dir's latest one
    amp: bool = False  # automatic mixed precision
    validate: bool = True  # evaluate while training
    auto_scale_lr: bool = False  # scale the learning rate with the batch size
    seed: int | None = None  # None: the config's; where it has none, drawn and logged
    diff_rank_seed: bool = False  # another seed in each process
    deterministic: bool = False  # deterministic CUDA kernels
    check_data: bool = False  # decode every listed video before training
    profile: bool = False  # tell where the seconds of its steps went
    launcher: str = "none"  # 'pytorch', 'slurm' or 'mpi' in distributed runs


def train(path: str, cfg_options: Sequence[str], options: RunOptions, console: Console) -> str:
    """Train a config, and say where its checkpoints are.

    Args:
        path: an Ada3D config or a plain recognizer's.
        cfg_options: KEY=VALUE entries of it.
        options: what else differs from the config.
        console: where progress is shown.

    Raises:
        Ada3DError: bad input, told before the run starts.
    """
    begin = time.monotonic()
    config = training_config(path, cfg_options, options)
    splits = ("train", "val") if options.validate else ("train",)
    check_config(config, splits)
    if options.check_data and is_main_process():
        check_before_training(config, splits, console)
    runner = mm_console.build_runner(config, console)
    own = config.get("resume") and Path(config.load_from).parent == Path(config.work_dir)
    if own and options.resume in (None, "auto"):
        go_on(runner, config.work_dir)
    else:
        check_start(runner)
    times = StepTimesHook()
    if options.profile:
        runner.register_hook(times)
    console.say(f"log: {runner.logger.log_file}")
    keep_record(config, console)
    runner.train()
    told = f"trained {runner.iter} iterations; checkpoints: {config.work_dir}"
    if times.epochs and is_main_process():
        made = provenance(path, begin)
        told = f"{training_profile.keep(times, config.work_dir, made)}\n{told}"
    return told


def keep_record(config: Config, console: Console) -> None:
    """Leave what the training is made from, and say what a resumed one was made from till then."""
    record = made_from.for_training(made_from.record_of(config))
    if config.get("resume") and config.get("load_from"):
        folder = Path(config.load_from).parent
        found = made_from.differences(made_from.read(folder), record)
        if found:
            told = "; ".join(made_from.shortened(found))
            console.say(f"  warning: until now {folder} was made from something else: {told}")
    made_from.write(Path(config.work_dir), record)


def training_config(path: str, cfg_options: Sequence[str], options: RunOptions) -> Config:
    """Read a config and set the options in it.

    Raises:
        Ada3DError: no such config, one that cannot be trained so, or no checkpoint to resume from.
    """
    config = load_config(path, cfg_options)
    require(config, "train_dataloader", "train_cfg", "optim_wrapper")
    config.launcher = options.launcher
    default = str(Path("work_dirs") / Path(path).stem)
    config.work_dir = options.work_dir or config.get("work_dir") or default
    if not options.validate:
        config.val_cfg = config.val_dataloader = config.val_evaluator = None
    if options.amp:
        config.optim_wrapper.type = "AmpOptimWrapper"
        config.optim_wrapper.setdefault("loss_scale", "dynamic")
    if options.auto_scale_lr:
        config.auto_scale_lr = {**(config.get("auto_scale_lr") or {}), "enable": True}
    if options.resume is not None or config.get("resume"):
        named = config.get("load_from") if options.resume is None else options.resume
        auto = named in (None, "auto")
        config.load_from = last_checkpoint(config.work_dir) if auto else named
        config.resume = config.load_from is not None
        if config.load_from and not Path(config.load_from).is_file():
            raise Ada3DError(f"--resume: no checkpoint at {config.load_from}")
    randomness = {"seed": None, **(config.get("randomness") or {})}
    if options.seed is not None:
        randomness["seed"] = options.seed
    randomness["diff_rank_seed"] = options.diff_rank_seed
    randomness["deterministic"] = options.deterministic
    config.randomness = randomness
    schema.check(config)
    _check_rates(config)
    if config.optim_wrapper.get("type") == "AmpOptimWrapper" and get_device() == "cpu":
        raise Ada3DError(
            "--amp (AmpOptimWrapper): MMEngine's mixed precision needs a GPU, and there is none; train "
            "without it"
        )
    return config


def _check_rates(config: Config) -> None:
    """Check that a wish to scale the learning rate can be met.

    Raises:
        Ada3DError: the batch size that belongs to the rates is unknown.
    """
    scale = config.get("auto_scale_lr") or {}
    if not scale.get("enable"):
        return
    if not scale.get("base_batch_size"):
        raise Ada3DError(
            "--auto-scale-lr: the config does not say for which batch size, of all processes, its "
            "learning rates are; --cfg-options auto_scale_lr.base_batch_size=64 does"
        )
