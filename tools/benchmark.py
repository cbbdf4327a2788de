#!/usr/bin/env python
"""Time a recognizer dense and packed, in one interleaved run, and say what was saved in seconds.

    python tools/benchmark.py CONFIG [--clips 4] [--shape 3 8 224 224] [--budget 23/32:9/20] ...

CONFIG is an Ada3D config or a plain recognizer's. Weights are random: time does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import statistics
import sys
import time
from fractions import Fraction
from pathlib import Path

import torch
from mmengine.config import DictAction

import ada3d_fx.mm  # noqa: F401  registers what configs name
from ada3d_fx import Ada3DError, Policy, convert, price
from ada3d_fx.cli import user_errors
from ada3d_fx.convert import channels_last
from ada3d_fx.mm.build import build_recognizer
from ada3d_fx.mm.config import load_config, recognizer_config
from ada3d_fx.passes.model import scoring_model


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", help="Ada3D config, or a plain recognizer's")
    parser.add_argument("--clips", type=int, default=4, help="clips in a batch")
    parser.add_argument(
        "--shape",
        type=int,
        nargs=4,
        metavar=("C", "T", "H", "W"),
        help="default: the config's, at 224 x 224",
    )
    parser.add_argument(
        "--budget",
        action="append",
        metavar="FRAMES:STAGES",
        help="random policies that keep these fractions, such as 0.7:0.4 or 23/32:9/20; may be repeated",
    )
    parser.add_argument("--repeats", type=int, default=7, help="rounds; each times every row once")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's own)")
    parser.add_argument("--device", help="default: a GPU if there is one")
    parser.add_argument("--seed", type=int, default=0, help="of weights, clips and policies")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    parser.add_argument(
        "--cfg-options", nargs="+", action=DictAction, help="config entries, as key=value"
    )
    return parser.parse_args()


def parse_budget(text: str) -> tuple[float, float]:
    match = re.fullmatch(r"([\d./]+):([\d./]+)", text)
    try:
        frames, stages = (float(Fraction(part)) for part in match.groups()) if match else ()
    except (ValueError, ZeroDivisionError):
        raise Ada3DError(
            f"--budget {text}: expected FRAMES:STAGES, such as 0.7:0.4 or 23/32:9/20"
        ) from None
    return frames, stages


def budget_policy(plan, clips: int, frames: float, stages: float, generator) -> Policy:
    """Random policies whose totals over the batch are the budget's, to the nearest whole
    decision."""
    unit = plan.frame_unit or plan.num_frames
    kept = spread(round(frames * clips * plan.num_frames / unit), clips, plan.num_frames // unit, 1)
    on = spread(round(stages * clips * plan.num_stages), clips, plan.num_stages, 0)
    return Policy.random(
        plan,
        clips,
        frames=torch.tensor(kept, dtype=torch.float64) * unit / plan.num_frames,
        stages=torch.tensor(on, dtype=torch.float64) / max(plan.num_stages, 1),
        generator=generator,
    )


def spread(total: int, clips: int, most: int, least: int) -> list[int]:
    """``total`` decisions over the clips as evenly as can be."""
    return [min(max(total // clips + (i < total % clips), least), most) for i in range(clips)]


def interleaved(runs: dict, repeats: int, synchronize) -> dict[str, list[float]]:
    """Seconds of each run, all of them timed once in each round, after one round of warming up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    with torch.inference_mode():
        for round_ in range(repeats + 1):
            for name, run in runs.items():
                synchronize()
                start = time.perf_counter()
                run()
                synchronize()
                if round_:
                    seconds[name].append(time.perf_counter() - start)
    return seconds


def machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()} CPU, {torch.get_num_threads()} threads"


def measure(args: argparse.Namespace) -> dict:
    config = load_config(args.config, args.cfg_options)
    model = config.get("model") or {}
    inner = model.get("recognizer", model) if model.get("type") == "Ada3DRecognizer" else model
    shape = tuple(args.shape or (*tuple(model.get("clip_shape", (3, 8)))[:2], 224, 224))
    budgets = [parse_budget(text) for text in args.budget or ["0.7:0.4", "0.5:0.2"]]
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    torch.manual_seed(args.seed)
    recognizer = build_recognizer(recognizer_config(inner)).eval()
    adaptive = convert(recognizer, clip_shape=shape).to(device)
    plan, n = adaptive.plan, args.clips
    eager = scoring_model(recognizer).to(device)
    last = channels_last(adaptive.plain()).to(device)
    clips = torch.randn(n, *shape, device=device)
    clips_last = clips.contiguous(memory_format=torch.channels_last_3d)
    full = Policy.full(plan, n)
    policies = {"packed, full policy": full}
    if plan.num_stages:
        policies["packed, all stages 2D"] = Policy(full.frames, torch.zeros_like(full.stages))
    generator = torch.Generator().manual_seed(args.seed)
    for frames, stages in budgets:
        policy = budget_policy(plan, n, frames, stages, generator)
        kept, on = int(policy.num_frames.sum()), int(policy.num_stages.sum())
        name = (
            f"packed, {kept} of {n * plan.num_frames} frames, {on} of {n * plan.num_stages} stages"
        )
        policies[name] = policy
    runs = {
        "dense, eager": lambda: eager(clips),
        "dense, channels_last_3d": lambda: last(clips_last),
    }
    runs |= {name: lambda p=policy: adaptive(clips, p) for name, policy in policies.items()}
    with torch.inference_mode():
        difference = float((adaptive(clips) - eager(clips)).abs().max() / eager(clips).abs().max())
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    seconds = interleaved(runs, args.repeats, synchronize)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    total = int(price(adaptive, full).sum())
    macs = {name: int(price(adaptive, policy).sum()) / total for name, policy in policies.items()}
    return {
        "command": " ".join(["python tools/benchmark.py", *sys.argv[1:]]),
        "machine": machine(device),
        "torch": torch.__version__,
        "clips": n,
        "shape": shape,
        "seed": args.seed,
        "repeats": args.repeats,
        "relative_difference_of_full_policy": difference,
        "rows": [
            {
                "name": name,
                "seconds": median,
                "fastest": min(seconds[name]),
                "slowest": max(seconds[name]),
                "macs": macs.get(name, 1.0),
                "to_eager": median / medians["dense, eager"],
                "to_channels_last": median / medians["dense, channels_last_3d"],
            }
            for name, median in medians.items()
        ],
    }


def show(result: dict) -> str:
    width = max(len(row["name"]) for row in result["rows"])
    lines = [
        f"{result['clips']} clips of {' x '.join(map(str, result['shape']))}, {result['machine']}, torch "
        f"{result['torch']}, median of {result['repeats']} interleaved rounds",
        f"{'':<{width}}  MACs  seconds (min - max)      / eager  / channels_last",
    ]
    lines += [
        f"{r['name']:<{width}}  {r['macs']:.2f}  {r['seconds']:7.3f} ({r['fastest']:.3f} - {r['slowest']:.3f})"
        f"  {r['to_eager']:7.2f}  {r['to_channels_last']:7.2f}"
        for r in result["rows"]
    ]
    return "\n".join(lines)


@user_errors
def main() -> None:
    args = parse_args()
    if args.clips < 1 or args.repeats < 1:
        raise Ada3DError(f"--clips {args.clips} --repeats {args.repeats}: both must be at least 1")
    result = measure(args)
    print(show(result))
    if args.json:
        Path(args.json).parent.mkdir(parents=True, exist_ok=True)
        Path(args.json).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    sys.exit(main())
