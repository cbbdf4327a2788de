"""dist_train.sh, dist_test.sh, dist_infer.sh, and their Slurm twins: what they start, and how it ends.

There is no Slurm here: a stand-in for srun says what it is asked to start, or starts it.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import experiment_parts
import pytest

import ada3d_fx.mm  # noqa: F401

TOOLS = Path(__file__).resolve().parents[2] / "tools"
# Stand for Python and for srun: they say what they are asked to run.
SAYS = '#!/usr/bin/env bash\nprintf "%s|" "$(basename "$0")" "$@"\necho "port=${MASTER_PORT:-}"\n'
# Stands for srun: starts two processes as Slurm does, on this machine, and ends them together.
STARTS = """#!/usr/bin/env bash
while [ "${1#-}" != "$1" ]; do [ "$1" = -p ] && shift; shift; done
export SLURM_NTASKS=2 SLURM_NODELIST=here MASTER_ADDR=127.0.0.1
for SLURM_PROCID in 0 1; do
    SLURM_PROCID=$SLURM_PROCID SLURM_LOCALID=$SLURM_PROCID "$@" &
done
for _ in 0 1; do
    wait -n || { echo "a process ended with status $?"; kill 0; exit 1; }
done
"""
ENDED = 60  # seconds within which all processes must have ended when one has died


def environment(folder, **variables):
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    own = {"ADA3D_PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return {**kept, **own, "PATH": f"{folder}:{kept['PATH']}", **variables}


def said(folder, script, *arguments, **variables):
    for name in ("python", "srun"):
        (folder / name).write_text(SAYS)
        (folder / name).chmod(0o755)
    done = subprocess.run(
        ["bash", TOOLS / script, *arguments], capture_output=True, text=True, check=False,
        env=environment(folder, ADA3D_PYTHON="python", **variables),
    )  # fmt: skip
    return done.returncode, done.stdout.strip(), done.stderr


def test_one_machine_needs_no_port(tmp_path):
    status, out, _ = said(tmp_path, "dist_train.sh", "c.py", "4", "--amp", "--work-dir", "a b")
    assert status == 0
    assert out.endswith(
        f"|--standalone|--nproc-per-node|4|{TOOLS}/train.py|c.py|"
        "--amp|--work-dir|a b|--launcher|pytorch|port="
    )
    _, out, _ = said(tmp_path, "dist_test.sh", "c.py", "c.pth", "2", PORT="29511")
    assert "|--nnodes|1|--node-rank|0|--master-addr|127.0.0.1|--master-port|29511|" in out
    assert out.endswith(f"|2|{TOOLS}/test.py|c.py|c.pth|--launcher|pytorch|port=")


def test_several_machines_meet_at_the_first(tmp_path):
    several = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "first", "PORT": "29512"}
    _, out, _ = said(tmp_path, "dist_train.sh", "c.py", "8", **several)
    assert (
        "--nnodes|2|--node-rank|1|--master-addr|first|--master-port|29512|--nproc-per-node|8|"
    ) in out


def test_slurm_starts_a_process_for_each_gpu(tmp_path):
    variables = {"GPUS": "16", "SRUN_ARGS": "--quotatype=auto -x bad", "PORT": "29513"}
    _, out, _ = said(tmp_path, "slurm_train.sh", "part", "job", "c.py", "--resume", **variables)
    assert out == (
        "srun|-p|part|--job-name=job|--ntasks=16|--gres=gpu:8|--ntasks-per-node=8|--cpus-per-task=5|"
        f"--kill-on-bad-exit=1|--quotatype=auto|-x|bad|python|-u|{TOOLS}/train.py|c.py|--resume|"
        "--launcher|slurm|port=29513"
    )
    without = {"GPUS": "2", "GPUS_PER_NODE": "0", "CPUS_PER_TASK": "3"}
    _, out, _ = said(tmp_path, "slurm_test.sh", "part", "job", "c.py", "c.pth", **without)
    assert "--ntasks=2|--cpus-per-task=3|" in out and "gres" not in out
    assert out.endswith(f"{TOOLS}/test.py|c.py|c.pth|--launcher|slurm|port=")


@pytest.mark.parametrize(
    "script, arguments, variables, message",
    [
        ("dist_train.sh", ["c.py"], {}, "expected bash tools/dist_train.sh CONFIG GPUS"),
        ("dist_test.sh", ["c.py", "2"], {}, "CONFIG CHECKPOINT GPUS"),
        ("dist_infer.sh", ["c.py", "c.pth", "2"], {}, "GPUS INPUT..."),
        ("slurm_infer.sh", ["part", "job", "c.py", "c.pth"], {}, "CHECKPOINT INPUT..."),
        ("dist_train.sh", ["c.py", "--amp"], {}, "GPUS is '--amp'"),
        ("dist_train.sh", ["c.py", "0"], {}, "GPUS is '0'"),
        ("dist_train.sh", ["c.py", "1"], {"NNODES": "2"}, "set MASTER_ADDR"),
        ("slurm_train.sh", ["part", "c.py"], {}, "PARTITION JOB_NAME CONFIG"),
        ("slurm_test.sh", ["part", "job", "c.py"], {}, "CONFIG CHECKPOINT"),
        ("slurm_train.sh", ["p", "j", "c.py"], {"GPUS": "many"}, "GPUS is 'many'"),
    ],
)
def test_what_is_missing_is_named(tmp_path, script, arguments, variables, message):
    status, out, err = said(tmp_path, script, *arguments, **variables)
    assert status == 2 and not out and message in err


# ------------------------------------------------------------------- real processes, many seconds


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("launched")
    config = experiment_parts.config_of(folder)
    config.train_cfg.max_epochs, config.custom_hooks[0].phases[0].epochs = 202, 200
    config.train_cfg.val_interval = 500
    config.default_hooks.checkpoint.interval = 500
    (folder / "long.txt").write_text(50 * (folder / "list.txt").read_text())
    config.test_dataloader.dataset.ann_file = str(folder / "long.txt")
    config.test_dataloader.batch_size = 1
    experiment_parts.write(folder, config)
    return folder


@contextlib.contextmanager
def started(folder, script, *arguments, **variables):
    """A script in a process group of its own, of which nothing is left."""
    with (folder / "console.txt").open("w") as console:
        job = subprocess.Popen(
            ["bash", TOOLS / script, *map(str, arguments)], cwd=folder, text=True,
            stdout=console, stderr=subprocess.STDOUT, start_new_session=True,
            env=environment(folder, **variables),
        )  # fmt: skip
        try:
            yield job
        finally:
            for pid in (*ranks_of(job.pid).values(), job.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            job.wait()


def ranks_of(parent):
    """{rank: process id} of the processes that torchrun has started."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            stat = (path / "stat").read_text().rpartition(")")[2].split()
            variables = (path / "environ").read_bytes().split(b"\0")
            rank = [v for v in variables if v.startswith(b"RANK=")]
            if int(stat[1]) == parent and rank:
                found[int(rank[0][5:])] = int(path.name)
    return found


def wait_for(something, seconds, job=None):
    end = time.monotonic() + seconds
    while not (found := something()):
        assert time.monotonic() < end, "waited in vain"
        assert job is None or job.poll() is None, "it has ended"
        time.sleep(0.2)
    return found


def log_has(folder, pattern):
    return lambda: any(re.search(pattern, path.read_text()) for path in folder.rglob("*.log"))


def seconds_to_end(job):
    begin = time.monotonic()
    assert job.wait(timeout=10 * ENDED) != 0
    return time.monotonic() - begin


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


@pytest.mark.slow
def test_a_killed_process_ends_the_training(work):
    with started(work, "dist_train.sh", "config.py", 2, "--work-dir", "killed") as job:
        wait_for(log_has(work / "killed", r"Epoch\(train\)"), 300, job)
        others = ranks_of(job.pid)
        os.kill(others[1], signal.SIGKILL)
        seconds = seconds_to_end(job)
        print(f"training: all ended {seconds:.1f} s after a SIGKILL")
        assert seconds < ENDED and not Path(f"/proc/{others[0]}").exists()
    console = (work / "console.txt").read_text()
    assert "error: process 1 ended by signal 9, and all others with it" in console


@pytest.mark.slow
def test_a_mistake_is_told_without_a_traceback(work):
    with started(work, "dist_test.sh", "config.py", "model.pth", 2, "--gmacs", "1e-9") as job:
        assert job.wait(300) == 2
    console = (work / "console.txt").read_text()
    assert "error: " in console and "Traceback" not in console


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["two machines", "slurm"])
def test_training_on_several_machines_ends_as_on_one(work, launcher, tmp_path):
    """Two machines that are this one, and processes that the stand-in for srun starts."""
    short = ["--cfg-options", "train_cfg.max_epochs=3", "custom_hooks.0.phases.0.epochs=1"]
    several = {"NNODES": "2", "MASTER_ADDR": "127.0.0.1", "PORT": free_port()}
    (tmp_path / "srun").write_text(STARTS)
    (tmp_path / "srun").chmod(0o755)
    with contextlib.ExitStack() as jobs:
        begun = []
        if launcher == "slurm":
            arguments = ["part", "job", "config.py", "--work-dir", tmp_path / "work", *short]
            several = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PORT": several["PORT"]}
            begun += [jobs.enter_context(started(work, "slurm_train.sh", *arguments, **several))]
        else:
            arguments = ["config.py", 1, "--work-dir", tmp_path / "work", *short]
            for node in ("0", "1"):
                job = started(work, "dist_train.sh", *arguments, NODE_RANK=node, **several)
                begun.append(jobs.enter_context(job))
        ended = [job.wait(400) for job in begun]
        assert ended == [0] * len(begun), (work / "console.txt").read_text()[-4000:]
    log = next((tmp_path / "work").rglob("*.log")).read_text()
    assert "[3][1/1]" in log  # of eight clips, four to each of two processes
    assert (tmp_path / "work" / "last_checkpoint").read_text().endswith("epoch_3.pth")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "hung"])
def test_a_process_lost_while_results_are_gathered_ends_the_test(work, how):
    """The first process waits in the gathering for the other one, which has stopped before it."""
    limit = {"killed": 600, "hung": 10}[how]
    folder = work / how
    arguments = ["config.py", "model.pth", 2, "--work-dir", folder]
    options = ["--cfg-options", f"env_cfg.dist_cfg.timeout={limit}"]
    with started(work, "dist_test.sh", *arguments, *options) as job:
        other = wait_for(lambda: ranks_of(job.pid).get(1), 100, job)
        wait_for(log_has(folder, r"Epoch\(test\)"), 300, job)
        os.kill(other, signal.SIGSTOP)
        wait_for(log_has(folder, r"Epoch\(test\) *\[ *(\d+)/\1\]"), 300, job)  # of the first
        if how == "killed":
            time.sleep(2)  # it gathers now
            os.kill(other, signal.SIGKILL)
        seconds = seconds_to_end(job)
        print(f"test: all ended {seconds:.1f} s after one was {how}, timeout {limit} s")
        assert seconds < (ENDED if how == "killed" else limit + 30 + ENDED)  # 30 s: see docs
        assert not Path(f"/proc/{other}").exists()
