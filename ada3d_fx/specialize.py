"""specialize: one fixed policy of an adaptive network as a plain network."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import fx, nn

from .convert import AdaptiveNetwork
from .elastic.conversion import fix_times
from .errors import Ada3DError
from .packed import module_tree
from .packed.twins import plain_tree, static_slice
from .packed.windows import fit_window
from .plan import StagePlan


def specialize(
    adaptive: AdaptiveNetwork,
    num_frames: int,
    stages: Sequence[int | bool],
    copy_weights: bool = True,
    frames: Sequence[int] | None = None,
) -> nn.Module:
    """Make one fixed policy a plain network: off stages have sliced weights, no gate is left.

    Args:
        adaptive: the network; it is not changed.
        num_frames: how many frames its clips have.
        stages: K decisions.
        copy_weights: False leaves the weights shared with ``adaptive``; sliced ones are views.
        frames: the times of the kept frames, rising, in 0 to T - 1. They matter where the model has
            positions of frames only: a frame then has the position of its time. By default whole
            units are kept at even distances.

    Returns:
        A module from clips [N, C, num_frames, H, W] to scores [N, classes]. Hooks and attributes of
        ``adaptive`` itself are not its own; those of the modules that it calls are.

    Raises:
        Ada3DError: a number of frames that the plan does not allow, not K decisions, or frames that
            are not so many, or no whole units.
    """
    plan = adaptive.plan
    unit = plan.frame_unit or plan.num_frames
    if not 1 <= num_frames <= plan.num_frames or num_frames % unit:
        allowed = f"a multiple of {unit} up to {plan.num_frames}"
        raise Ada3DError(f"specialize: num_frames={num_frames}, expected {allowed}")
    if len(stages) != plan.num_stages:
        raise Ada3DError(f"specialize: {len(stages)} stage decisions, expected {plan.num_stages}")
    times = _times(adaptive.plan, num_frames, frames)
    static = static_program(adaptive, num_frames, stages, copy_weights, times)
    return static.module


def _times(plan: StagePlan, num_frames: int, frames: Sequence[int] | None) -> tuple[int, ...]:
    """The times of the kept frames."""
    unit = plan.frame_unit or plan.num_frames
    kept, units = num_frames // unit, plan.num_frames // unit
    if frames is None:
        starts = [unit * ((2 * place + 1) * units // (2 * kept)) for place in range(kept)]
        return tuple(start + frame for start in starts for frame in range(unit))
    times = tuple(int(frame) for frame in frames)
    whole = len({time // unit for time in times}) * unit == len(times)
    rising = list(times) == sorted(set(times)) and set(times) <= set(range(plan.num_frames))
    if len(times) != num_frames or not rising or not whole:
        units_of = f", in whole units of {unit}" if unit > 1 else ""
        raise Ada3DError(
            f"specialize: frames={list(times)}, expected {num_frames} rising numbers from 0 to "
            f"{plan.num_frames - 1}{units_of}"
        )
    return times


class StaticProgram(NamedTuple):
    """A network of one fixed policy."""

    module: fx.GraphModule  # clips -> scores
    nodes: Mapping[fx.Node, fx.Node]  # of the adaptive network's source -> of the module's graph


def static_program(
    adaptive: AdaptiveNetwork,
    num_frames: int,
    stages: Sequence[int | bool],
    copy_weights: bool,
    times: Sequence[int] | None,
) -> StaticProgram:
    """Do what `specialize` does with a policy that is checked.

    Args:
        adaptive: the network.
        num_frames: of its clips.
        stages: K decisions.
        copy_weights: see `specialize`.
        times: those of the frames; None: where the network's source takes them, so does the result.
    """
    plan = adaptive.plan
    made = adaptive.conversion
    made.check_writers()
    root = plain_tree(made.root)
    root = copy.deepcopy(root) if copy_weights else root
    buffers = {name for name, _ in root.named_buffers()}
    off = [site for stage, on in zip(plan.stages, stages) if not on for site in stage.sites]
    replaced = {site: static_slice(root.get_submodule(site), copy_weights) for site in off}
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    graph.output(graph.graph_copy(made.source, copies))
    if times is not None:
        fix_times(graph, times, adaptive.plan.clip_shape[2:])
    calls = Counter(str(node.target) for node in made.windows)
    for node, lengths in made.windows.items():
        path = str(node.target)
        pool = root.get_submodule(path)
        fitted = fit_window(pool, lengths[num_frames] or 1)
        if fitted is not pool:
            # called at several places, a pool takes clips of several lengths: one module for each
            own = path if calls[path] == 1 else f"{path}_{node.name}"
            replaced[own], copies[node].target = fitted, own
    static = fx.GraphModule(
        module_tree.with_modules(root, replaced), graph, class_name="Specialized"
    )
    module_tree.save_only(static, buffers)  # fx makes buffers of constants, too
    return StaticProgram(static, copies)
