"""Every video of a list decoded beforehand: each kind of trouble is named, with its line."""

import json
from pathlib import Path

import command_lines
import mm_parts
import odd_videos
import pytest

from ada3d_fx import Ada3DError
from ada3d_fx.experiments import data_check
from ada3d_fx.experiments.data_check import (
    CheckOptions,
    check_before_training,
    check_list,
    plain_lists,
)
from ada3d_fx.progress import Console
from ada3d_fx.videos.lists import VideoList

QUIET = Console(terminal=False)
# What is wrong with a video of `odd_videos`, and whether it is broken.
KINDS = {
    "good": set(), "front": set(), "avi": set(), "mkv": set(), "webm": set(), "mjpeg": set(),
    "truncated": {("does not decode", True)}, "truncated_front": {("does not decode", True)},
    "truncated_fragments": {("does not decode", True)}, "damaged": {("does not decode", True)},
    "truncated_avi": {("truncated", False), ("short", False)},
    "truncated_mkv": {("truncated", False)}, "damaged_avi": {("truncated", False)},
    "empty": {("empty", True)}, "text": {("does not decode", True)},
    "wrong_ending": {("other ending", False)}, "one_frame": {("one frame", False)},
    "short": {("short", False)}, "sound": {("no video in it", True)},
    "folder": {("a folder", True)}, "absent": {("missing", True)},
}  # fmt: skip


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    videos = odd_videos.odd_videos(folder)
    lines = [f"{path.name} 0\n" for path in videos.values()]
    (folder / "list.txt").write_text("".join([*lines, "absent.mp4 0\n"]))
    return folder, [*videos, "absent"]


@pytest.mark.parametrize("reader", ["decord", "opencv"])
def test_every_kind_of_trouble_is_named_with_its_line(odd, reader):
    folder, names = odd
    data = plain_lists([str(folder / "list.txt")], clip_frames=8)[0]
    if reader != "decord":
        data = data_check.DataList(data.videos, reader, 8)
    report = check_list(data, CheckOptions(processes=2), QUIET)
    found = {name: set() for name in names}
    for finding in report.findings:
        found[names[finding.line - 1]].add((finding.kind, finding.broken))
    assert report.videos == len(names)
    if reader == "decord":
        assert found == KINDS
    else:  # OpenCV goes on behind a damage, or ends with it
        assert all(bool(found[name]) == bool(KINDS[name]) for name in names), found


def test_a_quick_look_finds_what_does_not_open(odd):
    folder, names = odd
    report = check_list(plain_lists([str(folder / "list.txt")])[0], CheckOptions(quick=True), QUIET)
    broken = {names[finding.line - 1] for finding in report.broken}
    assert {"truncated", "empty", "text", "sound", "folder", "absent"} <= broken
    assert not broken & {"good", "mkv", "avi", "wrong_ending"}


def test_lines_that_are_none_and_videos_that_are_listed_twice(tmp_path):
    odd_videos.write(tmp_path / "a.mp4", frames=2)
    (tmp_path / "list.txt").write_text("a.mp4 0\na.mp4 1\na.mp4 ²\na.mp4 7\n\na b.mp4 0\n")
    data = plain_lists([str(tmp_path / "list.txt")], num_classes=4)[0]
    report = check_list(data, CheckOptions(processes=1), QUIET)
    found = [(finding.line, finding.kind, finding.broken) for finding in report.findings]
    assert found == [(2, "listed twice", False), (3, "line", True), (4, "label", True),
                     (5, "line", True), (6, "line", True)]  # fmt: skip


def test_a_huge_video_is_told_with_its_memory(tmp_path):
    found = {"frames": 64, "told": 64, "width": 4096, "height": 4096, "codec": "h264",
             "container": "mov,mp4", "error": None}  # fmt: skip
    entry = data_check.Entry(1, "a.mp4", (0,), None)
    data = data_check.DataList(VideoList("list.txt"))
    (finding,) = data_check.findings(entry, found, data, quick=False)
    assert finding.kind == "huge" and not finding.broken
    assert "48 MiB" in finding.why and "3.0 GiB" in finding.why


def test_folders_of_frames(tmp_path):
    (tmp_path / "frames" / "whole").mkdir(parents=True)
    (tmp_path / "frames" / "part").mkdir()
    for index in range(1, 5):
        (tmp_path / "frames" / "whole" / f"img_{index:05}.jpg").touch()
    (tmp_path / "frames" / "part" / "img_00001.jpg").touch()
    (tmp_path / "list.txt").write_text("whole 4 0\npart 4 0\nabsent 4 0\n")
    videos = VideoList(str(tmp_path / "list.txt"), str(tmp_path / "frames"), None, frames=True)
    report = check_list(data_check.DataList(videos), CheckOptions(), QUIET)
    assert [(f.line, f.kind) for f in report.findings] == [(2, "missing"), (3, "missing")]
    assert "img_00004.jpg" in report.findings[0].why


def test_the_tool_tells_by_text_json_and_status(odd, monkeypatch, capsys, tmp_path):
    folder, _ = odd
    good = tmp_path / "good.txt"
    good.write_text("good.mp4 0\nmjpeg.avi 1\n")
    assert command_lines.run(monkeypatch, "check_data", good, "--videos", folder) == 0
    assert "good.txt: 2 videos, 0 broken, 0 odd" in capsys.readouterr().out
    out = tmp_path / "out.json"
    assert command_lines.run(monkeypatch, "check_data", folder / "list.txt", "--json", out) == 1
    assert "broken\n    line" in capsys.readouterr().out
    (report,) = json.loads(out.read_text())["lists"]
    assert report["videos"] == len(KINDS) and report["broken"] == len(
        [1 for kinds in KINDS.values() for _, broken in kinds if broken]
    )
    assert command_lines.run(monkeypatch, "check_data", tmp_path / "absent.txt") == 2
    assert "nothing at" in capsys.readouterr().err
    assert command_lines.run(monkeypatch, "check_data") == 2


@pytest.fixture
def config(tmp_path):
    mm_parts.write_clips(tmp_path, 4)
    return mm_parts.run_config(tmp_path, tmp_path / "work")


def test_the_lists_of_a_config_are_checked_each_once_as_it_reads_them(config):
    config.val_dataloader.dataset.pipeline[0].type = "OpenCVInit"
    (data,) = data_check.lists_of(config)
    assert data.clip_frames == 4 and data.reader == "decord"
    assert data.videos.num_classes == mm_parts.CLASSES
    assert check_list(data, CheckOptions(), QUIET).findings == []


def test_before_a_training_broken_videos_stop_it_beyond_the_limit(config, capsys):
    video = Path(config.train_dataloader.dataset.data_prefix.video, "2.mp4")
    odd_videos.cut(video, video)
    with pytest.raises(Ada3DError, match=r"(?s)line 3: .*2\.mp4 does not decode.*allows 0"):
        check_before_training(config, ("train",), QUIET)
    config.broken_videos = {"limit": 1}
    check_before_training(config, ("train",), QUIET)
    assert "4 videos, 1 broken" in capsys.readouterr().err
