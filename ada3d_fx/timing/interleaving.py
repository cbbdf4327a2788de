"""Seconds of several runs that take turns, and of what the machine could do meanwhile."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence

import torch

from ..progress import Console
from .networks import Run

PRODUCT, SIDE = "float32 matrix product", 2048  # the machine's rate; square matrices of this side
PAUSE = 0.05  # seconds between rows of different backends, whose threads wait busily for a while


def interleaved(
    runs: Sequence[Run],
    repeats: int,
    device: torch.device,
    console: Console | None = None,
    learn: bool = False,
) -> dict[str, list[float]]:
    """Measure seconds of each run, all of them once in each round, after a round of warming up.

    A product of matrices takes its turn as well (`PRODUCT`): what the machine could do.

    Args:
        runs: the rows.
        repeats: rounds.
        device: where they run.
        console: where progress is shown.
        learn: the rows are steps of training, and need gradients.

    Returns:
        Row -> its seconds in each round.
    """
    left, right = torch.randn(2, SIDE, SIDE, device=device)
    calls: dict[str, Callable[[], object]] = {run.name: run.call for run in runs}
    calls[PRODUCT] = lambda: left @ right
    pause = PAUSE if {run.backend for run in runs} != {"torch"} else 0.0
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    bar = (console or Console()).bar("timing", (repeats + 1) * len(calls))
    with bar, torch.inference_mode(not learn):
        for round_ in range(repeats + 1):
            for name, call in calls.items():
                time.sleep(pause)
                synchronize(device)
                start = time.perf_counter()
                call()
                synchronize(device)
                if round_:
                    seconds[name].append(time.perf_counter() - start)
                bar.advance()
    return seconds


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def machine(device: torch.device) -> str:
    """Name the GPU, or the processor and its threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()} CPU, {torch.get_num_threads()} threads"
