#!/usr/bin/env python
"""Accuracy over cost: train at several budgets (figure 3), or turn one checkpoint's dial.

    python tools/tradeoff.py CONFIG --recognizer CHECKPOINT --gammas 1,2,4,8,16 [--seeds 0,1,2]
    python tools/tradeoff.py CONFIG --recognizer CHECKPOINT --budgets 0.2,0.3,0.4 [--folds 0,1]
    python tools/tradeoff.py CONFIG --checkpoint CHECKPOINT --targets 0.2,0.3,0.4

--gammas and --budgets (GMACs per clip) train Ada3D and Random FT at each value, as tools/compare.py
does, resumable part by part. --targets trains nothing: for each target (GMACs per clip) the
threshold is set on the validation list, then the test list is run. Leaves DIR/tradeoff.json,
tradeoff.md and tradeoff.png.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from pathlib import Path

import compare
from mmengine.config import DictAction

import ada3d_fx.mm  # noqa: F401  registers models, hooks and metrics
from ada3d_fx import Ada3DError
from ada3d_fx.cli import provenance, user_errors
from ada3d_fx.mm.build import build_runner
from ada3d_fx.mm.checkpoint import load_weights
from ada3d_fx.mm.checks import check_config
from ada3d_fx.mm.config import load_config
from ada3d_fx.mm.metric import row_of
from ada3d_fx.mm.testing import calibrate
from ada3d_fx.report import figures, records, tables
from ada3d_fx.report.statistics import aggregate

SWEPT = ("upper", "ada3d", "random_ft")
COLUMNS = (("setting", "setting", "{}"), *compare.COLUMNS)
DIAL_COLUMNS = (
    ("target", "target GMACs", "{:.4g}"), ("threshold", "threshold", "{:.4f}"),
    *tables.COLUMNS[1:],
)  # fmt: skip


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="\n".join(__doc__.splitlines()[2:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", help="an Ada3D config")
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--gammas", help="values of the objective's gamma, a,b,...")
    way.add_argument("--budgets", help="values of the objective's budget, a,b,...")
    way.add_argument("--targets", help="GMACs per clip for one checkpoint, a,b,...")
    parser.add_argument("--recognizer", help="the trained plain recognizer to start from")
    parser.add_argument("--checkpoint", help="the trained Ada3D checkpoint, for --targets")
    parser.add_argument("--work-dir", help="where runs and report go")
    parser.add_argument("--seeds", default="0", help="random seeds, a,b,...")
    parser.add_argument("--folds", help="values of the config's `fold`, a,b,...")
    parser.add_argument(
        "--cfg-options", nargs="+", action=DictAction, help="config entries to set, as key=value"
    )
    args = parser.parse_args()
    try:
        args.values = [float(v) for v in (args.gammas or args.budgets or args.targets).split(",")]
    except ValueError:
        parser.error("--gammas, --budgets and --targets take numbers, a,b,...")
    if bool(args.targets) != bool(args.checkpoint):
        parser.error("--targets and --checkpoint belong together")
    args.seeds, args.folds = (
        compare.numbers(parser, args.seeds),
        compare.numbers(parser, args.folds),
    )
    return args


def sweep(args: argparse.Namespace, folder: Path) -> list[dict]:
    """A row for each value and each of `SWEPT`; what does not depend on the value is made once."""
    option = "gamma" if args.gammas else "budget"
    rows = []
    for value in args.values:
        ours = copy.copy(args)
        ours.cfg_options = {**(args.cfg_options or {}), f"model.objective.{option}": value}
        ours.work_dir = str(folder / f"{option}_{value:g}")
        runs = [compare.Run(ours, seed, fold) for seed in args.seeds for fold in args.folds]
        for run in runs:
            run.warm_start = folder / run.name / "warmup"
            run.check()
        for name in SWEPT:
            row = aggregate(name, [run.make(name) for run in runs])
            rows.append({**row, "setting": f"{option} {value:g}", "value": value})
    return sorted(rows, key=lambda row: row["value"])


def dial(args: argparse.Namespace, folder: Path) -> list[dict]:
    """A row for each target, from one checkpoint."""
    config = load_config(args.config, args.cfg_options)
    config.work_dir, config.load_from, config.resume = str(folder), None, False
    config.model.recognizer_checkpoint = None
    check_config(config, ("val", "test"))
    runner = build_runner(config)
    load_weights(runner.model, args.checkpoint)
    validation = runner.build_dataloader(config.val_dataloader)
    rows = []
    for target in args.values:
        threshold = calibrate(runner, validation, target)
        row = row_of("ada3d", runner.test())
        rows.append({**row, "target": target, "threshold": threshold})
    return rows


def curves(rows: list[dict]) -> dict[str, list[tuple[float, float]]]:
    """(GMACs, accuracy) of each method, the cheapest first; Upper is one point."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        found.setdefault(row["name"], []).append((row["gmacs"], row["accuracy"]))
    return {name: sorted(set(points)) for name, points in found.items()}


@user_errors
def main() -> None:
    args, start = parse_args(), time.monotonic()
    default = load_config(args.config, args.cfg_options).get("work_dir") or "work_dirs"
    folder = Path(args.work_dir or f"{default}_tradeoff")
    rows = dial(args, folder) if args.targets else sweep(args, folder)
    if any(row["accuracy"] is None for row in rows):
        raise Ada3DError("the config's test_evaluator measures no accuracy: nothing to draw")
    columns = DIAL_COLUMNS if args.targets else COLUMNS
    records.write_json(folder / "tradeoff.json", {"rows": rows, **provenance(args.config, start)})
    (folder / "tradeoff.md").write_text(tables.table(rows, columns, markdown=True) + "\n")
    figures.draw_curves(curves(rows), folder / "tradeoff.png", Path(args.config).stem)
    print(tables.table(rows, columns))


if __name__ == "__main__":
    sys.exit(main())
