#!/usr/bin/env python
"""What converts: every 3D recognizer that MMAction2 ships, or one of your own.

    python tools/show_support.py [--family slowfast,x3d] [--config CONFIG [--shape C,T,H,W]]
                                 [--format text|markdown|json] [--summary] [--out FILE]

Builds each recognizer, converts it at the clips of its own test pipeline, and prints one row per
config: T, the stages, the frame unit, how it runs, and the share of multiply-adds that turning
all stages off saves; or why not. No weights and no data are needed.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import ada3d_fx.mm  # noqa: F401  makes the published mmaction2 importable
from ada3d_fx import Ada3DError, UnsupportedModel, convert, price_table
from ada3d_fx.cli import quiet, user_errors
from ada3d_fx.mm.build import build_recognizer
from ada3d_fx.mm.config import clip_shape_of, load_config, parse_shape, recognizer_config
from ada3d_fx.mm.zoo import Shipped, shipped_recognizers
from ada3d_fx.report import tables

COLUMNS = (
    ("config", "config", "{}"),
    ("frames", "T", "{}"),
    ("stage_names", "stages", "{}"),
    ("unit", "frame unit", "{}"),
    ("execution", "runs", "{}"),
    ("ceiling", "in side taps", "{}"),
    ("reason", "why not", "{}"),
)
SUMMARY = (("family", "family", "{}"), *COLUMNS[1:6], ("count", "configs", "{}"), COLUMNS[6])


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", help="a config of your own instead of the shipped ones")
    parser.add_argument("--shape", help="C,T,H,W of a clip, where the pipeline does not say")
    parser.add_argument("--family", help="only these folders of MMAction2's configs, a,b,...")
    parser.add_argument("--format", choices=["text", "markdown", "json"], default="text")
    parser.add_argument(
        "--summary", action="store_true", help="a row for all configs of a family that are alike"
    )
    parser.add_argument("--out", help="write to this file too")
    return parser.parse_args()


def selected(args: argparse.Namespace) -> Iterator[Shipped]:
    if args.config:
        yield Shipped(args.config, load_config(args.config))
        return
    families = set(args.family.split(",")) if args.family else None
    found = [s for s in shipped_recognizers() if families is None or s.family in families]
    if not found:
        raise Ada3DError(f"--family {args.family}: MMAction2 ships no 3D recognizer there")
    yield from found


def support(shipped: Shipped, shape: tuple[int, ...]) -> dict:
    """What there is to say of one config; 'reasons' are of a refusal or of what stays undecided."""
    row = {"config": shipped.name, "family": shipped.family, "clip_shape": list(shape)}
    row["frames"] = shape[1]
    start = time.monotonic()
    model = shipped.config.model
    if model.get("type") == "Ada3DRecognizer":
        model = model.recognizer
    try:
        recognizer = build_recognizer(recognizer_config(model)).eval()
        built = time.monotonic()
        adaptive = convert(recognizer, clip_shape=shape)
    except UnsupportedModel as error:
        reasons = [str(reason) for reason in error.reasons]
        return {**row, "execution": "refused", "reasons": reasons}
    row["seconds"] = {"build": built - start, "convert": time.monotonic() - built}
    plan, table = adaptive.plan, price_table(adaptive)
    return {
        **row,
        "stages": {stage.name: len(stage.sites) for stage in plan.stages},
        "frame_unit": plan.frame_unit,
        "execution": plan.execution,
        "side_tap_share": 1 - int(table.base[-1]) / table.full,
        "reasons": [str(reason) for reason in plan.reasons],
        "leaves": [str(reason) for reason in plan.dense],
    }


def cells(row: dict) -> dict:
    """A row's values as words."""
    words = {**row, "config": Path(row["config"]).stem}
    if row["execution"] != "refused":
        names = list(row["stages"])
        words["stage_names"] = f"{len(names)}: {' '.join(names)}" if names else "0"
        words["unit"] = row["frame_unit"] or "all kept"
        words["ceiling"] = f"{100 * row['side_tap_share']:.0f} %"
    if row["reasons"] and (row["execution"] == "refused" or row["frame_unit"] is None):
        reason = row["reasons"][0]
        words["reason"] = reason if len(reason) <= 100 else f"{reason[:97]}..."
    return words


def summarised(rows: list[dict]) -> list[dict]:
    """One row for the configs of a family whose table entries agree but for T and share."""
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        key = (
            row["family"],
            str(list(row.get("stages", {}))),
            row.get("frame_unit"),
            row["execution"],
        )
        groups.setdefault(key, []).append(row)
    merged = []
    for alike in groups.values():
        words = {**cells(alike[0]), "count": len(alike), "family": alike[0]["family"]}
        words["frames"] = " ".join(str(t) for t in sorted({row["frames"] for row in alike}))
        shares = sorted({round(100 * row.get("side_tap_share", 0)) for row in alike})
        if alike[0]["execution"] != "refused":
            words["ceiling"] = f"{'-'.join(str(s) for s in {shares[0]: 0, shares[-1]: 0})} %"
        merged.append(words)
    return merged


def counts(rows: list[dict]) -> str:
    kinds = ("packed", "partly dense", "dense", "refused")
    words = [f"{sum(row['execution'] == kind for row in rows)} {kind}" for kind in kinds]
    kept = sum(row["execution"] != "refused" and row["frame_unit"] is None for row in rows)
    return f"{len(rows)} configs: {', '.join(words)}; frames kept fixed in {kept}"


@user_errors
def main() -> None:
    args = parse_args()
    rows, known = [], {}
    for shipped in selected(args):
        shape = parse_shape(args.shape) if args.shape else clip_shape_of(shipped.config)
        key = (str(shipped.config.model.to_dict()), shape)
        if key not in known:
            with quiet():
                known[key] = support(shipped, shape)
            gc.collect()
        rows.append({**known[key], "config": shipped.name, "family": shipped.family})
        if not args.config:
            print(f"{len(rows):3d} {rows[-1]['execution']:11s} {shipped.name}", file=sys.stderr)
    if args.format == "json":
        text = json.dumps(rows, indent=1)
    else:
        table = summarised(rows) if args.summary else [cells(row) for row in rows]
        columns = SUMMARY if args.summary else COLUMNS
        text = tables.table(table, columns, args.format == "markdown")
        text += "" if args.config else f"\n\n{counts(rows)}"
    if args.config and args.format == "text":
        text += "".join(
            f"\n  {reason}" for reason in rows[0]["reasons"] + rows[0].get("leaves", [])
        )
    print(text)
    if args.out:
        Path(args.out).write_text(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
