#!/usr/bin/env python
"""Train a config: Ada3D with all its stages in one run, or a plain recognizer (stage 0).

    python tools/train.py CONFIG [--work-dir DIR] [--resume [CHECKPOINT]] [--amp] ...

The options are those of MMAction2's own tools/train.py.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from mmengine.config import Config, DictAction

import ada3d_fx.mm  # noqa: F401  registers models, hooks and metrics
from ada3d_fx import Ada3DError
from ada3d_fx.cli import user_errors
from ada3d_fx.mm.build import build_runner
from ada3d_fx.mm.checks import check_config
from ada3d_fx.mm.config import load_config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", help="config file")
    parser.add_argument("--work-dir", help="where logs and checkpoints go")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        help="continue from this checkpoint, or without a value from the work dir's latest one",
    )
    parser.add_argument("--amp", action="store_true", help="automatic mixed precision")
    parser.add_argument("--no-validate", action="store_true", help="do not evaluate while training")
    parser.add_argument(
        "--auto-scale-lr", action="store_true", help="scale the learning rate with the batch size"
    )
    parser.add_argument("--seed", type=int, help="random seed")
    parser.add_argument(
        "--diff-rank-seed", action="store_true", help="another seed in each process"
    )
    parser.add_argument("--deterministic", action="store_true", help="deterministic CUDA kernels")
    parser.add_argument(
        "--check-data", action="store_true", help="decode every listed video before training"
    )
    parser.add_argument(
        "--cfg-options", nargs="+", action=DictAction, help="config entries to set, as key=value"
    )
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    return args


def make_config(args: argparse.Namespace) -> Config:
    config = load_config(args.config, args.cfg_options)
    config.launcher = args.launcher
    config.work_dir = args.work_dir or config.get("work_dir") or _default_work_dir(args.config)
    if args.no_validate:
        config.val_cfg = config.val_dataloader = config.val_evaluator = None
    if args.amp:
        config.optim_wrapper.type = "AmpOptimWrapper"
        config.optim_wrapper.setdefault("loss_scale", "dynamic")
    if args.auto_scale_lr:
        config.auto_scale_lr = {**(config.get("auto_scale_lr") or {}), "enable": True}
    if args.resume is not None:
        config.resume = True
        config.load_from = None if args.resume == "auto" else args.resume
        if config.load_from and not Path(config.load_from).is_file():
            raise Ada3DError(f"--resume: no checkpoint at {config.load_from}")
    randomness = {"seed": None, **(config.get("randomness") or {})}  # None: drawn, and logged
    if args.seed is not None:
        randomness["seed"] = args.seed
    randomness["diff_rank_seed"] = args.diff_rank_seed
    randomness["deterministic"] = args.deterministic
    config.randomness = randomness
    return config


def _default_work_dir(config: str) -> str:
    return str(Path("work_dirs") / Path(config).stem)


@user_errors
def main() -> None:
    args = parse_args()
    config = make_config(args)
    splits = ("train",) if args.no_validate else ("train", "val")
    check_config(config, splits, videos=None if args.check_data else 4)
    build_runner(config).train()


if __name__ == "__main__":
    sys.exit(main())
