"""The shape of every value of a graph, for clips of every length, on the meta device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from ..errors import Reason
from ..packed.windows import fit_window
from ..tracing.program import module_path
from ..tracing.shadow import dtype_of, shadow_call
from .analysis import Lengths

Shape = tuple[int, ...]
ShapeCache = dict[tuple[str, str], Any]  # module path, shapes that it takes -> what it gives


@dataclass(eq=False)
class Shapes:
    """The shapes that one run of a graph makes."""

    values: dict[fx.Node, Shape | None] = field(default_factory=dict)  # None: it is no tensor
    inputs: dict[fx.Node, Shape] = field(default_factory=dict)  # of calls that take [N, C, T, H, W]
    plain: set[fx.Node] = field(default_factory=set)  # whose values hold no tensor: sizes, numbers

    def of(self, node: fx.Node) -> Shape:
        """Return the shape of a node that has one."""
        shape = self.values[node]
        assert shape is not None, node
        return shape


@dataclass(frozen=True, eq=False)
class ShapeTable:
    """The shapes of a graph for clips of every length that it takes."""

    num_frames: int  # T
    of_length: dict[int, Shapes]  # of two clips of each valid length
    invalid_lengths: dict[int, Reason]  # why clips cannot have the others
    # of three clips of T frames: an axis that grew from 2 to 3 is that of the clips, while another
    # axis of size 2 stays
    shapes_of_three_clips: Shapes
    resolutions: dict[str, Shape]  # path of a 3D convolution -> the (H, W) that it makes

    def in_every_run(self, node: fx.Node) -> list[Shape]:
        """Return the shape of a value for each number of frames, and of clips; () where it has none."""
        runs = (*self.of_length.values(), self.shapes_of_three_clips)
        return [of_run.values[node] or () for of_run in runs]

    def frames_of(self, node: fx.Node) -> Lengths:
        """Return the size of a value's axis 2 for a clip of each number of frames."""
        return self._by_length(lambda shapes: shapes.of(node)[2])

    def input_frames_of(self, call: fx.Node) -> Lengths:
        """Return the frames that a call of a module takes for a clip of each number of frames."""
        return self._by_length(lambda shapes: shapes.inputs[call][2])

    def _by_length(self, read: Callable[[Shapes], int]) -> Lengths:
        lengths = range(1, self.num_frames + 1)
        return (None, *(read(self.of_length[n]) if n in self.of_length else None for n in lengths))


class ShapeInterpreter(fx.Interpreter):
    """Runs a graph on clips of the meta device, and keeps every value's shape.

    Args:
        shadow: the graph's model on the meta device.
        graph: clips -> scores.
        shape_cache: what modules gave for inputs of the same shapes; it is filled.
        fit: whether the windows of pools are fitted to short clips.
    """

    def __init__(self, shadow: nn.Module, graph: fx.Graph, shape_cache: ShapeCache, fit: bool):
        super().__init__(shadow, graph=graph)
        self.shape_cache, self.fit = shape_cache, fit
        self.shapes = Shapes()
        self.at: fx.Node | None = None  # the node that runs, or the one that failed

    def run_node(self, n: fx.Node) -> Any:
        """Run a node and note its shape."""
        self.at = n
        value = super().run_node(n)
        self.shapes.values[n] = tuple(value.shape) if isinstance(value, Tensor) else None
        if not any(isinstance(leaf, Tensor) for leaf in tree_leaves(value)):
            self.shapes.plain.add(n)
        return value

    def call_module(self, target: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        """Run a module, or look its result up."""
        module = self.fetch_attr(target)
        if args and isinstance(args[0], Tensor) and args[0].ndim == 5:
            if self.at is not None:
                self.shapes.inputs[self.at] = tuple(args[0].shape)
            module = fit_window(module, args[0].shape[2]) if self.fit else module
        key = (target, repr((self.fit, _shapes_in((args, kwargs)))))
        if key not in self.shape_cache:
            value = shadow_call(module, args, kwargs)
            if isinstance(value, Tensor) and not value.numel():
                # before 2.6 or so, the meta device gives this where arithmetic raises
                raise RuntimeError(f"its result is empty, {list(value.shape)}")
            self.shape_cache[key] = value
        return self.shape_cache[key]


def _shapes_in(values: Any) -> Any:
    if isinstance(values, Tensor):
        return values.dtype, tuple(values.shape)
    if isinstance(values, (tuple, list)):
        return [_shapes_in(value) for value in values]
    return {k: _shapes_in(v) for k, v in values.items()} if isinstance(values, dict) else values


# What a model's own code raises on clips that it cannot take.
FAILURES = (
    *(RuntimeError, ValueError, TypeError, AssertionError),
    *(IndexError, AttributeError, KeyError, NotImplementedError),
)


def shapes_of(
    graph: fx.Graph,
    shadow: nn.Module,
    clips_shape: Sequence[int],
    shape_cache: ShapeCache,
    fit: bool = True,
) -> Shapes | Reason:
    """Find the shape of every value for clips of one shape, or why the graph fails on them.

    Args:
        graph: clips, or these and the times of their frames -> scores.
        shadow: the graph's model on the meta device.
        clips_shape: (N, C, T, H, W).
        shape_cache: see `ShapeInterpreter`.
        fit: see `ShapeInterpreter`.
    """
    interpreter = ShapeInterpreter(shadow, graph, shape_cache, fit)
    with torch.device("meta"), torch.no_grad():
        try:
            clips = torch.empty(*clips_shape, dtype=dtype_of(shadow))
            times = torch.empty(clips_shape[0], clips_shape[2], dtype=torch.int64)
            inputs = [node for node in graph.nodes if node.op == "placeholder"]
            interpreter.run(*(clips, times)[: len(inputs)])
        except FAILURES as error:
            where = module_path(interpreter.at) if interpreter.at is not None else "input"
            message = str(error).strip().split("\n")[0]
            shape = f"[N, {', '.join(map(str, clips_shape[1:]))}]"
            return Reason(where, f"fails on clips {shape}: {message}")
    return interpreter.shapes


def shape_table(
    graph: fx.Graph, shadow: nn.Module, clip_shape: Sequence[int], shape_cache: ShapeCache
) -> ShapeTable | Reason:
    """Find the shapes for clips of every length up to T, or why those of T frames fail.

    Args:
        graph: clips -> scores.
        shadow: the graph's model on the meta device.
        clip_shape: (C, T, H, W).
        shape_cache: see `ShapeInterpreter`.
    """
    channels, num_frames, *size = clip_shape

    def of(clips: int, length: int) -> Shapes | Reason:
        shape, whole = (clips, channels, length, *size), length == num_frames
        # of T frames the model must run as it is: the full policy is the original
        return shapes_of(graph, shadow, shape, shape_cache, fit=not whole)

    results = {length: of(2, length) for length in range(1, num_frames + 1)}
    full = results[num_frames]
    if isinstance(full, Reason):
        return full
    with _resolutions(shadow) as sizes:
        of_three_clips = of(3, num_frames)
    if isinstance(of_three_clips, Reason):
        return of_three_clips
    table = ShapeTable(num_frames, {}, {}, of_three_clips, sizes)
    for length, shapes in results.items():
        reason = shapes if isinstance(shapes, Reason) else _unlike(shapes, full, graph, length)
        if isinstance(reason, Reason):
            table.invalid_lengths[length] = reason
        elif not isinstance(shapes, Reason):
            table.of_length[length] = shapes
    return table


def _unlike(shapes: Shapes, full: Shapes, graph: fx.Graph, length: int) -> Reason | None:
    """Why clips of a length at which the model runs do not give one score per clip and class.

    So it is where a fixed number of frames is cut out of the batch.
    """
    (output,) = (node for node in graph.nodes if node.op == "output")
    for node in output.all_input_nodes:
        if shapes.values[node] != full.values[node]:
            got, wanted = list(shapes.values[node] or ()), list(full.values[node] or ())
            why = f"of {length} frames, 2 clips give scores {got} instead of {wanted}"
            return Reason(module_path(node), why)
    return None


@contextmanager
def _resolutions(shadow: nn.Module) -> Iterator[dict[str, Shape]]:
    """Collect (H, W) of what each 3D convolution makes, inside modules kept whole too."""
    sizes: dict[str, Shape] = {}
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
