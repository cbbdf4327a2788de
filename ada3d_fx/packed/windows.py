"""Kernel arithmetic over time: windows, padding, and what a centre slice may replace."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

POOLS = (nn.MaxPool3d, nn.AvgPool3d)
AnyModule = TypeVar("AnyModule", bound=nn.Module)


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


def fit_window(module: AnyModule, length: int) -> AnyModule:
    """Shorten a pool's temporal window to the clip, so that a short clip still gives one frame.

    Args:
        module: a pool; any other module is returned as it is.
        length: frames of the clip that goes in.

    Returns:
        The module itself where its window is no longer than the padded clip, else a copy.
    """
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
    """Tell why a temporal convolution cannot be cut to its centre slice; None if it can."""
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
