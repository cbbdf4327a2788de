"""A graph that was traced for T frames -> one whose sizes and positions follow the kept frames.

Models with learned positions, or with a number of frames that their code has as a plain number, run on
clips of T frames only. Here the graph gets a second input, the times of the kept frames. Sizes become
functions of how many there are, and constants that vary along time are indexed by them: a kept frame has
the position that it had in the full clip. What varies along time is found by labels, see labels.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import fx, nn

from ..errors import Reason, UnsupportedModel
from ..packed.kept_times import fixed_times
from ..packed.module_tree import constants_of
from ..tracing.model import model_name
from ..tracing.program import Program, module_path
from ..tracing.shadow import add_constants
from ..tracing.trace import trace_concretely
from .labels import Unfollowed
from .writer import ElasticWriter


def elastic_programs(
    root: nn.Module, shadow: nn.Module, clip_shape: Sequence[int], checkpointing: bool
) -> list[Program] | Reason:
    """Trace a model, and let its programs take clips of other lengths.

    Args:
        root: a module from clips to scores.
        shadow: ``root`` on the meta device; it gets the constants of the programs.
        clip_shape: (C, T, H, W).
        checkpointing: see `trace.trace`.

    Returns:
        The programs (clips, times) -> scores, in evaluation and in training where that differs; or
        why there are none.

    Raises:
        UnsupportedModel: it cannot be traced, or it does not run on such clips.
    """
    of_two, of_three = (
        trace_concretely(root, shadow, clip_shape, clips, checkpointing) for clips in (2, 3)
    )
    made = elastic(root, of_two, of_three, clip_shape[1])
    add_constants(shadow, constants_of(root))
    return made


def follows_times(graph: fx.Graph) -> bool:
    """Whether a model's own program is (clips, times) -> scores; it has sizes as numbers then."""
    return sum(node.op == "placeholder" for node in graph.nodes) > 1


def fix_times(graph: fx.Graph, times: Sequence[int], size: tuple[int, int]) -> None:
    """Let all clips of a graph (clips, times) -> scores keep the same frames; others stay.

    Args:
        graph: it is changed.
        times: of the kept frames.
        size: (H, W) of the clips for which it was made.
    """
    clips, *others = (node for node in graph.nodes if node.op == "placeholder")
    for node in others:
        with graph.inserting_before(node):
            node.replace_all_uses_with(
                graph.call_function(fixed_times, (clips, tuple(times), size))
            )
        graph.erase_node(node)


def elastic(
    root: nn.Module, of_two: Sequence[Program], of_three: Sequence[Program], num_frames: int
) -> list[Program] | Reason:
    """Let the programs of a model take clips of other lengths.

    Args:
        root: where module paths start; constants are added to it.
        of_two: traced for two clips of T frames, with sizes as numbers.
        of_three: the same for three.
        num_frames: T.

    Returns:
        (clips, times) -> scores, for clips of any whole number of units; or why there are none.
    """
    for node in (node for p in (*of_two, *of_three) for node in p.graph.nodes):
        if node.op != "output" and "fake" not in node.meta:
            why = Reason(module_path(node), "it does not run on such clips")
            raise UnsupportedModel(model_name(root), [why])
    if len(of_two) != len(of_three):
        return Reason("model", "its code is another for three clips than for two")
    failures: list[Unfollowed] = []
    for unit in (g for g in range(1, num_frames) if num_frames % g == 0):
        try:
            return [
                replace(two, graph=ElasticWriter(root, two.graph, three.graph, unit).write())
                for two, three in zip(of_two, of_three)
            ]
        except Unfollowed as failed:
            failures.append(failed)
    # of the unit with which most of the model could follow
    places = {node: place for p in (*of_two, *of_three) for place, node in enumerate(p.graph.nodes)}
    return max(failures, key=lambda failed: places.get(failed.node, -1)).reason
