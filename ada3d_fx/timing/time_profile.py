"""Where the rows in torch spend their time, by kind of operation."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from ..packed.time_forms import FORMS
from .dense_peers import CHANNELS_LAST, EAGER
from .networks import SELECTING, Run

# Kind -> what the names of its operations hold, the first that fits; 'aten::' and the like are gone.
KINDS = {
    "convolution": r"conv",
    "pooling": r"pool",
    "joining and copying": r"^(cat|copy|clone|contiguous|_to_copy|to$|stack|index|gather|pad|constant_pad|fill|zero|"
    r"empty|narrow|split|slice|select|view|reshape|as_strided|permute|transpose|squeeze|unsqueeze|expand|resize|"
    r"flatten|unflatten|chunk|repeat|detach|alias|set_|lift)",
    "batch_norm": r"batch_norm",
    "relu": r"relu|clamp|hardtanh",
    "add": r"^(add|sub)_?$",
    "other elementwise": r"^(mul|div|sigmoid|tanh|silu|hardswish|gelu|exp|log|sqrt|rsqrt|where|gt|lt|ge|le|eq|ne)_?$",
}
CALLS = {  # what their names are, with what is in front
    "convolutions": r"(aten::convolution|aten::cudnn_convolution(_add)?_relu|mkldnn::_convolution_pointwise_?)$",
    "launches": r"cu(da)?LaunchKernel",
}
SELECTION, OTHER = "selection network", "other"


def time_profile(runs: Sequence[Run], usages: Sequence[str], device: torch.device) -> list[dict]:
    """Profile a run each of the recognizer as it is, channels_last_3d, and ours, in float32.

    Args:
        runs: those in torch, warmed up.
        usages: the names of policies that keep fractions; the first one is profiled, in every form
            that has a row, and the row whose policies cost the same and are chosen by the selection
            network.
        device: where they run.

    Returns:
        For each row its 'name', 'seconds' of all operations, and 'kinds': kind -> seconds, of the
        processor or, on a GPU, of the GPU. The profiler itself takes time, so shares count. Further
        its 'convolutions', how often one is called, and 'launches' of kernels; 0 on the CPU.
    """
    ours = [f"packed, {name}" for name in usages[:1]]
    wanted = [EAGER, CHANNELS_LAST, *ours, *(f"{name}, {form}" for name in ours for form in FORMS)]
    chosen = [
        run
        for run in runs
        if run.name in wanted or (f"packed, {SELECTION}" in run.name and run.precision == "float32")
    ]
    return [{"name": run.name, **_profiled(run, device)} for run in chosen]


def _profiled(run: Run, device: torch.device) -> dict[str, Any]:
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with _silent(), torch.inference_mode(), profile(activities=activities) as profiler:
        run.call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    events = [e for e in profiler.events() or [] if e.device_type == DeviceType.CPU]
    kinds = by_kind(events, "device" if device.type == "cuda" else "cpu")
    return {"seconds": sum(kinds.values()), "kinds": kinds, **calls(events)}


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Mute what the profiler's native code writes to the console: that it starts and stops."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def by_kind(events: Sequence[Any], where: str) -> dict[str, float]:
    """Sum up the seconds that a profile's events spent themselves, the longest kind first.

    Args:
        events: of `torch.autograd.profiler`; what is within one named `SELECTING` is the selection
            network's, whatever it is.
        where: 'cpu' or 'device'.
    """
    found: dict[str, float] = {}
    for event in events:
        spent = getattr(event, f"self_{where}_time_total") / 1e6
        kind = SELECTION if _selects(event) else kind_of(event.name)
        found[kind] = found.get(kind, 0.0) + spent
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def calls(events: Sequence[Any]) -> dict[str, int]:
    """Count the calls of 'convolutions' and the 'launches' of kernels among a profile's events."""
    names = [event.name for event in events]
    return {name: sum(bool(re.match(CALLS[name], one)) for one in names) for name in CALLS}


def kind_of(name: str) -> str:
    """Tell the kind of an operation, such as 'convolution' of 'aten::conv3d'."""
    word = name.rpartition("::")[2]
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, word)), OTHER)


def _selects(event: Any) -> bool:
    while event is not None:
        if event.name == SELECTING:
            return True
        event = event.cpu_parent
    return False


def text(profiles: Sequence[Mapping]) -> str:
    """Tell the kinds of each row as percents of its time."""
    lines = ["where the time goes, in percent of the operations' own (profiled, once each):"]
    for row in profiles:
        shares = ", ".join(
            f"{kind} {100 * spent / row['seconds']:.0f}"
            for kind, spent in row["kinds"].items()
            if spent > 0.005 * row["seconds"]
        )
        counted = [f"{row[name]} {name}" for name in CALLS if row[name]]
        told = ", ".join([f"{row['seconds']:.3f} s", *counted])
        lines.append(f"  {row['name']} ({told}): {shares}")
    return "\n".join(lines)
