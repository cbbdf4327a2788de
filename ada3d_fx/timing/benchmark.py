"""Seconds of a recognizer, dense and adaptive, in every backend that is asked for, in one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from ..errors import Ada3DError
from ..progress import Console
from ..provenance.command import command_line, versions
from ..report import figures, records
from . import statistics
from .dense_peers import DensePeers
from .engines import SUFFIX, EngineFiles
from .interleaving import PRODUCT, SIDE, interleaved, machine
from .networks import (
    Batch,
    Networks,
    Request,
    Run,
    full_price,
    make_batch,
    make_networks,
    usable_device,
)
from .peak_memory import measured_rows, peak_memory
from .picture import draw_result
from .policies import FULL
from .time_profile import time_profile
from .torch_rows import torch_runs
from .training import MEASURED, TrainingSteps, training_table

BACKENDS = ("torch", *SUFFIX)


def measure(
    request: Request,
    json: str | None = None,
    picture: str | None = None,
    console: Console | None = None,
) -> dict:
    """Time a config's recognizer with random weights: time does not depend on them.

    Rows of all backends take turns in one run, for each number of clips. In the rows with a selection
    network inside, its threshold is set so that its policies cost what the first usage does.

    Args:
        request: what is timed.
        json: write the result to this file too.
        picture: draw it to this file too.
        console: where progress is shown.

    Raises:
        Ada3DError: no such backend or device, a recognizer that cannot be converted or exported, or
            an engine that is missing.
    """
    console = console or Console()
    if picture:
        figures.picture_kind(picture)
    device = check(request)
    if request.threads:
        torch.set_num_threads(request.threads)
    with TemporaryDirectory() as folder:
        benchmark = Benchmark(request, device, folder, console)
        tables = [benchmark.table(clips) for clips in request.clips]
        result = {**benchmark.about(), "tables": tables}
    if json:
        records.write_json(Path(json), result)
    if picture:
        draw_result(result, picture)
    return result


def check(request: Request) -> torch.device:
    """Check that a request can be served, and return torch's device.

    Raises:
        Ada3DError: no clips or no rounds, an unknown backend, options that exclude each other, or no
            such device.
    """
    if min(request.clips, default=0) < 1 or request.repeats < 1:
        told = ",".join(map(str, request.clips))
        raise Ada3DError(f"--clips {told} --repeats {request.repeats}: both must be at least 1")
    told = f"--engine {','.join(request.engines)}"
    for engine in request.engines or [""]:
        if engine not in BACKENDS:
            raise Ada3DError(f"{told}: {engine!r}; there are {', '.join(BACKENDS)}")
    if len(set(request.engines)) < len(request.engines):
        raise Ada3DError(f"{told}: one is named twice")
    exported = [name for name in request.engines if name in SUFFIX]
    if request.int8 and not exported:
        raise Ada3DError(f"--int8 is of exported files; add --engine {' or '.join(SUFFIX)}")
    for option in ("compiled", "memory", "profile", "forms", "amp"):
        if getattr(request, option) and "torch" not in request.engines:
            raise Ada3DError(f"{_flag(option)} is of torch; try {told},torch")
    if request.training and list(request.engines) != ["torch"]:
        raise Ada3DError(f"{told} --training: only torch trains; leave --engine out")
    for option in ("int8", "compiled", "profile", "policy", "forms", "amp"):
        if request.training and getattr(request, option):
            raise Ada3DError(f"{_flag(option)} is of inference; leave it out, or --training")
    if request.phase is not None and not request.training:
        raise Ada3DError(f"--phase {request.phase} is of steps of training; add --training")
    if request.policy:
        records.parse_policy(request.policy, ("file",))
        records.read_clips(request.policy)
    gpu = torch.cuda.is_available() and not exported
    device = usable_device(request.device or ("cuda" if gpu else "cpu"))
    if exported and device.type != "cpu":
        raise Ada3DError(f"{told} --device {device}: {' and '.join(exported)} run on the CPU here")
    return device


def _flag(option: str) -> str:
    """The option of the command line for a field of `Request`."""
    return "--compile" if option == "compiled" else f"--{option}"


class Benchmark:
    """What is timed, made once, and a table of it for each number of clips.

    Args:
        request: what is timed.
        device: torch's.
        folder: for exported files.
        console: where progress is shown.

    Raises:
        Ada3DError: a recognizer that cannot be converted or exported, or an engine that is missing.
    """

    def __init__(self, request: Request, device: torch.device, folder: str, console: Console):
        self.request, self.device, self.console = request, device, console
        self.threads = request.threads or torch.get_num_threads()
        self.networks = make_networks(request, device)
        self.peers: DensePeers | None = None
        if "torch" in request.engines and not request.training:
            self.peers = DensePeers(self.networks, request.compiled, request.eager_only)
        self.files = [
            EngineFiles(self.networks, engine, folder, self.threads, request.seed, int8, console)
            for engine in request.engines
            if engine in SUFFIX
            for int8 in ((False, True) if request.int8 else (False,))
        ]

    def table(self, clips: int) -> dict:
        """Time a batch of so many clips, with what else is asked for."""
        request, networks = self.request, self.networks
        if request.training:
            return self._training_table(clips)
        batch = make_batch(networks, clips, request)
        runs = self.runs(batch)
        seconds = interleaved(runs, request.repeats, self.device, self.console)
        table = {"clips": clips, **table_of(runs, seconds)}
        if self.peers is not None:
            table["relative_difference_of_full_policy"] = difference(networks, batch)
        if request.memory:
            names = measured_rows(batch.policies, batch.usages)
            taken = peak_memory(request, clips, names, self.device, self.console)
            table["rows"] = [{**r, "peak_mib": taken.get(r["name"])} for r in table["rows"]]
        if request.profile:
            table["profile"] = time_profile(runs, batch.usages, self.device)
        return table

    def _training_table(self, clips: int) -> dict:
        """Time the steps of training on a batch of so many clips."""
        request, device, console = self.request, self.device, self.console
        runs = TrainingSteps(self.networks, clips, request).runs()
        seconds = interleaved(runs, request.repeats, device, console, learn=True)
        rows = training_table(
            runs, seconds, clips * request.samples * full_price(self.networks.adaptive)
        )
        if request.memory:
            names = [run.name for run in runs if run.name in MEASURED]
            taken = peak_memory(request, clips, names, device, console)
            rows = [{**row, "peak_mib": taken.get(row["name"])} for row in rows]
        return {"clips": clips, "samples": request.samples, "training": rows}

    def runs(self, batch: Batch) -> list[Run]:
        """Return the rows of all backends."""
        runs = list[Run]()
        if self.peers is not None:
            runs += torch_runs(self.peers, self.networks, batch, self.request)
        for files in self.files:
            runs += files.runs(batch)
        return runs

    def about(self) -> dict:
        """Return what a result was made with."""
        request, files = self.request, self.files
        engines = {name: version for one in files for name, version in one.versions.items()}
        return {
            "command": command_line(),
            "config": str(request.config),
            "versions": {**engines, **versions()},
            "machine": machine(self.device),
            "engines": list(request.engines),
            "threads": self.threads,
            "clips": list(request.clips),
            "shape": list(self.networks.shape),
            "seed": request.seed,
            "repeats": request.repeats,
            "relative_difference": {f.engine: f.difference for f in files if not f.int8},
            "left_out": self.networks.left_out,
        }


def table_of(runs: Sequence[Run], seconds: Mapping[str, Sequence[float]]) -> dict:
    """Return a row for each run, the best dense peer of each precision, and the machine's rate."""
    told = statistics.medians_with_intervals(seconds)
    dense = next(run.macs for run in runs if run.dense)
    rate = SIDE**3 / told[PRODUCT][0] / 1e9
    peers: dict[str, list[str]] = {}
    for run in runs:
        if run.dense:
            peers.setdefault(run.precision, []).append(run.name)
    rows = []
    for run in runs:
        median, ends = told[run.name]
        macs, speed = run.macs / dense, run.macs / median / 1e9
        plain = run.name.removesuffix(f", {run.precision}")
        row = {
            "name": run.name,
            "backend": run.backend,
            "precision": run.precision,
            "dense": run.dense,
            "part": run.part,
            "macs": macs,
            "multiply_adds": run.macs,
            "seconds": median,
            "interval": ends,
            "fastest": min(seconds[run.name]),
            "slowest": max(seconds[run.name]),
            "gmacs_per_second": speed,
            "share_of_matrix_product": speed / rate,
            "against": statistics.against(
                seconds, run.name, () if run.part else peers[run.precision], macs
            ),
            "to_float32": median / told[plain][0] if plain in told and plain != run.name else None,
            "rounds": list(seconds[run.name]),
        }
        rows.append(row)
    product = {"side": SIDE, "seconds": told[PRODUCT][0], "gmacs_per_second": rate}
    return {
        "best_peer": {kind: statistics.fastest(seconds, names) for kind, names in peers.items()},
        "matrix_product": {**product, "rounds": list(seconds[PRODUCT])},
        "rows": rows,
    }


def difference(networks: Networks, batch: Batch) -> float:
    """Return how far scores of the full policy are from the recognizer's, relative to the largest."""
    with torch.inference_mode():
        scores = networks.recognizer(batch.clips)
        ours = networks.adaptive(batch.clips, batch.policies[FULL])
    return float((ours - scores).abs().max() / scores.abs().max())
