"""Policies of single clips -> pictures and animations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from .. import files
from ..errors import Ada3DError
from .figures import literal, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes


EXIT = "exits: no recognizer"


class Example(NamedTuple):
    """A clip and what was decided for it."""

    clip: Tensor  # uint8 [T, H, W, 3], RGB
    frames: Tensor  # bool [T], those that are kept
    stages: Tensor  # bool [K], those that run in 3D
    stage_names: Sequence[str]  # K words
    label: str  # the class if it is labelled, else the video's name
    prediction: str  # the predicted class
    gmacs: float  # of the recognizer and the selection network
    labelled: bool = False  # whether the label is a class


def draw_policies(examples: Sequence[Example], path: str | Path) -> None:
    """Draw a line for each clip: its frames, its stage gates as boxes, and what came of it.

    Dropped frames are dark and crossed out; stages are green (3D) or grey (2D). A clip that needs no
    recognizer has no stage: nothing but the word for it.

    Raises:
        Ada3DError: no examples, or no Matplotlib.
    """
    if not examples:
        raise Ada3DError("draw_policies: no examples to draw")
    length = max(len(example.clip) for example in examples)
    figure = new_figure("draw_policies", 1.0 * length + 4.5, 1.25 * len(examples))
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
    save(figure, path)


def animate(examples: Sequence[Example], path: str | Path, side: int = 112) -> None:
    """Write an animated GIF, a line for each clip: all frames on the left, the kept ones on the right.

    On the right, a dropped frame leaves the last kept one standing, darkened; of a clip that needs
    no recognizer, all are darkened.

    Args:
        examples: the clips.
        path: the GIF.
        side: height and width of a frame in it, in pixels.

    Raises:
        Ada3DError: no examples, or a file with another ending than .gif.
        OSError: the file cannot be written.
    """
    from PIL import Image

    check_gif(path)

    if not examples:
        raise Ada3DError("animate: no examples")
    pictures = []
    for time in range(max(len(example.clip) for example in examples)):
        sheet = Image.new("RGB", (2 * side + 4, (side + 4) * len(examples)), "white")
        for line, example in enumerate(examples):
            now = min(time, len(example.clip) - 1)
            kept = example.frames.nonzero().flatten().tolist()
            last = max([t for t in kept if t <= now], default=kept[0] if kept else now)
            for column, moment in enumerate((now, last)):
                frame = Image.fromarray(example.clip[moment].numpy()).resize((side, side))
                if column and now not in kept:
                    frame = Image.blend(frame, Image.new("RGB", frame.size, "black"), 0.4)
                sheet.paste(frame, (column * (side + 4), line * (side + 4)))
        pictures.append(sheet)
    with files.whole(path) as unfinished:
        pictures[0].save(
            unfinished, "GIF", save_all=True, append_images=pictures[1:], duration=250, loop=0
        )


def check_gif(path: str | Path) -> None:
    """Check the ending of an animation's name.

    Raises:
        Ada3DError: it is another than .gif.
    """
    if Path(path).suffix.lower() != ".gif":
        raise Ada3DError(f"{path}: animations are written as .gif")


def _draw_gates(ax: Axes, example: Example) -> None:
    from matplotlib.patches import Rectangle

    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    kept, count = int(example.frames.sum()), len(example.stages)
    gates = list(zip(example.stage_names, example.stages.tolist(), strict=True))
    if not kept:
        ax.text(0, 0.23, EXIT, fontsize=7, va="center", color="0.3")
    for k, (name, on) in enumerate(gates if kept else ()):
        left, width = k / count, 0.9 / count
        colour = "tab:green" if on else "0.85"
        ax.add_patch(Rectangle((left, 0.08), width, 0.3, facecolor=colour, edgecolor="0.3"))
        text = f"{literal(name)}\n{'3D' if on else '2D'}"
        ax.text(left + width / 2, 0.23, text, ha="center", va="center", fontsize=6)
    wrong = example.labelled and example.label != example.prediction
    ax.text(0, 0.82, literal(example.label), fontsize=8, va="center", weight="bold")
    ax.text(
        0,
        0.55,
        f"predicted {literal(example.prediction)}, {example.gmacs:.4g} GMACs, "
        f"{kept} frame{'s' * (kept != 1)}",
        fontsize=7,
        va="center",
        color="tab:red" if wrong else "black",
    )


def pixels(clip: Tensor) -> Tensor:
    """Turn a pipeline's clip [3, T, H, W] of 0 to 255 into uint8 [T, H, W, 3]."""
    return clip.permute(1, 2, 3, 0).clamp(0, 255).to(torch.uint8)
