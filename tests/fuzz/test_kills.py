"""Killed with SIGKILL at any moment and started again, a tool leaves what an unbroken run leaves.

ADA3D_KILLS is how often each tool is killed (20), ADA3D_KILL_SEED chooses the moments.
"""

import json
import os
import random
import re
import time
from pathlib import Path

import decord
import experiment_parts
import pytest
import torch
from killed_tools import Moment, Server

import ada3d_fx.mm  # noqa: F401
from ada3d_fx.mm.checkpoint import load_checkpoint

pytestmark = pytest.mark.fuzz
KILLS = int(os.environ.get("ADA3D_KILLS", "20"))
SEED = int(os.environ.get("ADA3D_KILL_SEED", "0"))
# What a report says of time, and of the folder that was named in the command.
OF_A_RUN = ("seconds", "train_seconds", "command", "reported_by")


@pytest.fixture(scope="module")
def server():
    with Server() as started:
        yield started


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """config.py, clips and checkpoints; two checkpoints and the best one are kept."""
    folder = tmp_path_factory.mktemp("data")
    config = experiment_parts.config_of(folder, testing={"greedy": "count"})
    config.default_hooks.checkpoint.max_keep_ckpts = 2
    experiment_parts.write(folder, config)
    return folder


def kill_until_done(server, tool, arguments, folder, left, show):
    """Run a tool unbroken once; then kill and restart it, in as many folders as it takes."""
    begin, rng = time.monotonic(), random.Random(f"{SEED} {tool}")
    whole = server.run(tool, arguments(folder / "whole"), folder / "whole")
    assert whole.status == 0, whole.output
    expected = left(folder / "whole")
    kills = folders = starts = 0
    while kills < KILLS:
        work_dir = folder / f"killed{folders}"
        folders += 1
        while True:
            moment = Moment.draw(rng, whole.seconds, whole.writes) if kills < KILLS else None
            ended = server.run(tool, arguments(work_dir), work_dir, moment)
            starts += 1
            if ended.status == 0:
                break
            assert ended.status is None, f"after kill {kills}: {ended.output}"
            kills += 1
            check_no_halves(work_dir)
        check_same(left(work_dir), expected, f"{work_dir} after {kills} kills")
    show(
        f"{tool}: {kills} kills, {starts} starts, {folders} runs to the end in "
        f"{time.monotonic() - begin:.0f} s; an unbroken one takes {whole.seconds:.1f} s "
        f"and writes {whole.writes} times"
    )


def check_no_halves(folder: Path):
    """Files that can be taken for results are whole; what is unfinished is hidden."""
    for path in folder.rglob("*"):
        if path.name.startswith(".") or not path.is_file():
            continue
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".pth":
            load_checkpoint(path)
        elif path.suffix == ".png":
            assert path.read_bytes()[-8:-4] == b"IEND", path
        elif path.suffix == ".mp4":
            decord.VideoReader(str(path), num_threads=1).get_batch([0])


def check_same(found: dict, expected: dict, what: str):
    """But for an older checkpoint, whose removal a killed process did not come to."""
    more = [name for name in found if name not in expected]
    assert set(expected) <= set(found), what
    assert all(re.search(r"(^|/)epoch_\d+\.pth: ", name) for name in more), f"{what}: {more}"
    for name in expected:
        same = (
            torch.equal(found[name], expected[name])
            if isinstance(expected[name], torch.Tensor)
            else found[name] == expected[name]
        )
        assert same, f"{what}: {name} is {found[name]} instead of {expected[name]}"


def weights(folder: Path) -> dict:
    """Every tensor of every checkpoint, by file and name."""
    return {
        f"{path.relative_to(folder)}: {name}": value
        for path in sorted(folder.rglob("[!.]*.pth"))
        for name, value in load_checkpoint(path).items()
    }


def report(path: Path, entries=None) -> dict:
    """What a report says, without times."""

    def timeless(node):
        if isinstance(node, dict):
            return {k: timeless(v) for k, v in node.items() if k not in OF_A_RUN}
        return [timeless(one) for one in node] if isinstance(node, list) else node

    content = timeless(json.loads(path.read_text(encoding="utf-8")))
    return {f"{path.name}: {key}": value for key, value in content.items()}


@pytest.fixture
def show(capsys):
    def tell(line):
        with capsys.disabled():
            print(f"\n{line}")

    return tell


def test_training(server, data, tmp_path, show):
    """Last and best checkpoints have the weights of an unbroken run, bit for bit."""

    def left(folder):
        note = (folder / "last_checkpoint").read_text()
        return weights(folder) | {"last": Path(note).name}

    def arguments(folder):
        return [data / "config.py", "--work-dir", folder, "--resume"]

    kill_until_done(server, "train", arguments, tmp_path, left, show)


def test_comparison(server, data, tmp_path, show):
    """The report is the same, and so are all rows' weights."""

    def left(folder):
        table = (folder / "report.md").read_text()
        return weights(folder) | report(folder / "report.json") | {"table": table}

    def arguments(folder):
        return [data / "config.py", "--work-dir", folder, "--pictures", 1,
                "--recognizer-checkpoint", data / "plain.pth"]  # fmt: skip

    kill_until_done(server, "compare", arguments, tmp_path, left, show)


def test_tradeoff(server, data, tmp_path, show):
    def left(folder):
        table = (folder / "tradeoff.md").read_text()
        return weights(folder) | report(folder / "tradeoff.json") | {"table": table}

    def arguments(folder):
        return [data / "config.py", "--work-dir", folder, "--gammas", "0.5,4",
                "--recognizer-checkpoint", data / "plain.pth"]  # fmt: skip

    kill_until_done(server, "tradeoff", arguments, tmp_path, left, show)


def test_generated_clips(server, tmp_path, show):
    """All files are the same, byte for byte."""

    def left(folder):
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not path.name.startswith(".")
        }

    def arguments(folder):
        return ["--out", folder, "--num-train", 20, "--num-val", 10, "--workers", 1]

    kill_until_done(server, "generate_clips", arguments, tmp_path, left, show)
