"""The paper's compute columns beside ours: tables 1, 3 and 4, and the selection network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..convert import convert
from ..cost.price import PriceTable, price_table
from ..cost.selector import selector_price
from ..errors import Ada3DError
from ..mm.build import build_recognizer, build_selector
from ..mm.config import load_config
from ..progress import Console, quiet
from ..provenance.command import versions
from ..report import records, tables
from .price_report import PAPERS_SELECTOR

SIZE = 256  # height and width of the paper's clips


class Row(NamedTuple):
    """A line of the paper's tables, as printed."""

    table: str
    data: str
    method: str
    model: str  # the name of its config, less _stage0.py
    length: int  # T
    stages: float  # stages used on average
    frames: float  # frames used on average
    printed: float  # GFLOPs


def rows(table: str, data: str, model: str, length: int, *lines: tuple) -> list[Row]:
    """Return the rows of one part of a table; a line is (method, stages, frames, printed)."""
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


def own_configs() -> Path:
    """Find this project's configs: in the checkout, or in the installed package.

    Raises:
        Ada3DError: an installation without them.
    """
    package = Path(__file__).parents[1]
    for folder in (package.parent / "mmaction_configs", package / ".mim" / "configs"):
        if folder.is_dir():
            return folder
    raise Ada3DError(f"no configs beside or in {package}; install its wheel, or use a checkout")


def check_paper(json: str | None = None, console: Console | None = None) -> str:
    """Price what the paper's tables print, and return the text.

    Args:
        json: write the rows to this file too.
        console: where progress is shown.
    """
    console = console or Console()
    prices = price_tables(own_configs(), console)
    selector = build_selector(PAPERS_SELECTOR, prices["i3d_r50", 8].plan)
    per_frame = selector_price(selector, (3, 8, SIZE, SIZE), "paper") / 8 / 1e9
    compared = compare(prices, per_frame, console)
    ours = [row for row in compared if "with" in row]
    fit = {key: root_mean_square([row[key] for row in ours]) for key in ("without", "with")}
    if json:
        result = {"rows": compared, "selection_per_frame": per_frame, "root_mean_square": fit}
        records.write_json(json, {**result, "versions": versions()})
    return (
        f"{tables.table(compared, COLUMNS, markdown=True)}\n\n"
        f"selection network per frame of 112x112: {per_frame:.4f} (printed: 0.08)\n"
        f"{len(ours)} rows 'Ours', root mean square of the differences: {fit['without']:.2f} "
        f"without the selection network, {fit['with']:.2f} with it"
    )


def price_tables(configs: Path, console: Console) -> dict[tuple[str, int], PriceTable]:
    """Price each recognizer and length of `PRINTED` by the paper's convention."""
    prices = {}
    needed = dict.fromkeys((row.model, row.length) for row in PRINTED)
    for model, length in console.track(list(needed), "converting"):
        config = load_config(configs / f"{model}_stage0.py").model
        with quiet():
            adaptive = convert(build_recognizer(config), (3, length, SIZE, SIZE))
        prices[model, length] = price_table(adaptive, "paper")
    return prices


def compare(
    prices: Mapping[tuple[str, int], PriceTable], per_frame: float, console: Console
) -> list[dict]:
    """Return `PRINTED` with what random policies of that usage cost on average, in GMACs.

    Args:
        prices: of each model and length.
        per_frame: GMACs of the selection network for one frame.
        console: where progress is shown.
    """
    compared = []
    for row in console.track(PRINTED, "counting prices"):
        table = prices[row.model, row.length]
        expected = table.expected(row.frames / row.length, row.stages / table.plan.num_stages) / 1e9
        values = {**row._asdict(), "ours": expected, "without": expected - row.printed}
        if row.method == "Ours":
            values["with"] = values["without"] + row.length * per_frame
        compared.append(values)
    return compared


def root_mean_square(values: Sequence[float]) -> float:
    """Return the root of the mean of the squares."""
    return math.sqrt(sum(value**2 for value in values) / len(values))
