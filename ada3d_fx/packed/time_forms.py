"""Forms of a temporal convolution on a pack with few launches, for devices where each one costs.

Run by run, a batch of clips with different policies takes a convolution for each length and gate. The
forms here take two, whatever the policies: one for the frames that have neighbours, and one with the
centre slice for those of clips that are off. What they copy for that is told in docs/performance.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import Ada3DError
from .fused_operations import CHANNELS, How, computed_in, plain_convolve
from .segments import as_rows, numbers_on
from .time_layout import TimeLayout
from .windows import padding_within

FORMS = {
    "runs": "a convolution for each run of clips that agree in length and gate",
    "gathered": "a convolution of images, with the neighbours of each frame as further channels",
    "separated": "a convolution of one long clip, with zero frames between clips",
}
# By type of device, with measurements in docs/performance.md; any other one has runs.
FORM = {"cpu": "runs", "cuda": "runs"}
FEW_CHANNELS = 4  # at most; a stem has three
_asked: ContextVar[str | None] = ContextVar("time_form", default=None)


@contextmanager
def time_form(name: str) -> Iterator[None]:
    """Let all temporal convolutions of packs take one form, whatever the device.

    Args:
        name: of `FORMS`.

    Raises:
        Ada3DError: no such form.
    """
    if name not in FORMS:
        raise Ada3DError(f"time_form: {name!r}; there are {', '.join(FORMS)}")
    token = _asked.set(name)
    try:
        yield
    finally:
        _asked.reset(token)


def asked_form() -> str | None:
    """Return the form that `time_form` asks for now."""
    return _asked.get()


def same_form() -> Callable[[], AbstractContextManager]:
    """Return what makes contexts with the form of now, for what runs later or in another thread."""
    name = _asked.get()
    return nullcontext if name is None else partial(time_form, name)


def has_few_channels(conv: nn.Conv3d, device: torch.device) -> bool:
    """Tell whether a convolution, such as a stem, is one that cuDNN computes slowly over time."""
    few = conv.in_channels <= FEW_CHANNELS and device.type == "cuda"
    return few and computed_in(conv.weight) in (torch.float16, torch.bfloat16)


def form_on(device: torch.device, few_channels: bool = False) -> str:
    """Return the form of temporal convolutions on a device: `time_form`'s, or that of the table.

    Args:
        device: of the pack.
        few_channels: see `has_few_channels`.
    """
    return _asked.get() or ("gathered" if few_channels else FORM.get(device.type, "runs"))


def convolve_in_form(
    rows: Tensor,
    lengths: Sequence[int],
    layout: TimeLayout,
    conv: nn.Conv3d,
    weight: Tensor,
    convolve: Callable[..., Tensor] = plain_convolve,
) -> Tensor:
    """Convolve a pack by at most two convolutions.

    Args:
        rows: the pack, [F, C, 1, H, W].
        lengths: the frames of each clip.
        layout: of these clips; one that is gathered is for a convolution without groups.
        conv: the convolution.
        weight: its taps within the layout's reach.
        convolve: what computes it, with the arguments of `plain_convolve`, and what is behind it.

    Returns:
        [F', C', 1, H', W'].
    """
    last = rows.squeeze(2).permute(0, 2, 3, 1)  # [F, H, W, C]
    wanted = (layout.neighbours, layout.centres, layout.places)
    numbers = numbers_on(tuple(chain(*wanted)), last.device)  # one copy to the device
    neighbours, centres, places = numbers.split([len(part) for part in wanted])
    parts = []
    if layout.neighbours:
        parts.append(_gathered(last, neighbours, conv, weight, convolve))
    elif layout.near:
        parts.append(_separated(last, lengths, layout, conv, weight, convolve))
    if layout.centres:
        images = last.index_select(0, centres).permute(0, 3, 1, 2)
        parts.append(_images(images, conv, weight[:, :, layout.reach], convolve))
    made = torch.cat(parts) if len(parts) > 1 else parts[0]
    if layout.places != tuple(range(len(made))):
        made = made.index_select(0, places)
    return as_rows(made.permute(0, 3, 1, 2))


def _gathered(
    last: Tensor,
    neighbours: Tensor,
    conv: nn.Conv3d,
    weight: Tensor,
    convolve: Callable[..., Tensor],
) -> Tensor:
    """Convolve frames whose neighbours are further channels: one convolution of images."""
    _, height, width, channels = last.shape
    padded = torch.cat([last, last.new_zeros(1, height, width, channels)])
    # by pixels, as what is gathered by rows would have to be copied once more for this order
    pixels = torch.arange(height * width, device=last.device)[:, None]
    rows = neighbours.view(-1, 1, weight.shape[2])  # [n, 1, taps]
    index = pixels.add(rows, alpha=height * width)  # [n, H * W, taps]
    near = padded.flatten(0, 2).index_select(0, index.flatten())
    near = near.view(len(index), height, width, -1)  # [n, H, W, taps * C]
    weight = weight.transpose(1, 2).flatten(1, 2)
    missing = -near.shape[-1] % CHANNELS
    if missing and last.is_cuda:  # where other numbers of channels are computed slowly
        near, weight = F.pad(near, (0, missing)), F.pad(weight, (0, 0) * 2 + (0, missing))
    return _images(near.permute(0, 3, 1, 2), conv, weight, convolve)


def _separated(
    last: Tensor, lengths: Sequence[int], layout: TimeLayout, conv: nn.Conv3d, weight: Tensor,
    convolve: Callable[..., Tensor],
) -> Tensor:  # fmt: skip
    """Convolve clips with zeros between them, as one long clip."""
    zeros = last.new_zeros(max(layout.gaps), *last.shape[1:])
    clips = last.split(list(lengths))
    parts = [
        part for clip, gap in zip(layout.near, layout.gaps) for part in (zeros[:gap], clips[clip])
    ]
    long = torch.cat(parts).permute(3, 0, 1, 2)[None]  # [1, C, L, H, W]
    padding = padding_within(conv, layout.reach)
    how = How(padding, conv.stride, conv.dilation, conv.bias, conv.groups)
    made = convolve(long, weight, how)
    return made[0].permute(1, 2, 3, 0)


def _images(
    images: Tensor, conv: nn.Conv3d, weight: Tensor, convolve: Callable[..., Tensor]
) -> Tensor:
    """Convolve [n, C, H, W] by a weight [C', C / groups, kh, kw]: [n, H', W', C']."""
    weight = weight.contiguous(memory_format=torch.channels_last)
    padding = conv.padding if isinstance(conv.padding, str) else conv.padding[1:]
    how = How(padding, conv.stride[1:], conv.dilation[1:], conv.bias, conv.groups)
    made = convolve(images, weight, how)
    return made.permute(0, 2, 3, 1)
