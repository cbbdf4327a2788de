"""Seconds of exported files in an engine: dense, and under policies, in one interleaved run."""

from __future__ import annotations

import shlex
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from ..convert import AdaptiveNetwork, convert
from ..cost.price import price, price_table
from ..export import export
from ..learn.selector import SelectionNetwork
from ..mm.build import build_recognizer
from ..mm.config import load_config, recognizer_config
from ..policy import Policy
from ..progress import Console, quiet
from ..report import records
from ..runtime.session import Session
from .timing import interleaved, machine, timed_policies

SUFFIX = {"openvino": ".xml", "onnxruntime": ".onnx"}
DENSE = "dense, {engine}"
STATIC = "dense, {engine}, static shapes"


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

    Raises:
        Ada3DError: a recognizer that cannot be converted or exported, or an engine that is missing.
    """
    model = load_config(path, cfg_options).get("model") or {}
    inner = model.get("recognizer", model) if model.get("type") == "Ada3DRecognizer" else model
    shape = clip_shape or (*tuple(model.get("clip_shape", (3, 8)))[:2], 224, 224)
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
    with TemporaryDirectory() as folder:
        file = str(Path(folder, "{}" + SUFFIX[engine]))
        console.say("exporting three files, and checking them")
        stages = [True] * adaptive.plan.num_stages
        export(adaptive, file.format("dense"), fixed=(adaptive.plan.num_frames, stages))
        export(adaptive, file.format("given"))
        inside = export(
            adaptive, file.format("inside"), selector, greedy="count", threshold=threshold
        )
        runs = _runs(file, engine, threads, batch, policies)
        name = (
            f"Session, selection network inside: {int(chosen.num_frames.sum())} frames, "
            f"{int(chosen.num_stages.sum())} stages"
        )
        session = Session(file.format("inside"), engine, threads)
        runs[name] = lambda: session(batch.numpy())
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

    ``realised`` compares with the faster of the dense rows; it is None where nothing is to be saved.
    """
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    dense = min(value for name, value in medians.items() if name.startswith("dense"))
    rows = []
    for name, median in medians.items():
        saving = 1 - macs.get(name, 1.0)
        rows.append(
            {
                "name": name,
                "seconds": median,
                "fastest": min(seconds[name]),
                "slowest": max(seconds[name]),
                "macs": macs.get(name, 1.0),
                "to_dense": median / dense,
                "realised": (1 - median / dense) / saving if saving > 0.01 else None,
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
        f"{'':<{width}}  MACs  seconds (min - max)      / dense  of the saving",
    ]
    for r in result["rows"]:
        realised = "" if r["realised"] is None else f"{r['realised']:.2f}"
        lines.append(
            f"{r['name']:<{width}}  {r['macs']:.2f}  {r['seconds']:7.3f} ({r['fastest']:.3f} - "
            f"{r['slowest']:.3f})  {r['to_dense']:7.2f}  {realised}"
        )
    return "\n".join(lines)
