"""Peak memory of the rows in torch, each in a process of its own.

A process is started for each row, since memory that one row made the allocator take stays taken.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import resource
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from ..errors import Ada3DError
from ..progress import Console
from .dense_peers import CHANNELS_LAST, EAGER, DensePeers
from .networks import (
    Networks,
    Request,
    Run,
    make_batch,
    make_networks,
    packed_runs,
    usable_device,
)
from .policies import FULL
from .training import TrainingSteps

MIB = 2**20
PACKED = "packed, {}"


def peak_memory(
    request: Request, clips: int, names: Sequence[str], device: torch.device, console: Console
) -> dict[str, float]:
    """Measure what each row takes at its peak, beyond the network and the clips.

    Args:
        request: what is timed.
        clips: in a batch.
        names: the rows.
        device: where they run.
        console: where progress is shown.

    Returns:
        Row -> MiB.

    Raises:
        Ada3DError: a process that ended without an answer, as for want of memory.
    """
    found = {}
    with console.bar("measuring memory", len(names)) as bar:
        for name in names:
            found[name] = _in_its_own_process(request, clips, name, device)
            bar.advance()
    return found


def measured_rows(policies: Sequence[str], usages: Sequence[str]) -> list[str]:
    """Return the names of the rows whose memory is measured, of a batch's policies."""
    ours = [name for name in policies if name == FULL or name in usages]
    return [EAGER, CHANNELS_LAST, *(PACKED.format(name) for name in ours)]


def _in_its_own_process(request: Request, clips: int, name: str, device: torch.device) -> float:
    asked = {**asdict(request), "clips": [clips], "device": str(device)}
    asked["threads"] = request.threads or torch.get_num_threads()
    here = str(Path(__file__).parents[2])
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-m", __name__],
        input=json.dumps({"request": asked, "row": name}), capture_output=True, encoding="utf-8",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )  # fmt: skip
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        said = (done.stderr.strip().splitlines() or ["nothing said"])[-1]
        raise Ada3DError(
            f"--memory: the process of '{name}' ended with status {done.returncode}: {said[:300]}; "
            "does the memory suffice? Try fewer --clips"
        )
    return float(json.loads(lines[-1])["mib"])


# ---------------------------------------------------------------------------- in the process


def main() -> None:
    """Measure the row that standard input asks for, and print its MiB."""
    asked = json.load(sys.stdin)
    request = Request(**asked["request"])
    if request.clip_shape:
        request = replace(request, clip_shape=tuple(request.clip_shape))
    torch.set_num_threads(request.threads or torch.get_num_threads())
    device = usable_device(str(request.device))
    print(json.dumps({"mib": peak_of(request, asked["row"], device)}))


def peak_of(request: Request, name: str, device: torch.device) -> float:
    """Run a row once, and return by how many MiB it raised this process's peak."""
    run = _run(make_networks(request, device, selects=request.training), name, request)
    before = _begin(device)
    with torch.inference_mode(not request.training):
        run.call()
    return (_peak(device) - before) / MIB


def _run(networks: Networks, name: str, request: Request) -> Run:
    if request.training:
        steps = TrainingSteps(networks, request.clips[0], request).runs()
        return next(step for step in steps if step.name == name)
    batch = make_batch(networks, request.clips[0], request)
    runs = DensePeers(networks).runs(batch.clips) if name.startswith("dense") else []
    (run,) = [one for one in [*runs, *packed_runs(networks, batch)] if one.name == name]
    return run


def _begin(device: torch.device) -> int:
    """Let go of what is free and forget the peak until now; return the bytes that are held."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    with contextlib.suppress(OSError, AttributeError):  # glibc keeps what was freed
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):  # Linux: the peak is what is held now
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _resident() or _peak(device)


def _resident() -> int | None:
    """The bytes of this process in memory now, where the system tells them."""
    return _status("VmRSS")


def _peak(device: torch.device) -> int:
    """The most bytes that were held at once."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return _status("VmHWM") or most  # Linux's ru_maxrss begins at that of the parent


def _status(key: str) -> int | None:
    """A number of Linux's /proc/self/status, in bytes."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return None


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main()
