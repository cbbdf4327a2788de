"""What a policy costs: multiply-adds per clip, counted by fvcore.

One multiply-add counts 1. A price is additive in the stage decisions for a given number of kept
frames, so one count by module per number of frames holds the price of every stage combination.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from .convert import AdaptiveNetwork, specialize
from .count import COPIES, Count, count, elements
from .errors import Ada3DError
from .policy import Policy, PolicyDistribution
from .trace import dtype_of


def price(adaptive: AdaptiveNetwork, policy: Policy, convention: str = "fvcore") -> Tensor:
    """int64 [N], on the CPU: multiply-adds of each clip under its policy; the recognizer's alone.

    Equals fvcore's total for the network that ``specialize`` makes of the policy, at the plan's
    clip size (DESIGN law 4). A number of kept frames is counted when it is first asked for and
    then looked up. ``convention='paper'`` leaves normalisation out.

    Raises:
        Ada3DError: a policy of another shape than the plan's, or an unknown convention.
    """
    adaptive._check_policy(policy, len(policy))
    return price_table(adaptive, convention).look_up(policy.num_frames, policy.stages)


def price_table(adaptive: AdaptiveNetwork, convention: str = "fvcore") -> PriceTable:
    """The prices of every policy of this network; one table, which stays with the network."""
    tables: dict[str, PriceTable] = adaptive.__dict__.setdefault("price_tables", {})
    if convention not in tables:
        tables[convention] = PriceTable(adaptive, convention)
    return tables[convention]


class PriceTable:
    """T x (K+1) numbers that hold the price of every policy.

    base: int64 [T+1], the price of a clip of so many kept frames with all stages 2D; stages: int64
        [T+1, K], what each stage adds where it is on. Rows are counted when first asked for.
    """

    def __init__(self, adaptive: AdaptiveNetwork, convention: str = "fvcore"):
        self.adaptive, self.convention, self.plan = adaptive, convention, adaptive.plan
        shape = self.plan.num_frames + 1, self.plan.num_stages
        self.base = torch.zeros(shape[0], dtype=torch.int64)
        self.stages = torch.zeros(shape, dtype=torch.int64)
        self.known = torch.zeros(shape[0], dtype=torch.bool)
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
        """The operations that no count includes, none of which multiplies and adds: elements they
        make per multiply-add of the full policy."""
        static, clip = self._static(self.plan.num_frames)
        made = elements(static, (clip,), tuple(self.audit.unsupported))
        return {name: made[name] / self.full for name in self.audit.unsupported}

    @property
    def uncalled(self) -> tuple[str, ...]:
        """Paths of the modules with parameters that no clip goes through."""
        return self.audit.uncalled

    def look_up(self, num_frames: Tensor, stages: Tensor) -> Tensor:
        """Prices int64 [N] of clips that keep ``num_frames`` [N] frames, ``stages`` bool [N, K]."""
        num_frames, stages = num_frames.cpu(), stages.cpu()
        if not self.known[num_frames].all():
            for length in num_frames.unique().tolist():
                self.known[length] or self._fill(length)
        return self.base[num_frames] + (self.stages[num_frames] * stages).sum(1)

    def complete(self) -> PriceTable:
        """Count every number of frames that is not counted yet."""
        for length in self.lengths:
            self.known[length] or self._fill(length)
        return self

    def expected(self, frames: float, stages: float) -> float:
        """The mean price of random policies (`Policy.random`) that use these fractions of frames
        and stages."""
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
        self, distribution: PolicyDistribution, target: float, greedy: str = "threshold"
    ) -> float:
        """The threshold of `PolicyDistribution.mode` at which these clips cost ``target``
        multiply-adds on average, or as little less as the decisions allow.

        Raises:
            Ada3DError: a target below what any threshold gives; the message names the least.
        """

        def cost(threshold: float) -> float:
            policy = distribution.mode(threshold, greedy)
            return self.look_up(policy.num_frames, policy.stages).double().mean().item()

        low, high = -_LARGEST_LOGIT, _LARGEST_LOGIT  # of the threshold
        if (least := cost(_sigmoid(high))) > target:
            raise Ada3DError(
                f"a mean of {target / 1e9:.4g} GMACs cannot be had: these clips cost at least "
                f"{least / 1e9:.4g} each (one unit of frames, no stages)"
            )
        if cost(_sigmoid(low)) <= target:
            return _sigmoid(low)
        for _ in range(50):  # cost falls as the threshold rises
            middle = (low + high) / 2
            low, high = (low, middle) if cost(_sigmoid(middle)) <= target else (middle, high)
        return _sigmoid(high)

    def every(self) -> Iterator[tuple[int, tuple[bool, ...], int]]:
        """Every number of kept frames and every stage combination, with its price."""
        combinations = list(itertools.product((False, True), repeat=self.plan.num_stages))
        stages = torch.tensor(combinations, dtype=torch.bool).view(len(combinations), -1)
        for length in self.lengths:
            prices = self.look_up(torch.full((len(stages),), length), stages)
            for on, value in zip(combinations, prices.tolist()):
                yield length, on, value

    def _fill(self, length: int) -> Count:
        static, clip = self._static(length)
        found = count(static, (clip,), self.convention)
        for k, stage in enumerate(self.plan.stages):
            kernels = [static.get_submodule(site).kernel_size[0] for site in stage.sites]
            taps = [found.by_module[site] for site in stage.sites]
            self.stages[length, k] = sum(
                all_taps - all_taps // kernel for all_taps, kernel in zip(taps, kernels)
            )
        self.base[length] = found.total - int(self.stages[length].sum())
        self.known[length] = True
        return found

    def _static(self, length: int) -> tuple[nn.Module, Tensor]:
        """The network for clips of ``length`` frames, on the adaptive network's own weights."""
        stages = [True] * self.plan.num_stages
        static = specialize(self.adaptive, length, stages, copy_weights=False)
        channels, _, height, width = self.plan.clip_shape
        return static, torch.zeros(1, channels, length, height, width, dtype=dtype_of(static))


_LARGEST_LOGIT = 30.0


def _sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


@dataclass(frozen=True)
class Executed:
    """What the packed execution of one batch runs, next to what its policies cost.

    price: the sum of the clips' prices; macs: the multiply-adds of the packed program, never more
        (less where a clip has too few frames for a kernel's outer taps, which the price counts as
        padding; this is never credited to a policy); copied: elements that packing moves.
    """

    price: int
    macs: int
    copied: int


def executed(adaptive: AdaptiveNetwork, policy: Policy) -> Executed:
    """Count the packed program under the policies of one batch, by fvcore.

    BatchNorm counts as in the price, although inference folds it into the convolutions.
    """
    total = int(price(adaptive, policy).sum())
    clips = torch.zeros(len(policy), *adaptive.plan.clip_shape, dtype=dtype_of(adaptive))
    program = _UnderPolicy(adaptive, policy.to("cpu"))
    copied = elements(program, (clips,), COPIES)
    return Executed(total, count(program, (clips,)).total, sum(copied.values()))


class _UnderPolicy(nn.Module):
    def __init__(self, adaptive: AdaptiveNetwork, policy: Policy):
        super().__init__()
        self.adaptive, self.policy = adaptive, policy

    def forward(self, clips: Tensor) -> Tensor:
        return self.adaptive(clips, self.policy)


# Fractions of frames and of stages that the paper's learned policies use: table 1, 8 frames, on
# FCVID, ActivityNet and Mini-Kinetics.
PAPERS_USAGES = ((0.71, 0.44), (0.83, 0.62), (0.86, 0.38))


@dataclass(frozen=True)
class Payoff:
    """Whether Ada3D can pay for a recognizer, told before any training.

    All in multiply-adds per clip. original: the recognizer as it is; selector: the selection
        network; least: the recognizer at one unit of frames and no stage; frames_ceiling,
        stages_ceiling, ceiling: the shares of ``original`` that dropping all frames but one unit,
        all stages, and both save; break_even_frames: the fewest frames to drop, all stages on, for
        the total to fall below ``original``, None if dropping all does not; break_even_stages: the
        same for stages (the dearest first), all frames kept; usages: (frames, stages, share of
        ``original`` that random policies of these fractions cost, selection network included), for
        the usages of the paper's learned policies.
    """

    original: int
    selector: int
    least: int
    frames_ceiling: float
    stages_ceiling: float
    ceiling: float
    break_even_frames: int | None
    break_even_stages: int | None
    num_frames: int
    num_stages: int
    usages: tuple[tuple[float, float, float], ...]

    @property
    def pays(self) -> bool:
        """Whether any policy costs less than the original, selection network included."""
        return self.least + self.selector < self.original

    @property
    def verdict(self) -> str:
        """The answer in words."""
        share = f"{100 * self.selector / self.original:.1f} % of the recognizer"
        lighter = "use a lighter one"
        if not self.pays:
            return (
                f"cannot pay with this selection network: it costs {share}, and dropping all that "
                f"can be dropped saves {100 * self.ceiling:.1f} %; {lighter} "
                f"(below {(self.original - self.least) / 1e9:.3g} GMACs)"
            )
        costs = [total for _, _, total in self.usages]
        spread = f"{min(costs):.2f} to {max(costs):.2f} of the original at the paper's usages"
        if min(costs) >= 1:
            return (
                f"cannot pay with this selection network but by extreme policies: it costs {share}, "
                f"so the total is {spread}; {lighter}. It pays {self._break_even()}"
            )
        if max(costs) >= 1:
            return f"hardly pays ({spread}); {lighter}. It pays {self._break_even()}"
        return f"pays {self._break_even()}"

    def _break_even(self) -> str:
        ways = []
        for what, ceiling, least, total in (
            ("frames", self.frames_ceiling, self.break_even_frames, self.num_frames),
            ("stages", self.stages_ceiling, self.break_even_stages, self.num_stages),
        ):
            if least is not None:
                ways.append(f"from {least} of {total} {what} dropped")
            elif ceiling > 0:
                ways.append(f"never by {what} alone (they save {100 * ceiling:.1f} % at most)")
            else:
                ways.append(f"never by {what} (none can be dropped)")
        return ", ".join(ways)


def payoff(table: PriceTable, selector: int) -> Payoff:
    """What can be saved at most, and from where on it is more than the ``selector``'s
    multiply-adds per clip."""
    plan, full, lengths = table.plan, table.full, table.complete().lengths
    on = [int(table.base[n] + table.stages[n].sum()) for n in lengths]
    none_on = [int(table.base[n]) for n in lengths]
    by_stages = list(itertools.accumulate(sorted(table.stages[-1].tolist(), reverse=True)))
    pays_from = [plan.num_frames - n for n, value in zip(lengths, on) if value + selector < full]
    stages_from = [k for k, saved in enumerate(by_stages, 1) if saved > selector]
    return Payoff(
        original=full,
        selector=selector,
        least=min(none_on),
        frames_ceiling=1 - min(on) / full,
        stages_ceiling=1 - none_on[-1] / full,
        ceiling=1 - min(none_on) / full,
        break_even_frames=min(pays_from, default=None),
        break_even_stages=min(stages_from, default=None),
        num_frames=plan.num_frames,
        num_stages=plan.num_stages,
        usages=tuple(
            (*usage, (table.expected(*usage) + selector) / full) for usage in PAPERS_USAGES
        ),
    )
