"""A convolution with the sum and the activation behind it, as one operation of oneDNN or of cuDNN.

What follows a convolution takes as long as reading and writing its output does, and for a 1x1x1
convolution that is as long as the convolution itself, or several times that on a GPU. The libraries do
it while the output is at hand. Their operations are no public part of torch, so they are tried once in
a process, on small numbers, and used only where they are there and give what the plain ones give.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _python_dispatch


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


class How(NamedTuple):
    """How a convolution convolves, beside its weight: as `torch.nn.functional.conv3d` has it."""

    padding: str | Sequence[int]
    stride: Sequence[int]
    dilation: Sequence[int]
    bias: Tensor | None
    groups: int


class Library(NamedTuple):
    """What computes convolutions with what is behind them, on one kind of device."""

    # x, weight, how, activation, other, overwrites: see `by_onednn`
    convolve: Callable[..., Tensor]
    overwrites: bool  # whether a sum can take the memory of what is added
    takes: Callable[
        [nn.Conv3d | nn.Conv2d, Tensor], bool
    ]  # whether a convolution of x is one for it


def computed_in(weight: Tensor) -> torch.dtype:
    """Return the type in which a convolution is computed now: on a GPU under autocast, that of autocast.

    There the weight is folded into that type at once, instead of being changed at each use.
    """
    lowered = weight.is_cuda and torch.is_autocast_enabled("cuda")
    double = weight.dtype == torch.float64  # which autocast leaves as it is
    return torch.get_autocast_dtype("cuda") if lowered and not double else weight.dtype


def library_for(conv: nn.Conv3d | nn.Conv2d, x: Tensor) -> Library | None:
    """Return what computes a convolution and what is behind it as one, of values such as ``x``.

    Args:
        conv: its weight has the type in which it is computed.
        x: the input. On a GPU under autocast it may have another type: `by_cudnn` changes it.

    Returns:
        None where the operations run one after the other: with gradients or other followers of what
        is computed, in types and forms of padding that the library does not have, or on a CPU under
        autocast.
    """
    library = LIBRARIES.get(x.device.type)
    if library is None or not is_plain(x):
        return None
    if isinstance(conv.padding, str) or conv.padding_mode != "zeros" or not library.takes(conv, x):
        return None
    works = fused_operations_work(conv.weight.dtype, conv.groups > 1, x.device.type)
    return library if works else None


def _onednn_takes(conv: nn.Conv3d | nn.Conv2d, x: Tensor) -> bool:
    enabled = bool(torch.backends.mkldnn.enabled) and not torch.is_autocast_enabled("cpu")
    return enabled and x.dtype == conv.weight.dtype


def _cudnn_takes(conv: nn.Conv3d | nn.Conv2d, x: Tensor) -> bool:
    """Also tells whether there are channels for its fused operations; with others it reads beside them."""
    wide = conv.in_channels % CHANNELS == 0 and conv.out_channels % CHANNELS == 0
    alike = x.dtype == conv.weight.dtype or torch.is_autocast_enabled("cuda")
    return wide and alike and conv.groups == 1 and bool(torch.backends.cudnn.enabled)


def is_plain(x: Tensor) -> bool:
    """Tell whether a value is numbers on a CPU or GPU, and nobody follows what is computed."""
    return (
        type(x) is Tensor
        and x.device.type in LIBRARIES
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and _python_dispatch._get_current_dispatch_mode() is None
    )


def by_onednn(
    x: Tensor,
    weight: Tensor,
    how: How,
    activation: str,
    other: Tensor | None = None,
    overwrites: bool = False,
) -> Tensor:
    """Convolve, add and activate by oneDNN: [N, C, ...] -> [N, C', ...].

    Args:
        x: the input.
        weight: of the convolution.
        how: its padding is numbers.
        activation: what is applied at the end, see `ACTIVATIONS`.
        other: what is added, of the output's shape.
        overwrites: the sum takes the memory of ``other``.
    """
    operations = torch.ops.mkldnn
    word, limits, _ = ACTIVATIONS[activation]
    lists = [list(numbers) for numbers in how[:3]]
    given = (weight, how.bias, *lists, how.groups)
    if other is None:
        return operations._convolution_pointwise(x, *given, word, limits, "")
    then: tuple[Any, ...] = ("add", 1.0, None if word == "none" else word, limits, "")
    if overwrites:
        return operations._convolution_pointwise_.binary(other, x, *given, *then)
    return operations._convolution_pointwise.binary(x, other, *given, *then)


def by_cudnn(
    x: Tensor,
    weight: Tensor,
    how: How,
    activation: str,
    other: Tensor | None = None,
    overwrites: bool = False,
) -> Tensor:
    """Convolve, add and activate by cuDNN, which has ReLU behind a sum or a bias; see `by_onednn`.

    Args:
        x: the input; under autocast it becomes of the weight's type.
        weight: as there.
        how: as there.
        activation: as there.
        other: as there.
        overwrites: without effect: the sum has memory of its own.
    """
    x = aligned(x.to(weight.dtype))
    how = how if how.bias is None else how._replace(bias=aligned(how.bias))
    made = None if activation == "none" else _with_relu(x, weight, other, how)
    if made is None:
        made = plain_convolve(x, weight, how)
        made = made if other is None else made.add_(other)
        return ACTIVATIONS[activation].plain(made)
    return made if activation == "relu" else ACTIVATIONS[activation].plain(made)


def _with_relu(x: Tensor, weight: Tensor, other: Tensor | None, how: How) -> Tensor | None:
    """Convolve, add and apply a ReLU by cuDNN; None where it has nothing for these shapes."""
    lists = [list(numbers) for numbers in (how.stride, how.padding, how.dilation)]
    given: tuple[Any, ...] = (how.bias, *lists, how.groups)
    try:
        if other is None:
            return torch.cudnn_convolution_relu(x, weight, *given)
        return torch.cudnn_convolution_add_relu(x, weight, other, 1.0, *given)
    except RuntimeError as error:
        if NO_ENGINE in str(error):
            return None
        raise


def aligned(x: Tensor) -> Tensor:
    """Return values where cuDNN can read them: on a GPU a view of a few channels may begin anywhere."""
    apart = x.is_cuda and not torch.compiler.is_compiling() and x.data_ptr() % ALIGNMENT
    return x.clone(memory_format=torch.preserve_format) if apart else x


def with_dense_strides(x: Tensor) -> Tensor:
    """Return values that are contiguous with the strides that a contiguous tensor has.

    An axis of size 1 may have any stride. torch's depthwise convolution over time and space on a GPU
    reads beside the values where frames of one pixel have the strides of channels last (seen in 2.11).
    """
    return x.flatten().view(x.shape) if x.is_contiguous() else x


def plain_convolve(x: Tensor, weight: Tensor, how: How) -> Tensor:
    """Convolve [N, C, H, W] or [N, C, T, H, W], by torch's own convolution."""
    if how.groups > 1 and x.is_cuda:
        x = with_dense_strides(x)
    function: Callable[..., Tensor] = F.conv2d if weight.ndim == 4 else F.conv3d
    padding, stride, dilation, bias, groups = how
    return function(x, weight, bias, stride, padding, dilation, groups)


CHANNELS = 8  # of which cuDNN's fused operations take multiples
ALIGNMENT = 16  # bytes
NO_ENGINE = "unable to find an engine"  # so cuDNN's error says
LIBRARIES = {
    "cpu": Library(by_onednn, overwrites=True, takes=_onednn_takes),
    "cuda": Library(by_cudnn, overwrites=False, takes=_cudnn_takes),
}


def sum_into(left: Tensor, right: Any) -> Any:
    """Add ``right`` into ``left`` where the sum has its shape and type, else into a new tensor."""
    alike = isinstance(right, Tensor) and (left.shape, left.dtype) == (right.shape, right.dtype)
    return left.add_(right) if alike else left + right


@functools.cache
def fused_operations_work(dtype: torch.dtype, grouped: bool, device: str = "cpu") -> bool:
    """Tell whether this torch has a library's fused convolutions, and they give what the plain ones do."""
    backend = torch.backends.mkldnn if device == "cpu" else torch.backends.cudnn
    if dtype not in TOLERANCE[device] or not backend.is_available():
        return False
    try:
        return all(_alike(dtype, device, *form, 8 if grouped else 1) for form in FORMS)
    except (RuntimeError, AttributeError, TypeError, NotImplementedError):
        return False


# of the largest number; a GPU computes convolutions in TF32 unless told not to
TOLERANCE = {
    "cpu": {torch.float32: 1e-5, torch.bfloat16: 3e-2},
    "cuda": {torch.float32: 3e-3, torch.bfloat16: 3e-2, torch.float16: 5e-3},
}
FORMS = [(0, 0), (3, 3), (4, 1)]  # frames of an input, taps over time; 0: of images


@torch.inference_mode()
def _alike(dtype: torch.dtype, device: str, frames: int, taps: int, groups: int) -> bool:
    """Whether a fused convolution of one form is the plain one."""
    channels, size = 8, [n for n in (frames,) if n] + [5, 6]
    kernel = [n for n in (taps,) if n] + [3, 3]
    last = torch.channels_last_3d if frames else torch.channels_last
    x = _numbers(2, channels, *size).contiguous(memory_format=last).to(device, dtype)
    weight = _numbers(channels, channels // groups, *kernel).contiguous(memory_format=last)
    weight, bias = weight.to(device, dtype), _numbers(channels).to(device, dtype)
    convolve, overwrites, _ = LIBRARIES[device]
    other = x.flip(1).contiguous(memory_format=last)
    padding, ones = [n // 2 for n in kernel], [1] * len(kernel)
    how = How(padding, ones, ones, bias, groups)
    y = plain_convolve(x.float(), weight.float(), how._replace(bias=bias.float()))
    pairs = [
        (convolve(x, weight, how, name), kind.plain(y.clone()))
        for name, kind in ACTIVATIONS.items()
    ]
    for name in AFTER_SUM:
        wanted, written = ACTIVATIONS[name].plain(y + other), other.clone()
        pairs += [(convolve(x, weight, how, name, other), wanted)]
        if overwrites:
            pairs += [(convolve(x, weight, how, name, written, True), wanted), (written, wanted)]
    return all(
        float((made - wanted).abs().max()) <= TOLERANCE[device][dtype] * float(wanted.abs().max())
        for made, wanted in pairs
    )


def _numbers(*shape: int) -> Tensor:
    """Numbers of both signs, always the same."""
    count = torch.Size(shape).numel()
    return (torch.arange(count, dtype=torch.float32) * 0.7).sin().view(shape)
