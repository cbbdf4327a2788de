"""Attention of each image alone: the images of all runs as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from .module_tree import module_at
from .regions import Region
from .tokens import parts_of, runs_together


def batch_axis(module: nn.Module) -> int | None:
    """Return the axis of the batch in what a module of attention takes; None if it is no such module."""
    if not isinstance(module, nn.MultiheadAttention):
        return None
    return 0 if module.batch_first else 1


class BatchRegion(Region):
    """One operation that acts on every entry of an axis alone, and gives one value or several.

    On a GPU, where each launch costs, it runs once on the entries of all runs; on a CPU run by run, see
    `tokens.TokenRegion`.

    Args:
        root: where the paths in ``graph`` start.
        graph: the operation, from its inputs to a tuple of it: attention as a module, or torch's
            function for it, of batches on axis 0.
    """

    def __init__(self, root: nn.Module, graph: fx.Graph):
        super().__init__(root, graph)
        self.called = [str(node.target) for node in graph.nodes if node.op == "call_module"]

    def forward(self, values: Sequence[Sequence[Tensor]]) -> tuple[Sequence[Any], ...]:
        """Run the operation.

        Args:
            values: of each input a value per run, alike but for the size of their batch.

        Returns:
            What it gives for each run, as the only entry of a tuple.
        """
        # a module is looked at each time: it may be replaced by one that is none of attention
        axis = batch_axis(module_at(self.root, self.called[0])) if self.called else 0
        first = values[0]
        if len(first) == 1 or axis is None or not runs_together(first[0].device):
            return tuple(zip(*(self.program(self.root, *parts) for parts in zip(*values))))
        sizes = [part.shape[axis] for part in first]
        (made,) = self.program(self.root, *(torch.cat(list(parts), axis) for parts in values))
        if isinstance(made, Tensor):
            return (parts_of(made, sizes, axis),)
        scores, weights = made  # weights have the batch first in any case
        of_runs = [None] * len(sizes) if weights is None else parts_of(weights, sizes, 0)
        return (list(zip(parts_of(scores, sizes, axis), of_runs)),)
