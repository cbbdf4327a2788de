"""What acts on every token alone: the tokens of all runs as rows of one matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .regions import Region
from .time_forms import asked_form


def leading_sizes(parts: Sequence[Tensor]) -> tuple[tuple[int, ...], ...]:
    """Return the axes before the last of each run's value [..., C]: what `unpack_tokens` needs."""
    return tuple(tuple(part.shape[:-1]) for part in parts)


def pack_tokens(parts: Sequence[Tensor]) -> Tensor:
    """Join a value per run, each [..., C], as one row per token: [P, C].

    Nothing is copied where there is one run, unless its memory is not in that order.

    >>> pack_tokens([torch.zeros(2, 3, 4), torch.zeros(1, 5, 4)]).shape
    torch.Size([11, 4])
    """
    rows = [part.flatten(0, -2) for part in parts]
    return torch.cat(rows) if len(rows) > 1 else rows[0]


def unpack_tokens(rows: Tensor, sizes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Split rows [P, C] into a value [..., C] per run, in the same memory; it undoes `pack_tokens`.

    Args:
        rows: P rows, one per token.
        sizes: of each run, what `leading_sizes` gave.
    """
    parts = parts_of(rows, [torch.Size(size).numel() for size in sizes], 0)
    return [part.unflatten(0, size) for part, size in zip(parts, sizes)]


def parts_of(value: Tensor, sizes: Sequence[int], axis: int) -> Sequence[Tensor]:
    """Split what was made for all runs into the part of each, in the same memory.

    A run's code may write into its part, as it may write into a value of its own: to autograd these are
    no views of one value, of which a write into one would seem to change the others.
    """
    return torch.unsafe_split_with_sizes(value, list(sizes), axis)


class JoinedRegion(Region):
    """Operations that need no runs.

    On a GPU, where each launch costs, they run once for all runs; on a CPU run by run, as what one
    run's layers hand over then stays in the cache (measurements in docs/performance.md).
    ``time_form`` with a form of few launches asks for the first, with ``runs`` for the second.
    """

    def forward(self, values: Sequence[Sequence[Tensor]]) -> tuple[Sequence[Any], ...]:
        """Run the operations.

        Args:
            values: of each input a value per run.

        Returns:
            Of each output a value per run.
        """
        first = values[0]
        if len(first) > 1 and _runs_together(first[0].device) and self.can_join():
            return self.together(values)
        return tuple(zip(*(self.program(self.root, *parts) for parts in zip(*values))))

    def can_join(self) -> bool:
        """Tell whether the modules of now need no runs."""
        return True

    def together(self, values: Sequence[Sequence[Tensor]]) -> tuple[Sequence[Any], ...]:
        """Run the operations once for all runs, as `forward` does run by run."""
        raise NotImplementedError


class TokenRegion(JoinedRegion):
    """Operations that act on every token alone: all values agree in the axes before the last."""

    def together(self, values: Sequence[Sequence[Tensor]]) -> tuple[Sequence[Any], ...]:
        """Run the operations on the tokens of all runs."""
        made = self.program(self.root, *map(pack_tokens, values))
        sizes = leading_sizes(values[0])
        return tuple(unpack_tokens(rows, sizes) for rows in made)


def _runs_together(device: torch.device) -> bool:
    asked = asked_form()
    return device.type == "cuda" if asked is None else asked != "runs"
