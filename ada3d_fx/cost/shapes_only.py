"""Tensors of the right shape without the arithmetic that would fill them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only


@contextmanager
def no_arithmetic() -> Iterator[None]:
    """Skip floating-point arithmetic: such operations return uninitialised memory of their shape.

    Integer and boolean operations, views and reads into Python still run. The memory is the CPU's.
    """
    with ThreadPoolExecutor(1) as thread, ShapesOnlyMode(thread), _RecordedConvolutions():
        yield


class ShapesOnlyMode(TorchDispatchMode):
    """Below torch's tracer, gives shapes instead of results.

    Shape functions run in a thread of their own, because the tracing state is the thread's: where
    it is set, some of them, written in Python, take sizes for traced values and fail.

    Args:
        thread: where shape functions run.
    """

    def __init__(self, thread: ThreadPoolExecutor):
        super().__init__()
        self.thread = thread

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, schema = kwargs or {}, func._schema
        written = _written(schema, args, kwargs)
        aliased = [r.alias_info for r in schema.returns if r.alias_info is not None]
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        if not any(t.is_floating_point() for t in tensors):
            return func(*args, **kwargs)
        if len(written) == len(aliased) == len(schema.returns) == 1:  # in place
            return written[0] if written[0].is_floating_point() else func(*args, **kwargs)
        if aliased or written or not _gives_tensors(schema):
            return func(*args, **kwargs)
        shaped = self.thread.submit(_unset_results, func, args, kwargs).result()
        return func(*args, **kwargs) if shaped is None else shaped


@torch.no_grad()
def _unset_results(func: Callable, args: Sequence, kwargs: Mapping[str, Any]) -> Any:
    """Uninitialised tensors like those that ``func`` gives.

    None if it has no shape function, or gives more than floating-point tensors.
    """
    positional, named = tree_map_only(Tensor, lambda t: t.to("meta"), (args, dict(kwargs)))
    if "device" in named:
        named["device"] = "meta"
    try:
        result = func(*positional, **named)
    except NotImplementedError:
        return None
    if not all(t.is_floating_point() for t in tree_leaves(result) if isinstance(t, Tensor)):
        return None
    return tree_map_only(Tensor, lambda t: torch.empty_like(t, device="cpu"), result)


def _written(schema: Any, args: Sequence, kwargs: Mapping[str, Any]) -> list[Any]:
    """The arguments that an operation writes to."""
    values = [*args, *[kwargs.get(a.name) for a in schema.arguments[len(args) :]]]
    return [
        value
        for argument, value in zip(schema.arguments, values)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]


def _gives_tensors(schema: Any) -> bool:
    return bool(schema.returns) and all("Tensor" in str(r.type) for r in schema.returns)


_DIMENSIONS = {torch.conv1d: 1, torch.conv2d: 2, torch.conv3d: 3}
_TRANSPOSED = {torch.conv_transpose1d: 1, torch.conv_transpose2d: 2, torch.conv_transpose3d: 3}


class _RecordedConvolutions(TorchFunctionMode):
    """Calls ``aten::_convolution``, the only convolution that torch's tracer records.

    It lies below the operations that `ShapesOnlyMode` answers, so it must be called at once.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _DIMENSIONS:
            return _convolution(_DIMENSIONS[func], *args, **kwargs)
        if func in _TRANSPOSED:
            return _transposed_convolution(_TRANSPOSED[func], *args, **kwargs)
        return func(*args, **kwargs)


def _convolution(
    dims: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    stride, dilation = _each(stride, dims), _each(dilation, dims)
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:])]
        if any(t % 2 for t in total):  # one more at the end
            odd = [part for t in reversed(total) for part in (0, t % 2)]
            input = torch.nn.functional.pad(input, odd)
        padding = [t // 2 for t in total]
    elif padding == "valid":
        padding = 0
    assert not isinstance(padding, str)
    return torch._convolution(
        input, weight, bias, stride, _each(padding, dims), dilation, False, [0] * dims, groups,
        False, False, True, True,
    )  # fmt: skip


def _transposed_convolution(
    dims: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> Tensor:
    stride, padding, output_padding, dilation = (
        _each(value, dims) for value in (stride, padding, output_padding, dilation)
    )
    return torch._convolution(
        input, weight, bias, stride, padding, dilation, True, output_padding, groups,
        False, False, True, True,
    )  # fmt: skip


def _each(value: int | Sequence[int], dims: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * dims if len(values) == 1 else values
