"""The packed twins: the modules that mix time, on packs."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .fused_operations import How, aligned, plain_convolve
from .module_tree import shallow_copy, with_modules
from .packing import StageGate
from .segments import Segments, numbers_on
from .time_forms import convolve_in_form, form_on, has_few_channels
from .time_layout import TimeLayout, Window, time_layout, time_runs
from .windows import fit_window, padding_within, ungateable


class Twin(nn.Module):
    """A module that mixes time, on packs instead of dense clips.

    A twin is the original module under another class. The class is assigned, rather than a module
    built anew, so that parameters, buffers, hooks, and whatever else users set on the module are
    the original's, whatever its constructor takes.
    """

    plain_class: type[nn.Module]  # the class that the module has outside packs

    def plain(self) -> nn.Module:
        """Make the module of which this is the twin; they share the parameters."""
        return _turn_back(copy.copy(self))


class Piece(NamedTuple):
    """A run of clips, and how a temporal convolution convolves it."""

    clips: Tensor  # [n, C, L, H, W], a view of the pack
    weight: Tensor  # the taps that reach a frame
    padding: str | tuple[int, ...]


class PackedConv3d(Twin, nn.Conv3d):
    """A temporal convolution on a pack, or its centre slice w[:, :, kt // 2] (paper, sec. 3.2).

    Each run of clips is a dense convolution with the taps that can reach a frame at all: a clip of
    one frame, or one whose gate is off, has its own frame only. So the cost follows the policy, and
    2D needs no code of its own.

    That is the form 'runs' of `time_forms`. On a GPU another form takes fewer launches, with the same
    numbers: any stride, dilation and padding, also 'same', has all forms; 'gathered' is 'separated'
    where there are groups; what `ungateable` tells of always has 'runs'.
    """

    def forward(
        self, rows: Tensor, segments: Segments | None = None, gate: StageGate | None = None
    ) -> Tensor:
        """Convolve each clip with all taps where its gate is on, else with the centre slice.

        A gate with gradients gets that of ``centre + gate * (all taps - centre)``.

        Args:
            rows: the pack, [F, C, 1, H, W].
            segments: its clip table; None for clips as they are, where a model calls the module
                behind its pools over time too.
            gate: the decision of each clip; None where all are on.

        Returns:
            [F', C', 1, H', W'].
        """
        if segments is None:
            return self._whole(rows)
        if gate is None or ungateable(self) is not None:
            return self._run(rows, segments, None)
        out, soft = self._run(rows, segments, gate.on), gate.soft
        if soft is None:
            return out
        with torch.no_grad():
            other = self._run(rows, segments, tuple(not on for on in gate.on))
            sign = numbers_on([1 if on else -1 for on in gate.on], soft.device)
        after = Segments(tuple((n - 1) // self.stride[0] + 1 for n in segments.lengths))
        zero = after.repeat_per_frame((soft - soft.detach()) * sign)[:, None, None, None, None]
        return out + zero.to(out) * (out - other).detach()

    def _run(self, rows: Tensor, segments: Segments, on: tuple[bool, ...] | None) -> Tensor:
        layout = self.layout(segments, on, rows.device)
        if layout is not None:
            taps = self.taps(layout.reach)
            return convolve_in_form(rows, segments.lengths, layout, self, taps)
        return Segments.join([self._convolve(piece) for piece in self.pieces(rows, segments, on)])

    def layout(
        self, segments: Segments, on: tuple[bool, ...] | None, device: torch.device
    ) -> TimeLayout | None:
        """Lay a pack out for the form that this convolution has on a device.

        Args:
            segments: the clip table of the pack.
            on: the decision of each clip; None where all are on.
            device: of the pack.

        Returns:
            None where the form is 'runs'.
        """
        few = has_few_channels(self, device)
        form = form_on(device, few)
        if form == "gathered" and self.groups > 1:
            form = "separated"
        if form == "runs" or ungateable(self) is not None:
            return None
        return time_layout(form, segments.lengths, on, Window.of(self), always=few)

    def pieces(
        self, rows: Tensor, segments: Segments, on: Sequence[bool] | None = None
    ) -> list[Piece]:
        """Split a pack into runs of clips that are convolved alike.

        Args:
            rows: the pack, [F, C, 1, H, W].
            segments: its clip table.
            on: the decision of each clip; None where all are on.
        """
        if ungateable(self) is not None:
            parts = segments.split(rows, segments.runs())
            return [Piece(part, self.weight, self.padding) for part in parts]
        decided = on or (True,) * len(segments.lengths)
        segments, runs = time_runs(segments, decided, self.stride[0])
        window = Window.of(self)
        reaches = [window.reach_in(run.length) if run.on else 0 for run in runs]
        weights = {reach: self.taps(reach) for reach in set(reaches)}
        return [
            Piece(part, weights[reach], padding_within(self, reach))
            for part, reach in zip(segments.split(rows, runs), reaches)
        ]

    def taps(self, reach: int) -> Tensor:
        """Return the weight with ``reach`` taps on each side of the centre."""
        centre = self.kernel_size[0] // 2
        if reach == centre:
            return self.weight
        taps = self.weight[:, :, centre - reach : centre + reach + 1]
        return taps.contiguous(memory_format=torch.channels_last_3d)

    def _whole(self, clips: Tensor) -> Tensor:
        return self._conv_forward(clips, self.weight, self.bias)

    def _convolve(self, piece: Piece) -> Tensor:
        if self.padding_mode != "zeros":
            return self._whole(piece.clips)
        how = How(piece.padding, self.stride, self.dilation, self.bias, self.groups)
        return plain_convolve(aligned(piece.clips), piece.weight, how)


class _RunWise(Twin):
    """A pool on a pack: the original on the clips of each run, its window fitted to short ones."""

    def forward(self, rows: Tensor, segments: Segments | None = None) -> Tensor:
        """Pool each clip: [F, C, 1, H, W] -> [F', C, 1, H', W']; clips as they are without a table."""
        if segments is None:
            return super().forward(rows)
        runs = segments.runs()
        return Segments.join(
            [
                super(_RunWise, fit_window(self, run.length)).forward(part)
                for part, run in zip(segments.split(rows, runs), runs)
            ]
        )


class PackedMaxPool3d(_RunWise, nn.MaxPool3d):
    """Max pooling over time and space."""


class PackedAvgPool3d(_RunWise, nn.AvgPool3d):
    """Average pooling over time and space."""


class PackedAdaptiveAvgPool3d(_RunWise, nn.AdaptiveAvgPool3d):
    """The mean over time: one row per clip."""


class PackedAdaptiveMaxPool3d(_RunWise, nn.AdaptiveMaxPool3d):
    """The maximum over time: one row per clip."""


TWINS: dict[type[nn.Module], type[Twin]] = {
    nn.Conv3d: PackedConv3d,
    nn.MaxPool3d: PackedMaxPool3d,
    nn.AvgPool3d: PackedAvgPool3d,
    nn.AdaptiveAvgPool3d: PackedAdaptiveAvgPool3d,
    nn.AdaptiveMaxPool3d: PackedAdaptiveMaxPool3d,
}


def become_twin(module: nn.Module) -> None:
    """Turn a module into its twin by the table, in place: whatever refers to it still does."""
    if not isinstance(module, Twin):
        module.__dict__["plain_class"] = type(module)
        module.__class__ = next(t for plain, t in TWINS.items() if isinstance(module, plain))


def turn_plain(root: nn.Module) -> nn.Module:
    """Turn the twins in ``root`` back, in place; return ``root``."""
    for module in root.modules():
        if isinstance(module, Twin):
            _turn_back(module)
    return root


def _turn_back(twin: nn.Module) -> nn.Module:
    twin.__class__ = twin.__dict__.pop("plain_class")
    return twin


def plain(module: nn.Module) -> nn.Module:
    """Turn a twin back; a module that is none is returned as it is."""
    return module.plain() if isinstance(module, Twin) else module


def plain_class(module: nn.Module) -> type[nn.Module]:
    """Return the class that a module has outside packs."""
    return module.__dict__.get("plain_class") or type(module)


def plain_tree(root: nn.Module) -> nn.Module:
    """Return ``root`` with twins turned back: all modules are new, all parameters shared."""
    new = {
        module: module.plain() if isinstance(module, Twin) else shallow_copy(module)
        for module in root.modules()
        if not any(True for _ in module.children())
    }
    names = root.named_modules(remove_duplicate=False)
    return with_modules(root, {path: new[module] for path, module in names if module in new})


def centre_slice(conv: nn.Conv3d) -> nn.Conv3d:
    """Return ``conv``, or the one it is the twin of, with w[:, :, kt // 2] as its whole kernel.

    The weight is a view, so gradients reach the original.
    """
    assert ungateable(conv) is None
    flat = copy.copy(plain(conv))
    assert isinstance(flat, nn.Conv3d)
    flat._parameters = {k: v for k, v in conv._parameters.items() if k != "weight"}
    centre = conv.kernel_size[0] // 2
    flat.weight = conv.weight[:, :, centre : centre + 1]
    flat.kernel_size = (1, *conv.kernel_size[1:])
    if not isinstance(conv.padding, str):
        flat.padding = (0, *conv.padding[1:])
    return flat


def static_slice(conv: nn.Module, copy_weight: bool) -> nn.Module:
    """Return a convolution's centre slice with a parameter of its own, or a view of the original's."""
    assert isinstance(conv, nn.Conv3d)
    flat = centre_slice(conv)
    weight = flat.__dict__.pop("weight").detach()
    weight = weight.clone() if copy_weight else weight
    flat.weight = nn.Parameter(weight, requires_grad=conv.weight.requires_grad)
    return flat
