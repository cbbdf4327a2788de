"""Many videos decoded in processes of their own: one that crashes or hangs is named, and no more."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from . import probe as video_probe

Key = TypeVar("Key")
READY_WITHIN = 120.0  # seconds for a process to start and import its decoders


class _Silence(Exception):
    """A process said nothing for too long."""


class _Prober:
    """One process that decodes videos, started when it is needed, and again after it died."""

    def __init__(self, timeout: float):
        self.timeout = timeout
        self.process: subprocess.Popen | None = None

    def probe(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return what `probe.probe` says, or why it does not."""
        failed = {"frames": 0, "width": 0, "height": 0, "told": 0, "codec": None, "container": None}
        try:
            process = self._started()
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            line = self._answer(self.timeout)
        except _Silence:
            self.close()
            return {**failed, "error": f"hangs its decoder: no frame in {self.timeout:g} s"}
        except OSError:
            line = b""
        if line:
            return json.loads(line)
        return {**failed, "error": self._ending()}

    def close(self) -> None:
        """End the process."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()

    def _started(self) -> subprocess.Popen:
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, str(Path(video_probe.__file__))],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1"}, bufsize=0,
            )  # fmt: skip
            self._buffer = b""
            self._answer(READY_WITHIN)
        return self.process

    def _answer(self, timeout: float) -> bytes:
        """Wait for a line that says something; b'' where the process died."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while True:
                line, found, rest = self._buffer.partition(b"\n")
                if found:
                    self._buffer = rest
                    if line:
                        return line
                elif not selector.select(timeout):
                    raise _Silence
                else:
                    read = os.read(self.process.stdout.fileno(), 65536)
                    if not read:
                        return b""
                    self._buffer += read

    def _ending(self) -> str:
        """Say how the process ended; the next request starts another."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        code = self.process.returncode
        self.close()
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            hint = " (not enough memory?)" if name == "SIGKILL" else ""
            return f"crashes its decoder: {name}{hint}"
        return f"crashes its decoder: status {code}"


def probe_all(
    requests: Iterable[tuple[Key, Mapping[str, Any]]], processes: int, timeout: float
) -> Iterator[tuple[Key, dict[str, Any]]]:
    """Probe videos in several processes, and yield the answers as they come.

    Requests are taken when a process is free, so that a long list is never held as a whole.

    Args:
        requests: a key and the arguments of `probe.probe` for each video.
        processes: how many videos are decoded at a time.
        timeout: seconds after which a process that decoded no further frame is ended.
    """
    waiting, lock = iter(requests), threading.Lock()
    answers: queue.Queue = queue.Queue(maxsize=2 * processes)
    stop = threading.Event()

    def put(answer: Any) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                answers.put(answer, timeout=0.2)
                return

    def work() -> None:
        prober = _Prober(timeout)
        try:
            while not stop.is_set():
                with lock:
                    key, request = next(waiting, (None, None))
                if request is None:
                    return
                put((key, prober.probe(request)))
        finally:
            prober.close()
            put(None)

    with ThreadPoolExecutor(processes) as threads:
        working = [threads.submit(work) for _ in range(processes)]
        try:
            ended = 0
            while ended < processes:
                answer = answers.get()
                if answer is None:
                    ended += 1
                else:
                    yield answer
        finally:
            stop.set()
        for done in working:
            done.result()  # what the requests raised
