"""Which attention is that of each image alone: the images of all runs are one batch.

Attention within frames, as TimeSformer has it, takes each frame's tokens as an entry of its batch. It
needs no run of clips of equal length, while attention over time does.
"""

from __future__ import annotations

from torch import fx, nn
from torch.nn import functional as F

from ..packed.batches import batch_axis
from ..tracing.program import argument
from ..tracing.whole import is_known
from .analysis import PER_RUN, TimeAnalysis
from .shapes import Shape, ShapeTable


def is_batch_wise(
    node: fx.Node, root: nn.Module, analysis: TimeAnalysis, shapes: ShapeTable
) -> bool:
    """Tell whether a node is attention whose values differ between runs in the size of their batch only.

    Args:
        node: the node; those before it are analysed.
        root: where module paths start.
        analysis: the layouts of the nodes before it.
        shapes: of the graph.
    """
    sources = node.all_input_nodes
    if not {analysis.layouts[source].kind for source in sources} <= PER_RUN or len(node.args) < 3:
        return False
    if node.op == "call_module":
        module = root.get_submodule(str(node.target))
        if not isinstance(module, nn.MultiheadAttention) or not is_known(module):
            return False
        axis = batch_axis(module)
        plain = {"need_weights", "average_attn_weights"}
        masked = len(node.args) > 3 or not set(node.kwargs) <= plain
    elif node.target is F.scaled_dot_product_attention:
        axis, masked = 0, argument(node, 3, "attn_mask") is not None
    else:
        return False
    if masked or axis is None:
        return False
    seen = list(zip(*map(shapes.in_every_run, sources)))
    if any(len(shape) < 3 for values in seen for shape in values):
        return False
    batches = [{shape[axis] for shape in values} for values in seen]
    others = {tuple(_without(shape, axis) for shape in values) for values in seen}
    return len(others) == 1 and all(len(sizes) == 1 for sizes in batches)


def _without(shape: Shape, axis: int) -> Shape:
    return (*shape[:axis], *shape[axis + 1 :])
