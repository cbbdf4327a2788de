"""A tracer for code that computes with sizes: it reads them as the numbers that they are.

The other tracer lets sizes be traced values, so that its graph holds for clips of any length. Code that
compares sizes, or hands them to a library that wants numbers, cannot be traced so. The graph that this
one makes holds for one number of clips of one length; elastic.py makes it hold for others.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from ..packed.kept_times import written
from .isolation import Replacements
from .program import args_of, argument
from .tracer import Tracer, _Proxy


class Size(int):
    """A number that was computed of the sizes of traced values."""

    origins: frozenset[tuple[fx.Node, int]]  # the values, and their axes

    @classmethod
    def of(cls, number: int, origins: frozenset[tuple[fx.Node, int]]) -> Size:
        """Make one."""
        size = cls(number)
        size.origins = origins
        return size

    def __reduce__(self) -> Any:
        return int, (int(self),)

    def __deepcopy__(self, memo: dict) -> int:
        return int(self)


class Ratio(float):
    """As `Size`, of numbers that need not be whole."""

    origins: frozenset[tuple[fx.Node, int]]


def origins_of(number: Any) -> frozenset[tuple[fx.Node, int]]:
    """Return of which axes of which values a number was computed."""
    return getattr(number, "origins", frozenset())


def _computed(number: Any, *sources: Any) -> Any:
    origins = frozenset[tuple[fx.Node, int]]().union(*map(origins_of, sources))
    if not origins or isinstance(number, bool) or not isinstance(number, (int, float)):
        return number
    made = Size(number) if isinstance(number, int) else Ratio(number)
    made.origins = origins
    return made


def _arithmetic(kind: type, name: str) -> Callable:
    own = getattr(kind, name)

    def method(self: Any, *others: Any) -> Any:
        return _computed(own(self, *others), self, *others)

    return method


_OPERATIONS = ("add", "sub", "mul", "floordiv", "truediv", "mod", "pow")
for _kind, _plain in ((Size, int), (Ratio, float)):
    for _name in (*_OPERATIONS, *(f"r{name}" for name in _OPERATIONS)):
        setattr(_kind, f"__{_name}__", _arithmetic(_plain, f"__{_name}__"))


class _ConcreteProxy(_Proxy):
    """A traced value whose sizes are numbers."""

    tracer: ConcreteTracer
    _is_param = False
    __array_ufunc__ = None  # numbers of NumPy let it compute with them

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # code asks whether it has a tensor
        fake = self.node.meta.get("fake")
        return Tensor if isinstance(fake, Tensor) else type(self)

    @property
    def shape(self) -> torch.Size | tuple:
        fake = self._fake()
        return tuple(
            Size.of(n, frozenset([(self.node, axis)])) for axis, n in enumerate(fake.shape)
        )

    def __iter__(self) -> Iterator[Any]:
        fake = self.node.meta.get("fake")
        if isinstance(fake, Tensor):
            return iter([operator.getitem(self, place) for place in range(len(fake))])
        return super().__iter__()

    def __len__(self) -> int:
        fake = self.node.meta.get("fake")
        return len(fake) if isinstance(fake, Tensor) else super().__len__()

    def size(self, dim: int | None = None) -> Any:
        """Return the shape, or the size of an axis."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        """Return the rank."""
        return self._fake().ndim

    @property
    def ndim(self) -> int:
        return self.dim()

    @property
    def dtype(self) -> torch.dtype:
        return self._fake().dtype

    @property
    def device(self) -> torch.device:
        return self.tracer.device

    def is_floating_point(self) -> bool:
        """Tell whether it holds floating-point numbers."""
        return self._fake().is_floating_point()

    def __setitem__(self, index: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", written, (self, index, value), {})

    def _fake(self) -> Tensor:
        fake = self.node.meta.get("fake")
        if not isinstance(fake, Tensor):
            raise TypeError(f"the shape of {self.node.name} is not known")
        return fake


DRAWS = (torch.rand, torch.randn)


class ConcreteTracer(Tracer):
    """The tracer for clips of one number and length.

    Args:
        shadow: the model on the meta device.
        clip_shape: (C, T, H, W).
        training: whether training is traced.
        marked: modules whose calls are marked as checkpointed.
        num_clips: N.
        device: where the model's own code makes its tensors.
    """

    def __init__(
        self,
        shadow: nn.Module,
        clip_shape: Sequence[int],
        training: bool,
        marked: Collection[nn.Module],
        num_clips: int,
        device: torch.device,
    ):
        super().__init__(shadow, clip_shape, training, marked, num_clips)
        self.device = device

    def _fake(self, node: fx.Node) -> Any:
        if node.target in DRAWS:
            return torch.empty(args_of(node)[0], dtype=argument(node, 1, "dtype"))
        return super()._fake(node)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """Make the traced value of a node."""
        return _ConcreteProxy(node, self)

    def create_arg(self, a: Any) -> Any:
        """Turn a value into a node's argument."""
        if isinstance(a, fx.Proxy):
            return a.node
        return super().create_arg(a.item() if isinstance(a, np.generic) else a)

    def create_proxy(
        self, kind: str, target: Any, args: Any, kwargs: Any, *more: Any, **named: Any
    ) -> Any:
        """Make a node and its traced value; a value of its own type is converted to nothing."""
        if kind == "call_method" and target == "to" and args[1:] == (args[0].dtype,) and not kwargs:
            return args[0]
        return super().create_proxy(kind, target, args, kwargs, *more, **named)

    def replace_functions(self, replacements: Replacements) -> None:
        """Let what draws random numbers of a given size be a node, so that it draws in each run."""
        for function in DRAWS:
            replacements.replace(vars(torch), function.__name__, self._draw(function))

    def _draw(self, function: Callable) -> Callable:
        def draw(*sizes: Any, **options: Any) -> Any:
            shape = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes
            return self.create_proxy("call_function", function, (tuple(shape),), options)

        return draw
