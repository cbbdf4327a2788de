"""What acts on every token alone: the tokens of all runs as rows of one matrix."""

from __future__ import annotations

from collections.abc import Sequence

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
    """Split rows [P, C] into a value [..., C] per run: views, which undo `pack_tokens`.

    Args:
        rows: P rows, one per token.
        sizes: of each run, what `leading_sizes` gave.
    """
    parts, first = [], 0
    for size in sizes:  # one by one: autograd lets nobody write into what `split` gives
        count = torch.Size(size).numel()
        parts.append(rows[first : first + count].unflatten(0, size))
        first += count
    return parts


class TokenRegion(Region):
    """Operations that act on every token alone.

    On a GPU, where each launch costs, they run once on the tokens of all runs; on a CPU run by run, as
    what one run's layers hand over then stays in the cache (measurements in docs/performance.md).
    ``time_form`` with a form of few launches asks for the first, with ``runs`` for the second.
    """

    def forward(self, values: Sequence[Sequence[Tensor]]) -> tuple[Sequence[Tensor], ...]:
        """Run the operations.

        Args:
            values: of each input a value [..., C] per run; all agree in the axes before the last.

        Returns:
            Of each output a value [..., C'] per run.
        """
        first = values[0]
        if len(first) == 1 or not _together(first[0].device):
            return tuple(zip(*(self.program(self.root, *parts) for parts in zip(*values))))
        made = self.program(self.root, *map(pack_tokens, values))
        sizes = leading_sizes(first)
        return tuple(unpack_tokens(rows, sizes) for rows in made)


def _together(device: torch.device) -> bool:
    asked = asked_form()
    return device.type == "cuda" if asked is None else asked != "runs"
