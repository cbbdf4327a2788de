"""A folder of generated clips knows its options and its clips: what is damaged is made again."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time

import pytest

from ada3d_fx import Ada3DError
from ada3d_fx.experiments.clip_record import DONE, JOURNAL, digest
from ada3d_fx.experiments.generated_clips import generate
from ada3d_fx.progress import Console

OPTIONS = dict(num_train=12, num_val=10, seed=3, size=(32, 32), num_frames=8)


def content(folder):
    """The bytes of every file in a folder, by its path there."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """What a fresh run of `OPTIONS` gives."""
    return content(generate(tmp_path_factory.mktemp("fresh"), **OPTIONS))


@pytest.fixture
def folder(tmp_path, fresh):
    """A finished folder."""
    for name, data in fresh.items():
        path = tmp_path / "clips" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "clips"


CLIPS = [
    f"videos/train/{name}" for name in ("square/000000.mp4", "frame/000001.mp4", "cross/000002.mp4")
]


def test_the_record_holds_the_digest_of_every_clip_and_nothing_is_left_over(fresh):
    record = json.loads(fresh[DONE])
    clips = {name: data for name, data in fresh.items() if name.startswith("videos/")}
    assert record["digests"] == {name: digest(data) for name, data in clips.items()}
    assert set(fresh) - set(clips) == {DONE, "train.txt", "val.txt", "classes.txt"}
    assert len(clips) == 22


def test_damaged_and_missing_clips_are_named_and_made_again_and_no_others(folder, fresh, capsys):
    cut, gone, flipped = (folder / name for name in CLIPS)
    cut.write_bytes(cut.read_bytes()[:-1])
    gone.unlink()
    flipped.write_bytes(bytes([flipped.read_bytes()[0] ^ 1]) + flipped.read_bytes()[1:])
    times = {p: p.stat().st_mtime_ns for p in folder.rglob("*.mp4") if p not in (cut, flipped)}
    generate(folder, **OPTIONS)
    assert content(folder) == fresh
    assert {p: p.stat().st_mtime_ns for p in times} == times
    said = capsys.readouterr().err
    assert all(name in said for name in CLIPS) and "000003.mp4" not in said


def test_of_many_damaged_clips_four_are_named(folder, fresh, capsys):
    for path in folder.rglob("*.mp4"):
        path.write_bytes(b"")
    generate(folder, **OPTIONS)
    assert content(folder) == fresh and "and 18 more made again" in capsys.readouterr().err


def test_a_whole_folder_is_left_alone_without_a_word(folder, capsys):
    times = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    generate(folder, **OPTIONS)
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == times
    assert capsys.readouterr().err == ""


class Stopped(Console):
    """A console on which a run is interrupted after so many clips."""

    def __init__(self, after: int):
        super().__init__()
        self.after = after

    def track(self, items, text, total=None):
        for number, item in enumerate(items):
            if number == self.after:
                raise KeyboardInterrupt
            yield item


@pytest.mark.parametrize("torn", [False, True])
def test_a_run_that_was_stopped_goes_on(tmp_path, fresh, torn, capsys):
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path, **OPTIONS, console=Stopped(5))
    assert not (tmp_path / DONE).exists() and not (tmp_path / "train.txt").exists()
    if torn:  # as where a process is killed or the power fails while it writes
        journal = (tmp_path / JOURNAL).read_bytes()
        (tmp_path / JOURNAL).write_bytes(journal[:-30])
        (tmp_path / CLIPS[0]).write_bytes(b"cut")
    kept = {name: (tmp_path / name).stat().st_mtime_ns for name in CLIPS[1:]}
    generate(tmp_path, **OPTIONS)
    assert f"going on with {3 if torn else 5} of 22 clips" in capsys.readouterr().err
    assert content(tmp_path) == fresh
    assert kept == {name: (tmp_path / name).stat().st_mtime_ns for name in kept}


def test_clips_of_other_options_are_replaced_and_that_is_said(folder, fresh, capsys):
    others = OPTIONS | {"seed": 4, "num_val": 11}
    generate(folder, **others)
    said = capsys.readouterr().err
    assert "seed 3, now 4" in said and "num_val 10, now 11" in said and "num_train" not in said
    changed = content(folder)
    assert len(changed["val.txt"].splitlines()) == 11
    assert all(changed[name] != fresh[name] for name in CLIPS)
    generate(folder, **others)
    assert content(folder) == changed and capsys.readouterr().err == ""


@pytest.mark.parametrize("after", [0, 5])
def test_a_replacement_that_was_stopped_goes_on_either_way(folder, fresh, after, tmp_path, capsys):
    others = OPTIONS | {"seed": 4}
    with pytest.raises(KeyboardInterrupt):
        generate(folder, **others, console=Stopped(after))
    assert not (folder / "train.txt").exists()  # no list tells of clips that are half replaced
    generate(folder, **others)
    assert content(folder) == content(generate(tmp_path / "other", **others))
    with pytest.raises(KeyboardInterrupt):
        generate(folder, **OPTIONS, console=Stopped(after))
    generate(folder, **OPTIONS | {"seed": 5}, console=Console())  # a third, in between
    generate(folder, **OPTIONS)
    assert content(folder) == fresh


def test_a_stop_between_the_journal_and_the_lists_loses_nothing(folder, fresh):
    """The lists of the folder before are still known as this tool's own."""
    header = {"options": json.loads(fresh[DONE]), "replaced": json.loads(fresh[DONE])}
    for part in header.values():
        del part["digests"]
    header["options"]["num_val"] = 11
    (folder / JOURNAL).write_text(json.dumps(header) + "\n")
    (folder / DONE).unlink()
    generate(folder, **OPTIONS | {"num_val": 11})
    assert len((folder / "val.txt").read_text().splitlines()) == 11


def test_lists_that_were_edited_or_are_anothers_are_kept_and_named(folder, fresh, tmp_path):
    (folder / "train.txt").write_bytes(fresh["train.txt"][:-3])
    (folder / "classes.txt").write_text("mine\n")
    (folder / CLIPS[0]).unlink()
    before = content(folder)
    for options in (OPTIONS, OPTIONS | {"seed": 9}):
        with pytest.raises(
            Ada3DError, match=r"train\.txt, classes\.txt differ .* nothing was changed"
        ):
            generate(folder, **options)
        assert content(folder) == before
    for name in ("train.txt", "classes.txt"):
        (folder / name).unlink()
    generate(folder, **OPTIONS)
    assert content(folder) == fresh
    own = tmp_path / "own"
    own.mkdir()
    (own / "val.txt").write_text("video.mp4 0\n")
    with pytest.raises(Ada3DError, match=r"val\.txt differ"):
        generate(own, **OPTIONS)
    assert content(own) == {"val.txt": b"video.mp4 0\n"}


@pytest.mark.parametrize(
    "record",
    [b"", b'{"version": 2, "num_tr', b"\x00\xff", "{}".encode("utf-16"), b"[1]", b"3", b"NaN",
     b'{"num_train": "12", "num_val": 10}', b'{"num_train": 12, "num_val": 10, "digests": [1]}'],
)  # fmt: skip
def test_a_record_that_is_cut_off_or_foreign_is_named_and_the_clips_made_again(
    folder, fresh, record, capsys
):
    (folder / DONE).write_bytes(record)
    generate(folder, **OPTIONS)
    assert content(folder) == fresh
    said = capsys.readouterr().err
    assert str(folder / DONE) in said and "its clips are made again" in said


def test_a_record_without_digests_is_of_an_earlier_version(folder, fresh, capsys):
    options = {key: value for key, value in json.loads(fresh[DONE]).items() if key != "digests"}
    (folder / DONE).write_text(json.dumps(options))
    (folder / CLIPS[0]).write_bytes(b"cut")
    generate(folder, **OPTIONS)
    assert content(folder) == fresh and "kept no digests" in capsys.readouterr().err


@pytest.mark.parametrize("journal", [b"", b"\xff\xfe\n", b"[]\nx y\n", b'{"options": 3}\n'])
def test_a_journal_that_is_none_is_begun_anew(tmp_path, fresh, journal):
    (tmp_path / JOURNAL).write_bytes(journal)
    generate(tmp_path, **OPTIONS)
    assert content(tmp_path) == fresh


def together(*runs):
    """Run these in threads; locks are between open files, so threads are as good as processes."""
    threads = [threading.Thread(target=run) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_two_at_once_wait_for_each_other(tmp_path, fresh, capsys):
    together(*[lambda: generate(tmp_path, **OPTIONS) for _ in range(3)])
    assert content(tmp_path) == fresh
    assert capsys.readouterr().err.count("waiting for another process") == 2


def test_two_at_once_of_other_options_leave_one_of_both(tmp_path, fresh):
    others = OPTIONS | {"seed": 4}
    (tmp_path / "both").mkdir()
    together(*[lambda o=o: generate(tmp_path / "both", **o) for o in (OPTIONS, others)])
    assert content(tmp_path / "both") in (fresh, content(generate(tmp_path / "o", **others)))


def test_where_there_are_no_locks_two_at_once_still_give_the_same(tmp_path, fresh, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    together(*[lambda: generate(tmp_path, **OPTIONS) for _ in range(2)])
    assert content(tmp_path) == fresh


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("1")
    with pytest.raises(Ada3DError, match="a file is there"):
        generate(tmp_path / "file", **OPTIONS)


KILLED = """
import sys
from ada3d_fx.experiments.generated_clips import generate
print("ready", flush=True)
generate(sys.argv[1], 12, 10, 3, (32, 32), 8, workers=int(sys.argv[2]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_that_is_killed_again_and_again_comes_to_its_end(tmp_path, fresh, workers):
    kills = 0
    for delay in (0.02, 0.1, 0.2, 30.0):
        command = [sys.executable, "-c", KILLED, str(tmp_path), str(workers)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as run:
            run.stdout.readline()
            try:
                run.wait(delay)
            except subprocess.TimeoutExpired:
                run.kill()
                kills += 1
        time.sleep(0.1)
    assert kills >= 2
    generate(tmp_path, **OPTIONS)
    assert {n: d for n, d in content(tmp_path).items() if ".part" not in n} == fresh
