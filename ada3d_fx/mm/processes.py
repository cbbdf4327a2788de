"""Several processes: how they start, also without GPUs, and what they tell each other."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from datetime import timedelta
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import all_gather_object, get_world_size
from torch import distributed

from ..errors import Ada3DError

Item = TypeVar("Item")

# Seconds that a process waits for another's part of a sum, before it takes it for lost. Evaluations
# wait for the slowest process, so this must be more than what processes differ by in a long one.
TIMEOUT = 1800
# What each launcher tells a process: its number, how many there are, its number on its machine.
LAUNCHERS = {
    "pytorch": ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    "slurm": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
    "mpi": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
}
HINTS = {
    "pytorch": "start it with bash tools/dist_train.sh, dist_test.sh or dist_infer.sh, or with torchrun",
    "slurm": "start it with bash tools/slurm_train.sh, slurm_test.sh or slurm_infer.sh, or with srun",
    "mpi": "start it with Open MPI's mpirun",
}


def prepare(config: Config) -> None:
    """Make a config's run one of several processes, if it has a ``launcher``.

    Without GPUs, where MMEngine would fail, the processes are joined here, by gloo.

    Args:
        config: it is changed: ``env_cfg.dist_cfg``, ``find_unused_parameters``,
            ``model_wrapper_cfg``.

    Raises:
        Ada3DError: what started this process is not the launcher, or there are fewer GPUs than
            processes.
    """
    launcher = config.get("launcher") or "none"
    if launcher == "none":
        _refuse_torchrun()
        return
    rank, size, local_rank = _numbers(launcher)
    env_cfg = config.get("env_cfg") or {}
    dist_cfg = {"backend": "nccl", "timeout": TIMEOUT, **(env_cfg.get("dist_cfg") or {})}
    config.env_cfg = {**env_cfg, "dist_cfg": dist_cfg}
    if config.model.get("type") == "Ada3DRecognizer":
        # which parameters learn depends on the phase; those that do not have no gradient then
        config.setdefault("find_unused_parameters", True)
    if get_device() != "cpu":
        if torch.cuda.is_available() and local_rank >= torch.cuda.device_count():
            raise Ada3DError(
                f"--launcher {launcher}: more processes on this machine than its "
                f"{torch.cuda.device_count()} GPUs; start one for each GPU"
            )
        return
    _join_without_gpu(config, launcher, rank, size, local_rank)


def _refuse_torchrun() -> None:
    started = all(name in os.environ for name in ("RANK", "LOCAL_RANK", "TORCHELASTIC_RUN_ID"))
    if started and int(os.environ.get("WORLD_SIZE", 1)) > 1 and not distributed.is_initialized():
        raise Ada3DError(
            "torchrun started several processes, each of which would do the whole run; add "
            "--launcher pytorch"
        )


def _numbers(launcher: str) -> list[int]:
    """Return what the launcher says: the process, how many there are, which one of its machine."""
    names = LAUNCHERS[launcher]
    if launcher == "slurm":
        names = (*names, "SLURM_NODELIST")
    if launcher == "pytorch":
        names = (*names, "MASTER_ADDR", "MASTER_PORT")
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        raise Ada3DError(
            f"--launcher {launcher}: the environment has no {', '.join(missing)}; "
            f"{HINTS[launcher]}, or leave --launcher out for one process"
        )
    try:
        return [int(os.environ[name]) for name in LAUNCHERS[launcher]]
    except ValueError as error:
        raise Ada3DError(
            f"--launcher {launcher}: {', '.join(LAUNCHERS[launcher])} must be whole numbers: {error}"
        ) from error


def _join_without_gpu(config: Config, launcher: str, rank: int, size: int, local_rank: int) -> None:
    if config.get("sync_bn"):
        raise Ada3DError(
            "sync_bn: torch's SyncBatchNorm trains on GPUs only; without one, leave it out"
        )
    # MMEngine names a GPU to DistributedDataParallel unless it is told that there is none
    wrapper = {
        "type": "MMDistributedDataParallel",
        "broadcast_buffers": False,
        "find_unused_parameters": config.get("find_unused_parameters", False),
        **(config.get("model_wrapper_cfg") or {}),
        "device_ids": None,
    }
    config.model_wrapper_cfg = wrapper
    dist_cfg = config.env_cfg.dist_cfg
    if dist_cfg.backend == "nccl":
        dist_cfg.backend = "gloo"
    if distributed.is_initialized():
        return
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(local_rank))
    if "MASTER_ADDR" not in os.environ:
        os.environ["MASTER_ADDR"] = _first_machine(launcher)
    os.environ.setdefault("MASTER_PORT", str(dist_cfg.get("port") or 29500))
    distributed.init_process_group(
        dist_cfg.backend, timeout=timedelta(seconds=dist_cfg.timeout)
    )  # MMEngine's runner takes it as it is


def _first_machine(launcher: str) -> str:
    """Return the name of the machine that has process 0, as Slurm knows it."""
    if launcher == "slurm":
        command = ["scontrol", "show", "hostnames", os.environ["SLURM_NODELIST"]]
        try:
            done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
            return done.stdout.split()[0]
        except (OSError, subprocess.CalledProcessError, IndexError) as error:
            raise Ada3DError(
                f"--launcher slurm: {' '.join(command)} names no machine ({error}); set MASTER_ADDR "
                "to that of process 0"
            ) from error
    raise Ada3DError(
        f"--launcher {launcher}: the environment has no MASTER_ADDR; set it to the address of the "
        "machine that has process 0"
    )


def check_agreement(config: Mapping) -> None:
    """Check that all processes start from the same checkpoint.

    Raises:
        Ada3DError: they do not, for machines that do not share the work dir, for instance.
    """
    path = config.get("load_from")
    mine = (Path(path).name if path else None, bool(config.get("resume")))
    every = all_gather_object(mine) if get_world_size() > 1 else [mine]
    if len(set(every)) > 1:
        found = ", ".join(f"process {i}: {name or 'none'}" for i, (name, _) in enumerate(every))
        raise Ada3DError(
            f"the processes found different checkpoints to start from ({found}); is the work dir "
            f"{config.get('work_dir')} a folder that all machines share?"
        )


def of_all_processes(items: list[Item], size: int) -> list[Item]:
    """Gather what each process has of its share of a list of ``size``, in the order of the list.

    MMEngine's sampler deals videos out in turn, and some twice where they do not come out even.
    """
    if get_world_size() == 1:
        return items
    none = object()
    turns = zip_longest(*all_gather_object(items), fillvalue=none)
    return [item for turn in turns for item in turn if item is not none][:size]
