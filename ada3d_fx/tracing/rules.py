"""What single operations do to time: tables, one row per kind of operation.

A rule gives ROWWISE (it runs on packed rows unchanged), MIXES (it needs a twin), or None: it is not
known, so it runs densely on the clips of each run, which is always right.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..packed.windows import POOLS, conv_padding, window_size

ROWWISE, MIXES = "rowwise", "mixes"


def _conv_rule(conv: nn.Conv3d) -> str:
    still = conv.kernel_size[0] == 1 and conv.stride[0] == 1 and conv_padding(conv) == 0
    return ROWWISE if still else MIXES


def _pool_rule(pool: nn.Module) -> str | None:
    if getattr(pool, "return_indices", False):
        return None  # two values, and indices into the dense clip
    still = window_size(pool, "kernel_size") == 1 and window_size(pool, "stride") == 1
    return ROWWISE if still and window_size(pool, "padding") == 0 else MIXES


def _adaptive_rule(pool: nn.AdaptiveAvgPool3d | nn.AdaptiveMaxPool3d) -> str | None:
    size = pool.output_size
    time = size if isinstance(size, int) or size is None else size[0]
    return ROWWISE if time is None else MIXES if time == 1 else None


def _upsample_rule(up: nn.Upsample) -> str | None:
    scale = up.scale_factor
    still = isinstance(scale, tuple) and len(scale) == 3 and scale[0] == 1
    return ROWWISE if still and up.mode == "nearest" else None


def _rowwise(_: nn.Module) -> str:
    return ROWWISE


ELEMENTWISE_MODULES = (
    *(nn.Identity, nn.Dropout),
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Sigmoid, nn.Tanh, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Softplus),
)
EVERYWHERE = (nn.SyncBatchNorm, *ELEMENTWISE_MODULES)  # whatever axes stand behind the channels


# on values [N, C, T, H, W]
MODULE_RULES: tuple[tuple[tuple[type, ...], Callable[[Any], str | None]], ...] = (
    ((nn.Conv3d,), _conv_rule),
    (POOLS, _pool_rule),
    ((nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d), _adaptive_rule),
    ((nn.Upsample,), _upsample_rule),
    ((nn.BatchNorm3d, *EVERYWHERE), _rowwise),
)


# on values [N * T, ...], such as the images of a 2D network
ROW_RULES: tuple[tuple[tuple[type, ...], Callable[[Any], str | None]], ...] = (
    ((nn.Conv2d, nn.BatchNorm2d, *EVERYWHERE), _rowwise),
    ((nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d), _rowwise),
)


# Element-wise functions and methods: they act on every row alone if all their tensors are packed alike.
ELEMENTWISE = {
    *(operator.add, operator.sub, operator.mul, operator.truediv, operator.neg),
    *(operator.iadd, operator.isub, operator.imul, operator.itruediv),
    *(torch.add, torch.sub, torch.mul, torch.div, torch.neg, torch.clone),
    *(torch.relu, torch.sigmoid, torch.tanh, torch.clamp, F.relu, F.relu6, F.leaky_relu, F.elu, F.gelu, F.silu),
    *(F.hardswish, F.hardsigmoid, F.dropout, F.sigmoid, F.tanh),
    *("add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_", "neg", "relu", "relu_", "sigmoid", "sigmoid_"),
    *("tanh", "clamp", "clamp_", "clone", "contiguous", "float", "half", "double", "bfloat16"),
}  # fmt: skip


CONCATENATION = {torch.cat, torch.concat, torch.concatenate}
