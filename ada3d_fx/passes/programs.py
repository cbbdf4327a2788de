"""The programs of a model and their analyses: by its own rule for fewer frames, or elastic ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..elastic.conversion import elastic_programs
from ..errors import Reason, UnsupportedModel
from ..tracing.model import model_name
from ..tracing.program import Program
from ..tracing.shadow import dtype_of
from ..tracing.trace import trace
from .analysis import TimeAnalysis
from .layouts import analyse
from .planning import frame_unit, unit_of
from .shapes import FAILURES

POSITIONS = ("own", "kept")

Analysed = tuple[list[Program], list[TimeAnalysis], list[Reason]]


def analysed_programs(
    root: nn.Module,
    shadow: nn.Module,
    clip_shape: tuple[int, int, int, int],
    checkpointing: bool,
    positions: str,
) -> Analysed:
    """Trace and analyse a model.

    Where it does not take fewer frames, or where that is asked, its sizes and positions are made to
    follow the kept frames.

    Args:
        root: the model, from clips to scores.
        shadow: ``root`` on the meta device.
        clip_shape: (C, T, H, W).
        checkpointing: see `trace.trace`.
        positions: one of `POSITIONS`, see `convert`.

    Returns:
        The programs, in evaluation and in training where that differs; their analyses; and why
        sizes and positions do not follow the frames, where they were to.

    Raises:
        UnsupportedModel: it cannot be traced, or does not run on such clips, or its positions do not
            follow the kept frames where that is asked.
    """
    failed: UnsupportedModel | None = None
    programs: list[Program] = []
    analyses: list[TimeAnalysis] = []
    num_frames = clip_shape[1]
    try:
        programs = trace(root, shadow, clip_shape, checkpointing)
        analyses = _analyses(root, shadow, clip_shape, programs)
    except UnsupportedModel as error:
        failed = error
    if positions == "own":
        if failed is None and unit_of(analyses, num_frames) is not None:
            return programs, analyses, []
        if failed is not None and _takes_fewer_frames(shadow, clip_shape):
            raise failed
    if num_frames == 1:  # none can be dropped, whatever the model is built for
        if failed is not None:
            raise failed
        return programs, analyses, []
    unfollowed: list[Reason] = []
    try:
        made = elastic_programs(root, shadow, clip_shape, checkpointing)
        if isinstance(made, Reason):
            unfollowed.append(made)
        else:
            followed = _analyses(root, shadow, clip_shape, made)
            if unit_of(followed, num_frames) is not None:
                return made, followed, []
    except UnsupportedModel as error:
        if positions == "kept":  # else the reasons of the model's own programs say it
            unfollowed += error.reasons
    if positions == "kept":
        why = Reason("positions='kept'", "they cannot follow the kept frames; try positions='own'")
        raise UnsupportedModel(model_name(root), [why, *unfollowed])
    if failed is not None:
        raise UnsupportedModel(failed.model_name, [*failed.reasons, *unfollowed]) from failed
    return programs, analyses, unfollowed


def _analyses(
    root: nn.Module,
    shadow: nn.Module,
    clip_shape: Sequence[int],
    programs: Sequence[Program],
) -> list[TimeAnalysis]:
    cache: dict = {}
    return [analyse(root, p.graph, shadow, clip_shape, cache) for p in programs]


def _takes_fewer_frames(shadow: nn.Module, clip_shape: Sequence[int]) -> bool:
    """Whether a model that cannot be traced gives scores of shorter clips by a rule of its own."""
    channels, num_frames, *size = clip_shape
    scores: list[tuple[int, ...] | None] = []
    with torch.device("meta"), torch.no_grad():
        for length in range(1, num_frames + 1):
            try:
                made = shadow(torch.empty(2, channels, length, *size, dtype=dtype_of(shadow)))
            except FAILURES:
                made = None
            scores.append(tuple(made.shape) if isinstance(made, Tensor) else None)
    invalid = {n for n, shape in enumerate(scores, 1) if shape is None or shape != scores[-1]}
    return frame_unit(invalid, num_frames) is not None
