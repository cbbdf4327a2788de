"""Training steps that are timed: fine-tuning of the dense network, and both phases of ours.

A step is what an optimiser's step needs: forward, backward, and new weights. Policies are fixed and of
the asked usage, so that every round and every row computes the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..convert import AdaptiveNetwork, channels_last, convert
from ..cost.price import price
from ..errors import Ada3DError
from ..learn.estimators import Reinforce
from ..learn.step import Prices, policy_step
from ..policy import Policy
from . import statistics
from .networks import Networks, Request, Run, full_price
from .policies import usage_policy, varied_clips

FINE_TUNING, FINE_TUNING_LAST = "fine-tuning, eager", "fine-tuning, channels_last_3d"
FIRST, FIRST_ALONE = "phase 1, packed", "phase 1, clip by clip"
FIRST_MASKED = "phase 1, clip by clip, masked at full cost"
SECOND, SECOND_ALONE = "phase 2, packed", "phase 2, clip by clip"
SECOND_SAVING = "phase 2, packed, checkpointing"
# row -> the rows that it is compared with
PEERS = {
    FIRST: (FIRST_ALONE, FIRST_MASKED),
    SECOND: (FINE_TUNING, FINE_TUNING_LAST, SECOND_ALONE),
    SECOND_SAVING: (FINE_TUNING, FINE_TUNING_LAST, SECOND),
}
# rows whose peak memory is measured
MEASURED = (FINE_TUNING, FINE_TUNING_LAST, FIRST, SECOND, SECOND_SAVING)
Execute = Callable[[AdaptiveNetwork, Policy, Tensor], Tensor]  # policies and the clip of each
LEARNING_RATE = 1e-6  # weights change, and stay what they are: time does not depend on them


class TrainingSteps:
    """The steps on one batch of N clips, with S policies of each: N * S are executed.

    Args:
        networks: what is timed; its weights change.
        clips: N.
        request: says S and the usage, the first of its ``usages``.

    Raises:
        Ada3DError: no selection network, one policy of a clip only, or no usage.
    """

    def __init__(self, networks: Networks, clips: int, request: Request):
        if networks.selector is None:
            why = networks.left_out.get("selection network inside", "there is none")
            raise Ada3DError(f"--training needs a selection network: {why}")
        if request.samples < 2:
            raise Ada3DError(f"--samples {request.samples}: expected at least 2")
        if not request.usages:
            raise Ada3DError("--training needs a --usage")
        self.networks, self.selector = networks, networks.selector
        plan, device = networks.adaptive.plan, networks.device
        generator = torch.Generator().manual_seed(request.seed)
        executed = clips * request.samples
        self.clips = varied_clips(clips, networks.shape, request.seed).to(device)
        frames, stages = request.usages[0]
        self.policy = usage_policy(plan, executed, frames, stages, generator).to(device)
        with torch.no_grad():
            classes = networks.adaptive.eval()(self.clips[:1]).shape[-1]
        self.labels = torch.randint(classes, (clips,), generator=generator).to(device)
        self.estimator = Reinforce(samples=request.samples)
        self.samples, self.phase = request.samples, request.phase
        self.last = channels_last(networks.adaptive.plain()).to(device)
        self.saving = convert(networks.adaptive, networks.shape, checkpointing=True).to(device)

    def runs(self) -> list[Run]:
        """Return the rows; multiply-adds are those of the forward pass."""
        dense = len(self.policy) * full_price(self.networks.adaptive)
        chosen = self.networks.selector_macs(len(self.clips))
        ours = self.networks.macs(self.policy) + chosen
        original, adaptive = self.networks.recognizer, self.networks.adaptive
        first = (self.selector,)
        second = (self.selector, adaptive)
        saving = (self.selector, self.saving)
        packed, alone = self._packed, self._alone
        steps: dict[str, tuple[Callable[[], Tensor], Sequence[nn.Module], int]] = {
            FINE_TUNING: (lambda: self._fine_tuning(original, False), (original,), dense),
            FINE_TUNING_LAST: (lambda: self._fine_tuning(self.last, True), (self.last,), dense),
            FIRST: (lambda: self._phase(adaptive, packed, False), first, ours),
            FIRST_ALONE: (lambda: self._phase(adaptive, alone, False), first, ours),
            FIRST_MASKED: (
                lambda: self._phase(adaptive, self._masked, False),
                first,
                dense + chosen,
            ),
            SECOND: (lambda: self._phase(adaptive, packed, True), second, ours),
            SECOND_ALONE: (lambda: self._phase(adaptive, alone, True), second, ours),
            SECOND_SAVING: (lambda: self._phase(self.saving, packed, True), saving, ours),
        }
        return [
            Run(name, _Step(loss, learning), macs, dense=name in (FINE_TUNING, FINE_TUNING_LAST))
            for name, (loss, learning, macs) in steps.items()
            if self.phase is None or name.startswith(f"phase {self.phase}")
        ]

    def _fine_tuning(self, network: nn.Module, last: bool) -> Tensor:
        """The loss of a step on as many clips as there are policies."""
        network.train()
        clips = self.clips.repeat_interleave(self.samples, 0)
        if last:
            clips = clips.contiguous(memory_format=torch.channels_last_3d)
        return F.cross_entropy(network(clips), self.labels.repeat_interleave(self.samples))

    def _phase(self, adaptive: AdaptiveNetwork, execute: Execute, joint: bool) -> Tensor:
        """The loss of a step of phase 1, or of phase 2 in which the recognizer learns too."""
        adaptive.train(joint)
        distribution = self.selector.train()(self.clips)

        def executed(policy: Policy, clip_index: Tensor) -> Tensor:
            with torch.set_grad_enabled(joint):
                return execute(adaptive, policy, clip_index)

        result = policy_step(
            distribution,
            self.labels,
            self.estimator,
            executed,
            Prices(lambda p: price(adaptive, p).to(p.frames.device), full_price(adaptive), 0),
            change=lambda p: self.policy if len(p) == len(self.policy) else p,
        )
        if not joint:
            return result.loss
        return result.loss + F.cross_entropy(result.scores, self.labels[result.clip_index])

    def _packed(self, adaptive: AdaptiveNetwork, policy: Policy, clip_index: Tensor) -> Tensor:
        return adaptive(self.clips, policy, clip_index)

    def _alone(self, adaptive: AdaptiveNetwork, policy: Policy, clip_index: Tensor) -> Tensor:
        """One policy after the other, each through the adaptive network."""
        return torch.cat(
            [
                adaptive(self.clips[clip : clip + 1], policy[slice(i, i + 1)])
                for i, clip in enumerate(clip_index.tolist())
            ]
        )

    def _masked(self, adaptive: AdaptiveNetwork, policy: Policy, clip_index: Tensor) -> Tensor:
        """One policy after the other as a mask, so that each costs all frames and stages."""
        network = self.networks.recognizer.eval()
        return torch.cat([network(self.clips[c : c + 1]) for c in clip_index.tolist()])


class _Step:
    """One step of an optimiser."""

    def __init__(self, loss: Callable[[], Tensor], learning: Sequence[nn.Module]):
        self.loss = loss
        parameters = [p for module in learning for p in module.parameters()]
        self.optimizer = torch.optim.SGD(parameters, LEARNING_RATE, momentum=0.9)

    def __call__(self) -> None:
        self.loss().backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def training_table(
    runs: Sequence[Run], seconds: Mapping[str, Sequence[float]], dense: int
) -> list[dict]:
    """Return a row for each step.

    Args:
        runs: the steps.
        seconds: of each in every round.
        dense: multiply-adds of the forward pass of fine-tuning.

    Returns:
        Rows with ``faster``: peer -> how many ``times`` as fast as that the row is, and the
        interval.
    """
    told = statistics.medians_with_intervals(seconds)
    rows: list[dict[str, Any]] = []
    for run in runs:
        median, ends = told[run.name]
        peers = [peer for peer in PEERS.get(run.name, ()) if peer in seconds]
        compared = statistics.against(seconds, run.name, peers, run.macs / dense)
        rows.append(
            {
                "name": run.name,
                "multiply_adds": run.macs,
                "macs": run.macs / dense,
                "seconds": median,
                "interval": ends,
                "faster": {
                    peer: {
                        "times": 1 / found["time"],
                        "interval": [1 / end for end in reversed(found["time_interval"])],
                    }
                    for peer, found in compared.items()
                },
                "rounds": list(seconds[run.name]),
            }
        )
    return rows
