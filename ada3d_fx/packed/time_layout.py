"""Where the frames of a pack go in each form of a temporal convolution, as numbers on the host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import nn

from .segments import ClipRun, Segments


def time_runs(
    segments: Segments, on: Sequence[bool], stride: int
) -> tuple[Segments, list[ClipRun]]:
    """Group the clips of a pack into runs that a temporal convolution convolves alike.

    Args:
        segments: the clip table of the pack.
        on: the decision of each clip.
        stride: of the convolution over time; where it is 1, a clip that is off is single frames.

    Returns:
        The table of the clips that the runs are of, and the runs.
    """
    gate = tuple(length > 1 and own for length, own in zip(segments.lengths, on))
    if stride == 1:
        segments, gate = segments.split_ungated(gate)
    return segments, segments.runs(gate)


class Window(NamedTuple):
    """The temporal part of a convolution whose padding is half of its kernel's extent."""

    reach: int  # taps on each side of the centre
    dilation: int
    stride: int

    @classmethod
    def of(cls, conv: nn.Conv3d) -> Window:
        """Return that of a convolution."""
        return cls(conv.kernel_size[0] // 2, conv.dilation[0], conv.stride[0])

    def reach_in(self, length: int) -> int:
        """Tell how many taps on each side of the centre meet a frame of a clip of so many."""
        return min(self.reach, (length - 1) // self.dilation)


class TimeLayout(NamedTuple):
    """Where the frames of a pack go in a form, as numbers on the host."""

    reach: int  # taps on each side of the centre that meet a frame of some clip
    near: tuple[int, ...]  # the clips that are computed with their neighbours
    # gathered: the rows under the taps of one of their frames after the other; behind those of the
    # pack is a row of zeros
    neighbours: tuple[int, ...]
    gaps: tuple[int, ...]  # separated: the zero frames in front of each of them
    centres: tuple[int, ...]  # the rows of all other clips that the centre slice takes
    # where each row of the output is among what the first convolution and, behind that, the second
    # one gives
    places: tuple[int, ...]


def time_layout(
    form: str,
    lengths: tuple[int, ...],
    on: tuple[bool, ...] | None,
    window: Window,
    always: bool = False,
) -> TimeLayout | None:
    """Lay a pack out for a form other than 'runs'.

    Args:
        form: 'gathered' or 'separated'.
        lengths: the frames of each clip.
        on: the decision of each clip; None where all are on.
        window: of the convolution.
        always: also where runs take no more convolutions.

    Returns:
        The layout; None where runs take no more convolutions, such as one for the whole batch.
    """
    decided = (True,) * len(lengths) if on is None else on
    if torch.compiler.is_compiling():  # the compiler warns of what remembers
        return _laid_out(form, lengths, decided, window, always)
    return remembered_layout(form, lengths, decided, window, always)


def _laid_out(
    form: str, lengths: tuple[int, ...], on: tuple[bool, ...], window: Window, always: bool
) -> TimeLayout | None:
    """Lay a pack out; see `time_layout`."""
    reaches = [window.reach_in(n) * gate for n, gate in zip(lengths, on)]
    reach = max(reaches)
    near = [clip for clip, own in enumerate(reaches) if own]
    first = [0, *accumulate(lengths)]  # row of each clip
    frames = [range(first[i], first[i + 1], window.stride) for i in range(len(lengths))]
    centres = [row for clip, own in enumerate(reaches) if not own for row in frames[clip]]
    _, runs = time_runs(Segments(lengths), on, window.stride)
    if not always and len(runs) <= bool(near) + bool(centres):
        return None
    neighbours: list[int] = []
    gaps: list[int] = []
    if form == "gathered":
        for clip in near:
            rows = range(first[clip], first[clip + 1])
            for row in frames[clip]:
                neighbours += _under_taps(row, rows, reach, window, first[-1])
        starts = [0, *accumulate(len(frames[clip]) for clip in near)]
    else:
        gaps, starts = _apart([lengths[clip] for clip in near], reach, window)
    places = _places([len(own) for own in frames], dict(zip(near, starts)), starts[-1])
    return TimeLayout(
        reach, tuple(near), tuple(neighbours), tuple(gaps), tuple(centres), tuple(places)
    )


# A network's convolutions share a few layouts, which take longer to make than a launch does.
remembered_layout = lru_cache(maxsize=128)(_laid_out)


def _places(counts: Sequence[int], starts: Mapping[int, int], behind: int) -> list[int]:
    """The place of each output of each clip: from where its outputs start, or one by one behind."""
    places: list[int] = []
    for clip, count in enumerate(counts):
        start = starts.get(clip, behind)
        places += range(start, start + count)
        behind += 0 if clip in starts else count
    return places


def _under_taps(row: int, clip: range, reach: int, window: Window, zero: int) -> list[int]:
    """The rows under the taps around a row of a clip; ``zero`` where there is none."""
    step = window.dilation
    around = range(row - reach * step, row + reach * step + 1, step)
    return [near if near in clip else zero for near in around]


def _apart(lengths: Sequence[int], reach: int, window: Window) -> tuple[list[int], list[int]]:
    """Put clips into one long clip, so that no tap meets two of them.

    Returns:
        The zero frames in front of each, and where its first output is; behind the last, how many
        outputs there are.
    """
    gaps: list[int] = []
    starts: list[int] = []
    end = 0
    for length in lengths:
        least = end + reach * window.dilation if starts else 0
        starts.append(-(-least // window.stride))
        gaps.append(starts[-1] * window.stride - end)
        end = starts[-1] * window.stride + length
    return gaps, [*starts, -(-end // window.stride)]
