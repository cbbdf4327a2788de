"""Which operations between dense regions act on every token alone.

A transformer's linear layers, normalisations, activations and sums take a value [..., C] and treat all
its axes but the last alike. They need no run: the tokens of all runs are the rows of one matrix.
"""

from __future__ import annotations

from torch import fx, nn
from torch.nn import functional as F

from ..tracing.rules import ELEMENTWISE, ELEMENTWISE_MODULES
from ..tracing.whole import is_known
from .analysis import TimeAnalysis
from .shapes import Shape, ShapeTable

BEGINNINGS = (nn.Linear, nn.LayerNorm)


def is_token_wise(
    node: fx.Node, root: nn.Module, analysis: TimeAnalysis, shapes: ShapeTable
) -> bool:
    """Tell whether a node acts on every token alone, and is worth a pack of them.

    A pack begins at a layer with weights for the last axis, and goes on through what is element-wise.

    Args:
        node: the node; those before it are analysed.
        root: where module paths start.
        analysis: the layouts of the nodes before it.
        shapes: of the graph.
    """
    kinds = {source: analysis.layouts[source].kind for source in node.all_input_nodes}
    tokens = [source for source, kind in kinds.items() if kind != "const"]
    if not tokens or not {kinds[source] for source in tokens} <= {"dense", "tokens"}:
        return False
    leading = {_leading_sizes(value, shapes) for value in (node, *tokens)}
    if len(leading) > 1 or None in leading:
        return False
    started = any(kinds[source] == "tokens" for source in tokens)
    if node.op == "call_module":
        module = root.get_submodule(str(node.target))
        return _acts_on_tokens(module, node) and (started or isinstance(module, BEGINNINGS))
    if node.target is F.linear:
        return tokens == [node.args[0] if node.args else node.kwargs["input"]]
    constants = [shapes.shapes_of_three_clips.values[n] for n in kinds if kinds[n] == "const"]
    of_channels = all(shape is None or len(shape) < 2 for shape in constants)
    return started and node.target in ELEMENTWISE and of_channels


def _leading_sizes(node: fx.Node, shapes: ShapeTable) -> tuple[Shape, ...] | None:
    """The sizes of all axes but the last, in every run of the graph, if there are such axes.

    None where the last one follows the clips or their length.
    """
    seen = shapes.in_every_run(node)
    if min(map(len, seen)) < 2 or len({shape[-1] for shape in seen}) > 1:
        return None
    return tuple(shape[:-1] for shape in seen)


def _acts_on_tokens(module: nn.Module, node: fx.Node) -> bool:
    simple = len(node.args) == 1 and not node.kwargs and not hasattr(module, "parametrizations")
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) > 1:
        return False
    return simple and isinstance(module, (*BEGINNINGS, *ELEMENTWISE_MODULES)) and is_known(module)
