"""What the analysis of a graph gives: a layout for every value, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import fx

from ..errors import Reason

PACKED = {"frames", "swapped", "rows"}  # kinds of layouts whose rows are frames


@dataclass(frozen=True)
class Layout:
    """How a value holds time, and what stands for it in a packed program.

    kind: 'const' (no clip in it), 'clips' [N, ...] (one row per clip), 'frames' [N, C, T, H, W]
    (packed as [F, C, 1, H, W]), 'swapped' [N, T, ...] (as [F, 1, ...]), 'rows' [N * T, ...] (as
    [F, ...]), 'dense' (only made for one run at a time). lengths[L]: T of a clip of L frames.
    """

    kind: str
    lengths: tuple[int | None, ...] = ()


@dataclass
class TimeAnalysis:
    """What the analysis of a graph found.

    time_mixing_nodes: nodes that get twins; dense: nodes that run on one run of clips at a time; spread: nodes
    that join a value per clip to frames; moves: nodes that only move the time axis, and how;
    tensors: nodes that have a shape.
    convolutions: paths of those with temporal extent; resolutions: the (H, W) that they make;
    windows: input lengths of each pool.
    invalid_lengths: why some numbers of frames cannot be.
    """

    layouts: dict[fx.Node, Layout] = field(default_factory=dict)
    time_mixing_nodes: list[fx.Node] = field(default_factory=list)
    dense_nodes: list[fx.Node] = field(default_factory=list)
    broadcast_nodes: list[fx.Node] = field(default_factory=list)
    axis_moves: dict[fx.Node, str] = field(default_factory=dict)
    tensors: set[fx.Node] = field(default_factory=set)
    convolutions: list[str] = field(default_factory=list)
    resolutions: dict[str, tuple[int, ...]] = field(default_factory=dict)
    windows: dict[str, tuple[int | None, ...]] = field(default_factory=dict)
    invalid_lengths: dict[int, Reason] = field(default_factory=dict)
    reasons: list[Reason] = field(default_factory=list)
