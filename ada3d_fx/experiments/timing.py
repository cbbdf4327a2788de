"""Seconds of a recognizer, dense and packed, in one interleaved run."""

from __future__ import annotations

import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from ..convert import channels_last, convert
from ..cost.price import price
from ..errors import Ada3DError
from ..mm.build import build_recognizer
from ..mm.config import load_config, recognizer_config
from ..passes.model import scoring_model
from ..plan import StagePlan
from ..policy import Policy
from ..progress import Console, quiet
from ..report import records

DEFAULT_USAGES = ((0.7, 0.4), (0.5, 0.2))
EAGER, CHANNELS_LAST = "dense, eager", "dense, channels_last_3d"


def measure(
    path: str,
    cfg_options: Sequence[str] = (),
    clip_shape: tuple[int, int, int, int] | None = None,
    clips: int = 4,
    usages: Sequence[tuple[float, float]] = DEFAULT_USAGES,
    repeats: int = 7,
    device: str | None = None,
    seed: int = 0,
    json: str | None = None,
    console: Console | None = None,
) -> dict:
    """Time a config's recognizer with random weights: time does not depend on them.

    Args:
        path: an Ada3D config or a plain recognizer's.
        cfg_options: KEY=VALUE entries of it.
        clip_shape: (C, T, H, W); None: the config's C and T, at 224 x 224.
        clips: clips in a batch.
        usages: fractions of frames and stages; random policies of each are timed.
        repeats: rounds; each times every row once.
        device: a torch device; None: a GPU if there is one.
        seed: of weights, clips and policies.
        json: write the result to this file too.
        console: where progress is shown.

    Raises:
        Ada3DError: no clips or no rounds, no such device, or a recognizer that cannot be converted.
    """
    if clips < 1 or repeats < 1:
        raise Ada3DError(f"--clips {clips} --repeats {repeats}: both must be at least 1")
    inner, shape = timed_recognizer(path, cfg_options, clip_shape)
    on = usable_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    torch.manual_seed(seed)
    with quiet():
        recognizer = build_recognizer(recognizer_config(inner)).eval()
    adaptive = convert(recognizer, clip_shape=shape).to(on)
    policies = timed_policies(adaptive.plan, clips, usages, seed)
    eager = scoring_model(recognizer).to(on)
    last = channels_last(adaptive.plain()).to(on)
    batch = torch.randn(clips, *shape, device=on)
    batch_last = batch.contiguous(memory_format=torch.channels_last_3d)
    runs: dict[str, Callable[[], object]] = {
        EAGER: lambda: eager(batch),
        CHANNELS_LAST: lambda: last(batch_last),
    }
    runs |= {name: lambda p=policy: adaptive(batch, p) for name, policy in policies.items()}
    with torch.inference_mode():
        scores = eager(batch)
        difference = float((adaptive(batch) - scores).abs().max() / scores.abs().max())
    seconds = interleaved(runs, repeats, on, console)
    full = int(price(adaptive, Policy.full(adaptive.plan, clips)).sum())
    macs = {name: int(price(adaptive, policy).sum()) / full for name, policy in policies.items()}
    result = {
        "command": shlex.join(["python", "tools/benchmark.py", *sys.argv[1:]]),
        "machine": machine(on),
        "torch": torch.__version__,
        "clips": clips,
        "shape": list(shape),
        "seed": seed,
        "repeats": repeats,
        "relative_difference_of_full_policy": difference,
        "rows": rows_of(seconds, macs),
    }
    if json:
        records.write_json(Path(json), result)
    return result


def timed_recognizer(
    path: str, cfg_options: Sequence[str], clip_shape: tuple[int, int, int, int] | None
) -> tuple[Mapping, tuple[int, int, int, int]]:
    """Return the plain recognizer's model config, and the shape of the clips to time it with."""
    model = load_config(path, cfg_options).get("model") or {}
    inner = model.get("recognizer", model) if model.get("type") == "Ada3DRecognizer" else model
    return inner, clip_shape or (*tuple(model.get("clip_shape", (3, 8)))[:2], 224, 224)


def usable_device(name: str) -> torch.device:
    """Return a device on which something can be computed.

    Raises:
        Ada3DError: there is none of this name, or torch cannot use it.
    """
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise Ada3DError(f"--device {name}: {str(error).partition(chr(10))[0]}") from error


def timed_policies(
    plan: StagePlan, clips: int, usages: Sequence[tuple[float, float]], seed: int
) -> dict[str, Policy]:
    """Make the policies that are timed, by the names of their rows."""
    full = Policy.full(plan, clips)
    policies = {"packed, full policy": full}
    if plan.num_stages:
        policies["packed, all stages 2D"] = Policy(full.frames, torch.zeros_like(full.stages))
    generator = torch.Generator().manual_seed(seed)
    for frames, stages in usages:
        policy = usage_policy(plan, clips, frames, stages, generator)
        kept, on = int(policy.num_frames.sum()), int(policy.num_stages.sum())
        total = f"{clips * plan.num_frames} frames, {on} of {clips * plan.num_stages} stages"
        policies[f"packed, {kept} of {total}"] = policy
    return policies


def usage_policy(
    plan: StagePlan, clips: int, frames: float, stages: float, generator: torch.Generator
) -> Policy:
    """Make random policies whose totals over the batch are these fractions.

    The totals are exact to the nearest whole decision, not only on average.
    """
    unit = plan.frame_unit or plan.num_frames
    units = round(frames * clips * plan.num_frames / unit)
    kept = distribute(units, clips, plan.num_frames // unit, 1)
    on = distribute(round(stages * clips * plan.num_stages), clips, plan.num_stages, 0)
    return Policy.random(
        plan,
        clips,
        frames=torch.tensor(kept, dtype=torch.float64) * unit / plan.num_frames,
        stages=torch.tensor(on, dtype=torch.float64) / max(plan.num_stages, 1),
        generator=generator,
    )


def distribute(total: int, clips: int, most: int, least: int) -> list[int]:
    """Distribute ``total`` decisions over the clips as evenly as can be."""
    return [min(max(total // clips + (i < total % clips), least), most) for i in range(clips)]


def interleaved(
    runs: Mapping[str, Callable[[], object]], repeats: int, device: torch.device,
    console: Console | None = None,
) -> dict[str, list[float]]:  # fmt: skip
    """Measure seconds of each run, all of them once in each round, after a round of warming up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    bar = (console or Console()).bar("timing", (repeats + 1) * len(runs))
    with bar, torch.inference_mode():
        for round_ in range(repeats + 1):
            for name, run in runs.items():
                synchronize(device)
                start = time.perf_counter()
                run()
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


def rows_of(seconds: Mapping[str, Sequence[float]], macs: Mapping[str, float]) -> list[dict]:
    """Return a row for each run: its median, and how it stands to both dense runs."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return [
        {
            "name": name,
            "seconds": median,
            "fastest": min(seconds[name]),
            "slowest": max(seconds[name]),
            "macs": macs.get(name, 1.0),
            "to_eager": median / medians[EAGER],
            "to_channels_last": median / medians[CHANNELS_LAST],
        }
        for name, median in medians.items()
    ]


def text(result: Mapping) -> str:
    """Tell a result of `measure` as a table."""
    width = max(len(row["name"]) for row in result["rows"])
    lines = [
        f"{result['clips']} clips of {' x '.join(map(str, result['shape']))}, {result['machine']}, "
        f"torch {result['torch']}, median of {result['repeats']} interleaved rounds",
        f"{'':<{width}}  MACs  seconds (min - max)      / eager  / channels_last",
    ]
    lines += [
        f"{r['name']:<{width}}  {r['macs']:.2f}  {r['seconds']:7.3f} ({r['fastest']:.3f} - "
        f"{r['slowest']:.3f})  {r['to_eager']:7.2f}  {r['to_channels_last']:7.2f}"
        for r in result["rows"]
    ]
    return "\n".join(lines)
