"""Digests tell contents: copies are equal, and what changes no result does not count."""

import shutil

import pytest
import torch

from ada3d_fx.provenance import fingerprints
from ada3d_fx.provenance.fingerprints import bare_code, fingerprint, listed

SOURCE = '''"""What it is."""

def f(x):
    """Adds one.

    Args: x.
    """
    return x + 1  # one
'''


@pytest.mark.parametrize(
    "old, new, same",
    [
        ("What it is", "What it does", True),
        ("    Args: x.\n", "    Args:\n        x: a number.\n", True),
        ("  # one", "", True),
        ("\n\n", "\n\n\n", True),
        ("x + 1", "x + 2", False),
        ("return x", "return '# one' or x", False),
        ("def f(x):", "def f(y):", False),
    ],
)
def test_of_code_only_what_runs_counts(old, new, same):
    assert old in SOURCE
    assert (bare_code(SOURCE) == bare_code(SOURCE.replace(old, new))) == same


def test_a_docstring_beside_code_takes_none_of_it_away():
    assert "def f(): 'A word.'; return 1" in bare_code("def f(): 'A word.'; return 1\n")


def test_all_code_counts_but_what_has_a_reason():
    parts = fingerprints.code()
    assert {
        "packed",
        "tracing",
        "elastic",
        "passes",
        "cost",
        "learn",
        "mm",
        "convert",
        "policy",
    } <= set(parts)
    assert {"report/records", "comparison/run", "comparison/matching"} <= set(parts)
    assert not {"report", "experiments", "comparison", "timing", "cli"} & set(parts)
    for name in (*fingerprints.NO_CODE, *fingerprints.CODE_THERE):
        path = fingerprints.PACKAGE / name
        assert path.is_dir() or path.with_suffix(".py").is_file(), name


def test_a_changed_file_changes_its_part_alone(tmp_path, monkeypatch):
    for name in ("packed/a.py", "packed/b.py", "mm/console.py", "mm/hooks.py", ".mim/tools/x.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    monkeypatch.setattr(fingerprints, "PACKAGE", tmp_path)
    before = fingerprints.code.__wrapped__()
    (tmp_path / "packed" / "b.py").write_text("x = 2\n")
    (tmp_path / "mm" / "console.py").write_text("x = 2\n")
    after = fingerprints.code.__wrapped__()
    assert set(before) == set(after) == {"packed", "mm"}
    assert before["packed"] != after["packed"] and before["mm"] == after["mm"]


def test_the_packages_that_compute_and_decode_have_versions():
    assert all(fingerprints.packages().values())


def test_only_the_weights_of_a_checkpoint_count(tmp_path):
    weights = {"a": torch.arange(3.0), "b": torch.tensor(True), "c": torch.zeros(0, 2)}
    torch.save(weights, tmp_path / "plain.pth")
    torch.save({"state_dict": weights, "meta": {"time": "today"}}, tmp_path / "whole.pth")
    told = fingerprint(tmp_path / "plain.pth")
    assert told.startswith("3 tensors, sha256 ") and told == fingerprint(tmp_path / "whole.pth")
    torch.save({**weights, "a": torch.tensor([0.0, 1.0, 2.5])}, tmp_path / "other.pth")
    assert fingerprint(tmp_path / "other.pth") != told
    (tmp_path / "none.pth").write_bytes(b"no checkpoint")
    assert fingerprint(tmp_path / "none.pth").startswith("13 bytes")


def test_a_file_that_changes_is_read_again(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("a 0\n")
    before = fingerprint(path)
    path.write_text("a 1 0\n")
    assert fingerprint(path) != before


def test_listed_videos_count_by_their_sizes_wherever_they_are(tmp_path):
    folder = tmp_path / "videos"
    (folder / "frames").mkdir(parents=True)
    (folder / "a b.mp4").write_bytes(b"12345")
    (folder / "frames" / "1.jpg").touch()
    path = tmp_path / "list.txt"
    path.write_text("a b.mp4,0\n\nframes,1\nlost.mp4,0\n")
    told = listed(path, folder, ",")
    assert told.startswith("3 videos, 6 bytes, 1 missing, sizes ")
    shutil.copytree(tmp_path, tmp_path.with_name("copy"))
    copy = tmp_path.with_name("copy")
    assert listed(copy / "list.txt", copy / "videos", ",") == told
    (copy / "videos" / "a b.mp4").write_bytes(b"123456")
    fingerprints._listed.cache_clear()
    assert listed(copy / "list.txt", copy / "videos", ",") != told
