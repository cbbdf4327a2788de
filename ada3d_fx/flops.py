"""What a policy costs: multiply-adds per clip, counted by fvcore.

One multiply-add counts 1. A price is additive in the stage decisions for a given number of kept
frames, so one count by module per number of frames holds the price of every stage combination.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from typing import NamedTuple

import torch
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from .convert import AdaptiveNetwork, specialize
from .policy import Policy
from .trace import dtype_of


class Prices(NamedTuple):
    """Multiply-adds of a clip with a given number of frames: ``base`` with all stages 2D,
    ``stages[k]`` more if k is on."""

    base: int
    stages: tuple[int, ...]


def price(adaptive: AdaptiveNetwork, policy: Policy) -> Tensor:
    """int64 [N], on the CPU: multiply-adds of each clip under its policy; the recognizer's alone.

    Equals fvcore's total for the network that ``specialize`` makes of the policy, at the plan's
    clip size. Counts are made when a number of frames is first asked for (one fvcore trace each)
    and kept.
    """
    adaptive._check_policy(policy, len(policy))
    rows = [price_of_length(adaptive, length) for length in policy.num_frames.tolist()]
    base = torch.tensor([row.base for row in rows], dtype=torch.int64)
    stages = torch.tensor([row.stages for row in rows], dtype=torch.int64).view(len(policy), -1)
    return base + (stages * policy.stages.cpu()).sum(1)


def price_of_length(adaptive: AdaptiveNetwork, num_frames: int) -> Prices:
    """The prices of a clip of ``num_frames`` kept frames."""
    table: dict[int, Prices] = adaptive.__dict__.setdefault("price_table", {})
    if num_frames not in table:
        table[num_frames] = _count_length(adaptive, num_frames)
    return table[num_frames]


def _count_length(adaptive: AdaptiveNetwork, num_frames: int) -> Prices:
    channels, _, height, width = adaptive.plan.clip_shape
    static = specialize(adaptive, num_frames, [True] * adaptive.plan.num_stages)
    by_module = count_by_module(static, (1, channels, num_frames, height, width))
    side_taps = []
    for stage in adaptive.plan.stages:
        taps = [
            (by_module[site], static.get_submodule(site).kernel_size[0]) for site in stage.sites
        ]
        side_taps.append(sum(count - count // kernel for count, kernel in taps))
    return Prices(by_module[""] - sum(side_taps), tuple(side_taps))


def stage_ceiling(adaptive: AdaptiveNetwork) -> float:
    """The share of the full policy's multiply-adds that turning all stages off saves.

    Counted by torch.utils.flop_counter on the meta device: shapes only, no arithmetic.
    """
    counts = []
    for on in (True, False):
        stages = [on] * adaptive.plan.num_stages
        static = specialize(adaptive, adaptive.plan.num_frames, stages).to("meta")
        clip = torch.empty(1, *adaptive.plan.clip_shape, device="meta", dtype=dtype_of(static))
        with torch.no_grad(), torch.device("meta"), FlopCounterMode(display=False) as counter:
            static.eval()(clip)
        counts.append(counter.get_total_flops())
    return 1 - counts[1] / counts[0]


def count_by_module(module: nn.Module, input_shape: tuple[int, ...]) -> Counter[str]:
    """fvcore's multiply-adds of ``module`` by module path ('' is the total), for one input of
    zeros."""
    training = [m for m in module.modules() if m.training]
    tensor = next((t for t in module.parameters()), torch.zeros(()))
    module.eval()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # torch.jit.trace warns of every Python branch on a shape
            analysis = FlopCountAnalysis(module, tensor.new_zeros(input_shape))
            analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
            analysis.tracer_warnings("none")
            logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
            return Counter({path: int(count) for path, count in analysis.by_module().items()})
    finally:
        for m in training:
            m.training = True
