"""What a policy costs: multiply-adds per clip, counted by fvcore.

One multiply-add counts 1. A price is additive in the stage decisions for a given number of kept
frames, so one count by module per number of frames holds the price of every stage combination.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from ..convert import AdaptiveNetwork
from ..distribution import PolicyDistribution
from ..errors import Ada3DError
from ..exits import probability
from ..policy import Policy
from ..specialize import specialize
from ..tracing.shadow import dtype_of
from .count import Count, count, elements


def price(adaptive: AdaptiveNetwork, policy: Policy, convention: str = "fvcore") -> Tensor:
    """Count the multiply-adds of each clip under its policy, those of the recognizer alone.

    They are fvcore's total for the network that ``specialize`` makes of the policy, at the plan's
    clip size (law 4). A number of kept frames is counted when it is first asked for and then looked
    up.

    Args:
        adaptive: the network.
        policy: of N clips.
        convention: 'fvcore', or 'paper', which leaves normalisation out.

    Returns:
        int64 [N], on the CPU.

    Raises:
        Ada3DError: a policy of another shape than the plan's, or an unknown convention.
    """
    adaptive.check(policy, len(policy))
    return price_table(adaptive, convention).look_up(policy.num_frames, policy.stages)


def price_table(adaptive: AdaptiveNetwork, convention: str = "fvcore") -> PriceTable:
    """Return the prices of every policy of a network; the table stays with the network.

    Raises:
        Ada3DError: an unknown convention.
    """
    with _COUNTING:
        tables: dict[str, PriceTable] = adaptive.__dict__.setdefault("price_tables", {})
        table = tables.get(convention)
        if table is None or table.structure != _structure(adaptive):
            table = tables[convention] = PriceTable(adaptive, convention)
        return table


_COUNTING = threading.RLock()  # a row is counted by one thread, and for all


def _structure(adaptive: AdaptiveNetwork) -> tuple:
    """What prices depend on: the modules, and the shapes of their parameters, not their values."""
    return tuple(
        (path, type(module), *(None if p is None else p.shape for p in module._parameters.values()))
        for path, module in adaptive.named_modules()
    )


class PriceTable:
    """T x (K + 1) numbers that hold the price of every policy; rows are counted when asked for.

    Args:
        adaptive: the network.
        convention: 'fvcore', or 'paper', which leaves normalisation out.

    Raises:
        Ada3DError: an unknown convention.
    """

    def __init__(self, adaptive: AdaptiveNetwork, convention: str = "fvcore"):
        self.adaptive, self.convention, self.plan = adaptive, convention, adaptive.plan
        self.structure = _structure(adaptive)  # for which the prices hold
        rows, columns = self.plan.num_frames + 1, self.plan.num_stages
        # int64 [T + 1]: the price of a clip of so many kept frames with all stages 2D
        self.base = torch.zeros(rows, dtype=torch.int64)
        # int64 [T + 1, K]: what each stage adds where it is on
        self.stages = torch.zeros(rows, columns, dtype=torch.int64)
        self.counted = torch.zeros(rows, dtype=torch.bool)  # the rows that are filled
        self.audit: Count = self._fill(self.plan.num_frames)

    @property
    def lengths(self) -> list[int]:
        """The numbers of frames that a clip may keep, whole units each."""
        unit = self.plan.frame_unit or self.plan.num_frames
        return list(range(unit, self.plan.num_frames + 1, unit))

    @property
    def full(self) -> int:
        """The price of the full policy: that of the original recognizer."""
        return int(self.base[-1] + self.stages[-1].sum())

    @cached_property
    def unsupported(self) -> dict[str, float]:
        """Operation that no count includes -> elements it makes per multiply-add of the original.

        None of them multiplies and adds.
        """
        static, clip = self._static(self.plan.num_frames)
        made = elements(static, (clip,), tuple(self.audit.unsupported))
        return {name: made[name] / self.full for name in self.audit.unsupported}

    @property
    def uncalled(self) -> tuple[str, ...]:
        """Paths of the modules with parameters that no clip goes through."""
        return self.audit.uncalled

    def look_up(self, num_frames: Tensor, stages: Tensor) -> Tensor:
        """Look up prices; what is not counted yet is counted.

        Args:
            num_frames: how many frames each clip keeps, int64 [N].
            stages: which stages are on, bool [N, K].

        Returns:
            int64 [N], on the CPU.
        """
        num_frames, stages = num_frames.cpu(), stages.cpu()
        self._count(num_frames[~self.counted[num_frames]].unique().tolist())
        return self.base[num_frames] + (self.stages[num_frames] * stages).sum(1)

    def complete(self, track: Callable[[Sequence[int]], Iterable[int]] = iter) -> PriceTable:
        """Count every number of frames that is not counted yet; return the table itself.

        Args:
            track: goes through the lengths; it may show the progress.
        """
        self._count(track(self.lengths))
        return self

    def expected(self, frames: float, stages: float) -> float:
        """Return the mean price of policies that `Policy.random` draws.

        Args:
            frames: the fraction of the frames that they use.
            stages: the fraction of the stages.
        """
        unit = self.plan.frame_unit or self.plan.num_frames
        units = frames * self.plan.num_frames / unit
        less = max(1, int(units))
        more = min(self.plan.num_frames // unit, less + 1)
        share = min(max(units - less, 0.0), 1.0)
        usage = torch.full((2, self.plan.num_stages), stages, dtype=torch.float64)
        kept = torch.tensor([less * unit, more * unit])
        both = self.look_up(kept, torch.zeros_like(usage, dtype=torch.bool)).double()
        both += (self.stages[kept] * usage).sum(1)
        return float((1 - share) * both[0] + share * both[1])

    def threshold(
        self,
        distribution: PolicyDistribution,
        target: float,
        greedy: str = "threshold",
        beside: float = 0,
        exited: Callable[[float], Tensor] | None = None,
    ) -> float:
        """Find the threshold of the greedy policy at which clips cost ``target`` on average.

        Args:
            distribution: of the clips' policies.
            target: multiply-adds per clip; the mean is as little below it as the decisions allow.
            greedy: how frames are chosen, see `PolicyDistribution.mode`.
            beside: multiply-adds per clip of what runs beside the recognizer.
            exited: from a threshold to the clips that the recognizer does not compute at it, bool
                [N]; the higher the threshold, the more. None: it computes all.

        Raises:
            Ada3DError: a target below what any threshold gives; the message names the least.
        """

        def cost(threshold: float) -> float:
            policy = distribution.mode(threshold, greedy)
            prices = self.look_up(policy.num_frames, policy.stages).double()
            if exited is not None:
                prices = prices.masked_fill(exited(threshold).cpu(), 0)
            return prices.mean().item() + beside

        low, high = -_LARGEST_LOGIT, _LARGEST_LOGIT  # of the threshold
        if (least := cost(probability(high))) > target:
            of_what = (
                "one unit of frames, no stages" if exited is None else "the recognizer never runs"
            )
            raise Ada3DError(
                f"a mean of {target / 1e9:.4g} GMACs cannot be had: these clips cost at least "
                f"{least / 1e9:.4g} each ({of_what})"
            )
        if cost(probability(low)) <= target:
            return probability(low)
        for _ in range(50):  # cost falls as the threshold rises
            middle = (low + high) / 2
            low, high = (low, middle) if cost(probability(middle)) <= target else (middle, high)
        return probability(high)

    def every(self) -> Iterator[tuple[int, tuple[bool, ...], int]]:
        """Yield every number of kept frames and every stage combination, with its price."""
        combinations = list(itertools.product((False, True), repeat=self.plan.num_stages))
        stages = torch.tensor(combinations, dtype=torch.bool).view(len(combinations), -1)
        for length in self.lengths:
            prices = self.look_up(torch.full((len(stages),), length), stages)
            for on, value in zip(combinations, prices.tolist()):
                yield length, on, value

    def _count(self, lengths: Iterable[int]) -> None:
        for length in lengths:
            with _COUNTING:
                if not self.counted[length]:
                    self._fill(length)

    def _fill(self, length: int) -> Count:
        """Count the full policy of ``length`` frames; a stage's side taps are what it adds."""
        static, clip = self._static(length)
        full = count(static, (clip,), self.convention)
        for k, stage in enumerate(self.plan.stages):
            for site in stage.sites:
                conv = static.get_submodule(site)
                assert isinstance(conv, nn.Conv3d)
                self.stages[length, k] += _side_taps(full.by_module[site], conv)
        self.base[length] = full.total - int(self.stages[length].sum())
        self.counted[length] = True
        return full

    def _static(self, length: int) -> tuple[nn.Module, Tensor]:
        """The network for clips of ``length`` frames, on the adaptive network's own weights."""
        stages = [True] * self.plan.num_stages
        static = specialize(self.adaptive, length, stages, copy_weights=False)
        channels, _, height, width = self.plan.clip_shape
        return static, torch.zeros(1, channels, length, height, width, dtype=dtype_of(static))


def _side_taps(all_taps: int, conv: nn.Conv3d) -> int:
    """The multiply-adds of all temporal taps but the centre's."""
    return all_taps - all_taps // conv.kernel_size[0]


_LARGEST_LOGIT = 30.0
