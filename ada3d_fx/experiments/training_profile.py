"""Where the seconds of a training went, phase by phase: as a table, and as a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..mm.step_times import PARTS, StepTimesHook
from ..report import records, tables

FILE = "step_times.json"


def by_phase(epochs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Sum up the epochs of each training phase.

    Args:
        epochs: as `StepTimesHook` has them.

    Returns:
        A row for each phase: its steps, the seconds of one, and ``shares`` by part, which add up to 1.
    """
    rows: dict[str, dict[str, Any]] = {}
    for epoch in epochs:
        row = rows.setdefault(epoch["phase"], {"steps": 0, "seconds": dict.fromkeys(PARTS, 0.0)})
        row["steps"] += epoch["steps"]
        for part, seconds in epoch["seconds"].items():
            row["seconds"][part] += seconds
    found = []
    for phase, row in rows.items():
        whole = sum(row["seconds"].values())
        shares = {part: seconds / whole for part, seconds in row["seconds"].items()}
        found.append(
            {"phase": phase, "steps": row["steps"], "step_seconds": whole / row["steps"],
             "shares": shares}
        )  # fmt: skip
    return found


def keep(hook: StepTimesHook, folder: str | Path, made: Mapping[str, Any]) -> str:
    """Write a training's times to its work dir, and return them as a table.

    Args:
        hook: it timed the training.
        folder: the work dir.
        made: what the file says of its own making.
    """
    rows = by_phase(hook.epochs)
    records.write_json(Path(folder) / FILE, {"phases": rows, "epochs": hook.epochs, **made})
    parts = [part for part in PARTS if any(row["shares"][part] for row in rows)]
    columns = [
        ("phase", "phase", "{}"),
        ("steps", "steps", "{}"),
        ("step_seconds", "seconds a step", "{:.3g}"),
        *((part, part, "{:.1%}") for part in parts),
    ]
    return tables.table([{**row, **row["shares"]} for row in rows], columns)
