"""Policies and prices -> tables and files."""

from __future__ import annotations

import csv
import itertools
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import Ada3DError
from .policy import Policy

COLUMNS = (  # key, heading, format
    ("name", "policy", "{}"),
    ("accuracy", "accuracy %", "{:.2f}"),
    ("gmacs", "GMACs", "{:.4g}"),
    ("gmacs_selector", "of it selection", "{:.3g}"),
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


def table(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[tuple[str, str, str]] = COLUMNS,
    markdown: bool = False,
) -> str:
    """Rows as a table, aligned for the console or in Markdown; a value that is not there is a
    dash."""
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


def write_json(path: str | Path, report: Mapping[str, Any]) -> None:
    """Write a report; numbers that JSON lacks (NaN, infinities) are refused."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n")


POLICY_FIELDS = (
    *("video", "view", "label", "predicted", "frames", "stages"),
    *("num_frames", "num_stages", "macs", "selector_macs"),
)


def policy_words(frames: Tensor, stages: Tensor) -> dict[str, Any]:
    """One clip's decisions, bool [T] and [K], as strings of 0 and 1 and as numbers."""
    words = {
        name: "".join("1" if bit else "0" for bit in bits.tolist())
        for name, bits in (("frames", frames), ("stages", stages))
    }
    return {**words, "num_frames": int(frames.sum()), "num_stages": int(stages.sum())}


def policy_file_kind(path: str | Path) -> str:
    """'json' or 'csv', from the name of a file of policies.

    Raises:
        Ada3DError: another ending.
    """
    kind = Path(path).suffix.removeprefix(".")
    if kind not in ("json", "csv"):
        raise Ada3DError(f"{path}: policies are written to a .json or a .csv file")
    return kind


def write_policies(path: str | Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write a row of `POLICY_FIELDS` for each clip, as .json or .csv.

    Raises:
        Ada3DError: another ending.
    """
    path, kind = Path(path), policy_file_kind(path)
    if kind == "json":
        return write_json(path, {"clips": list(records)})
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, POLICY_FIELDS)
        writer.writeheader()
        writer.writerows(records)
    return None


def read_clips(path: str | Path) -> list[dict[str, Any]]:
    """The rows that `write_policies` wrote; numbers as numbers.

    Raises:
        Ada3DError: no such file, or none of its format.
    """
    path, kind = Path(path), policy_file_kind(path)
    if not path.is_file():
        raise Ada3DError(f"policies: no file at {path}")
    try:
        if kind == "json":
            rows = json.loads(path.read_text())["clips"]
        else:
            with path.open(newline="") as file:
                rows = list(csv.DictReader(file))
        words = ("video", "frames", "stages")
        return [
            {
                name: row[name] if name in words else _whole_number(row[name])
                for name in POLICY_FIELDS
            }
            for row in rows
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise Ada3DError(f"policies: {path} was not written by tools/test.py: {error!r}") from error


def _whole_number(value: Any) -> int | None:
    return None if value in (None, "") else int(value)


def policies_of(clips: Sequence[Mapping[str, Any]]) -> Policy:
    """The policies of such rows.

    Raises:
        Ada3DError: no clips, or clips with different numbers of decisions.
    """
    bits = [[[bit == "1" for bit in clip[name]] for clip in clips] for name in ("frames", "stages")]
    try:
        frames, stages = (torch.tensor(rows, dtype=torch.bool) for rows in bits)
    except ValueError as error:
        raise Ada3DError(f"policies: the clips differ in their decisions: {error}") from error
    return Policy(frames, stages.view(len(clips), -1) if stages.numel() else stages)


def usage_by_class(
    results: Sequence[Mapping[str, Any]], names: Mapping[int, str]
) -> list[dict[str, Any]]:
    """What the clips of each class use: a row of `CLASS_COLUMNS` for each label among the ``clips``
    of the results (see `write_policies`). A video of several results of one ``fold`` counts once."""
    by_label: dict[int, list[Mapping[str, Any]]] = {}
    videos: dict[int, set] = {}
    for result in results:
        for at, clip in enumerate(result["clips"]):
            if clip["label"] is not None:
                by_label.setdefault(clip["label"], []).append(clip)
                if clip["view"] == 0:  # the results of a fold list the same clips
                    videos.setdefault(clip["label"], set()).add((result.get("fold"), at))
    return [
        {
            "label": label,
            "name": names.get(label, str(label)),
            "videos": len(videos[label]),
            "accuracy": 100 * _mean(clip["predicted"] == label for clip in clips),
            "frames": _mean(clip["num_frames"] for clip in clips),
            "stages": _mean(clip["num_stages"] for clip in clips),
            "gmacs": _mean((clip["macs"] + clip["selector_macs"]) / 1e9 for clip in clips),
        }
        for label, clips in sorted(by_label.items())
    ]


def _mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


def histogram(values: Sequence[float], bins: int = 10, width: int = 40, unit: str = "") -> str:
    """How ``values`` are distributed, as lines of text; whole numbers of few kinds get a line
    each."""
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
