"""Curves, usage and prices -> pictures."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import files
from ..errors import Ada3DError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_curves(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    path: str | Path,
    title: str,
    per: str = "clip",
) -> None:
    """Draw accuracy over cost, a line for each name; ``upper`` is drawn as a dashed level.

    Args:
        curves: (GMACs, accuracy in percent) of each name, the cheapest first.
        path: the picture.
        title: its heading.
        per: what the GMACs are of, 'clip' or 'video'.

    Raises:
        Ada3DError: no Matplotlib.
    """
    figure = new_figure("draw_curves", 6.5, 4.4)
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
            ax.plot(*zip(*points), "o-", markersize=4, label=literal(name))
    ax.set_xlabel(f"GMACs per {per}, selection network included")
    ax.set_ylabel("accuracy %")
    ax.set_title(literal(title), fontsize=10)
    ax.grid(alpha=0.3)
    ax.legend(fontsize=9, loc="lower right")
    save(figure, path)


def draw_usage(rows: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Draw kept frames, active stages and GMACs of each class, the dearest on top.

    Stages are left out where no clip has an active one, as in networks without temporal convolutions.

    Args:
        rows: see `tables.CLASS_COLUMNS`.
        path: the picture.

    Raises:
        Ada3DError: no Matplotlib.
    """
    rows = sorted(rows, key=lambda row: row["gmacs"])
    figure = new_figure("draw_usage", 11, 1.2 + 0.32 * len(rows))
    labels = [literal(f"{row['name']} ({row['videos']})") for row in rows]
    titles = {"frames": "kept frames", "stages": "active stages", "gmacs": "GMACs per clip"}
    parts = [key for key in titles if key != "stages" or any(row[key] for row in rows)]
    for ax, key in zip(figure.subplots(1, len(parts), sharey=True), parts):
        bars = ax.barh(labels, [row[key] for row in rows], color="tab:blue")
        ax.bar_label(bars, [f"{row[key]:.3g}" for row in rows], padding=3, fontsize=8)
        ax.set_xlim(0, 1.25 * max(row[key] for row in rows) + 1e-9)
        ax.locator_params(axis="x", nbins=5)
        ax.set_title(titles[key], fontsize=10)
    save(figure, path)


class Line(NamedTuple):
    """A curve drawn as a band between two values at every x."""

    name: str
    low: Sequence[float]  # a value for each x
    high: Sequence[float]  # likewise


def draw_prices(
    frames: Sequence[int],
    lines: Sequence[Line],
    parts: Mapping[str, float],
    path: str | Path,
    title: str,
    original: float,
    selector: float = 0.0,
) -> None:
    """Draw GMACs over kept frames, beside the cost by stage at full length.

    Args:
        frames: the numbers of kept frames.
        lines: for each number of active stages, GMACs from the cheapest to the dearest choice.
        parts: GMACs of each stage and of the rest, at full length.
        path: the picture.
        title: its heading.
        original: GMACs of the original recognizer.
        selector: GMACs of the selection network; 0: there is none.

    Raises:
        Ada3DError: no Matplotlib.
    """
    figure = new_figure("draw_prices", 11, 4.6)
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    colours = _colours(len(lines))
    for line, colour in zip(lines, colours):
        left.fill_between(frames, line.low, line.high, color=colour, alpha=0.25, linewidth=0)
        middle = [(low + high) / 2 for low, high in zip(line.low, line.high)]
        left.plot(frames, middle, "o-", color=colour, markersize=3, label=literal(line.name))
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
    left.set_title(literal(title), fontsize=10)
    names, values = list(map(literal, parts)), list(parts.values())
    bars = right.barh(names[::-1], values[::-1], color="tab:blue")
    right.bar_label(bars, [f"{value:.3g}" for value in values[::-1]], padding=3, fontsize=8)
    right.set_xlim(0, 1.18 * max(values))
    right.set_xlabel("GMACs at full length")
    right.set_title("cost by stage", fontsize=10)
    save(figure, path)


class Seconds(NamedTuple):
    """A bar: how long a row takes, and how long it should."""

    name: str
    seconds: float
    interval: Sequence[float]  # its two ends
    dense: bool  # else ours
    theoretical: float | None = None  # the best dense row's seconds times the multiply-adds


def draw_seconds(panels: Mapping[str, Sequence[Seconds]], path: str | Path, title: str) -> None:
    """Draw how long each row takes, dense ones grey; a dashed line tells what a row should take.

    Args:
        panels: rows by heading, the first on top; a panel each.
        path: the picture.
        title: its heading.

    Raises:
        Ada3DError: no Matplotlib.
    """
    heights = [1.0 + 0.3 * len(rows) for rows in panels.values()]
    figure = new_figure("draw_seconds", 9, 0.4 + sum(heights))
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for ax, (heading, rows) in zip(axes, panels.items()):
        names = [literal(row.name) for row in rows]
        sides = [[max(abs(r.seconds - r.interval[end]), 0) for r in rows] for end in (0, 1)]
        colours = ["0.65" if row.dense else "tab:blue" for row in rows]
        ax.barh(names, [r.seconds for r in rows], xerr=sides, color=colours, capsize=2)
        for place, row in enumerate(rows):
            end = (max(row.interval[1], row.seconds), place)
            ax.annotate(f"{row.seconds:.3g}", end, (4, 0), textcoords="offset points", va="center",
                        fontsize=8)  # fmt: skip
            if row.theoretical is not None:
                ends = (place - 0.45, place + 0.45)
                ax.vlines(row.theoretical, *ends, colors="tab:red", linestyles="--", linewidth=1.2)
        ax.set_xlim(0, 1.15 * max(max(r.interval[1], r.seconds, r.theoretical or 0) for r in rows))
        ax.invert_yaxis()
        ax.tick_params(axis="y", labelsize=8)
        ax.set_title(literal(heading), fontsize=9)
    figure.supxlabel(
        "seconds of a batch, medians with 95 % intervals; dashed: the best dense row times MACs",
        fontsize=9,
    )
    figure.suptitle(literal(title), fontsize=10)
    save(figure, path)


def new_figure(caller: str, width: float, height: float) -> Figure:
    """Make a Matplotlib figure, without Matplotlib's global state.

    Args:
        caller: the name of the drawing function, for the error.
        width: in inches.
        height: in inches.

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


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure to a file of the kind that its name ends with, PNG by default.

    Raises:
        Ada3DError: Matplotlib writes no such kind.
        OSError: the file cannot be written.
    """
    kind = picture_kind(path)
    with files.whole(path) as unfinished, warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing")  # of Matplotlib's own font
        figure.savefig(unfinished, dpi=110, format=kind)


def picture_kind(path: str | Path) -> str:
    """Tell the kind of a picture by its name's ending: 'png' where there is none.

    Raises:
        Ada3DError: Matplotlib writes no such kind.
    """
    from matplotlib.backend_bases import FigureCanvasBase

    kind = Path(path).suffix.removeprefix(".").lower() or "png"
    if kind not in FigureCanvasBase.filetypes:
        raise Ada3DError(f"{path}: pictures are written as .png, .pdf or .svg, not as .{kind}")
    return kind


def literal(text: str) -> str:
    """Return a text, such as a file's name, that Matplotlib draws as it is.

    Dollar signs would begin a formula, and bytes that are no UTF-8 cannot be drawn.
    """
    known = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return known.replace("$", r"\$")


def _colours(count: int) -> list[Any]:
    from matplotlib import colormaps

    return [colormaps["viridis"](0.9 - 0.85 * i / max(count - 1, 1)) for i in range(count)]
