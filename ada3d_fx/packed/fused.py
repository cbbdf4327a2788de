"""A convolution with the sum and the activation behind it, in one pass over memory.

On a CPU, what follows a convolution takes as long as reading and writing its output does, and for a
1x1x1 convolution that is as long as the convolution itself. oneDNN does it while the output is at hand.
Without gradients only; elsewhere, the operations run one after the other.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _python_dispatch

from .module_tree import keep_unregistered
from .packing import StageGate
from .segments import Segments, as_rows, split_rows
from .time_forms import form_on
from .twins import PackedConv3d, Piece
from .windows import ungateable

Convolution = nn.Conv3d | nn.Conv2d
POOLED_AT_ONCE = 2  # frames


class Activation(NamedTuple):
    """A function of single numbers."""

    word: str  # oneDNN's
    numbers: list[float]  # that oneDNN wants with it
    plain: Callable[[Tensor], Tensor]  # may work in place


ACTIVATIONS = {
    "none": Activation("none", [], lambda x: x),
    "relu": Activation("relu", [], F.relu_),
    "relu6": Activation("hardtanh", [0.0, 6.0], lambda x: F.hardtanh_(x, 0.0, 6.0)),
}
AFTER_SUM = ("none", "relu")  # those that oneDNN has behind a sum


class FusedConv(nn.Module):
    """A convolution, then a sum, an activation, or both, without gradients.

    Args:
        conv: a convolution of frames, or the twin of a temporal one.
        activation: the name of what is behind it, see `ACTIVATIONS`.
        overwrites: the value that is added is used by nobody later, so that the sum may take its
            memory.

    Attributes:
        pool: a pool of single frames at the end; None: there is none.
    """

    conv: Convolution
    pool: nn.Module | None

    def __init__(self, conv: nn.Module, activation: str = "none", overwrites: bool = False):
        super().__init__()
        self.conv = conv  # type: ignore[assignment]
        self.activation, self.overwrites = activation, overwrites
        keep_unregistered(self, pool=None)  # it is the model's

    def forward(
        self,
        rows: Tensor,
        segments: Segments | None = None,
        gate: StageGate | None = None,
        other: Tensor | None = None,
    ) -> Tensor:
        """Convolve, add and activate.

        Args:
            rows: the pack, [F, C, 1, H, W], or frames [F, C, H, W].
            segments: its clip table, of a temporal convolution.
            gate: the decision of each clip; None where all are on.
            other: what is added, of the output's shape.
        """
        runs = segments is None or form_on(rows.device) == "runs"  # no other form is fused
        if runs and self._fuses(rows) and (other is None or self._fits(other, rows, segments)):
            if segments is None:  # a pool of frames is not taken over here
                return self._convolve(rows, self.conv.weight, self.conv.padding, other)
            return self._runs(rows, segments, gate, other)
        made = self.conv(rows) if segments is None else self.conv(rows, segments, gate)
        if other is not None:
            made = sum_into(made, other)
        made = ACTIVATIONS[self.activation].plain(made)
        return made if self.pool is None else self.pool(made)

    def _fuses(self, rows: Tensor) -> bool:
        """Whether oneDNN can do it here."""
        conv = self.conv
        return (
            is_plain(rows)
            and rows.dtype == conv.weight.dtype
            and not isinstance(conv.padding, str)
            and conv.padding_mode == "zeros"
            and not torch.is_autocast_enabled("cpu")
            and bool(torch.backends.mkldnn.enabled)
            and fused_operations_work(rows.dtype, conv.groups > 1)
        )

    def _fits(self, other: Tensor, rows: Tensor, segments: Segments | None) -> bool:
        """Whether a value has the shape, type and layout of the convolution's output."""
        conv, padding = self.conv, self.conv.padding
        assert not isinstance(padding, str)
        if type(other) is not Tensor or other.dtype != rows.dtype or other.ndim != rows.ndim:
            return False
        last = torch.channels_last_3d if rows.ndim == 5 else torch.channels_last
        sizes = [
            (size + 2 * p - d * (k - 1) - 1) // s + 1
            for size, p, d, k, s in zip(
                rows.shape[2:], padding, conv.dilation, conv.kernel_size, conv.stride
            )
        ]
        count = len(rows)
        if segments is not None:
            if not isinstance(conv, PackedConv3d) or ungateable(conv) is not None:
                return False
            count = sum((length - 1) // conv.stride[0] + 1 for length in segments.lengths)
            sizes[0] = 1
        shape = (count, conv.out_channels, *sizes)
        return tuple(other.shape) == shape and other.is_contiguous(memory_format=last)

    def _runs(
        self, rows: Tensor, segments: Segments, gate: StageGate | None, other: Tensor | None
    ) -> Tensor:
        """Convolve the clips, run by run."""
        conv = self.conv
        assert isinstance(conv, PackedConv3d)
        pieces = conv.pieces(rows, segments, None if gate is None else gate.on)
        parts = [None] * len(pieces) if other is None else self._split(other, pieces)
        made = [
            self._convolve(piece.clips, piece.weight, piece.padding, part)
            for piece, part in zip(pieces, parts)
        ]
        if self.pool is not None:  # before the runs are joined, as less is left to copy then
            return torch.cat([part for clips in made for part in self._pooled(clips)])
        return other if other is not None and self.overwrites else Segments.join(made)

    def _pooled(self, clips: Tensor) -> list[Tensor]:
        """Pool a few frames at a time: torch's pools take memory for indices, too."""
        assert self.pool is not None
        return [self.pool(rows) for rows in Segments.join([clips]).split(POOLED_AT_ONCE)]

    def _split(self, other: Tensor, pieces: Sequence[Piece]) -> list[Tensor]:
        """Split what is added as the convolution's output is."""
        step = self.conv.stride[0]
        shapes = [(len(p.clips), (p.clips.shape[2] - 1) // step + 1) for p in pieces]
        return split_rows(other, shapes)

    def _convolve(
        self, x: Tensor, weight: Tensor, padding: str | Sequence[int], other: Tensor | None
    ) -> Tensor:
        """Convolve [n, C, L, H, W], or [n, C, H, W]."""
        assert not isinstance(padding, str)
        stride, dilation = self.conv.stride, self.conv.dilation
        rest = (self.conv.bias, self.conv.groups, self.activation, other, self.overwrites)
        if weight.ndim == 4 or max(weight.shape[2], x.shape[2], stride[0]) > 1 or padding[0]:
            return convolve(x, weight, padding, stride, dilation, *rest)
        # single frames: as images, whose strides leave no doubt what their format is
        if other is not None:
            rest = (*rest[:3], other.squeeze(2), self.overwrites)
        images, weight = as_rows(x.squeeze(2)).squeeze(2), weight.squeeze(2)
        return as_rows(convolve(images, weight, padding[1:], stride[1:], dilation[1:], *rest))


def is_plain(x: Tensor) -> bool:
    """Tell whether a value is numbers on the CPU, and nobody follows or changes what is computed."""
    return (
        type(x) is Tensor
        and x.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and _python_dispatch._get_current_dispatch_mode() is None
    )


def convolve(
    x: Tensor,
    weight: Tensor,
    padding: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    bias: Tensor | None,
    groups: int,
    activation: str,
    other: Tensor | None = None,
    overwrites: bool = False,
) -> Tensor:
    """Convolve, add and activate by oneDNN: [N, C, ...] -> [N, C', ...].

    Args:
        x: the input; with the other arguments as `torch.nn.functional.conv3d` has them, in lists.
        weight: of the convolution.
        padding: of each axis.
        stride: of each axis.
        dilation: of each axis.
        bias: of the convolution.
        groups: of the convolution.
        activation: what is applied at the end, see `ACTIVATIONS`.
        other: what is added, of the output's shape.
        overwrites: the sum takes the memory of ``other``.
    """
    operations = torch.ops.mkldnn
    word, numbers, _ = ACTIVATIONS[activation]
    how = (weight, bias, list(padding), list(stride), list(dilation), groups)
    if other is None:
        return operations._convolution_pointwise(x, *how, word, numbers, "")
    then: tuple[Any, ...] = ("add", 1.0, None if word == "none" else word, numbers, "")
    if overwrites:
        return operations._convolution_pointwise_.binary(other, x, *how, *then)
    return operations._convolution_pointwise.binary(x, other, *how, *then)


def sum_into(left: Tensor, right: Any) -> Any:
    """Add ``right`` into ``left`` where the sum has its shape and type, else into a new tensor."""
    alike = isinstance(right, Tensor) and (left.shape, left.dtype) == (right.shape, right.dtype)
    return left.add_(right) if alike else left + right


@functools.cache
def fused_operations_work(dtype: torch.dtype, grouped: bool) -> bool:
    """Tell whether this torch has oneDNN's fused convolutions, and they give what the plain ones do.

    They are no public part of torch, so this is tried once in a process, on small numbers.
    """
    if dtype not in TOLERANCE or not torch.backends.mkldnn.is_available():
        return False
    try:
        return all(_alike(dtype, *form, 8 if grouped else 1) for form in FORMS)
    except (RuntimeError, AttributeError, TypeError, NotImplementedError):
        return False


TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2}  # of the largest number
FORMS = [(0, 0), (3, 3), (4, 1)]  # frames of an input, taps over time; 0: of images


@torch.inference_mode()
def _alike(dtype: torch.dtype, frames: int, taps: int, groups: int) -> bool:
    """Whether a fused convolution of one form is the plain one."""
    channels, size = 8, [n for n in (frames,) if n] + [5, 6]
    kernel = [n for n in (taps,) if n] + [3, 3]
    last = torch.channels_last_3d if frames else torch.channels_last
    x = _numbers(2, channels, *size).contiguous(memory_format=last).to(dtype)
    weight = _numbers(channels, channels // groups, *kernel).contiguous(memory_format=last)
    weight, bias = weight.to(dtype), _numbers(channels).to(dtype)
    other = x.flip(1).contiguous(memory_format=last)
    padding, ones = [n // 2 for n in kernel], [1] * len(kernel)
    plain = F.conv3d if frames else F.conv2d
    y = plain(x.float(), weight.float(), bias.float(), 1, padding, 1, groups)
    how = (x, weight, padding, ones, ones, bias, groups)
    pairs = [(convolve(*how, name), kind.plain(y.clone())) for name, kind in ACTIVATIONS.items()]
    for name in AFTER_SUM:
        wanted, written = ACTIVATIONS[name].plain(y + other), other.clone()
        pairs += [(convolve(*how, name, other), wanted)]
        pairs += [(convolve(*how, name, written, True), wanted), (written, wanted)]
    return all(
        float((made - wanted).abs().max()) <= TOLERANCE[dtype] * float(wanted.abs().max())
        for made, wanted in pairs
    )


def _numbers(*shape: int) -> Tensor:
    """Numbers of both signs, always the same."""
    count = torch.Size(shape).numel()
    return (torch.arange(count, dtype=torch.float32) * 0.7).sin().view(shape)
