"""What clips bring to the parts of a network: the values by which each branch is quantised."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from ..errors import Ada3DError
from ..learn.selector import SelectionNetwork
from ..plan import StagePlan
from ..policy import Policy
from ..tracing.isolation import own_caches
from .branches import Branches
from .int8 import quantized
from .parity import BATCH
from .partition import Part
from .reference import policies_of_all_lengths

# Of each length class of a part: its lengths, and the traced graphs by the decisions of its stages.
Traced = list[tuple[tuple[int, ...], dict[tuple[bool, ...], Any]]]


def kept_evenly(clips: Tensor, length: int, plan: StagePlan) -> Tensor:
    """Return clips of ``length`` frames: evenly spaced whole units of whole clips.

    Args:
        clips: [N, C, T, H, W].
        length: a number of frames that the plan allows.
        plan: the network's.
    """
    unit = plan.frame_unit or plan.num_frames
    kept = length // unit
    units = torch.arange(kept) * plan.num_units // kept if kept else torch.arange(0)
    frames = (units[:, None] * unit + torch.arange(unit)).flatten()
    return clips[:, :, frames] if length < plan.num_frames else clips


def calibration_policy(
    plan: StagePlan,
    clips: Tensor,
    selector: SelectionNetwork | None,
    threshold: float,
    greedy: str,
) -> Policy:
    """Return a policy of each clip, under which the ranges of activations are measured.

    With a selection network every other clip has its own policy; the rest have random ones of all
    lengths, as each clip may be given any.

    Args:
        plan: the network's.
        clips: [N, C, T, H, W].
        selector: float32 on the CPU; None: all are random.
        threshold: of its policies.
        greedy: how it keeps frames.
    """
    n = len(clips)
    made = policies_of_all_lengths(plan, n)
    if selector is None:
        return made[torch.arange(n)]
    with torch.no_grad():
        own = Policy.cat([selector(part).mode(threshold, greedy) for part in clips.split(BATCH)])
    places = torch.arange(n)
    return Policy.cat([own, made])[torch.where(places % 2 == 0, places, n + places // 2)]


class Calibration:
    """What the calibration clips bring to the parts of a network, one part after the other.

    Args:
        clips: float32 [N, C, T, H, W].
        policy: of N clips.
        branches: of the network.
    """

    def __init__(self, clips: Tensor, policy: Policy, branches: Branches):
        self.policy, self.branches = policy, branches
        self.lengths = policy.num_frames.tolist()
        parts = branches.parts
        self.last_use = {node: n for n, part in enumerate(parts) for node in part.inputs}
        self.last_use.update({node: len(parts) for node in parts[-1].outputs})  # the scores
        kept = [clips[i : i + 1, :, frames] for i, frames in enumerate(policy.frames)]
        times = [frames.nonzero().T for frames in policy.frames]
        inputs = branches.programs.inputs
        # of each clip
        self.values: dict[fx.Node, list[Tensor]] = dict(zip(inputs, (kept, times)))

    def quantize(self, number: int, part: Part, traced: Traced) -> Traced:
        """Return a part's branches with their graphs quantised; call it for each part, in order.

        Raises:
            Ada3DError: NNCF cannot take it, or no clip is of a branch's lengths.
        """
        made: Traced = []
        for lengths, graphs in traced:
            samples, where = self.samples(part, lengths), f"part {number} of the network"
            made.append((lengths, {on: quantized(g, samples, where) for on, g in graphs.items()}))
        self.advance(number, part)
        return made

    def samples(self, part: Part, lengths: Sequence[int]) -> list[list[Tensor]]:
        """Return what each clip of some lengths brings, whatever is decided for its stages.

        Args:
            part: the next one.
            lengths: of one of its branches.

        Raises:
            Ada3DError: no clip is of these lengths.
        """
        clips = [clip for clip, length in enumerate(self.lengths) if length in lengths]
        if not clips:
            told = f"{min(lengths)} to {max(lengths)}" if len(lengths) > 1 else str(lengths[0])
            raise Ada3DError(
                f"export: int8: none of {len(self.lengths)} calibration clips keeps {told} frames; "
                "give more clips"
            )
        return [self._inputs(part, clip) for clip in clips]

    def advance(self, number: int, part: Part) -> None:
        """Compute the part under the clips' policies, and forget what no later part takes."""
        outputs = self.branches.tensors(part.outputs)
        found: dict[int, Iterable[Tensor]] = {}
        for (length, on), clips in self._alike(part).items():
            module = self.branches.module(part, length, on)
            with torch.no_grad(), own_caches(module):
                found.update((clip, module(*self._inputs(part, clip))) for clip in clips)
        by_clip = [found[clip] for clip in range(len(self.lengths))]
        self.values.update(zip(outputs, map(list, zip(*by_clip))))
        self.values = {
            node: held for node, held in self.values.items() if self.last_use.get(node, -1) > number
        }

    def _alike(self, part: Part) -> dict[tuple[int, tuple[bool, ...]], list[int]]:
        """The clips of each length and decisions of the part's stages."""
        alike = defaultdict(list)
        for clip, (length, on) in enumerate(zip(self.lengths, self.policy.stages.tolist())):
            alike[length, tuple(on[stage] for stage in part.stages)].append(clip)
        return alike

    def _inputs(self, part: Part, clip: int) -> list[Tensor]:
        """What a clip brings to a part."""
        return [self.values[node][clip] for node in self.branches.tensors(part.inputs)]
