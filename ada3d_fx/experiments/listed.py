"""The FLOPs that MMAction2 lists for its recognizers, beside fvcore's count."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from ..convert import convert
from ..cost.price import price_table
from ..mm.build import build_recognizer
from ..mm.config import recognizer_config
from ..mm.zoo import Listed, listed_flops
from ..progress import Console, quiet
from ..provenance.command import versions
from ..report import records, tables

COLUMNS = (
    *(("config", "config", "{}"), ("count", "alike", "{}"), ("label", "labelled", "{}")),
    *(("shape", "counted at", "{}"), ("listed", "MMAction2 lists", "{:.5g}")),
    *(("gmacs", "fvcore, 10^9", "{:.5g}"), ("ratio", "ratio", "{:.3f}")),
)


def compare_listed(
    families: Sequence[str],
    convention: str = "fvcore",
    json: str | None = None,
    console: Console | None = None,
) -> str:
    """Count the recognizers of these families at the size that gives the listed FLOPs.

    Args:
        families: folders of MMAction2's configs.
        convention: what counts, one of `cost.count.CONVENTIONS`.
        json: write the rows to this file too.
        console: where progress is shown.

    Returns:
        A table in Markdown, one row for all configs that are alike.

    Raises:
        Ada3DError: a family for which MMAction2 lists nothing.
    """
    rows: dict[tuple, dict] = {}
    entries = list(listed_flops(families))
    for entry in (console or Console()).track(entries, "counting"):
        shape, giga = counted(entry, convention)
        words = "x".join(map(str, shape[1:]))
        row = rows.setdefault((entry.giga, words, round(giga, 3)), {"configs": []})
        row["configs"].append(Path(entry.name).stem)
        row |= {"config": row["configs"][0], "count": len(row["configs"]), "shape": words}
        row |= {"label": f"{entry.clip_shape[2]}x{entry.clip_shape[3]}", "listed": entry.giga}
        row |= {"gmacs": giga, "ratio": giga / entry.giga}
    if json:
        records.write_json(json, {"rows": list(rows.values()), "versions": versions()})
    return tables.table(list(rows.values()), COLUMNS, markdown=True)


def counted(entry: Listed, convention: str) -> tuple[tuple[int, ...], float]:
    """Count at the listed size, then at the one to which that count points: shape and GMACs."""
    shape, giga = entry.clip_shape, 0.0
    with quiet():
        model = build_recognizer(recognizer_config(entry.config.model)).eval()
        for _ in range(2):
            giga = price_table(convert(model, shape), convention).full / 1e9
            side = 16 * round(shape[2] * math.sqrt(entry.giga / giga) / 16)
            if side in (0, shape[2]):
                break
            shape = (*shape[:2], side, side)
    return shape, giga
