"""Tools in processes that are killed at a chosen moment.

A server process imports everything once and forks a child for each command line, so that a start
takes no imports. Run as a script it is that server.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import command_lines

TOOLS = ("train", "compare", "tradeoff", "generate_clips", "infer")
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}


@dataclass(frozen=True)
class Moment:
    """When a process is killed: so many seconds after its start, or at one of its writes."""

    seconds: float | None = None
    write: int | None = None  # which opening, renaming or removing of a file, counted from 1
    later: float = 0.0  # seconds after that
    cut: bool = False  # a file that is opened then has its first bytes only

    @classmethod
    def draw(cls, rng: random.Random, seconds: float, writes: int) -> Moment:
        """A moment in the life of a process that would take so long and write so often."""
        if rng.random() < 0.5:
            return cls(seconds=rng.uniform(0.02, 0.7 * seconds))
        later, cut = rng.choice([(0.0, False), (0.0, True), (10 ** rng.uniform(-5, -2), False)])
        return cls(None, rng.randint(1, writes), later, cut)


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    status: int | None  # None: killed
    seconds: float
    writes: int  # how often it opened, renamed or removed a file in the watched folder
    output: str


class Server:
    """Starts tools, each in a process of its own that has everything imported."""

    def __enter__(self) -> Server:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **ENVIRONMENT,
                 "PYTHONPATH": os.pathsep.join([str(command_lines.ROOT), str(Path(__file__).parent)])},
        )  # fmt: skip
        assert json.loads(self._process.stdout.readline()) == "ready"
        return self

    def __exit__(self, *_) -> None:
        self._process.stdin.close()
        self._process.wait()

    def run(self, tool: str, arguments, watched: Path, kill: Moment | None = None) -> Ended:
        """Run a tool to its end, or to the moment at which it is killed.

        ``watched`` is the folder whose files count, and where the output is kept meanwhile.
        """
        kill = kill or Moment()
        job = {"tool": tool, "arguments": [str(a) for a in arguments], "watched": str(watched),
               "seconds": kill.seconds, "write": kill.write, "later": kill.later,
               "cut": kill.cut}  # fmt: skip
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return Ended(**json.loads(self._process.stdout.readline()))


# ------------------------------------------------------------------------------------ the server


def _serve() -> None:
    for tool in TOOLS:
        command_lines.load(tool)
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        print(json.dumps(_run(job)), flush=True)


def _run(job: dict) -> dict:
    begin = time.monotonic()
    watched = Path(job["watched"])
    output, count = (watched.parent / f"{watched.name}.{kind}" for kind in ("output", "writes"))
    count.write_text("0")
    pid = os.fork()
    if pid == 0:
        os._exit(_child(job, output, count))
    timer = threading.Timer(job["seconds"] or 0, _kill, [pid])
    if job["seconds"] is not None:
        timer.start()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    timer.cancel()
    return {
        "status": None if status == -signal.SIGKILL else status,
        "seconds": time.monotonic() - begin,
        "writes": int(count.read_text() or 0),
        "output": output.read_text()[-5000:],
    }


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended
        os.kill(pid, signal.SIGKILL)


def _child(job: dict, output: Path, count: Path) -> int:
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    writes = 0

    def hook(event: str, arguments: tuple) -> None:
        nonlocal writes
        if not _writes(event, arguments, job["watched"]):
            return
        writes += 1
        if writes != job["write"]:
            return
        if job["later"]:
            sys.setswitchinterval(1e-5)
            threading.Timer(job["later"], _kill, [os.getpid()]).start()
            return
        if job["cut"] and event == "open":
            Path(arguments[0]).write_bytes(b"PK\x03\x04")
        _kill(os.getpid())

    sys.addaudithook(hook)
    sys.argv = [f"{job['tool']}.py", *job["arguments"]]
    status = 99
    try:
        status = command_lines.load(job["tool"]).main()
    except (Exception, SystemExit):  # noqa: BLE001 the test shows it
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    count.write_text(str(writes))
    return status


def _writes(event: str, arguments: tuple, folder: str) -> bool:
    if event == "open":
        path, _, flags = arguments
        if not flags & (os.O_WRONLY | os.O_RDWR):
            return False
    elif event in ("os.rename", "os.remove"):
        path = arguments[0]
    else:
        return False
    return isinstance(path, (str, os.PathLike)) and os.path.abspath(path).startswith(folder)


if __name__ == "__main__":
    _serve()
