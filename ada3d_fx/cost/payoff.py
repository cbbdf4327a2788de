"""Whether Ada3D can pay for a recognizer, told before any training."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from .price import PriceTable

# Fractions of frames and of stages that the paper's learned policies use: table 1, 8 frames, on
# FCVID, ActivityNet and Mini-Kinetics.
PAPERS_USAGES = ((0.71, 0.44), (0.83, 0.62), (0.86, 0.38))


@dataclass(frozen=True)
class Payoff:
    """Whether Ada3D can pay for a recognizer, told before any training."""

    original: int  # multiply-adds per clip of the recognizer as it is
    selector: int  # of the selection network
    least: int  # of the recognizer at one unit of frames and no stage
    frames_ceiling: float  # share of `original` that dropping all frames but one unit saves
    stages_ceiling: float  # share of `original` that turning all stages off saves
    ceiling: float  # share of `original` that both save
    # the fewest frames to drop, all stages on, for the total to fall below `original`; None if
    # dropping all does not
    break_even_frames: int | None
    break_even_stages: int | None  # the same for stages, the dearest first, all frames kept
    num_frames: int  # T
    num_stages: int  # K
    # for the usages of the paper's learned policies: fraction of frames, fraction of stages, and
    # the share of `original` that random policies of these cost, selection network included
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
        span = f"{min(costs):.2f} to {max(costs):.2f} of the original at the paper's usages"
        if min(costs) >= 1:
            return (
                f"cannot pay with this selection network but by extreme policies: it costs {share}, "
                f"so the total is {span}; {lighter}. It pays {self._break_even()}"
            )
        if max(costs) >= 1:
            return f"hardly pays ({span}); {lighter}. It pays {self._break_even()}"
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
    """Find what can be saved at most, and from where on it is more than the selection network.

    Args:
        table: the recognizer's prices; those not counted yet are counted.
        selector: multiply-adds per clip of the selection network.
    """
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
