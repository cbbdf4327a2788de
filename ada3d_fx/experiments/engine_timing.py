"""Seconds of exported files in an engine: dense, and under policies, in one interleaved run."""

from __future__ import annotations

import shlex
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from ..convert import AdaptiveNetwork, convert
from ..cost.price import price, price_table
from ..export import export
from ..learn.selector import SelectionNetwork
from ..mm.build import build_recognizer
from ..mm.config import recognizer_config
from ..policy import Policy
from ..progress import Console, quiet
from ..report import records
from ..runtime.session import Session
from .timing import interleaved, machine, timed_policies, timed_recognizer

SUFFIX = {"openvino": ".xml", "onnxruntime": ".onnx"}
DENSE = "dense, {engine}"
STATIC = "dense, {engine}, static shapes"
INT8 = ", int8"  # ends the rows of int8 files


def measure_engine(
    path: str,
    cfg_options: Sequence[str],
    clip_shape: tuple[int, int, int, int] | None,
    clips: int,
    usages: Sequence[tuple[float, float]],
    repeats: int,
    engine: str,
    threads: int | None,
    seed: int,
    json: str | None,
    console: Console,
    int8: bool = False,
) -> dict:
    """Time a config's recognizer in an engine, with random weights: time does not depend on them.

    The dense rows are the original network in the engine, without Ada3D. In the last row a selection
    network inside the file decides; its weights are random too, and its threshold is set so that its
    policies cost what the first of ``usages`` does.

    Args:
        path: an Ada3D config or a plain recognizer's.
        cfg_options: KEY=VALUE entries of it.
        clip_shape: (C, T, H, W); None: the config's C and T, at 224 x 224.
        clips: clips in a batch.
        usages: fractions of frames and stages; random policies of each are timed.
        repeats: rounds; each times every row once.
        engine: 'openvino' or 'onnxruntime'.
        threads: of the engine; None: torch's.
        seed: of weights, clips and policies.
        json: write the result to this file too.
        console: where progress is shown.
        int8: time the same quantised to eight bits too.

    Raises:
        Ada3DError: a recognizer that cannot be converted or exported, or an engine that is missing.
    """
    inner, shape = timed_recognizer(path, cfg_options, clip_shape)
    torch.manual_seed(seed)
    with quiet():
        recognizer = build_recognizer(recognizer_config(inner)).eval()
    adaptive = convert(recognizer, clip_shape=shape)
    batch = varied_clips(clips, shape, seed)
    policies = {
        name.replace("packed", "Session"): policy
        for name, policy in timed_policies(adaptive.plan, clips, usages, seed).items()
    }
    full = int(price(adaptive, Policy.full(adaptive.plan, clips)).sum())
    macs = {name: int(price(adaptive, policy).sum()) / full for name, policy in policies.items()}
    selector = opinionated(adaptive, seed)
    target = macs[list(policies)[2]] * full / clips if len(policies) > 2 else 0.6 * full / clips
    with torch.no_grad():
        distribution = selector(batch)
        threshold = price_table(adaptive).threshold(distribution, target, "count")
        chosen = distribution.mode(threshold, "count")
    threads = threads or torch.get_num_threads()
    name = (
        f"Session, selection network inside: {int(chosen.num_frames.sum())} frames, "
        f"{int(chosen.num_stages.sum())} stages"
    )
    runs: dict[str, Callable[[], object]] = {}
    with TemporaryDirectory() as folder:
        for ending in ("", INT8) if int8 else ("",):
            file = str(Path(folder, "{}" + ending + SUFFIX[engine]))
            console.say(f"exporting three files{ending}, and checking them")
            options: dict[str, Any] = {}
            if ending:  # labels of random weights are chance
                options = dict(int8=varied_clips(16, shape, seed + 2), agreement=0.0)
            stages = [True] * adaptive.plan.num_stages
            dense = (adaptive.plan.num_frames, stages)
            export(adaptive, file.format("dense"), fixed=dense, **options)
            export(adaptive, file.format("given"), **options)
            inside = export(
                adaptive, file.format("inside"), selector, greedy="count", threshold=threshold,
                **options,
            )  # fmt: skip
            made = _runs(file, engine, threads, batch, policies)
            session = Session(file.format("inside"), engine, threads)
            made[name] = lambda session=session: session(batch.numpy())
            runs |= {row + ending: run for row, run in made.items()}
        macs[name] = int(price(adaptive, chosen).sum() + clips * inside.selector_macs) / full
        seconds = interleaved(runs, repeats, torch.device("cpu"), console)
    result = {
        "command": shlex.join(["python", "tools/benchmark.py", *sys.argv[1:]]),
        "machine": machine(torch.device("cpu")),
        "versions": dict(inside.versions),
        "engine": engine,
        "threads": threads,
        "clips": clips,
        "shape": list(shape),
        "seed": seed,
        "repeats": repeats,
        "relative_difference": inside.parity["scores"],
        "rows": rows_of(seconds, macs),
    }
    if json:
        records.write_json(Path(json), result)
    return result


def _runs(
    file: str, engine: str, threads: int, batch: Tensor, policies: Mapping[str, Policy]
) -> dict[str, Callable[[], object]]:
    """What is timed, by the names of the rows."""
    clips = batch.numpy()
    dense, given = (Session(file.format(name), engine, threads) for name in ("dense", "given"))
    runs: dict[str, Callable[[], object]] = {DENSE.format(engine=engine): lambda: dense(clips)}
    if engine == "openvino":
        static = Session(file.format("dense"), engine, threads, clips=len(clips))
        runs[STATIC.format(engine=engine)] = lambda: static(clips)
    runs |= {name: lambda p=policy: given(clips, p) for name, policy in policies.items()}
    return runs


def varied_clips(n: int, shape: tuple[int, int, int, int], seed: int) -> Tensor:
    """Random clips [N, C, T, H, W] whose frames differ in brightness and contrast."""
    generator = torch.Generator().manual_seed(seed)
    contrast, brightness = torch.randn(2, n, shape[0], shape[1], 1, 1, generator=generator)
    return torch.randn(n, *shape, generator=generator) * contrast + brightness


def opinionated(adaptive: AdaptiveNetwork, seed: int) -> SelectionNetwork:
    """A selection network with random weights that decides otherwise for each clip, as trained ones."""
    selector = SelectionNetwork(adaptive.plan)
    generator = torch.Generator().manual_seed(seed)
    for layer in (selector.head.frame_out, selector.head.stage_out):
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=2.0, generator=generator)
            nn.init.zeros_(layer.bias)
    for module in selector.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # the statistics of what follows
    with torch.no_grad():
        selector.train()(varied_clips(16, adaptive.plan.clip_shape, seed + 1))
    return selector.eval()


def rows_of(seconds: Mapping[str, Sequence[float]], macs: Mapping[str, float]) -> list[dict]:
    """Return a row for each run: its median, and what of the theoretical saving is there.

    ``realised`` compares with the faster of the dense rows of the same precision; it is None where
    nothing is to be saved. ``to_float32`` compares an int8 row with the same one in float32.
    """
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    rows = []
    for name, median in medians.items():
        plain = name.removesuffix(INT8)
        of_kind = {n: m for n, m in medians.items() if n.endswith(INT8) == name.endswith(INT8)}
        dense = min(value for other, value in of_kind.items() if other.startswith("dense"))
        saving = 1 - macs.get(plain, 1.0)
        rows.append(
            {
                "name": name,
                "seconds": median,
                "fastest": min(seconds[name]),
                "slowest": max(seconds[name]),
                "macs": macs.get(plain, 1.0),
                "to_dense": median / dense,
                "realised": (1 - median / dense) / saving if saving > 0.01 else None,
                "to_float32": median / medians[plain] if name != plain else None,
            }
        )
    return rows


def text(result: Mapping) -> str:
    """Tell a result of `measure_engine` as a table."""
    width = max(len(row["name"]) for row in result["rows"])
    version = result["versions"].get(result["engine"], "")
    lines = [
        f"{result['clips']} clips of {' x '.join(map(str, result['shape']))}, {result['engine']} {version}, "
        f"{result['threads']} threads, median of {result['repeats']} interleaved rounds",
        f"{'':<{width}}  MACs  seconds (min - max)      / dense  of the saving"
        + ("  / float32" if any(row["to_float32"] for row in result["rows"]) else ""),
    ]
    for r in result["rows"]:
        realised = "" if r["realised"] is None else f"{r['realised']:.2f}"
        quantised = "" if r["to_float32"] is None else f"{r['to_float32']:.2f}"
        lines.append(
            f"{r['name']:<{width}}  {r['macs']:.2f}  {r['seconds']:7.3f} ({r['fastest']:.3f} - "
            f"{r['slowest']:.3f})  {r['to_dense']:7.2f}  {realised:>13}  {quantised:>9}".rstrip()
        )
    return "\n".join(lines)
