"""What the rows of an inference come to: a table of few, and means of any number of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..report import tables
from .journal import Journal

SHOWN = 20  # rows that are shown as a table; of more there is a summary only
BROKEN_SHOWN = 5  # videos that do not decode, in a summary
TABLE_COLUMNS = (
    *(("video", "video", "{}"), ("model", "model", "{}"), ("class", "class", "{}")),
    *(("score", "score", "{:.3f}"), ("frames", "frames", "{}"), ("stages", "stages", "{}")),
    *(("gmacs", "GMACs", "{:.4g}"), ("decode_ms", "decode ms", "{:.1f}")),
    *(("select_ms", "select ms", "{:.1f}"), ("recognise_ms", "recognise ms", "{:.1f}")),
    ("error", "error", "{}"),
)
SUMMARY_COLUMNS = (
    *(("model", "model", "{}"), ("videos", "videos", "{}"), ("errors", "errors", "{}")),
    *(("accuracy", "accuracy %", "{:.2f}"), ("clips", "clips", "{:.4g}")),
    *(("gmacs", "GMACs", "{:.4g}"), ("gmacs_selector", "selection network", "{:.3g}")),
    *(("decode_ms", "decode ms", "{:.1f}"), ("select_ms", "select ms", "{:.1f}")),
    ("recognise_ms", "recognise ms", "{:.1f}"),
)
MEANS = ("clips", "gmacs", "gmacs_selector", "select_ms", "recognise_ms")  # of those that decode


def summary(journal: Journal, names: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Tell the rows, if they are few, and what they come to.

    Args:
        journal: it is complete.
        names: of the models.

    Returns:
        The text; and for machines ``rows``, one of means for each model, and of two models what
        `Agreement` finds.
    """
    agreement = Agreement()
    few, broken, tallies = [], [], {name: Tally(name) for name in names}
    for row in journal.rows():
        tallies[row["model"]].add(row)
        agreement.add(row)
        if journal.size <= SHOWN:
            shown = row["predicted"] if row["class"] is None else row["class"]
            few.append({**row, "class": shown, "video": Path(row["video"]).name})
        if row["error"] and len(broken) < BROKEN_SHOWN:
            broken.append(f"{row['video']}: {row['error']}")
    rows = [tally.row() for tally in tallies.values()]
    wanted = [c for c in TABLE_COLUMNS if c[0] != "model" or len(names) > 1]
    wanted = [c for c in wanted if c[0] != "error" or broken]
    errors = sum(row["errors"] for row in rows)
    lines = [tables.table(few, wanted), ""] if few else []
    lines += [tables.table(rows, SUMMARY_COLUMNS)]
    if broken and not few:
        more = errors - len(broken)
        lines += ["do not decode:", *(f"  {one}" for one in broken)]
        lines += [f"  and {more} more"] if more else []
    if len(names) < 2:
        return "\n".join(lines), {"rows": rows}
    return "\n".join([*lines, agreement.text()]), {"rows": rows, "agreement": agreement.found()}


class Agreement:
    """How far two models agree on the videos that both predict; rows come in turns."""

    def __init__(self) -> None:
        self.before: Mapping[str, Any] = {"index": None}
        self.videos = self.labels = self.policies = 0
        self.scores = 0.0
        self.decide = True  # both of them

    def add(self, row: Mapping[str, Any]) -> None:
        """Compare a row with the one before, if that is of the same video."""
        other, self.before = self.before, row
        if row["index"] != other["index"] or row["error"] or other["error"]:
            return
        self.videos += 1
        self.labels += row["predicted"] != other["predicted"]
        self.decide &= row["frames"] is not None and other["frames"] is not None
        self.policies += any(row[part] != other[part] for part in ("frames", "stages"))
        pairs = zip(*(_scores_of(one) for one in (row, other)))
        self.scores = max([self.scores, *(abs(a - b) for a, b in pairs)])

    def found(self) -> dict[str, Any]:
        """Return the videos, those whose labels and policies differ, and the largest difference of scores."""
        policies = self.policies if self.decide else None
        return {"videos": self.videos, "other_labels": self.labels, "other_policies": policies,
                "scores": self.scores}  # fmt: skip

    def text(self) -> str:
        """Tell it in a line."""
        told = f"of {self.videos} videos that both predict, {self.labels} have another label"
        if self.decide:
            told += f", {self.policies} another policy"
        return f"{told}; scores differ by {self.scores:.2g} at most"


def _scores_of(row: Mapping[str, Any]) -> Sequence[float]:
    """All class scores where the row has them, else the highest."""
    scores = row.get("scores")
    if isinstance(scores, str):  # of a .csv file
        return [float(word) for word in scores.split()]
    return [row["score"]] if scores is None else scores


class Tally:
    """Means over the rows of a model, of which none is kept.

    Args:
        name: the model's.
    """

    def __init__(self, name: str):
        self.name, self.videos, self.errors = name, 0, 0
        self.labelled = self.right = 0
        self.sums = dict.fromkeys((*MEANS, "decode_ms"), 0.0)

    def add(self, row: Mapping[str, Any]) -> None:
        """Count a row."""
        self.videos += 1
        self.sums["decode_ms"] += row["decode_ms"]
        if row["error"]:
            self.errors += 1
            return
        for name in MEANS:
            self.sums[name] += row[name]
        if isinstance(row["label"], int):
            self.labelled += 1
            self.right += row["label"] == row["predicted"]

    def row(self) -> dict[str, Any]:
        """Return the means; accuracy, in percent, is of the labelled videos that decode."""
        whole = self.videos - self.errors
        row: dict[str, Any] = {"model": self.name, "videos": self.videos, "errors": self.errors}
        row["accuracy"] = 100 * self.right / self.labelled if self.labelled else None
        row |= {name: self.sums[name] / whole if whole else None for name in MEANS}
        return row | {"decode_ms": self.sums["decode_ms"] / self.videos}
