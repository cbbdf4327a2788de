"""What one run of a module costs: multiply-adds by fvcore, without doing the arithmetic.

fvcore counts a trace of torch.jit, for which every operation runs. Here the trace is the same, but
an operation only gives a tensor of the right shape, whose memory nobody touches: I3D-R50 on
8x256x256 takes 0.2 s instead of 1.5 s.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis
from fvcore.nn.jit_handles import Handle, conv_flop_count, get_shape
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from .errors import Ada3DError

# What a convention leaves out of fvcore's count. DESIGN sec. 6: the paper counts the dense network
# without its normalisation.
CONVENTIONS: dict[str, tuple[str, ...]] = {
    "fvcore": (),
    "paper": tuple(f"aten::{kind}_norm" for kind in ("batch", "group", "layer", "instance")),
}
COPIES = tuple(  # operations that only move values
    f"aten::{name}"
    for name in ("cat", "stack", "index", "index_select", "gather", "clone", "contiguous", "copy_")
)


@dataclass(frozen=True)
class Count:
    """What fvcore found in one run of a module.

    total: multiply-adds; by_module: the same by module path ('' is all); by_operator: the same by
        kind of operation; unsupported: how often each operation ran that is not counted (additions,
        activations, pools: what multiplies and adds has a handle); uncalled: paths of modules with
        parameters of their own that were not called (what happens to these parameters elsewhere is
        counted there).
    """

    total: int
    by_module: Counter[str]
    by_operator: Counter[str]
    unsupported: Counter[str]
    uncalled: tuple[str, ...]


def count(module: nn.Module, inputs: Sequence[Tensor], convention: str = "fvcore") -> Count:
    """Count one run of ``module``, in evaluation mode, on inputs of these shapes; their values do
    not matter. ``convention``: 'fvcore', or 'paper', which leaves normalisation out.

    Raises:
        Ada3DError: an unknown convention.
    """
    if convention not in CONVENTIONS:
        raise Ada3DError(f"convention={convention!r}; there are {', '.join(CONVENTIONS)}")
    handles = {**HANDLES, **dict.fromkeys(CONVENTIONS[convention], _nothing)}
    with _tracing(module):
        found = _analysis(module, inputs, handles)
        return Count(
            int(found.total()),
            _whole(found.by_module()),
            _whole(found.by_operator()),
            found.unsupported_ops(),
            tuple(sorted(p for p in found.uncalled_modules() if _has_parameters(module, p))),
        )


def elements(
    module: nn.Module, inputs: Sequence[Tensor], operations: Sequence[str]
) -> Counter[str]:
    """How many elements these operations (such as 'aten::cat') make in one run of ``module``."""
    handles = {name: _elements_handle(name) for name in operations}
    with _tracing(module):
        made = _whole(_analysis(module, inputs, handles).by_operator())
    return Counter({name: made[name] for name in operations if made[name]})


@contextmanager
def no_arithmetic() -> Iterator[None]:
    """Operations with floating-point results give uninitialised memory of the right shape, on the
    CPU. What is made of integers and booleans only, views, and values that leave for Python are
    computed as ever."""
    with ThreadPoolExecutor(1) as thread, _Shapes(thread), _RecordedConvolutions():
        yield


class _Shapes(TorchDispatchMode):
    """Below the tracer: shapes instead of results.

    Shape functions run in a thread of their own, because the tracing state is the thread's: where
    it is set, some of them, written in Python, take sizes for traced values and fail.
    """

    def __init__(self, thread: ThreadPoolExecutor):
        super().__init__()
        self.thread = thread

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
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
        shaped = self.thread.submit(_shapes, func, args, kwargs).result()
        return func(*args, **kwargs) if shaped is None else shaped


@torch.no_grad()
def _shapes(func: Callable, args: Sequence, kwargs: Mapping[str, Any]) -> Any:
    """Unset tensors like those that ``func`` gives; None if it has no shape function, or gives more
    than floating-point tensors."""
    args, kwargs = tree_map_only(Tensor, lambda t: t.to("meta"), (args, dict(kwargs)))
    if "device" in kwargs:
        kwargs["device"] = "meta"
    try:
        result = func(*args, **kwargs)
    except NotImplementedError:
        return None
    if not all(t.is_floating_point() for t in tree_leaves(result) if isinstance(t, Tensor)):
        return None
    return tree_map_only(Tensor, lambda t: torch.empty_like(t, device="cpu"), result)


def _written(schema, args: Sequence, kwargs: Mapping[str, Any]) -> list[Any]:
    """The arguments that an operation writes to."""
    values = [*args, *[kwargs.get(a.name) for a in schema.arguments[len(args) :]]]
    return [
        value
        for argument, value in zip(schema.arguments, values)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]


def _gives_tensors(schema) -> bool:
    return bool(schema.returns) and all("Tensor" in str(r.type) for r in schema.returns)


_DIMENSIONS = {torch.conv1d: 1, torch.conv2d: 2, torch.conv3d: 3}
_TRANSPOSED = {torch.conv_transpose1d: 1, torch.conv_transpose2d: 2, torch.conv_transpose3d: 3}


class _RecordedConvolutions(TorchFunctionMode):
    """The tracer records no convolution but ``aten::_convolution``, which lies below the operation
    that `_Shapes` answers: call it at once."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in _DIMENSIONS:
            return _convolution(_DIMENSIONS[func], *args, **kwargs)
        if func in _TRANSPOSED:
            return _transposed_convolution(_TRANSPOSED[func], *args, **kwargs)
        return func(*args, **kwargs)


def _convolution(dims, input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    stride, dilation = _each(stride, dims), _each(dilation, dims)
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:])]
        if any(t % 2 for t in total):  # one more at the end
            odd = [part for t in reversed(total) for part in (0, t % 2)]
            input = torch.nn.functional.pad(input, odd)
        padding = [t // 2 for t in total]
    padding = [0] * dims if padding == "valid" else _each(padding, dims)
    return torch._convolution(
        input, weight, bias, stride, padding, dilation, False, [0] * dims, groups,
        False, False, True, True,
    )  # fmt: skip


def _transposed_convolution(
    dims, input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1
):
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


# ------------------------------------------------------------------------------- fvcore's handles


def _attention(inputs: list, outputs: list) -> int:
    query, key, value = (get_shape(v) for v in inputs[:3])
    return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _added_bmm(inputs: list, outputs: list) -> int:
    (n, rows, inner), (_, _, columns) = (get_shape(v) for v in inputs[1:3])
    return n * rows * inner * columns


def _named_padding(inputs: list, outputs: list) -> Counter[str]:
    shapes = [get_shape(value) for value in (*inputs[:2], outputs[0])]
    return Counter(conv=conv_flop_count(*shapes))


def _matmul(inputs: list, outputs: list) -> int:
    return math.prod(get_shape(outputs[0])) * get_shape(inputs[0])[-1]


def _matrix_vector(place: int) -> Handle:
    return lambda inputs, outputs: math.prod(get_shape(inputs[place]))


def _tensordot(inputs: list, outputs: list) -> int:
    left, right, made = (math.prod(get_shape(v)) for v in (*inputs[:2], outputs[0]))
    return made * math.isqrt(left * right // made)  # what is contracted is in both


def _nothing(inputs: list, outputs: list) -> int:
    return 0


def _elements_handle(name: str) -> Handle:
    def handle(inputs: list, outputs: list) -> Counter[str]:
        shapes = [get_shape(value) for value in outputs]
        return Counter({name: sum(math.prod(shape) for shape in shapes if shape is not None)})

    return handle


# What multiplies and adds and has no handle in fvcore. With these, no multiply-add is uncounted.
HANDLES: dict[str, Handle] = {
    "aten::_convolution_mode": _named_padding,  # 'same' and 'valid'
    "aten::matmul": _matmul,  # fvcore's own fails on vectors and misses batches of the second factor
    "aten::scaled_dot_product_attention": _attention,
    "aten::baddbmm": _added_bmm,
    "aten::addbmm": _added_bmm,
    "aten::mv": _matrix_vector(0),
    "aten::addmv": _matrix_vector(1),
    "aten::dot": _matrix_vector(0),
    "aten::tensordot": _tensordot,
}


def _analysis(
    module: nn.Module, inputs: Sequence[Tensor], handles: Mapping[str, Handle]
) -> FlopCountAnalysis:
    analysis = FlopCountAnalysis(module, tuple(inputs)).set_op_handle(**handles)
    return (
        analysis.unsupported_ops_warnings(False)
        .uncalled_modules_warnings(False)
        .tracer_warnings("none")
    )


def _whole(counts: Mapping[str, float]) -> Counter[str]:
    return Counter({name: int(value) for name, value in counts.items()})


def _has_parameters(module: nn.Module, path: str) -> bool:
    return any(p is not None for p in module.get_submodule(path)._parameters.values())


@contextmanager
def _tracing(module: nn.Module) -> Iterator[None]:
    """In evaluation mode, without gradients, mixed precision, arithmetic, or fvcore's remarks."""
    training = [m for m in module.modules() if m.training]
    for m in training:
        m.training = False  # eval() itself may be overridden by frozen stages and the like
    logger = logging.getLogger("fvcore.nn.jit_analysis")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with ExitStack() as without:
            for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
                without.enter_context(torch.autocast(device, enabled=False))
            without.enter_context(torch.no_grad())
            without.enter_context(no_arithmetic())
            yield
    finally:
        logger.setLevel(level)
        for m in training:
            m.training = True
