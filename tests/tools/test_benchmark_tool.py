"""The command line of the benchmark."""

import json

import command_lines
import pytest

CONFIG = "mmaction_configs/demo_stage0.py"


def test_the_table_is_printed(monkeypatch, capsys):
    options = ["--clips", "1", "--clip-shape", "3,8,32,32", "--repeats", "1", "--usage", "1/2:0.2"]
    assert command_lines.run(monkeypatch, "benchmark", CONFIG, *options) == 0
    assert "packed, 4 of 8 frames, 1 of 5 stages" in capsys.readouterr().out


def test_forms_and_bfloat16_are_rows(monkeypatch, capsys):
    options = ["--clips", "2", "--clip-shape", "3,8,32,32", "--repeats", "1", "--usage", "1/2:0.2"]
    assert command_lines.run(monkeypatch, "benchmark", CONFIG, *options, "--forms", "--amp") == 0
    printed = capsys.readouterr().out
    assert "packed, 8 of 16 frames, 2 of 10 stages, gathered " in printed
    assert "packed, 8 of 16 frames, 2 of 10 stages, separated, bfloat16 " in printed


def test_json_and_a_picture_of_two_numbers_of_clips(monkeypatch, capsys, tmp_path):
    out, picture = tmp_path / "times.json", tmp_path / "times.png"
    options = ["--clips", "1,2", "--clip-shape", "3,8,32,32", "--repeats", "2", "--json", out]
    assert command_lines.run(monkeypatch, "benchmark", CONFIG, *options, "--out", picture) == 0
    printed = capsys.readouterr().out
    assert "\n2 clips of 3 x 8 x 32 x 32" in printed and printed.startswith("1 clip of")
    result = json.loads(out.read_text())
    assert result["command"].startswith("benchmark.py mmaction_configs/demo_stage0.py --clips 1,2")
    assert [table["clips"] for table in result["tables"]] == [1, 2]
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "options, message",
    [
        (["--engine", "torch,tensorrt"], "'tensorrt'"),
        (["--clips", "1,0"], "whole numbers above 0"),
        (["--out", "times.txt"], "times.txt: pictures are written as .png"),
        (["--policy", "random"], "--policy random: expected a .json or .csv file"),
        (["--int8"], "add --engine"),
    ],
)
def test_bad_options_are_told(monkeypatch, capsys, options, message):
    shape = ["--clip-shape", "3,8,32,32"]
    assert command_lines.run(monkeypatch, "benchmark", CONFIG, *shape, *options) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


@pytest.mark.parametrize("text", ["0.5", "a:b", "1/0:1", "0.5:0.5:0.5", "0.5:2"])
def test_bad_usages_are_named(monkeypatch, capsys, text):
    assert command_lines.run(monkeypatch, "benchmark", CONFIG, "--usage", text) == 2
    assert text in capsys.readouterr().err


def test_a_missing_config_is_named(monkeypatch, capsys):
    assert command_lines.run(monkeypatch, "benchmark", "nowhere.py") == 2
    assert "nowhere.py" in capsys.readouterr().err


@pytest.mark.parametrize(
    "option, message",
    [("custom_hooks.99.x=1", "no place"), ("type", "'type': expected KEY=VALUE")],
)
def test_bad_config_options_are_told(monkeypatch, capsys, option, message):
    config = "mmaction_configs/ada3d_demo.py"
    assert command_lines.run(monkeypatch, "benchmark", config, "--cfg-options", option) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
