"""The packed twins: modules that mix time, on packs. A twin is the original module, weights and
all, under a new class."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .packing import Packing, StageGate
from .segments import Segments
from .windows import fit_window, ungateable


def stage_gate(packing: Packing, stage: int) -> StageGate:
    """Decision v_k of each clip of the pack."""
    return packing.gates[stage]


class PackedConv3d(nn.Conv3d):
    """A temporal convolution on a pack; where ``gate`` is off, its centre slice w[:, :, kt // 2]
    (paper, sec. 3.2).

    Each run of clips is a dense convolution with the taps that can reach a frame at all: a clip of
    one frame, or one whose gate is off, has its own frame only. So the cost follows the policy, and
    2D needs no code of its own.
    """

    def forward(
        self, rows: Tensor, segments: Segments, gate: Sequence[bool] | None = None
    ) -> Tensor:
        """rows [F, C, 1, H, W], gate one bool per clip (None: all on) -> [F', C', 1, H', W'].

        A gate with gradients gets that of ``centre + gate * (all taps - centre)``.
        """
        out, soft = self._run(rows, segments, gate), getattr(gate, "soft", None)
        if soft is None or ungateable(self) is not None:
            return out
        with torch.no_grad():
            other = self._run(rows, segments, tuple(not on for on in gate))
            sign = torch.tensor([1.0 if on else -1.0 for on in gate]).to(soft)
        after = Segments(tuple((n - 1) // self.stride[0] + 1 for n in segments.lengths))
        zero = after.repeat_per_frame((soft - soft.detach()) * sign)[:, None, None, None, None]
        return out + zero.to(out) * (out - other).detach()

    def _run(self, rows: Tensor, segments: Segments, gate: Sequence[bool] | None) -> Tensor:
        if ungateable(self) is not None:
            runs = segments.runs()
            return Segments.join([self._dense(part, None) for part in segments.split(rows, runs)])
        gate = tuple(
            length > 1 and on
            for length, on in zip(segments.lengths, gate or (True,) * len(segments.lengths))
        )
        if self.stride[0] == 1:
            segments, gate = segments.split_ungated(gate)
        runs = segments.runs(gate)
        reach = [self._reach(run.length) if run.on else 0 for run in runs]
        weights = {radius: self._taps(radius) for radius in set(reach)}
        return Segments.join(
            [
                self._dense(part, radius, weights[radius])
                for part, radius in zip(segments.split(rows, runs), reach)
            ]
        )

    def _reach(self, length: int) -> int:
        return min(self.kernel_size[0] // 2, (length - 1) // self.dilation[0])

    def _taps(self, radius: int) -> Tensor:
        centre = self.kernel_size[0] // 2
        if radius == centre:
            return self.weight
        taps = self.weight[:, :, centre - radius : centre + radius + 1]
        return taps.contiguous(memory_format=torch.channels_last_3d)

    def _dense(self, clips: Tensor, radius: int | None, weight: Tensor | None = None) -> Tensor:
        if radius is None:
            return self._conv_forward(clips, self.weight, self.bias)
        padding = self.padding
        if not isinstance(padding, str):
            padding = (radius * self.dilation[0], *padding[1:])
        return F.conv3d(clips, weight, self.bias, self.stride, padding, self.dilation, self.groups)


class _RunWise(nn.Module):
    """A pool on a pack: the original on the clips of each run, its window fitted to clips shorter
    than it."""

    def forward(self, rows: Tensor, segments: Segments) -> Tensor:
        """rows [F, C, 1, H, W] -> [F', C, 1, H', W']."""
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


TWINS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv3d: PackedConv3d,
    nn.MaxPool3d: PackedMaxPool3d,
    nn.AvgPool3d: PackedAvgPool3d,
    nn.AdaptiveAvgPool3d: PackedAdaptiveAvgPool3d,
    nn.AdaptiveMaxPool3d: PackedAdaptiveMaxPool3d,
}


def make_twin(module: nn.Module) -> nn.Module:
    """``module`` on packs: the same parameters, buffers and hooks."""
    packed = next(packed for plain, packed in TWINS.items() if isinstance(module, plain))
    twin = copy.copy(module)
    twin.plain_class = type(module)
    twin.__class__ = packed
    return twin


def plain_module(twin: nn.Module) -> nn.Module:
    """The inverse of ``make_twin``; shares the parameters. A module that is no twin is itself."""
    if "plain_class" not in twin.__dict__:
        return twin
    module = copy.copy(twin)
    module.__class__ = module.__dict__.pop("plain_class")
    return module


def centre_slice(conv: nn.Conv3d) -> nn.Conv3d:
    """``conv`` with w[:, :, kt // 2] only; its weight is a view, so gradients reach the original."""
    assert ungateable(conv) is None
    flat = copy.copy(plain_module(conv))
    flat._parameters = {k: v for k, v in conv._parameters.items() if k != "weight"}
    centre = conv.kernel_size[0] // 2
    flat.weight = conv.weight[:, :, centre : centre + 1]
    flat.kernel_size = (1, *conv.kernel_size[1:])
    if not isinstance(conv.padding, str):
        flat.padding = (0, *conv.padding[1:])
    return flat
