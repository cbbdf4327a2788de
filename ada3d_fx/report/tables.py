"""Rows -> tables and histograms of text."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch

# Columns: key, heading, format.
COLUMNS = (
    ("name", "policy", "{}"),
    ("accuracy", "accuracy %", "{:.2f}"),
    ("gmacs", "GMACs", "{:.4g}"),
    ("gmacs_selector", "selection network", "{:.3g}"),
    ("stages", "#3D", "{:.2f}"),
    ("frames", "#Frame", "{:.2f}"),
)
KIND_COLUMNS = (
    ("kind", "kind", "{}"),
    ("accuracy", "accuracy %", "{:.2f}"),
    ("frames", "kept frames", "{:.2f}"),
    ("stages", "active stages", "{:.2f}"),
)
CLASS_COLUMNS = (
    ("name", "class", "{}"),
    ("videos", "videos", "{}"),
    ("accuracy", "accuracy %", "{:.1f}"),
    ("frames", "kept frames", "{:.2f}"),
    ("stages", "active stages", "{:.2f}"),
    ("gmacs", "GMACs", "{:.4g}"),
)
DECISION_COLUMNS = (
    *(("video", "video", "{}"), ("frames", "frames", "{}"), ("stages", "stages", "{}")),
    *(("predicted", "predicted", "{}"), ("gmacs", "GMACs", "{:.4g}")),
)

EXITS = ("exited", "exit", "{:.1%}")


def with_exits(
    columns: Sequence[tuple[str, str, str]], rows: Sequence[Mapping[str, Any]]
) -> Sequence[tuple[str, str, str]]:
    """Add the column of the clips that need no recognizer, where a row has some."""
    return (*columns, EXITS) if any(row.get("exited") for row in rows) else columns


def table(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[tuple[str, str, str]] = COLUMNS,
    markdown: bool = False,
) -> str:
    """Write rows as a table, aligned for the console or in Markdown.

    Args:
        rows: values by key; one that is not there, or None, is a dash.
        columns: key, heading and format of each column.
        markdown: in Markdown.
    """
    cells = [[heading for _, heading, _ in columns]]
    for row in rows:
        cells.append(
            [form.format(row[key]) if row.get(key) is not None else "-" for key, _, form in columns]
        )
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = [
        [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in cells
    ]
    if not markdown:
        return "\n".join("  ".join(line).rstrip() for line in lines)
    rule = ["-" * widths[0]] + ["-" * (width - 1) + ":" for width in widths[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], rule, *lines[1:]])


def histogram(values: Sequence[float], bins: int = 10, width: int = 40, unit: str = "") -> str:
    """Tell how values are distributed, as lines of text.

    Args:
        values: numbers; where they are of few kinds, each gets a line of its own.
        bins: lines at most.
        width: characters of the longest bar.
        unit: behind each number.
    """
    numbers = torch.as_tensor(values, dtype=torch.float64)
    kinds = numbers.unique()
    if len(kinds) <= bins:
        counts = [int((numbers == kind).sum()) for kind in kinds]
        names = [f"{kind:.4g}{unit}" for kind in kinds.tolist()]
    else:
        low, high = float(numbers.min()), float(numbers.max())
        counts = [int(c) for c in torch.histc(numbers, bins, low, high)]
        edges = torch.linspace(low, high, bins + 1).tolist()
        names = [f"{a:.4g} to {b:.4g}{unit}" for a, b in itertools.pairwise(edges)]
    longest, most = max(map(len, names)), max(counts)
    return "\n".join(
        f"{name:>{longest}} {'#' * round(width * count / most):<{width}} {count:6d}"
        for name, count in zip(names, counts)
    )
