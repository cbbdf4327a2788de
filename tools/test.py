#!/usr/bin/env python
"""Test a checkpoint: accuracy or mAP, and for Ada3D what its policies cost.

    python tools/test.py CONFIG CHECKPOINT
        [--policy full | random:frames=0.7,stages=0.4 | 11010101/01100]
        [--gmacs 0.4 [--calibrate-on train]] [--policies POLICIES.csv]

Prints the paper's columns, percentiles and a histogram of the cost, and writes each clip's policy
and price (--policies). The other options are those of MMAction2's own tools/test.py.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings

with warnings.catch_warnings(record=True):
    warnings.simplefilter("ignore")  # what other packages warn of while they are imported
    from ada3d_fx import cli, values
    from ada3d_fx.experiments.evaluation import EvaluationOptions, evaluate
    from ada3d_fx.mm.config import TEST_POLICIES
    from ada3d_fx.progress import Console, is_main_process


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.parser(__doc__)
    cli.add_config(parser, "an Ada3D config or a plain recognizer's")
    cli.add_checkpoint(parser, "its checkpoint, or for --policy full and random a recognizer's")
    cli.add_policy(parser, TEST_POLICIES, "frames=0.7,stages=0.4", "the config's, mostly learned")
    cli.add_gmacs(parser)
    cli.add_work_dir(parser, "the config's work_dir, or work_dirs/CONFIG")
    parser.add_argument(
        "--policies", type=values.output_file, metavar="FILE",
        help="write each clip's policy and price, in multiply-adds, to this .json or .csv file "
        "(default: policies.json in the work dir)",
    )  # fmt: skip
    cli.add_json(parser, "the metrics")
    parser.add_argument(
        "--dump", type=values.output_file, metavar="FILE",
        help="write the predictions to this .pkl file (default: no file)",
    )  # fmt: skip
    cli.add_seed(parser)
    cli.add_launcher(parser)
    cli.add_verbose(parser)
    return parser.parse_args()


@cli.user_errors
def main() -> None:
    """Test and print the summary."""
    args = parse_args()
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    options = EvaluationOptions(
        args.policy, args.gmacs, args.calibrate_on, args.work_dir, args.policies, args.dump,
        args.json, args.seed, args.launcher,
    )  # fmt: skip
    summary = evaluate(
        args.config, args.cfg_options, args.checkpoint, options, Console(args.verbose)
    )
    if summary and is_main_process():
        print(summary)


if __name__ == "__main__":
    sys.exit(main())
