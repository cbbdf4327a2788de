#!/usr/bin/env python
"""The paper's compute columns beside ours: tables 1, 3 and 4, and the selection network.

    python tools/check_paper.py [--json PAPER.json]

Clips of 256x256, the paper's convention (no BatchNorm). For a row with learned or random policies,
the expected price of random policies that use as many frames and stages, with and without the
selection network. Takes half a minute; reads neither data nor checkpoints.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import NamedTuple

import ada3d_fx.mm  # noqa: F401  makes the published mmaction2 importable
from ada3d_fx import convert, price_table
from ada3d_fx.cli import quiet, user_errors, versions
from ada3d_fx.cost.price import PriceTable
from ada3d_fx.cost.selector import selector_price
from ada3d_fx.mm.build import build_recognizer, build_selector
from ada3d_fx.mm.config import load_config
from ada3d_fx.report import records, tables

CONFIGS = Path(__file__).parents[1] / "mmaction_configs"
SIZE = 256


class Row(NamedTuple):
    """A line of the paper's tables: usage and GFLOPs as printed."""

    table: str
    data: str
    method: str
    model: str
    length: int
    stages: float
    frames: float
    printed: float


def rows(table: str, data: str, model: str, length: int, *lines: tuple) -> list[Row]:
    return [Row(table, data, name, model, length, *numbers) for name, *numbers in lines]


UPPER_8, UPPER_16 = ("Upper", 5.0, 8.0, 58.6), ("Upper", 5.0, 16.0, 117.3)
PRINTED = [
    *rows("1", "FCVID", "i3d_r50", 8, UPPER_8, ("Random", 2.2, 5.8, 36.1),
          ("Random FT", 2.2, 5.8, 36.1), ("Ours", 2.2, 5.7, 35.6)),
    *rows("1", "ActivityNet", "i3d_r50", 8, ("Random", 3.0, 6.6, 42.9),
          ("Random FT", 3.0, 6.6, 42.9), ("Ours", 3.1, 6.6, 42.2)),
    *rows("1", "Mini-Kinetics", "i3d_r50", 8, ("Random", 2.0, 6.9, 42.2),
          ("Random FT", 1.9, 6.8, 41.5), ("Ours", 1.9, 6.9, 42.4)),
    *rows("1", "FCVID", "i3d_r50", 16, UPPER_16, ("Random", 2.1, 10.3, 63.2),
          ("Random FT", 2.1, 10.6, 65.3), ("Ours", 2.1, 10.7, 66.6)),
    *rows("1", "ActivityNet", "i3d_r50", 16, ("Random", 3.0, 11.2, 73.3),
          ("Random FT", 3.0, 11.1, 71.3), ("Ours", 3.0, 11.1, 70.1)),
    *rows("1", "Mini-Kinetics", "i3d_r50", 16, ("Random", 2.9, 11.8, 75.8),
          ("Random FT", 2.9, 12.0, 78.0), ("Ours", 2.9, 11.8, 73.8)),
    *rows("3", "Kinetics", "i3d_r50", 8, ("Ours", 2.3, 6.9, 43.7)),
    *rows("4", "FCVID", "slowonly_r50", 8, ("Upper", 2.0, 8.0, 54.5), ("Ours", 1.3, 6.6, 42.1)),
    *rows("4", "FCVID", "slowonly_r50", 16, ("Upper", 2.0, 16.0, 109.1), ("Ours", 1.4, 9.5, 61.8)),
]  # fmt: skip
COLUMNS = (
    *(("table", "table", "{}"), ("data", "data", "{}"), ("model", "model", "{}")),
    *(("length", "T", "{}"), ("method", "method", "{}"), ("stages", "#3D", "{:.1f}")),
    *(("frames", "#Frame", "{:.1f}"), ("printed", "printed", "{:.1f}")),
    *(("ours", "expected", "{:.2f}"), ("without", "difference", "{:+.2f}")),
    ("with", "with selection", "{:+.2f}"),
)


def price_tables() -> dict[tuple[str, int], PriceTable]:
    tables = {}
    for model, length in dict.fromkeys((row.model, row.length) for row in PRINTED):
        config = load_config(CONFIGS / f"{model}_stage0.py").model
        with quiet():
            adaptive = convert(build_recognizer(config), (3, length, SIZE, SIZE))
        tables[model, length] = price_table(adaptive, "paper")
    return tables


def compare(tables: dict[tuple[str, int], PriceTable], per_frame: float) -> list[dict]:
    found = []
    for row in PRINTED:
        table = tables[row.model, row.length]
        expected = table.expected(row.frames / row.length, row.stages / table.plan.num_stages) / 1e9
        values = {**row._asdict(), "ours": expected, "without": expected - row.printed}
        if row.method == "Ours":
            values["with"] = values["without"] + row.length * per_frame
        found.append(values)
    return found


def root_mean_square(values: list[float]) -> float:
    return math.sqrt(sum(value**2 for value in values) / len(values))


@user_errors
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="write the rows to this file too")
    args = parser.parse_args()
    prices = price_tables()
    options = {"type": "SelectionNetwork", "head": {"type": "MeanHead"}, "input_size": 112}
    selector = build_selector(options, prices["i3d_r50", 8].plan)
    per_frame = selector_price(selector, (3, 8, SIZE, SIZE), "paper") / 8 / 1e9
    found = compare(prices, per_frame)
    ours = [row for row in found if "with" in row]
    fit = {key: root_mean_square([row[key] for row in ours]) for key in ("without", "with")}
    print(tables.table(found, COLUMNS, markdown=True))
    print(f"\nselection network per frame of 112x112: {per_frame:.4f} (printed: 0.08)")
    print(
        f"{len(ours)} rows 'Ours', root mean square of the differences: {fit['without']:.2f} "
        f"without the selection network, {fit['with']:.2f} with it"
    )
    if args.json:
        result = {"rows": found, "selection_per_frame": per_frame, "root_mean_square": fit}
        records.write_json(args.json, {**result, "versions": versions()})


if __name__ == "__main__":
    sys.exit(main())
