"""Policies and results as files."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import Ada3DError
from ..policy import Policy


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
