"""Policies and prices -> tables, JSON, pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .errors import Ada3DError

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


class Example(NamedTuple):
    """A clip and what was decided for it.

    ``clip``: uint8 [T, H, W, 3], RGB. ``frames`` bool [T], ``stages`` bool [K].
    ``gmacs``: of the recognizer and the selection network. ``stage_names``: K words.
    """

    clip: Tensor
    frames: Tensor
    stages: Tensor
    stage_names: Sequence[str]
    label: str
    prediction: str
    gmacs: float


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


def draw_policies(examples: Sequence[Example], path: str | Path) -> None:
    """One line a clip: its frames, dropped ones masked; its stage gates as boxes; what came of it.

    Raises:
        Ada3DError: no examples, or no Matplotlib.
    """
    if not examples:
        raise Ada3DError("draw_policies: no examples to draw")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise Ada3DError("draw_policies: needs Matplotlib; try pip install matplotlib") from error
    length = max(len(example.clip) for example in examples)
    figure = Figure(figsize=(1.0 * length + 4.5, 1.25 * len(examples)), layout="constrained")
    FigureCanvasAgg(figure)
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
    right = example.label == example.prediction
    ax.text(0, 0.82, f"{example.label}", fontsize=8, va="center", weight="bold")
    ax.text(
        0,
        0.55,
        f"predicted {example.prediction}, {example.gmacs:.4g} GMACs, "
        f"{int(example.frames.sum())} frames",
        fontsize=7,
        va="center",
        color="black" if right else "tab:red",
    )


def pixels(clip: Tensor) -> Tensor:
    """A pipeline's clip [3, T, H, W] of 0 to 255 -> uint8 [T, H, W, 3]."""
    return clip.permute(1, 2, 3, 0).clamp(0, 255).to(torch.uint8)
