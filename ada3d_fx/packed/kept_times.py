"""When the kept frames were: sizes and positions that follow them, in programs made for T frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import Ada3DError
from .packing import Packing
from .segments import numbers_on

# Which entries of an axis belong to which unit of frames: those of each unit, as many of each; those of
# none, such as that of a class token, which are always kept; whether those of none come first, and then
# unit by unit. No named tuple, as older torch writes none into a program that lies within another tuple.
Entries = tuple[tuple[tuple[int, ...], ...], tuple[int, ...], bool]


class Blocks(NamedTuple):
    """How an axis holds the clips: entry (o, clip, i) of ``outer`` x clips x ``inner``."""

    axis: int
    outer: int
    inner: int


def kept_times(clips: Tensor, packing: Packing) -> Tensor:
    """Return the time of each row of a pack in its clip [N, C, T, H, W]: int64 [F, 1]."""
    times = packing.rows[1] if packing.rows else tuple(range(clips.shape[2])) * len(clips)
    return numbers_on(times, clips.device)[:, None]


def check_size(clips: Tensor, size: tuple[int, int]) -> None:
    """Check clips [N, C, L, H, W] of a program whose sizes are numbers.

    Raises:
        Ada3DError: they have another H and W than ``size``.
    """
    if tuple(clips.shape[3:]) != tuple(size):
        raise Ada3DError(
            f"clips have shape {list(clips.shape)}, expected {size[0]} x {size[1]} pixels: the sizes in this "
            "model's code are kept as numbers, so that frames can be dropped; convert it with the "
            "clip_shape of your clips"
        )


def fixed_times(clips: Tensor, times: Sequence[int], size: tuple[int, int]) -> Tensor:
    """Return the times of clips [N, C, L, H, W] that all keep the same frames: int64 [N, L].

    Raises:
        Ada3DError: the clips have another H and W than ``size``, that of the program's clips.
    """
    check_size(clips, size)
    return numbers_on(tuple(times), clips.device).expand(clips.shape[0], -1)


def size_for(
    times: Tensor, unit: int, alone: int, per_clip: int, per_unit: int, per_unit_of_clip: int
) -> int:
    """Return the size of an axis for n clips of u units of frames.

    Args:
        times: of the kept frames, [n, u * unit].
        unit: the frames of a unit.
        alone: entries that depend on neither.
        per_clip: entries of each clip.
        per_unit: entries of each unit.
        per_unit_of_clip: entries of each unit of each clip.
    """
    clips, frames = times.shape
    return alone + per_clip * clips + (per_unit + per_unit_of_clip * clips) * (frames // unit)


def follow_frames(
    values: Tensor,
    times: Tensor,
    unit: int,
    ndim: int,
    axes: Sequence[int],
    entries: Sequence[Entries],
    clips: Blocks,
) -> Tensor:
    """Take of a constant what belongs to the kept frames of each clip.

    Args:
        values: made for clips of T frames, such as learned positions.
        times: of the kept frames, [n, L].
        unit: the frames of a unit.
        ndim: the rank of the value that the constant meets; the axes are that value's.
        axes: along which the constant varies with time, one or several.
        entries: for each of them, which entries belong to which unit.
        clips: where that value has its clips; the constant has one entry there.

    Returns:
        The constant for these clips, of rank ``ndim``.
    """
    values = values[(None,) * (ndim - values.ndim) + (...,)]
    units = times[:, ::unit] // unit  # [n, u]
    rest = [axis for axis in range(ndim) if axis not in axes]
    taken = values.permute(*axes, *rest)
    index = []
    for place, (of_unit, of_none, in_order) in enumerate(entries):
        kept = numbers_on(of_unit, values.device)[units].flatten(1)
        if of_none:
            always = numbers_on(of_none, values.device).expand(len(units), -1)
            kept = torch.cat([always, kept], 1)
        kept = kept if in_order else kept.sort(1).values
        shape = [len(units)] + [1] * len(axes)
        shape[1 + place] = kept.shape[1]
        index.append(kept.view(shape))
    taken = taken[tuple(index)]  # [n, *axes, *rest]
    # the clips go where the value has them, in place of an axis of one entry
    place = 1 + len(axes) + rest.index(clips.axis)
    taken = taken.movedim(0, place - 1).squeeze(place)
    order = [*axes, *rest]
    taken = taken.permute([order.index(axis) for axis in range(ndim)])
    if clips.inner > 1:
        taken = taken.repeat_interleave(clips.inner, clips.axis)
    if clips.outer > 1:
        repeats = [1] * ndim
        repeats[clips.axis] = clips.outer
        taken = taken.repeat(repeats)
    return taken


def written(values: Tensor, index: object, new: Tensor) -> Tensor:
    """Write ``new`` into a part of ``values``, and return them: ``values[index] = new``."""
    values[index] = new  # type: ignore[index]
    return values


def with_part(values: Tensor, index: object, new: Tensor) -> Tensor:
    """Return a copy of ``values`` with ``new`` in a part of it."""
    return written(values.clone(), index, new)


def drawn(times: Tensor, function: str, sizes: Sequence[int], **options: Any) -> Tensor:
    """Draw random numbers by a function of torch, on the device of the clips."""
    return getattr(torch, function)(sizes, device=times.device, **options)
