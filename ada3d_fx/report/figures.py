"""Policies, prices and usage -> pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import Ada3DError


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


def draw_curves(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    path: str | Path,
    title: str,
    per: str = "clip",
) -> None:
    """Accuracy over GMACs ``per`` clip or video, a line for each name; ``upper`` is drawn as a dashed level.

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
    ax.set_xlabel(f"GMACs per {per}, selection network included")
    ax.set_ylabel("accuracy %")
    ax.set_title(title, fontsize=10)
    ax.grid(alpha=0.3)
    ax.legend(fontsize=9, loc="lower right")
    figure.savefig(path, dpi=110)


def draw_usage(rows: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Kept frames, active stages and GMACs of each class, the dearest on top.

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
        ax.set_xlim(0, 1.25 * max(row[key] for row in rows) + 1e-9)
        ax.set_title(title, fontsize=10)
    figure.savefig(path, dpi=110)


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
    kept = int(example.frames.sum())
    ax.text(0, 0.82, f"{example.label}", fontsize=8, va="center", weight="bold")
    ax.text(
        0,
        0.55,
        f"predicted {example.prediction}, {example.gmacs:.4g} GMACs, "
        f"{kept} frame{'s' * (kept != 1)}",
        fontsize=7,
        va="center",
        color="tab:red" if wrong else "black",
    )


def pixels(clip: Tensor) -> Tensor:
    """A pipeline's clip [3, T, H, W] of 0 to 255 -> uint8 [T, H, W, 3]."""
    return clip.permute(1, 2, 3, 0).clamp(0, 255).to(torch.uint8)
