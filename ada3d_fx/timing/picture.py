"""A result of `timing.measure` as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..report import figures


def draw_result(result: Mapping, path: str) -> None:
    """Draw a result's seconds, a panel for each number of clips.

    In a row that the best dense peer is to be compared with, a line tells its seconds times the row's
    multiply-adds, where they are fewer than the dense ones.
    """
    panels = {}
    for table in result["tables"]:
        if "training" in table:
            panels[f"{table['clips']} clips, {table['samples']} policies each"] = [
                figures.Seconds(
                    row["name"], row["seconds"], row["interval"], not row["faster"], None
                )
                for row in table["training"]
            ]
            continue
        told = {row["name"]: row["seconds"] for row in table["rows"]}
        bars = []
        for row in table["rows"]:
            best = table["best_peer"][row["precision"]]
            fewer = not row["dense"] and not row.get("part") and row["macs"] < 1
            theoretical = told[best] * row["macs"] if fewer else None
            bars.append(
                figures.Seconds(
                    row["name"], row["seconds"], row["interval"], row["dense"], theoretical
                )
            )
        panels[f"{table['clips']} clip{'s' * (table['clips'] > 1)}"] = bars
    shape = " x ".join(map(str, result["shape"]))
    title = f"{Path(result['config']).stem}, clips of {shape}, {result['machine']}"
    figures.draw_seconds(panels, path, title)
