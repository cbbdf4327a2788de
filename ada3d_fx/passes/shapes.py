"""The shape of every value of a graph, for clips of every length, on the meta device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..errors import Reason
from ..packed.windows import fit_window
from .shadow import dtype_of, shadow_call
from .trace import module_path

Shapes = dict[Any, Any]  # of nodes, None where they are no tensors; of the inputs of pools, by path


class _Shapes(fx.Interpreter):
    """Runs a graph on clips of the meta device, windows fitted to short ones, and keeps every
    value's shape."""

    def __init__(self, shadow: nn.Module, graph: fx.Graph, known: dict):
        super().__init__(shadow, graph=graph)
        self.known = known  # what modules give, by their path and the shapes they take
        self.shapes: dict[Any, Any] = {}  # of nodes; of the inputs of pools by path
        self.at: fx.Node | None = None

    def run_node(self, n: fx.Node) -> Any:
        self.at = n
        value = super().run_node(n)
        self.shapes[n] = tuple(value.shape) if isinstance(value, Tensor) else None
        return value

    def call_module(self, target, args, kwargs):
        module = self.fetch_attr(target)
        if args and isinstance(args[0], Tensor) and args[0].ndim == 5:
            self.shapes[target] = tuple(args[0].shape)
            module = fit_window(module, args[0].shape[2])
        key = (target, repr(_shapes_in((args, kwargs))))
        if key not in self.known:
            self.known[key] = shadow_call(module, args, kwargs)
        return self.known[key]


def _shapes_in(values: Any) -> Any:
    if isinstance(values, Tensor):
        return values.dtype, tuple(values.shape)
    if isinstance(values, (tuple, list)):
        return [_shapes_in(value) for value in values]
    return {k: _shapes_in(v) for k, v in values.items()} if isinstance(values, dict) else values


_SHAPE_FAILURES = (
    *(RuntimeError, ValueError, TypeError, AssertionError),
    *(IndexError, AttributeError, KeyError, NotImplementedError),
)


def shapes_of(
    graph: fx.Graph,
    shadow: nn.Module,
    clip_shape: Sequence[int],
    known: dict,
    clips: int,
    length: int,
) -> Shapes | Reason:
    """The shape of every value for so many clips of so many frames, or why it fails on them.

    ``shadow``: the graph's model on the meta device; ``known``: a dict to keep its modules' shapes
    in.
    """
    interpreter = _Shapes(shadow, graph, known)
    channels, _, *size = clip_shape
    with torch.device("meta"), torch.no_grad():
        try:
            interpreter.run(torch.empty(clips, channels, length, *size, dtype=dtype_of(shadow)))
        except _SHAPE_FAILURES as error:
            where = module_path(interpreter.at) if interpreter.at is not None else "input"
            message = str(error).strip().split("\n")[0]
            shape = f"[N, {channels}, {length}, {', '.join(map(str, size))}]"
            return Reason(where, f"fails on clips {shape}: {message}")
    return interpreter.shapes


@contextmanager
def resolutions(shadow: nn.Module) -> Iterator[dict[str, tuple[int, ...]]]:
    """Collects (H, W) of what each 3D convolution makes, inside modules kept whole too."""
    sizes: dict[str, tuple[int, ...]] = {}
    hooks = [
        part.register_forward_hook(
            lambda _, __, out, path=path: sizes.update({path: out.shape[3:]})
        )
        for path, part in shadow.named_modules()
        if isinstance(part, nn.Conv3d)
    ]
    yield sizes
    for hook in hooks:
        hook.remove()


def shapes_by_length(
    graph: fx.Graph, shadow: nn.Module, clip_shape: Sequence[int], known: dict
) -> dict[int, Shapes | Reason]:
    """`shapes_of` two clips of every length up to ``clip_shape[1]``, or why such clips give no
    scores as the longest do."""
    by_length = {
        n: shapes_of(graph, shadow, clip_shape, known, 2, n) for n in range(1, clip_shape[1] + 1)
    }
    if not isinstance(by_length[clip_shape[1]], Reason):
        _compare_outputs(graph, by_length)
    return by_length


def _compare_outputs(graph: fx.Graph, by_length: dict[int, Any]) -> None:
    """Lengths at which the model runs but gives other than one score per clip and class (as where a
    fixed number of frames is cut out of the batch) become reasons."""
    full = by_length[max(by_length)]
    (output,) = (node for node in graph.nodes if node.op == "output")
    for length, shapes in by_length.items():
        for node in output.all_input_nodes if not isinstance(shapes, Reason) else ():
            if shapes[node] != full[node]:
                got, wanted = list(shapes[node] or ()), list(full[node] or ())
                why = f"of {length} frames, 2 clips give scores {got} instead of {wanted}"
                by_length[length] = Reason(module_path(node), why)
                break
