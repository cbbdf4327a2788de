#!/usr/bin/env python
"""Train a config: Ada3D with all its phases in one run, or a plain recognizer.

    python tools/train.py CONFIG [--work-dir DIR] [--resume [CHECKPOINT]] [--amp] ...

The options are those of MMAction2's own tools/train.py.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings

with warnings.catch_warnings(record=True):
    warnings.simplefilter("ignore")  # what other packages warn of while they are imported
    from ada3d_fx import cli
    from ada3d_fx.experiments.training import RunOptions, train
    from ada3d_fx.progress import Console


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.parser(__doc__)
    cli.add_config(parser, "an Ada3D config or a plain recognizer's")
    cli.add_work_dir(parser, "the config's work_dir, or work_dirs/CONFIG")
    parser.add_argument(
        "--resume", nargs="?", const="auto", metavar="CHECKPOINT",
        help="continue from this checkpoint, or without a value from the work dir's latest one",
    )  # fmt: skip
    parser.add_argument("--amp", action="store_true", help="automatic mixed precision")
    parser.add_argument("--no-validate", action="store_true", help="do not evaluate while training")
    parser.add_argument(
        "--auto-scale-lr", action="store_true", help="scale the learning rate with the batch size"
    )
    cli.add_seed(parser)
    parser.add_argument(
        "--diff-rank-seed", action="store_true", help="another seed in each process"
    )
    parser.add_argument("--deterministic", action="store_true", help="deterministic CUDA kernels")
    parser.add_argument(
        "--check-data", action="store_true", help="decode every listed video before training"
    )
    parser.add_argument(
        "--profile", action="store_true",
        help="tell where the seconds of the steps went, and write it to step_times.json in the work dir",
    )  # fmt: skip
    cli.add_launcher(parser)
    cli.add_verbose(parser)
    return parser.parse_args()


@cli.user_errors
def main() -> None:
    """Train."""
    args = parse_args()
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    options = RunOptions(
        args.work_dir, args.resume, args.amp, not args.no_validate, args.auto_scale_lr, args.seed,
        args.diff_rank_seed, args.deterministic, args.check_data, args.profile, args.launcher,
    )  # fmt: skip
    console = Console(args.verbose)
    console.say(train(args.config, args.cfg_options, options, console))


if __name__ == "__main__":
    sys.exit(main())
