"""Kernel arithmetic over time: windows, padding, and what a centre slice may replace."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import Tensor, nn

POOLS = (nn.MaxPool3d, nn.AvgPool3d)
AnyModule = TypeVar("AnyModule", bound=nn.Module)


class FittingMaxPool3d(nn.MaxPool3d):
    """Max pooling whose temporal window is fitted to whatever clip comes, see `fit_window`."""

    def forward(self, x: Tensor) -> Tensor:
        """Pool [N, C, T, H, W]."""
        return super(FittingMaxPool3d, fit_window(self, int(x.shape[2]))).forward(x)


class FittingAvgPool3d(nn.AvgPool3d):
    """Average pooling whose temporal window is fitted to whatever clip comes, see `fit_window`."""

    def forward(self, x: Tensor) -> Tensor:
        """Pool [N, C, T, H, W]."""
        return super(FittingAvgPool3d, fit_window(self, int(x.shape[2]))).forward(x)


def fitting(pool: AnyModule) -> AnyModule:
    """Return a pool that fits its window at each call; any other module is returned as it is.

    One module may be called at several places of a model, with clips of different lengths.
    """
    for plain, other in ((nn.MaxPool3d, FittingMaxPool3d), (nn.AvgPool3d, FittingAvgPool3d)):
        if isinstance(pool, plain):
            fitted = copy.copy(pool)
            fitted.__class__ = other
            return fitted
    return pool


def window_size(module: nn.Module, name: str) -> int:
    """Return the temporal part of a module's ``kernel_size``, ``stride`` or ``padding``, or 1."""
    value = getattr(module, name, 1)
    if name == "stride" and value is None:
        value = module.kernel_size
    return value if isinstance(value, int) else value[0]


def conv_padding(conv: nn.Conv3d) -> int:
    """Return the frames of padding at each end of the clip, also of 'same' and 'valid'."""
    if isinstance(conv.padding, str):
        return conv.dilation[0] * (conv.kernel_size[0] - 1) // 2 if conv.padding == "same" else 0
    return conv.padding[0]


def padding_within(conv: nn.Conv3d, reach: int) -> str | tuple[int, ...]:
    """Return a convolution's padding with ``reach`` taps over time on each side of the centre."""
    if isinstance(conv.padding, str):
        return conv.padding
    return (reach * conv.dilation[0], *conv.padding[1:])


def fit_window(module: AnyModule, length: int) -> AnyModule:
    """Shorten a pool's temporal window to the clip, so that a short clip still gives one frame.

    Args:
        module: a pool; any other module is returned as it is.
        length: frames of the clip that goes in.

    Returns:
        The module itself where its window is no longer than the padded clip, else a copy.
    """
    if not isinstance(module, POOLS):
        return module
    kernel = window_size(module, "kernel_size")
    reach = length + 2 * window_size(module, "padding")
    if kernel <= reach:
        return module
    fitted = copy.copy(module)
    size = module.kernel_size
    stride = module.kernel_size if module.stride is None else module.stride
    fitted.stride = stride
    fitted.kernel_size = (reach, size, size) if isinstance(size, int) else (reach, *size[1:])
    return fitted


def ungateable(conv: nn.Conv3d) -> str | None:
    """Tell why a temporal convolution cannot be cut to its centre slice; None if it can."""
    reach = conv.dilation[0] * (conv.kernel_size[0] - 1)
    if hasattr(conv, "parametrizations"):
        return "its weight is computed (torch.nn.utils.parametrize); it stays on"
    if conv.kernel_size[0] == 1:
        return "its kernel has no temporal extent to turn off"
    if conv.kernel_size[0] % 2 == 0:
        return f"its temporal kernel of {conv.kernel_size[0]} taps has no centre; it stays on"
    if 2 * conv_padding(conv) != reach:
        return (
            f"its centre slice would change the clip's length (temporal kernel {conv.kernel_size[0]}, "
            f"padding {conv_padding(conv)}); it stays on"
        )
    if conv.padding_mode != "zeros":
        return f"padding_mode={conv.padding_mode!r}; it stays on"
    return None
