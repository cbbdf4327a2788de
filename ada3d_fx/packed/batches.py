"""Attention of each image alone: the images of all runs as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from .module_tree import module_at
from .tokens import JoinedRegion, parts_of


def batch_axis(module: nn.Module) -> int | None:
    """Return the axis of the batch in what a module of attention takes; None if it is no such module."""
    if not isinstance(module, nn.MultiheadAttention):
        return None
    return 0 if module.batch_first else 1


class BatchRegion(JoinedRegion):
    """One operation that acts on every entry of an axis alone, and gives one value or several.

    Its values are alike but for the size of that axis, that of the batch.

    Args:
        root: where the paths in ``graph`` start.
        graph: the operation, from its inputs to a tuple of it: attention as a module, or torch's
            function for it, of batches on axis 0.
    """

    def __init__(self, root: nn.Module, graph: fx.Graph):
        super().__init__(root, graph)
        self.called = [str(node.target) for node in graph.nodes if node.op == "call_module"]
        self.axis = self._axis()

    def can_join(self) -> bool:
        """Tell whether the module of now is one of attention, of batches on the same axis."""
        return self.axis is not None and self._axis() == self.axis

    def together(self, values: Sequence[Sequence[Tensor]]) -> tuple[Sequence[Any], ...]:
        """Run the operation on the batches of all runs."""
        axis = self.axis
        assert axis is not None
        sizes = [part.shape[axis] for part in values[0]]
        (made,) = self.program(self.root, *(torch.cat(list(parts), axis) for parts in values))
        if isinstance(made, Tensor):
            return (parts_of(made, sizes, axis),)
        scores, weights = made  # weights have the batch first in any case
        of_runs = [None] * len(sizes) if weights is None else parts_of(weights, sizes, 0)
        return (list(zip(parts_of(scores, sizes, axis), of_runs)),)

    def _axis(self) -> int | None:
        return batch_axis(module_at(self.root, self.called[0])) if self.called else 0
