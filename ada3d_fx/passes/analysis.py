"""What the analysis of a graph gives: a layout for every value, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import fx

from ..errors import Reason

PACKED = {"frames", "swapped", "rows"}  # kinds of layouts whose rows are frames
PER_RUN = {"dense", "tokens", "batches"}  # kinds of layouts that know runs of clips only

Lengths = tuple[int | None, ...]  # at L, the frames that a clip of L frames has at some place


@dataclass(frozen=True)
class Layout:
    """How a value holds time, and what stands for it in a packed program."""

    # 'const': no clip in it
    # 'clips': [N, ...], one row per clip
    # 'frames': [N, C, T, H, W], packed as [F, C, 1, H, W]
    # 'swapped': [N, T, ...], packed as [F, 1, ...]
    # 'rows': [N * T, ...], packed as [F, ...]
    # 'dense': made for one run of clips at a time
    # 'tokens': [..., C], made for one run at a time or for all together, by what acts on each token alone
    # 'batches': made for one run at a time or for all together, by attention of each image alone
    kind: str
    lengths: Lengths = ()  # of a packed value, its T for a clip of L frames


@dataclass
class TimeAnalysis:
    """How the nodes of a graph treat time."""

    layouts: dict[fx.Node, Layout] = field(default_factory=dict)  # of every node
    time_mixing_nodes: list[fx.Node] = field(default_factory=list)  # they get twins
    dense_nodes: list[fx.Node] = field(default_factory=list)  # they run on one run at a time
    broadcast_nodes: list[fx.Node] = field(default_factory=list)  # they join clips to frames
    axis_moves: dict[fx.Node, str] = field(default_factory=dict)  # how they move the time axis only
    tensors: set[fx.Node] = field(default_factory=set)  # the nodes that have a shape
    plain: set[fx.Node] = field(default_factory=set)  # those without any tensor: sizes, numbers
    convolutions: list[str] = field(default_factory=list)  # paths of those with temporal extent
    resolutions: dict[str, tuple[int, ...]] = field(default_factory=dict)  # the (H, W) they make
    windows: dict[fx.Node, Lengths] = field(
        default_factory=dict
    )  # call of a pool -> input's length
    invalid_lengths: dict[int, Reason] = field(default_factory=dict)  # why a clip cannot be so long
    reasons: list[Reason] = field(default_factory=list)  # why the graph cannot be converted at all
