"""What one run of a module costs: multiply-adds by fvcore, without doing the arithmetic.

fvcore counts a trace of torch.jit, for which every operation runs. Here the trace is the same, but
an operation only gives a tensor of the right shape, whose memory nobody touches: I3D-R50 on
8x256x256 takes 0.2 s instead of 1.5 s.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import Ada3DError
from ..tracing.isolation import own_caches
from ..tracing.shadow import isolated, set_mode
from .shapes_only import no_arithmetic

with warnings.catch_warnings():  # importing fvcore compiles a loss, which torch 2.14 warns of
    warnings.simplefilter("ignore", FutureWarning)
    from fvcore.nn import FlopCountAnalysis
    from fvcore.nn.jit_handles import Handle, conv_flop_count, get_shape

# What a convention leaves out of fvcore's count: the paper counts the dense network without its
# normalisation (docs/cost.md).
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
    """What fvcore counted in one run of a module."""

    total: int  # multiply-adds
    by_module: Counter[str]  # the same by module path; '' is all
    by_operator: Counter[str]  # the same by kind of operation
    # how often each operation ran that is not counted: additions, activations, pools; what
    # multiplies and adds has a handle
    unsupported: Counter[str]
    # paths of modules with parameters of their own that were not called; what happens to these
    # parameters elsewhere is counted there
    uncalled: tuple[str, ...]


def count(module: nn.Module, inputs: Sequence[Tensor], convention: str = "fvcore") -> Count:
    """Count one run of a module, in evaluation mode.

    Args:
        module: it is left as it was.
        inputs: of the shapes to count for; their values do not matter.
        convention: 'fvcore', or 'paper', which leaves normalisation out.

    Raises:
        Ada3DError: an unknown convention.
    """
    if convention not in CONVENTIONS:
        raise Ada3DError(f"convention={convention!r}; there are {', '.join(CONVENTIONS)}")
    handles = {**HANDLES, **dict.fromkeys(CONVENTIONS[convention], _nothing)}
    with _tracing(module) as copied:
        analysis = _fvcores_analysis(copied, inputs, handles)
        uncalled = [p for p in analysis.uncalled_modules() if _has_parameters(module, p)]
        return Count(
            total=int(analysis.total()),
            by_module=_integers(analysis.by_module()),
            by_operator=_integers(analysis.by_operator()),
            unsupported=analysis.unsupported_ops(),
            uncalled=tuple(sorted(uncalled)),
        )


def elements(
    module: nn.Module, inputs: Sequence[Tensor], operations: Sequence[str]
) -> Counter[str]:
    """Count the elements that operations make in one run of a module.

    Args:
        module: it is left as it was.
        inputs: of the shapes to count for.
        operations: by the names that torch's tracer gives them, such as 'aten::cat'.

    Returns:
        Operation -> elements; those that make none are left out.
    """
    handles = {name: _elements_handle(name) for name in operations}
    with _tracing(module) as copied:
        made = _integers(_fvcores_analysis(copied, inputs, handles).by_operator())
    return Counter({name: made[name] for name in operations if made[name]})


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


def _fvcores_analysis(
    module: nn.Module, inputs: Sequence[Tensor], handles: Mapping[str, Handle]
) -> FlopCountAnalysis:
    arguments = tuple(value.cpu() for value in inputs)
    analysis = FlopCountAnalysis(module, arguments).set_op_handle(**handles)
    return (
        analysis.unsupported_ops_warnings(False)
        .uncalled_modules_warnings(False)
        .tracer_warnings("none")
    )


def _integers(counts: Mapping[str, float]) -> Counter[str]:
    return Counter({name: int(value) for name, value in counts.items()})


def _has_parameters(module: nn.Module, path: str) -> bool:
    return any(p is not None for p in module.get_submodule(path)._parameters.values())


@contextmanager
def _tracing(module: nn.Module) -> Iterator[nn.Module]:
    """A copy in evaluation mode, on the CPU; without gradients, mixed precision, arithmetic, or fvcore's remarks.

    What the model's own code keeps of the run, in its modules or in caches of functions, was made
    without arithmetic: it goes with the copy. Other threads may run ``module`` meanwhile; one that
    counts too waits, as fvcore sets what warnings the process shows.
    """
    logger = logging.getLogger("fvcore.nn.jit_analysis")
    with ExitStack() as without:
        copied = isolated(module, "cpu")
        set_mode(copied, training=False)
        without.enter_context(own_caches(copied))
        without.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.ERROR)
        for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
            without.enter_context(torch.autocast(device, enabled=False))
        without.enter_context(torch.no_grad())
        without.enter_context(no_arithmetic())
        yield copied
