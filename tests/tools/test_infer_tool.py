"""tools/infer.py in processes of its own, and in several that are killed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import command_lines
import inference_parts
import pytest

from ada3d_fx import files

COUNT = 120


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    inference_parts.write(folder, count=COUNT)
    (folder / "videos" / "7.mp4").write_bytes(b"no video")
    return folder


def rows_of(path):
    return inference_parts.timeless(map(json.loads, path.open(encoding="utf-8")))


def test_few_videos_in_a_pipe(work, tmp_path):
    """Nothing is registered beforehand; a table, a summary, and nothing else."""
    videos = ["videos/0.mp4", "videos/7.mp4", "videos/1?.mp4"]
    options = ["--workers", 1, "--profile"]
    done = command_lines.start("infer", "config.py", "model.pth", *videos, *options, cwd=work)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["0.mp4", "7.mp4", "10.mp4"]
    for word in (
        "frames",
        "stages",
        "GMACs",
        "recognise ms",
        "wait for videos",
        "open and sample",
        "cannot be decoded",
        "12 predicted in",
    ):
        assert word in done.stdout or word == "cannot be decoded", word
    assert "\x1b" not in done.stdout and not list(work.glob("*.jsonl"))


def test_mistakes_are_one_line(work, monkeypatch, capsys):
    monkeypatch.chdir(work)
    (work / "empty").mkdir(exist_ok=True)
    for arguments, words in (
        (["config.py", "model.pth", "empty"], "no video in the folder empty"),
        (["config.py", "model.pth", "*.avi"], "no file is like *.avi"),
        (["config.py", "none.pth", "videos"], "no file at none.pth"),
        (["config.py", "model.pth", "videos", "--out", "r.pkl"], ".jsonl or a .csv"),
        (["config.py", "model.pth", "videos", "--launcher", "pytorch"], "--out"),
        (["config.py", "model.pth"], "INPUT"),
        (["config.py", "model.pth", "videos", "--batch-size", "0"], "--batch-size"),
    ):
        assert command_lines.run(monkeypatch, "infer", *arguments) == 2
        error = capsys.readouterr().err
        assert words in error and error.startswith("error: ") and error.count("\n") == 1


def launched(work, out):
    """dist_infer.sh with two processes, in a group of its own."""
    script = command_lines.ROOT / "tools" / "dist_infer.sh"
    words = [
        "config.py",
        "model.pth",
        "2",
        "list.txt",
        "--out",
        out,
        "--workers",
        "1",
        "--batch-size",
        "2",
    ]
    return subprocess.Popen(
        ["bash", script, *map(str, words)], cwd=work, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8",
        env={**os.environ, "ADA3D_PYTHON": sys.executable, "OMP_NUM_THREADS": "1",
             "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip


def children(pid):
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, check=False).stdout
    return [int(word) for word in found.split()]


@pytest.mark.slow
def test_two_processes_that_are_killed_give_the_rows_of_one(work, tmp_path, monkeypatch, capsys):
    """One of two dies by SIGKILL, and torchrun ends the other; the next start goes on."""
    monkeypatch.chdir(work)
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    files_given = ["config.py", "model.pth", "list.txt"]
    assert (
        command_lines.run(monkeypatch, "infer", *files_given, "--out", one, "--device", "cpu") == 0
    )
    job = launched(work, two)
    parts = [tmp_path / f"two.rank{rank}.jsonl" for rank in (0, 1)]
    try:
        while not all(part.exists() and part.stat().st_size for part in parts):
            assert job.poll() is None, job.communicate()[0]
            time.sleep(0.01)
        os.kill(children(job.pid)[1], signal.SIGKILL)
        told, _ = job.communicate(timeout=100)
    finally:
        for pid in (*children(job.pid), job.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    kept = sum(len(part.read_bytes().splitlines()) for part in parts)
    assert "ended by signal 9" in told and job.returncode != 0
    assert 2 <= kept < COUNT and not two.exists()
    again = launched(work, two)
    told, _ = again.communicate(timeout=200)
    assert again.returncode == 0, told
    assert rows_of(two) == rows_of(one)
    assert [row["index"] for row in rows_of(two) if row["error"]] == [7]
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["one.jsonl", "one.made_from.json", "two.jsonl", "two.made_from.json"]


HOLDER = """
import sys, time
from ada3d_fx import files
with files.locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(100)
"""


def test_a_second_run_at_the_same_time_is_refused(work, tmp_path, monkeypatch, capsys):
    """Such as processes that outlived the torchrun that started them."""
    monkeypatch.chdir(work)
    lock = tmp_path / ".r.rank3.lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, lock], stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(command_lines.ROOT)},
    )  # fmt: skip
    try:
        assert holder.stdout.readline() == b"held\n"
        with files.locked(lock) as number:
            assert number == holder.pid
        arguments = ["config.py", "model.pth", "videos/0.mp4", "--out", tmp_path / "r.jsonl"]
        assert command_lines.run(monkeypatch, "infer", *arguments, "--workers", "0") == 2
        assert f"process {holder.pid} of another run" in capsys.readouterr().err
    finally:
        holder.kill()
        holder.wait()
    assert command_lines.run(monkeypatch, "infer", *arguments, "--workers", "0") == 0
