"""What single operations do to labels: one rule per kind of operation.

A rule takes a node and gives the labels of what it makes; it raises where frames cannot be taken out.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..packed.kept_times import with_part, written
from ..packed.windows import POOLS
from ..tracing.concrete import origins_of
from ..tracing.program import args_of, argument, operation_name
from ..tracing.rules import CONCATENATION, ELEMENTWISE, EVERYWHERE
from ..tracing.whole import is_known
from .label_moves import MOVES, joined_along, label_of, moved_label, ranked, written_shape
from .labels import (
    KINDS,
    LabelledGraph,
    Labels,
    Unfollowed,
    along,
    compact,
    equal,
    joined,
    one_axis,
    reshaped,
)
from .sums import labelled

# takes a node, one of those that it takes with its labels, an axis counted from the last, the labels
# that the values which it meets have along it, and the rank of the result
Require = Callable[[fx.Node, fx.Node, Labels, int, Tensor, int], None]


class LabelRules:
    """The rules.

    Args:
        root: where module paths start.
        unit: the frames of a unit.
        fixed: the nodes that are the same for all clips, and for every number of clips.
        made: the labels of the nodes so far.
        require: is called where a value meets others whose entries follow the frames.
    """

    def __init__(
        self,
        root: nn.Module,
        unit: int,
        fixed: set[fx.Node],
        made: LabelledGraph,
        require: Require,
    ):
        self.root, self.unit, self.fixed = root, unit, fixed
        self.made, self.require = made, require

    def label(self, node: fx.Node) -> Any:
        """Label what a node makes, given the labels of those before it.

        Returns:
            Labels; a tuple where it makes several values, None where it makes no tensor.

        Raises:
            Unfollowed: an operation for whose labels there is no rule, or that needs all frames.
            Demand: see ``require``.
        """
        fake = node.meta.get("fake")
        if node.op == "placeholder":
            return self._of_clips(node)
        inputs = [n for n in node.all_input_nodes if n not in self.fixed]
        if node.op == "get_attr" or not inputs:
            return _shaped(fake)
        if node.op == "call_module":
            return self._of_module(node, self.root.get_submodule(str(node.target)))
        name = operation_name(node)
        rule = next((rule for names, rule in _RULES if name in names), None)
        if rule is None and node.target in ELEMENTWISE:
            rule = LabelRules._elementwise
        if rule is None:
            raise Unfollowed(node, f"no rule says what {name} does to the frames")
        return rule(self, node)

    def _of_clips(self, node: fx.Node) -> Labels:
        shape = tuple(node.meta["fake"].shape)
        times = torch.arange(shape[2], dtype=torch.int16) // self.unit
        clips = torch.arange(shape[0], dtype=torch.int16)
        return Labels(shape, (along(times, 2, 5),), (along(clips, 0, 5),))

    def _of_module(self, node: fx.Node, module: nn.Module) -> Any:
        if not is_known(module):
            raise Unfollowed(node, f"{type(module).__name__} is kept whole")
        for kinds, rule in _MODULE_RULES:
            if isinstance(module, kinds):
                return rule(self, node, module)
        raise Unfollowed(node, f"no rule says what {type(module).__name__} does to the frames")

    def _same_shape(self, node: fx.Node, module: nn.Module | None = None) -> Labels:
        """An operation on each entry, or along axes none of whose entries it takes away."""
        (source,) = _tensors(node, self.fixed)
        return self._of(source)

    def _normalised(self, node: fx.Node, module: nn.LayerNorm | None = None) -> Labels:
        """Normalisation over the last axes."""
        shape = module.normalized_shape if module is not None else args_of(node)[1]
        (source,) = _tensors(node, self.fixed)
        labels = self._of(source)
        return self._mixed(node, labels, range(len(labels.shape) - len(shape), len(labels.shape)))

    def _linear(self, node: fx.Node, module: nn.Module | None = None) -> Labels:
        (source,) = _tensors(node, self.fixed)
        labels = self._of(source)
        labels = self._mixed(node, labels, [len(labels.shape) - 1])
        return replace(labels, shape=tuple(node.meta["fake"].shape))

    def _by_channel(self, node: fx.Node, module: nn.Module) -> Labels:
        (source,) = _tensors(node, self.fixed)
        return self._mixed(node, self._of(source), [1])

    def _windows(self, node: fx.Node, module: nn.Module) -> Labels:
        """A convolution or pool over the axes behind the channels."""
        (source,) = _tensors(node, self.fixed)
        if not isinstance(node.meta["fake"], Tensor):
            raise Unfollowed(node, "it gives the places of its maxima too, which has no rule")
        labels, shape = self._of(source), tuple(node.meta["fake"].shape)
        over_time = len(shape) == 5
        labels = self._mixed(
            node, labels, [a for a in range(1, len(shape)) if a != 2 or not over_time]
        )
        vectors = self.made.vectors(labels, node)
        if not over_time or 2 not in vectors:
            return replace(labels, shape=shape)
        units, before, after = self.made.num_units, labels.shape[2], shape[2]
        own = torch.arange(units, dtype=torch.int16)
        if after == 1 and isinstance(module, _ADAPTIVE):
            return Labels(shape, (), labels.clips)
        each = own.repeat_interleave(before // units) if before % units == 0 else own
        if after % units or not torch.equal(vectors[2], each):
            raise Unfollowed(
                node, f"it makes {after} frames of {before}, which is not so many a unit"
            )
        new = along(own.repeat_interleave(after // units), 2, 5)
        return Labels(shape, (new,), labels.clips)

    def _attention(self, node: fx.Node, module: nn.MultiheadAttention) -> Any:
        """Attention of a sequence to another; the axis of the batch holds the same in both."""
        names = ("query", "key", "value")
        given = (argument(node, place, name) for place, name in enumerate(names))
        queries, keys, values = map(self._of, given)
        masks = ("attn_mask", "key_padding_mask")
        masked = len(args_of(node)) > 3 or any(node.kwargs.get(name) is not None for name in masks)
        if len(queries.shape) != 3 or masked:
            raise Unfollowed(node, "attention with a mask, or without a batch, has no rule")
        sequence = 1 if module.batch_first else 0
        return (self._attended(node, (queries, keys, values), sequence, queries.shape), None)

    def _attention_function(self, node: fx.Node) -> Labels:
        """``scaled_dot_product_attention``."""
        given = [
            argument(node, place, name) for place, name in enumerate(("query", "key", "value"))
        ]
        if argument(node, 3, "attn_mask") is not None or argument(node, 5, "is_causal"):
            raise Unfollowed(node, "attention with a mask has no rule")
        shape = tuple(node.meta["fake"].shape)
        return self._attended(node, [self._of(n) for n in given], len(shape) - 2, shape)

    def _attended(
        self, node: fx.Node, values: Sequence[Labels], sequence: int, shape: tuple[int, ...]
    ) -> Labels:
        """Attention of queries to keys and values along one axis, mixing the last."""
        ndim = len(shape)
        mixed = [self._mixed(node, labels, [ndim - 1]) for labels in values]
        lines = [self._lines(node, labels) for labels in mixed]
        for axis in range(ndim - 1):
            kinds = ("times", "clips") if axis != sequence else ()
            for line, kind in itertools.product(lines[1:], kinds):
                if not equal(line[kind].get(axis), lines[0][kind].get(axis)):
                    raise Unfollowed(node, "queries and keys of other frames meet here")
        if not equal(*(line["times"].get(sequence) for line in lines[1:])):
            raise Unfollowed(node, "keys and values of other frames meet here")
        if any(sequence in line["clips"] for line in lines):
            raise Unfollowed(node, "it mixes clips")
        times = [along(v, axis, ndim) for axis, v in lines[0]["times"].items()]
        clips = [along(v, axis, ndim) for axis, v in lines[0]["clips"].items()]
        return Labels(shape, tuple(times), tuple(clips))

    def _lines(self, node: fx.Node, labels: Labels) -> dict[str, dict[int, Tensor]]:
        clips = dict(one_axis(label, node) for label in labels.clips)
        return {"times": self.made.vectors(labels, node), "clips": clips}

    def _product(self, node: fx.Node) -> Labels:
        """``a @ b``."""
        left, right = (self._of(n) for n in args_of(node)[:2])
        shape = tuple(node.meta["fake"].shape)
        ndim = len(shape)
        if min(len(left.shape), len(right.shape)) < 2:
            raise Unfollowed(node, "products with vectors have no rule")
        kept: dict[str, list[Tensor]] = {"times": [], "clips": []}
        lines = [self._lines(node, labels) for labels in (left, right)]
        for kind in ("times", "clips"):
            inner = [
                line[kind].get(len(labels.shape) - 1 - place)
                for place, (line, labels) in enumerate(zip(lines, (left, right)))
            ]
            if not equal(*inner) or (kind == "clips" and inner[0] is not None):
                raise Unfollowed(node, "it sums over entries of other frames or clips")
            for place, (line, labels) in enumerate(zip(lines, (left, right))):
                for axis, vector in line[kind].items():
                    at = axis - len(labels.shape)
                    if at != -1 - place:
                        kept[kind].append(along(vector, ndim + at, ndim))
        return Labels(shape, tuple(joined(kept["times"])), tuple(joined(kept["clips"])))

    def _elementwise(self, node: fx.Node) -> Labels:
        shape = tuple(node.meta["fake"].shape)
        sources = [n for n in node.all_input_nodes if isinstance(n.meta.get("fake"), Tensor)]
        scalars = [
            a for a in (*args_of(node), *node.kwargs.values()) if isinstance(a, (int, float))
        ]
        self._refuse_sizes(node, scalars)
        labels = [self._of(n) for n in sources]
        of_kinds = (
            joined(ranked(t, len(shape)) for own in labels for t in own.of_kind(kind))
            for kind in KINDS
        )
        made = Labels(shape, *map(tuple, of_kinds))
        for axis, vector in self.made.vectors(made, node).items():
            for source, own in zip(sources, labels):
                self.require(node, source, own, axis - len(shape), vector, len(shape))
        return made

    def _concatenated(self, node: fx.Node) -> Labels:
        sources, axis = argument(node, 0, "tensors"), argument(node, 1, "dim", 0)
        labels = [self._of(n) for n in sources]
        shape = tuple(node.meta["fake"].shape)
        axis %= len(shape)
        made = []
        for kind in KINDS:
            depth = max(len(own.of_kind(kind)) for own in labels)
            parts = [
                joined_along(axis, [label_of(own, kind, place) for own in labels], labels)
                for place in range(depth)
            ]
            made.append(tuple(joined(map(compact, parts))))
        result = Labels(shape, *made)
        for at, vector in self.made.vectors(result, node).items():
            if at != axis:
                for source, own in zip(sources, labels):
                    self.require(node, source, own, at - len(shape), vector, len(shape))
        return result

    def _reduced(self, node: fx.Node) -> Labels:
        (source,) = _tensors(node, self.fixed)
        labels, shape = self._of(source), tuple(node.meta["fake"].shape)
        dims = argument(node, 1, "dim")
        ndim = len(labels.shape)
        if dims is None:
            raise Unfollowed(node, "it reduces over all clips")
        over = {d % ndim for d in (dims if isinstance(dims, (tuple, list)) else (dims,))}
        lines = self._lines(node, labels)
        if over & set(lines["clips"]):
            raise Unfollowed(node, "it reduces over the clips")
        stays = len(shape) == ndim
        rest = list(range(ndim)) if stays else [a for a in range(ndim) if a not in over]
        made = [
            tuple(
                along(v, rest.index(a), len(shape)) for a, v in lines[kind].items() if a not in over
            )
            for kind in ("times", "clips")
        ]
        return Labels(shape, *made)

    def _moved(self, node: fx.Node) -> Any:
        """What moves entries, and makes no new ones: the labels are moved by the operation itself."""
        (source,) = _tensors(node, self.fixed)
        labels, fake = self._of(source), node.meta["fake"]
        moved = {
            kind: [moved_label(node, source, label, labels.shape) for label in labels.of_kind(kind)]
            for kind in KINDS
        }
        if isinstance(fake, Tensor):
            return self._moved_labels(tuple(fake.shape), moved, lambda value: value)
        return tuple(
            self._moved_labels(tuple(part.shape), moved, operator.itemgetter(place))
            for place, part in enumerate(fake)
        )

    def _moved_labels(
        self,
        shape: tuple[int, ...],
        moved: Mapping[str, Sequence[Any]],
        pick: Callable[[Any], Tensor],
    ) -> Labels:
        made = {kind: [compact(pick(v)) for v in values] for kind, values in moved.items()}
        labelled = {kind: [v for v in own if bool((v >= 0).any())] for kind, own in made.items()}
        # what does not depend on units may be taken of some of them
        labelled["sizes"] = [
            v for v in labelled["sizes"] if len(v[v >= 0].unique()) == self.made.num_units
        ]
        return Labels(shape, **{kind: tuple(own) for kind, own in labelled.items()})

    def _item(self, node: fx.Node) -> Any:
        source = args_of(node)[0]
        if not isinstance(self.made.labels[source], Labels):
            return self.made.labels[source][args_of(node)[1]]
        return self._moved(node)

    def _written(self, node: fx.Node) -> Labels:
        target, index, value = args_of(node)
        labels = self._of(target)
        new = self._of(value) if isinstance(value, fx.Node) else Labels(())
        made = []
        for kind in KINDS:
            depth = max(len(labels.of_kind(kind)), len(new.of_kind(kind)))
            parts = []
            for place in range(depth):
                old, other = (label_of(own, kind, place) for own in (labels, new))
                shape = written_shape(labels.shape, index, old, other)
                part = old.expand(shape).clone()
                part[index] = other
                parts.append(compact(part))
            made.append(tuple(joined(parts)))
        return Labels(labels.shape, *made)

    def _summed(self, node: fx.Node) -> Labels:
        return labelled(node, self.made, self.fixed, self._lines)

    def _padded(self, node: fx.Node) -> Labels:
        """``torch.nn.functional.pad``: what is put beside the entries belongs to their frames."""
        (source,) = _tensors(node, self.fixed)
        labels, shape = self._of(source), tuple(node.meta["fake"].shape)
        padded = [axis for axis, size in enumerate(shape) if size != labels.shape[axis]]
        self._along_others(node, labels, padded, "it pads the frames")
        self._refuse_sizes(node, [number for number in argument(node, 1, "pad") if number])
        return replace(labels, shape=shape)

    def _rolled(self, node: fx.Node) -> Labels:
        """``torch.roll``."""
        (source,) = _tensors(node, self.fixed)
        labels = self._of(source)
        shifts, dims = argument(node, 1, "shifts"), argument(node, 2, "dims")
        if dims is None:
            raise Unfollowed(node, "it rolls over all axes")
        pairs = [n if isinstance(n, (tuple, list)) else (n,) for n in (shifts, dims)]
        self._refuse_sizes(node, [shift for shift in pairs[0] if shift])
        ndim = len(labels.shape)
        rolled = [axis % ndim for shift, axis in zip(*pairs) if shift % labels.shape[axis]]
        self._along_others(node, labels, rolled, "it rolls along the frames")
        return labels

    def _along_others(self, node: fx.Node, labels: Labels, axes: Iterable[int], why: str) -> None:
        if any(label.shape[axis] > 1 for label in labels.all() for axis in axes):
            raise Unfollowed(node, why)

    def _reshaped_as(self, node: fx.Node) -> Labels:
        labels, shape = self._of(args_of(node)[0]), tuple(node.meta["fake"].shape)
        made = (
            tuple(reshaped(label, labels.shape, shape) for label in labels.of_kind(kind))
            for kind in KINDS
        )
        return Labels(shape, *made)

    def _of(self, node: fx.Node) -> Labels:
        labels = self.made.labels[node]
        if not isinstance(labels, Labels):
            raise Unfollowed(node, "a value that is no tensor is used as one")
        return labels

    def _mixed(self, node: fx.Node, labels: Labels, axes: Iterable[int]) -> Labels:
        """The labels of entries that are mixed along some axes; those of several units are not."""
        made = []
        for kind in KINDS:
            own = labels.of_kind(kind)
            for axis in axes:
                own = tuple(_over(label, axis, node) for label in own)
            made.append(own)
        return Labels(labels.shape, *made)

    def _refuse_sizes(self, node: fx.Node, numbers: Sequence[Any]) -> None:
        """Raise where values are computed with a size that follows the frames or the clips."""
        for number in numbers:
            for source, axis in origins_of(number):
                labels = self.made.labels.get(source)
                if isinstance(labels, Labels) and any(t.shape[axis] > 1 for t in labels.all()):
                    raise Unfollowed(node, "it computes with the number of frames or clips")


def _over(label: Tensor, axis: int, node: fx.Node) -> Tensor:
    if label.shape[axis] == 1:
        return label
    high = label.amax(axis, keepdim=True)
    low = label.masked_fill(label < 0, torch.iinfo(label.dtype).max).amin(axis, keepdim=True)
    if bool(((high >= 0) & (high != low)).any()):
        raise Unfollowed(node, "it mixes entries of several frames or clips")
    return high


def _shaped(fake: Any) -> Any:
    if isinstance(fake, Tensor):
        return Labels(tuple(fake.shape))
    return tuple(map(_shaped, fake)) if isinstance(fake, (tuple, list)) else None


def _tensors(node: fx.Node, fixed: set[fx.Node]) -> list[fx.Node]:
    """The tensors that a node takes and that are not the same for all clips: one."""
    taken = [n for n in node.all_input_nodes if n not in fixed]
    if len(taken) != 1:
        raise Unfollowed(node, "it takes several values of the clips, for which there is no rule")
    return taken


POINTWISE = {"floor", "ceil", "exp", "sqrt", "square", "abs", "ge", "gt", "le", "lt"}
_RULES: tuple[tuple[set[str], Callable[[LabelRules, fx.Node], Any]], ...] = (
    ({"chunk", "unbind"} | MOVES, LabelRules._moved),
    ({"getitem"}, LabelRules._item),
    ({function.__name__ for function in CONCATENATION}, LabelRules._concatenated),
    ({"matmul", "bmm"}, LabelRules._product),
    ({"linear"}, LabelRules._linear),
    ({"scaled_dot_product_attention"}, LabelRules._attention_function),
    ({"layer_norm"}, LabelRules._normalised),
    ({"softmax", "log_softmax"} | POINTWISE, LabelRules._same_shape),
    ({"mean", "sum", "amax", "amin"}, LabelRules._reduced),
    ({written.__name__, with_part.__name__}, LabelRules._written),
    ({"pad"}, LabelRules._padded),
    ({"roll"}, LabelRules._rolled),
    ({"reshape_as", "view_as"}, LabelRules._reshaped_as),
    ({"einsum"}, LabelRules._summed),
)
_ADAPTIVE = (nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d)
_WINDOWS = (
    *(nn.Conv2d, nn.Conv3d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
    *(*POOLS, *_ADAPTIVE),
)
_MODULE_RULES: tuple[tuple[Any, Callable[[LabelRules, fx.Node, Any], Any]], ...] = (
    ((nn.modules.batchnorm._BatchNorm,), LabelRules._by_channel),
    ((*EVERYWHERE, nn.Softmax), LabelRules._same_shape),
    ((nn.LayerNorm,), LabelRules._normalised),
    ((nn.Linear,), LabelRules._linear),
    (_WINDOWS, LabelRules._windows),
    ((nn.MultiheadAttention,), LabelRules._attention),
)
