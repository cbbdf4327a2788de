"""Kernel arithmetic over time: windows, padding, and what a centre slice may replace."""

from __future__ import annotations

import copy

from torch import nn

POOLS = (nn.MaxPool3d, nn.AvgPool3d)


def window_size(module: nn.Module, name: str) -> int:
    value = getattr(module, name, 1)
    if name == "stride" and value is None:
        value = module.kernel_size
    return value if isinstance(value, int) else value[0]


def conv_padding(conv: nn.Conv3d) -> int:
    if isinstance(conv.padding, str):
        return conv.dilation[0] * (conv.kernel_size[0] - 1) // 2 if conv.padding == "same" else 0
    return conv.padding[0]


def fit_window(module: nn.Module, length: int) -> nn.Module:
    """A pooling module whose window over time is no longer than the clip: a short clip still gives
    one frame."""
    kernel = window_size(module, "kernel_size")
    reach = length + 2 * window_size(module, "padding")
    if not isinstance(module, POOLS) or kernel <= reach:
        return module
    fitted = copy.copy(module)
    size = module.kernel_size
    stride = module.kernel_size if module.stride is None else module.stride
    fitted.stride = stride
    fitted.kernel_size = (reach, size, size) if isinstance(size, int) else (reach, *size[1:])
    return fitted


def ungateable(conv: nn.Conv3d) -> str | None:
    """Why a temporal convolution cannot be reduced to its centre slice; None if it can."""
    reach = conv.dilation[0] * (conv.kernel_size[0] - 1)
    if hasattr(conv, "parametrizations"):
        return "its weight is computed (torch.nn.utils.parametrize); it stays on"
    if conv.kernel_size[0] == 1:
        return "its kernel has no temporal extent to turn off"
    if 2 * conv_padding(conv) != reach:
        return (
            f"its centre slice would change the clip's length (temporal kernel {conv.kernel_size[0]}, "
            f"padding {conv_padding(conv)}); it stays on"
        )
    if conv.padding_mode != "zeros":
        return f"padding_mode={conv.padding_mode!r}; it stays on"
    return None
