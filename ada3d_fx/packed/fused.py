"""A convolution with the sum and the activation behind it, in one pass over memory.

Without gradients only, where a library has such operations; elsewhere, they run one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from .fused_operations import ACTIVATIONS, How, Library, library_for, sum_into
from .module_tree import keep_unregistered
from .packing import StageGate
from .segments import Segments, as_rows, split_rows
from .time_forms import convolve_in_form
from .twins import PackedConv3d, Piece
from .windows import ungateable

Convolution = nn.Conv3d | nn.Conv2d
POOLED_AT_ONCE = 2  # frames


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
        library = library_for(self.conv, rows)
        if library is None or not (other is None or self._fits(other, rows, segments)):
            return self._one_after_the_other(rows, segments, gate, other)
        if segments is None:  # a pool of frames is not taken over here
            return self._convolve(library, rows, self.conv.weight, self.conv.padding, other)
        conv, on = self.conv, None if gate is None else gate.on
        assert isinstance(conv, PackedConv3d)
        layout = conv.layout(segments, on, rows.device)
        if layout is None:
            return self._runs(library, rows, segments, on, other)
        if other is not None:
            return self._one_after_the_other(rows, segments, gate, other)
        convolve = partial(library.convolve, activation=self.activation)
        taps = conv.taps(layout.reach)
        made = convolve_in_form(rows, segments.lengths, layout, conv, taps, convolve)
        return made if self.pool is None else self.pool(made)

    def _one_after_the_other(
        self, rows: Tensor, segments: Segments | None, gate: StageGate | None, other: Tensor | None
    ) -> Tensor:
        made = self.conv(rows) if segments is None else self.conv(rows, segments, gate)
        if other is not None:
            made = sum_into(made, other)
        made = ACTIVATIONS[self.activation].plain(made)
        return made if self.pool is None else self.pool(made)

    def _fits(self, other: Tensor, rows: Tensor, segments: Segments | None) -> bool:
        """Whether a value has the shape, type and layout of the convolution's output."""
        conv, padding = self.conv, self.conv.padding
        assert not isinstance(padding, str)
        if type(other) is not Tensor or other.dtype != conv.weight.dtype or other.ndim != rows.ndim:
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
        self, library: Library, rows: Tensor, segments: Segments, on: Sequence[bool] | None,
        other: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """Convolve the clips, run by run."""
        conv = self.conv
        assert isinstance(conv, PackedConv3d)
        pieces = conv.pieces(rows, segments, on)
        parts = [None] * len(pieces) if other is None else self._split(other, pieces)
        made = [
            self._convolve(library, piece.clips, piece.weight, piece.padding, part)
            for piece, part in zip(pieces, parts)
        ]
        if self.pool is not None:  # before the runs are joined, as less is left to copy then
            return torch.cat([part for clips in made for part in self._pooled(clips)])
        written = other is not None and self.overwrites and library.overwrites
        return other if written and other is not None else Segments.join(made)

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
        self, library: Library, x: Tensor, weight: Tensor, padding: str | Sequence[int],
        other: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """Convolve [n, C, L, H, W], or [n, C, H, W]."""
        assert not isinstance(padding, str)
        conv, convolve = self.conv, library.convolve
        how = How(padding, conv.stride, conv.dilation, conv.bias, conv.groups)
        if weight.ndim == 4 or max(weight.shape[2], x.shape[2], conv.stride[0]) > 1 or padding[0]:
            return convolve(x, weight, how, self.activation, other, self.overwrites)
        # single frames: as images, whose strides leave no doubt what their format is
        other = None if other is None else other.squeeze(2)
        images, weight = as_rows(x.squeeze(2)).squeeze(2), weight.squeeze(2)
        how = How(padding[1:], conv.stride[1:], conv.dilation[1:], conv.bias, conv.groups)
        return as_rows(convolve(images, weight, how, self.activation, other, self.overwrites))
