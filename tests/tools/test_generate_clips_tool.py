"""The command line of the generated clips."""

import command_lines
import pytest


def test_clips_are_written(monkeypatch, capsys, tmp_path):
    options = ["--out", tmp_path, "--num-train", 10, "--num-val", 10, "--size", "32x32"]
    assert command_lines.run(monkeypatch, "generate_clips", *options) == 0
    assert "10 + 10 clips of 10 classes" in capsys.readouterr().out
    assert (tmp_path / "train.txt").is_file()


@pytest.mark.parametrize("size", ["63x64", "64", "16x16", "axb", "48x48"])
def test_sizes_that_cannot_be_encoded_or_decoded_are_refused(size, monkeypatch, capsys, tmp_path):
    options = ["--out", tmp_path, "--size", size]
    assert command_lines.run(monkeypatch, "generate_clips", *options) == 2
    assert "--size" in capsys.readouterr().err
