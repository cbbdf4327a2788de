#!/usr/bin/env python
"""Test a checkpoint: accuracy or mAP, and for Ada3D what its policies cost.

    python tools/test.py CONFIG CHECKPOINT [--policy learned|full|random[:frames=0.7,stages=0.4]]

Prints the paper's columns, percentiles and a histogram of the cost, and writes each clip's policy
and price (--policies). The other options are those of MMAction2's own tools/test.py.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from mmengine.config import DictAction
from mmengine.dist import is_main_process

import ada3d_fx.mm  # noqa: F401  registers models, hooks and metrics
from ada3d_fx import Ada3DError
from ada3d_fx.cli import user_errors
from ada3d_fx.mm.build import build_runner
from ada3d_fx.mm.checkpoint import load_weights
from ada3d_fx.mm.checks import check_config
from ada3d_fx.mm.config import load_config, set_policy
from ada3d_fx.mm.metric import row_of
from ada3d_fx.mm.testing import calibrate, record_policies
from ada3d_fx.report import records, tables


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", help="config file")
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument(
        "--policy",
        help="learned (the default), full, random, or random:frames=F,stages=S with the fractions "
        "used on average",
    )
    parser.add_argument(
        "--budget", type=float, help="GMACs per clip: set the threshold on the validation list so "
        "that the learned policies cost this on average, then test",
    )  # fmt: skip
    parser.add_argument("--work-dir", help="where the log goes")
    parser.add_argument(
        "--policies",
        help="write each clip's policy and price to this .json or .csv file (policies.json in the "
        "work dir, if not given)",
    )
    parser.add_argument("--dump", help="write the predictions to this .pkl file")
    parser.add_argument(
        "--cfg-options", nargs="+", action=DictAction, help="config entries to set, as key=value"
    )
    parser.add_argument("--seed", type=int, help="random seed")
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    return args


def summary(metrics: dict, clips: list[dict]) -> str:
    """The paper's columns, and how the cost is distributed over the clips."""
    row = row_of("tested", metrics)
    cost = [(clip["macs"] + clip["selector_macs"]) / 1e9 for clip in clips]
    percentiles = ", ".join(f"{p} % {row[f'gmacs_p{p}']:.4g}" for p in (10, 50, 90))
    return "\n".join(
        [
            tables.table([row]),
            "",
            f"GMACs per clip: {percentiles}, most {row['gmacs_max']:.4g}",
            tables.histogram(cost),
            "kept frames",
            tables.histogram([clip["num_frames"] for clip in clips], bins=64),
            "3D stages",
            tables.histogram([clip["num_stages"] for clip in clips], bins=64),
            f"{row['distinct_policies']:.0f} distinct policies of {len(clips)} clips",
        ]
    )


@user_errors
def main() -> None:
    args = parse_args()
    config = load_config(args.config, args.cfg_options)
    config.launcher = args.launcher
    config.work_dir = (
        args.work_dir or config.get("work_dir") or f"work_dirs/{Path(args.config).stem}"
    )
    config.load_from, config.resume = None, False
    if args.policy:
        set_policy(config, args.policy)
    if args.seed is not None:
        config.randomness = {"seed": args.seed}
    policies = args.policies or str(Path(config.work_dir) / "policies.json")
    recorded = record_policies(config, policies)
    if args.policies and not recorded:
        raise Ada3DError("--policies: the config's test_evaluator has no PolicyCostMetric")
    if args.dump:
        if not args.dump.endswith((".pkl", ".pickle")):
            raise Ada3DError(f"--dump {args.dump}: the file's name must end with .pkl")
        config.test_evaluator = [
            *config.test_evaluator,
            {"type": "DumpResults", "out_file_path": args.dump},
        ]
    if not Path(args.checkpoint).is_file():
        raise Ada3DError(f"checkpoint: no file at {args.checkpoint}")
    check_config(config, ("val", "test") if args.budget else ("test",))
    runner = build_runner(config)
    load_weights(runner.model, args.checkpoint)
    if args.budget:
        threshold = calibrate(runner, runner.build_dataloader(config.val_dataloader), args.budget)
        print(f"threshold for {args.budget:.4g} GMACs per clip: {threshold:.4f}")
    metrics = runner.test()
    if recorded and is_main_process():
        print(summary(metrics, records.read_clips(policies)))
        print(f"each clip's policy and price: {policies}")


if __name__ == "__main__":
    sys.exit(main())
