"""Policies and prices -> tables, JSON, pictures."""

from __future__ import annotations

import csv
import itertools
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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


class Example(NamedTuple):
    """A clip and what was decided for it.

    ``clip``: uint8 [T, H, W, 3], RGB. ``frames`` bool [T], ``stages`` bool [K]. ``stage_names``: K
    words. ``label``: the class if ``known``, else the video's name. ``gmacs``: of the recognizer
    and the selection network.
    """

    clip: Tensor
    frames: Tensor
    stages: Tensor
    stage_names: Sequence[str]
    label: str
    prediction: str
    gmacs: float
    known: bool = False


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
    of the results (see `write_policies`)."""
    by_label: dict[int, list[Mapping[str, Any]]] = {}
    for result in results:
        for clip in result["clips"]:
            if clip["label"] is not None:
                by_label.setdefault(clip["label"], []).append(clip)
    return [
        {
            "label": label,
            "name": names.get(label, str(label)),
            "videos": sum(clip["view"] == 0 for clip in clips),
            "accuracy": 100 * _mean(clip["predicted"] == label for clip in clips),
            "frames": _mean(clip["num_frames"] for clip in clips),
            "stages": _mean(clip["num_stages"] for clip in clips),
            "gmacs": _mean((clip["macs"] + clip["selector_macs"]) / 1e9 for clip in clips),
        }
        for label, clips in sorted(by_label.items())
    ]


def _mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


def draw_curves(
    curves: Mapping[str, Sequence[tuple[float, float]]], path: str | Path, title: str
) -> None:
    """Accuracy over GMACs, a line for each name; ``upper`` is drawn as a dashed level.

    Raises:
        Ada3DError: no Matplotlib.
    """
    figure = _figure("draw_curves", 6.5, 4.4)
    ax = figure.subplots()
    for name, points in curves.items():
        if name == "upper":
            best = points[-1]
            ax.axhline(best[1], color="0.4", linewidth=0.9, linestyle="--")
            ax.annotate(
                f"upper, {best[0]:.4g} GMACs", (0.02, best[1]), (0, 3), fontsize=8,
                xycoords=("axes fraction", "data"), textcoords="offset points",
            )  # fmt: skip
        else:
            ax.plot(*zip(*points), "o-", markersize=4, label=name)
    ax.set_xlabel("GMACs per clip, selection network included")
    ax.set_ylabel("accuracy %")
    ax.set_title(title, fontsize=10)
    ax.grid(alpha=0.3)
    ax.legend(fontsize=9, loc="lower right")
    figure.savefig(path, dpi=110)


def draw_usage(rows: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Kept frames, active stages and GMACs of each class, the cheapest first.

    Raises:
        Ada3DError: no Matplotlib.
    """
    rows = sorted(rows, key=lambda row: row["gmacs"])
    figure = _figure("draw_usage", 11, 1.2 + 0.32 * len(rows))
    labels = [f"{row['name']} ({row['videos']})" for row in rows]
    parts = (("frames", "kept frames"), ("stages", "active stages"), ("gmacs", "GMACs per clip"))
    for ax, (key, title) in zip(figure.subplots(1, 3, sharey=True), parts):
        bars = ax.barh(labels, [row[key] for row in rows], color="tab:blue")
        ax.bar_label(bars, [f"{row[key]:.3g}" for row in rows], padding=3, fontsize=8)
        ax.set_xlim(0, 1.15 * max(row[key] for row in rows) + 1e-9)
        ax.set_title(title, fontsize=10)
    figure.savefig(path, dpi=110)


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


def draw_policies(examples: Sequence[Example], path: str | Path) -> None:
    """One line a clip: its frames, dropped ones masked; its stage gates as boxes; what came of it.

    Raises:
        Ada3DError: no examples, or no Matplotlib.
    """
    if not examples:
        raise Ada3DError("draw_policies: no examples to draw")
    length = max(len(example.clip) for example in examples)
    figure = _figure("draw_policies", 1.0 * length + 4.5, 1.25 * len(examples))
    grid = figure.subplots(
        len(examples), length + 1, squeeze=False, width_ratios=[1.0] * length + [3.6]
    )
    for line, example in zip(grid, examples, strict=True):
        for ax in line:
            ax.axis("off")
        for ax, frame, kept in zip(line, example.clip, example.frames.tolist(), strict=False):
            shown = frame if kept else frame // 5
            ax.imshow(shown.numpy(), interpolation="nearest")
            if not kept:
                ax.plot([0, 1], [0, 1], transform=ax.transAxes, color="0.5", linewidth=0.8)
        _draw_gates(line[-1], example)
    figure.savefig(path, dpi=110)


class Line(NamedTuple):
    """A curve with what lies between two values: ``low`` and ``high``, one each for every x."""

    name: str
    low: Sequence[float]
    high: Sequence[float]


def draw_prices(
    frames: Sequence[int],
    lines: Sequence[Line],
    parts: Mapping[str, float],
    path: str | Path,
    title: str,
    original: float,
    selector: float = 0.0,
) -> None:
    """GMACs over kept frames, a band for each number of active stages (from the cheapest to the
    dearest choice of them), beside the cost by stage at full length.

    Raises:
        Ada3DError: no Matplotlib.
    """
    figure = _figure("draw_prices", 11, 4.6)
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    colours = _colours(len(lines))
    for line, colour in zip(lines, colours):
        left.fill_between(frames, line.low, line.high, color=colour, alpha=0.25, linewidth=0)
        middle = [(low + high) / 2 for low, high in zip(line.low, line.high)]
        left.plot(frames, middle, "o-", color=colour, markersize=3, label=line.name)
    left.axhline(original, color="0.3", linewidth=0.9, linestyle="--")
    left.annotate("original", (frames[0], original), (2, 3), textcoords="offset points", fontsize=8)
    if selector:
        left.axhline(original - selector, color="tab:red", linewidth=0.9, linestyle=":")
        left.annotate(
            "pays below (original less selection network)",
            (frames[0], original - selector), (2, -10), textcoords="offset points", fontsize=8,
            color="tab:red",
        )  # fmt: skip
    left.set_xlabel("kept frames")
    left.set_ylabel("GMACs of the recognizer")
    left.set_xticks(list(frames)[:: max(1, len(frames) // 16)])
    left.set_ylim(0, 1.08 * original)
    left.legend(fontsize=8, loc="lower right", reverse=True)
    left.set_title(title, fontsize=10)
    names, values = list(parts), list(parts.values())
    bars = right.barh(names[::-1], values[::-1], color="tab:blue")
    right.bar_label(bars, [f"{value:.3g}" for value in values[::-1]], padding=3, fontsize=8)
    right.set_xlim(0, 1.18 * max(values))
    right.set_xlabel("GMACs at full length")
    right.set_title("cost by stage", fontsize=10)
    figure.savefig(path, dpi=110)


def _figure(caller: str, width: float, height: float):
    """A Matplotlib figure, without its global state.

    Raises:
        Ada3DError: no Matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise Ada3DError(f"{caller}: needs Matplotlib; try pip install matplotlib") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _colours(count: int) -> list:
    from matplotlib import colormaps

    return [colormaps["viridis"](0.9 - 0.85 * i / max(count - 1, 1)) for i in range(count)]


def animate(examples: Sequence[Example], path: str | Path, side: int = 112) -> None:
    """An animated GIF: a line for each clip, all its frames on the left, the kept ones on the
    right, where a dropped frame leaves the last kept one standing.

    Raises:
        Ada3DError: no examples.
    """
    from PIL import Image

    if not examples:
        raise Ada3DError("animate: no examples")
    pictures = []
    for time in range(max(len(example.clip) for example in examples)):
        sheet = Image.new("RGB", (2 * side + 4, (side + 4) * len(examples)), "white")
        for line, example in enumerate(examples):
            now = min(time, len(example.clip) - 1)
            kept = example.frames.nonzero().flatten().tolist()
            last = max([t for t in kept if t <= now], default=kept[0])
            for column, moment in enumerate((now, last)):
                frame = Image.fromarray(example.clip[moment].numpy()).resize((side, side))
                if column and now not in kept:
                    frame = Image.blend(frame, Image.new("RGB", frame.size, "black"), 0.4)
                sheet.paste(frame, (column * (side + 4), line * (side + 4)))
        pictures.append(sheet)
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=250, loop=0)


def _draw_gates(ax, example: Example) -> None:
    from matplotlib.patches import Rectangle

    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    count = len(example.stages)
    for k, (name, on) in enumerate(zip(example.stage_names, example.stages.tolist(), strict=True)):
        left, width = k / count, 0.9 / count
        colour = "tab:green" if on else "0.85"
        ax.add_patch(Rectangle((left, 0.08), width, 0.3, facecolor=colour, edgecolor="0.3"))
        text = f"{name}\n{'3D' if on else '2D'}"
        ax.text(left + width / 2, 0.23, text, ha="center", va="center", fontsize=6)
    wrong = example.known and example.label != example.prediction
    ax.text(0, 0.82, f"{example.label}", fontsize=8, va="center", weight="bold")
    ax.text(
        0,
        0.55,
        f"predicted {example.prediction}, {example.gmacs:.4g} GMACs, "
        f"{int(example.frames.sum())} frames",
        fontsize=7,
        va="center",
        color="tab:red" if wrong else "black",
    )


def pixels(clip: Tensor) -> Tensor:
    """A pipeline's clip [3, T, H, W] of 0 to 255 -> uint8 [T, H, W, 3]."""
    return clip.permute(1, 2, 3, 0).clamp(0, 255).to(torch.uint8)
