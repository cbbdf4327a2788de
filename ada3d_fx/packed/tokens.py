"""What acts on every token alone: the tokens of all runs as rows of one matrix."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


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
    counts = [torch.Size(size).numel() for size in sizes]
    parts: Sequence[Tensor] = rows.split(counts) if len(counts) > 1 else [rows]
    return [part.unflatten(0, size) for part, size in zip(parts, sizes)]
