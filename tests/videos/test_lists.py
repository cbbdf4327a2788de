"""Annotation lists: read as MMAction2 reads them, or refused with file, line and what to try."""

import os
import subprocess
import sys

import command_lines
import pytest
from mmaction.datasets import RawframeDataset, VideoDataset

from ada3d_fx import Ada3DError
from ada3d_fx.mm.checks import check_dataset
from ada3d_fx.videos.lists import VideoList

VIDEOS = {"type": "VideoDataset", "data_prefix": {"video": "videos"}, "pipeline": []}
FRAMES = {"type": "RawframeDataset", "data_prefix": {"img": "frames"}, "pipeline": []}


def entries(dataset, num_classes=4):
    return list(VideoList.of(dataset, num_classes).entries())


@pytest.mark.parametrize(
    "content, options",
    [
        (b"a.mp4 0\nb.mp4 3\n", {}),
        (b"a.mp4 0\r\nb.mp4 3\r\n", {}),
        (b"a.mp4 0\rb.mp4 3", {}),
        (b"  a.mp4 0  \nb.mp4 3\t\n", {}),
        (b"my video.mp4,0\nb.mp4,3\n", {"delimiter": ","}),
        (b"my video.mp4\t0\n", {"delimiter": "\t"}),
        ("été.mp4 0\n视频.mp4 1\n".encode(), {}),
        ("a\u2028b.mp4 +1\n".encode(), {}),
        (b"a.mp4 0 2\nb.mp4 3\n", {"multi_class": True, "num_classes": 4}),
        (b"a.mp4 0\n", {"data_root": "root"}),
    ],
)
def test_good_lists_read_as_mmaction_reads_them(tmp_path, content, options):
    (tmp_path / "list.txt").write_bytes(content)
    dataset = {**VIDEOS, "ann_file": str(tmp_path / "list.txt"), **options}
    theirs = VideoDataset(**{k: v for k, v in dataset.items() if k != "type"})
    mine = entries(dataset)
    assert len(mine) == len(theirs)
    for entry, index in zip(mine, range(len(theirs))):
        info = super(VideoDataset, theirs).get_data_info(index)
        assert info["filename"] == entry.path
        label = info["label"]
        seen = (label,) if isinstance(label, int) else tuple(label.nonzero().flatten().tolist())
        assert seen == entry.labels


def test_folders_of_frames_read_as_mmaction_reads_them(tmp_path):
    (tmp_path / "list.txt").write_text("a 12 163 3\nb 0 20 1\n")
    dataset = {**FRAMES, "ann_file": str(tmp_path / "list.txt"), "with_offset": True}
    theirs = RawframeDataset(**{k: v for k, v in dataset.items() if k != "type"})
    for index, entry in enumerate(entries(dataset)):
        info = theirs.get_data_info(index)
        found = (info["frame_dir"], info["total_frames"], info["label"])
        assert found == (entry.path, entry.frames, entry.labels[0])


@pytest.mark.parametrize(
    "content, message",
    [
        ("a.mp4 ²\n".encode(), "line 1: 'a.mp4 ²' is not 'video label"),
        (b"a.mp4 0\nb.mp4 --5\n", "line 2: 'b.mp4 --5' is not"),
        (b"a.mp4 1.0\n", "line 1"),
        (b"a.mp4 -1\n", "line 1: label -1"),
        (b"a.mp4 9\n", "line 1: label 9 is outside the 4 classes"),
        (b"a.mp4\n", "line 1: 'a.mp4' is not"),
        (b"a.mp4\t1\n", "line 1.*there is a tab"),
        (b"a.mp4  1\n", "line 1.*separated by one ' ' each"),
        (b"my video.mp4 1\n", "line 1.*file names cannot contain"),
        (b"a.mp4 1 2\n", "line 1: 2 labels; set multi_class"),
        (b"a.mp4 1\n\nb.mp4 2\n", "line 2: it is empty"),
        (b"a.mp4 1\n\n", "line 2: it is empty"),
        (b"", "lists no video"),
        (b" \n\n", "lists no video"),
        (b"\xef\xbb\xbfa.mp4 1\n", "line 1: it begins with a byte-order mark"),
        ("a.mp4 1\n".encode("utf-16"), "it is in UTF-16.*iconv"),
        ("a.mp4 1\n".encode("utf-32"), "it is in UTF-32.*iconv"),
        ("a.mp4 1\n".encode("utf-16-le"), "line 1: there is a NUL byte"),
        (b"a.mp4 1\na\0b.mp4 1\n", "line 2: there is a NUL byte"),
        ("a.mp4 1\né.mp4 1\n".encode("latin-1"), "line 2: byte 0xe9 in column 1 is not UTF-8.*iconv"),
    ],
)  # fmt: skip
def test_bad_lists_are_refused_with_file_line_and_what_to_try(tmp_path, content, message):
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    with pytest.raises(Ada3DError, match=message) as raised:
        check_dataset({**VIDEOS, "ann_file": str(path)}, 4)
    assert str(path) in str(raised.value)


def test_without_a_known_number_of_classes_labels_below_zero_are_refused(tmp_path):
    (tmp_path / "list.txt").write_text("a.mp4 -1\n")
    with pytest.raises(Ada3DError, match="line 1: label -1 is outside the classes"):
        check_dataset({**VIDEOS, "ann_file": str(tmp_path / "list.txt")}, None)


@pytest.mark.parametrize(
    "line, message",
    [("a 3", "line 1: 'a 3' is not 'video label"), ("a x 3", "is not 'folder frames label"),
     ("a ² 3", "is not 'folder frames"), ("a", "is not 'folder"), ("a 3 9", "label 9")],
)  # fmt: skip
def test_bad_lists_of_folders(tmp_path, line, message):
    (tmp_path / "list.txt").write_text(line + "\n")
    with pytest.raises(Ada3DError, match=message):
        check_dataset({**FRAMES, "ann_file": str(tmp_path / "list.txt")}, 4)


def test_a_folder_of_frames_that_is_not_there(tmp_path):
    (tmp_path / "list.txt").write_text("absent 5 0\n")
    dataset = {**FRAMES, "ann_file": "list.txt", "data_root": str(tmp_path)}
    with pytest.raises(Ada3DError, match=r"line 1: no folder of frames at .*frames/absent"):
        check_dataset(dataset, 4)


@pytest.mark.parametrize("path, message", [("", "nothing at ''"), ("absent.txt", "nothing at"),
                                           ("a\0b", "nothing at"), (".", "is a folder")])  # fmt: skip
def test_lists_that_are_none(path, message):
    with pytest.raises(Ada3DError, match=message):
        check_dataset({**VIDEOS, "ann_file": path}, 4)


@pytest.mark.slow
def test_names_beyond_ascii_in_a_locale_without_them(tmp_path):
    """Lists are read in UTF-8 whatever the locale; names that it has no bytes for are told."""
    (tmp_path / "list.txt").write_bytes("é.mp4 0\n".encode())
    plain = {"PYTHONPATH": str(command_lines.ROOT), "PATH": os.environ["PATH"], "LC_ALL": "C"}
    done = subprocess.run(
        [sys.executable, str(command_lines.ROOT / "tools" / "check_data.py"), "list.txt"],
        capture_output=True, text=True, cwd=tmp_path, check=False,
        env={**plain, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert r"line 1: \xe9.mp4" in done.stdout and "LC_ALL=C.UTF-8" in done.stdout
