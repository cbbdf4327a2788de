"""Frames that several policies of one clip keep, computed once up to the first operation that mixes time.

Until there, what becomes of a frame depends on nothing but the frame. A step of training executes
several policies of each clip, which keep most frames several times.
"""

from __future__ import annotations

from collections.abc import Container

import torch
from torch import fx, nn
from torch.nn import functional as F

from ..packed.module_state import is_watched
from ..packed.packing import Packing, pack_distinct, pack_frames, spread
from ..tracing.whole import is_known

OF_BATCH = (F.batch_norm, torch.batch_norm)  # functions that may compute statistics of a batch
FRAME_WISE = "frame_wise"  # in a node's meta: it computes each frame of a pack by itself


def frame_wise(node: fx.Node) -> fx.Node:
    """Mark a node that computes each frame of a pack by itself, if it takes packs only; return it."""
    node.meta[FRAME_WISE] = True
    return node


class SharedFrames:
    """Lets a program take the clip of each policy, and share frames between them; changes ``graph``.

    Args:
        graph: a program for inference, (clips, policy) -> scores. Its third input becomes the clip
            of each policy, or None.
        convolutions: the names in it that are not the model's modules.

    Attributes:
        is_possible: there are operations before the first one that mixes time.
    """

    def __init__(self, graph: fx.Graph, convolutions: Container[str]):
        before = _before_time_mixes(graph)
        self.is_possible = len(before) > 1  # more than the pack itself
        called = [str(n.target) for n in before if n.op == "call_module"]
        self.modules = [path for path in called if path not in convolutions]
        if not self.is_possible:
            return
        rows = next(iter(before))
        _, policy = (node for node in graph.nodes if node.op == "placeholder")
        (packing,) = (node for node in graph.nodes if node.target == Packing.of)
        with graph.inserting_after(policy):
            clip_index = graph.placeholder("clip_index", default_value=None)
        packing.args, rows.target = (policy, clip_index), pack_distinct
        for node in before:
            outside = [user for user in node.users if user not in before]
            if outside:
                with graph.inserting_after(node):
                    values = graph.call_function(spread, (node, packing))
                for user in outside:
                    user.replace_input_with(node, values)

    def holds(self, root: nn.Module) -> bool:
        """Tell whether frames can be shared now: nobody watches a module here, or asks for a batch.

        Args:
            root: where the modules are.
        """
        return self.is_possible and all(_is_alone(root.get_submodule(p)) for p in self.modules)


def _is_alone(module: nn.Module) -> bool:
    """Whether a module computes each frame as it would without the others, and nobody watches it."""
    of_batch = isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None
    return is_known(module) and not (module.training or is_watched(module) or of_batch)


def _before_time_mixes(graph: fx.Graph) -> dict[fx.Node, None]:
    """The pack of frames, and what is computed of it frame by frame, in the order of the graph."""
    found: dict[fx.Node, None] = {}
    for node in graph.nodes:
        if node.op == "call_function" and node.target is pack_frames:
            found[node] = None
        elif node.meta.get(FRAME_WISE) and node.target not in OF_BATCH:
            taken = [source for source in node.all_input_nodes if source.op != "get_attr"]
            if taken and all(source in found for source in taken):
                found[node] = None
    return found
