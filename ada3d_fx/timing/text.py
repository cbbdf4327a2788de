"""A result of `benchmark.measure` as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..report import tables
from . import time_profile
from .dense_peers import EAGER

COLUMNS = (
    ("name", "", "{}"),
    ("macs", "MACs", "{:.2f}"),
    ("seconds", "seconds", "{:.3f}"),
    ("interval", "95 %", "{}"),
    ("gmacs_per_second", "GMAC/s", "{:.3g}"),
    ("share_of_matrix_product", "of product", "{:.2f}"),
    ("to_best", "/ best", "{:.2f}"),
    ("realised_to_eager", "of saving, eager", "{:.2f}"),
    ("realised_to_best", "best", "{:.2f}"),
    ("realised_interval", "95 %", "{}"),
    ("to_float32", "/ float32", "{:.2f}"),
    ("peak_mib", "peak MiB", "{:.1f}"),
)
OPTIONAL = ("realised_to_eager", "to_float32", "peak_mib")  # not shown where no row has it


def text(result: Mapping) -> str:
    """Tell a result of `benchmark.measure`: a table for each number of clips, and what is under it."""
    parts = ["\n".join(_table(result, table)) for table in result["tables"]]
    left_out = [f"left out: {name}: {why}" for name, why in result["left_out"].items()]
    return "\n\n".join([*parts, *(["\n".join(left_out)] if left_out else [])])


def _table(result: Mapping, table: Mapping) -> list[str]:
    if "training" in table:
        return _training(result, table)
    rows = [flat(row, table["best_peer"]) for row in table["rows"]]
    columns = [
        column
        for column in COLUMNS
        if column[0] not in OPTIONAL or any(row.get(column[0]) is not None for row in rows)
    ]
    engines = ", ".join(f"{name} {result['versions'].get(name, '')}" for name in result["engines"])
    product = table["matrix_product"]
    clips = f"{table['clips']} clip{'s' * (table['clips'] > 1)}"
    shape = " x ".join(map(str, result["shape"]))
    lines = [
        f"{clips} of {shape}, {result['machine']}; {engines}; medians of "
        f"{result['repeats']} interleaved rounds",
        tables.table(rows, columns),
        f"of product: a float32 product of {product['side']} x {product['side']} matrices runs at "
        f"{product['gmacs_per_second']:.3g} GMAC/s here",
    ]
    lines += [
        f"best: the fastest dense row{'' if precision == 'float32' else f' in {precision}'} is "
        f"'{name}'"
        for precision, name in table["best_peer"].items()
    ]
    return [*lines, time_profile.text(table["profile"])] if "profile" in table else lines


def _training(result: Mapping, table: Mapping) -> list[str]:
    """Tell the steps of training, and below them how much faster ours are."""
    rows = [{**row, "interval": ends(row["interval"], 3)} for row in table["training"]]
    shown = ("name", "macs", "seconds", "interval", "peak_mib")
    columns = [
        column
        for column in COLUMNS
        if column[0] in shown and any(row.get(column[0]) is not None for row in rows)
    ]
    shape = " x ".join(map(str, result["shape"]))
    executed = table["clips"] * table["samples"]
    lines = [
        f"steps of training: {table['clips']} clips of {shape} with {table['samples']} policies each; "
        f"fine-tuning on {executed} clips; {result['machine']}; torch "
        f"{result['versions'].get('torch', '')}; medians of {result['repeats']} interleaved rounds",
        tables.table(rows, columns),
    ]
    lines += [
        f"{row['name']}: {found['times']:.2f} times as fast as {peer} "
        f"({ends(found['interval'], 2)})"
        for row in table["training"]
        for peer, found in row["faster"].items()
    ]
    return lines


def flat(row: Mapping, best_peer: Mapping[str, str | None]) -> dict:
    """Return a row with what the table shows of its comparisons; None is a dash."""
    against = row["against"]
    best = against.get(best_peer[row["precision"]], {})
    ending = "" if row["precision"] == "float32" else f", {row['precision']}"
    eager = against.get(EAGER + ending, {})
    shown = {
        **row,
        "interval": ends(row["interval"], 3),
        "to_best": best.get("time"),
        "realised_to_eager": None if row["dense"] else eager.get("realised"),
        "realised_to_best": None if row["dense"] else best.get("realised"),
    }
    shown["realised_interval"] = (
        None if shown["realised_to_best"] is None else ends(best["realised_interval"], 2)
    )
    return shown


def ends(values: Sequence[float], digits: int) -> str:
    """Tell an interval."""
    return f"{values[0]:.{digits}f} - {values[1]:.{digits}f}"
