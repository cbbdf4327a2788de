"""How long prices take here, and how long tracing each policy would take."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from ..cost.count import count
from ..policy import Policy
from ..specialize import specialize
from ..tracing.shadow import dtype_of
from .price_report import PriceReport


def price_seconds(report: PriceReport) -> dict[str, float]:
    """Measure seconds of conversion, price table, traces and look-ups, by name."""
    adaptive, plan = report.adaptive, report.plan
    generator = torch.Generator().manual_seed(0)
    batch = Policy.random(plan, 64, 0.7, 0.4, generator)
    static = specialize(adaptive, plan.num_frames, [True] * plan.num_stages)
    clip = torch.zeros(1, *plan.clip_shape, dtype=dtype_of(static))

    def look_up(policy: Policy) -> Callable[[], object]:
        return lambda: report.table.look_up(policy.num_frames, policy.stages)

    def fvcore() -> int:
        from fvcore.nn import FlopCountAnalysis

        with torch.no_grad():
            counter = FlopCountAnalysis(static, clip).unsupported_ops_warnings(False)
            return counter.uncalled_modules_warnings(False).tracer_warnings("none").total()

    fvcore()
    return {
        "conversion": report.seconds["conversion"],
        f"price table ({len(report.table.lengths)} lengths)": report.seconds["price table"],
        "one trace without arithmetic": median_seconds(lambda: count(static, (clip,)), 3),
        "one trace by fvcore alone": median_seconds(fvcore, 3),
        "look-up, one clip": median_seconds(look_up(batch[0]), 1000),
        "look-up, 64 clips": median_seconds(look_up(batch), 1000),
    }


def median_seconds(call: Callable[[], object], repeats: int) -> float:
    """Time a call so many times and return the median."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
