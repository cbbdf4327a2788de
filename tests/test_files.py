"""A file is written whole or not at all."""

import os
import subprocess
import sys
import time

import pytest

from ada3d_fx import files


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "report.json"
    files.write_text(target, "old")
    with pytest.raises(ZeroDivisionError), files.whole(target) as unfinished:
        unfinished.write_text("ne")
        raise ZeroDivisionError
    assert target.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_a_folder_is_made_and_the_ending_kept(tmp_path):
    with files.whole(tmp_path / "a" / "b.png") as unfinished:
        assert unfinished.suffix == ".png"
        unfinished.write_bytes(b"1")
    assert (tmp_path / "a" / "b.png").read_bytes() == b"1"


KILLED = """
import os, signal, sys
from ada3d_fx import files
with files.whole(sys.argv[1]) as unfinished:
    unfinished.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_leaves_the_old_file(tmp_path):
    target = tmp_path / "report.json"
    files.write_text(target, "old ²")
    subprocess.run([sys.executable, "-c", KILLED, str(target)])
    assert target.read_text(encoding="utf-8") == "old ²"
    (left,) = [path for path in tmp_path.iterdir() if path != target]
    files.write_text(target, "new")  # might be another process's that still writes
    assert left.exists()
    old = time.time() - 2 * files.LEFT_BEHIND
    os.utime(left, (old, old))
    files.write_text(target, "newer")
    assert target.read_text() == "newer" and not left.exists()
