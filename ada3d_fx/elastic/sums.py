"""``torch.einsum``: which frames its entries belong to, and constants in it that follow them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, fx

from ..tracing.program import args_of
from .labels import LabelledGraph, Labels, Unfollowed, along, equal, one_axis


class Sum(NamedTuple):
    """What an einsum sums: a letter for each axis of its operands and of its result."""

    operands: tuple[fx.Node, ...]
    letters: tuple[str, ...]  # of each operand
    result: str

    @classmethod
    def of(cls, node: fx.Node) -> Sum:
        """Read it off a node.

        Raises:
            Unfollowed: its equation leaves axes to be guessed.
        """
        equation, *operands = args_of(node)
        if len(operands) == 1 and isinstance(operands[0], (tuple, list)):
            operands = list(operands[0])
        text = str(equation).replace(" ", "")
        if "->" not in text or "." in text:
            raise Unfollowed(node, f"the equation {equation!r} does not name all axes")
        sides, result = text.split("->")
        return cls(tuple(operands), tuple(sides.split(",")), result)

    def equation(self) -> str:
        """Write it as torch reads it."""
        return f"{','.join(self.letters)}->{self.result}"


def labelled(
    node: fx.Node,
    made: LabelledGraph,
    fixed: set[fx.Node],
    lines: Callable[[fx.Node, Labels], dict[str, dict[int, Tensor]]],
) -> Labels:
    """Label an einsum, and note along which axes its constants follow the frames.

    Args:
        node: calls it.
        made: the labels of the nodes before it.
        fixed: the nodes that are the same for all clips.
        lines: gives the axes of a value that have labels, by kind.

    Raises:
        Unfollowed: entries of different frames or clips meet in it, or it sums over clips.
    """
    what = Sum.of(node)
    found: dict[str, dict[str, Tensor]] = {"times": {}, "clips": {}}
    own = {
        place: lines(node, made.of(source))
        for place, source in enumerate(what.operands)
        if source not in fixed
    }
    for place, of_kind in own.items():
        for kind, line in of_kind.items():
            for axis, vector in line.items():
                found[kind].setdefault(what.letters[place][axis], vector)
    for place, of_kind in own.items():
        for kind, vectors in found.items():
            for axis, letter in enumerate(what.letters[place]):
                if not equal(vectors.get(letter), of_kind[kind].get(axis)):
                    raise Unfollowed(node, "entries of other frames or clips meet here")
    if set(found["clips"]) - set(what.result):
        raise Unfollowed(node, "it sums over the clips")
    wanted = dict(found["times"])
    for seed in made.seeds.get(node, []):  # what meets its result has these frames
        axis, vector = one_axis(seed, node)
        if any(what.result[axis] in what.letters[place] for place in own):
            raise Unfollowed(node, "it has as many entries as there are frames, but not theirs")
        wanted[what.result[axis]] = vector
    for source, letters in zip(what.operands, what.letters):
        axes = {axis: wanted[letter] for axis, letter in enumerate(letters) if letter in wanted}
        if source in fixed and axes:
            made.follows[node, source] = axes  # here the axes are the constant's own
    shape = tuple(node.meta["fake"].shape)
    times, clips = (
        tuple(
            along(vector, what.result.index(letter), len(shape))
            for letter, vector in found[kind].items()
            if letter in what.result
        )
        for kind in ("times", "clips")
    )
    return Labels(shape, times, clips)
