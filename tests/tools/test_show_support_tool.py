"""The command line of the support tool."""

import command_lines
import pytest


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["mmaction_configs/demo_stage0.py", "--clip-shape", "3,16"], "--clip-shape: '3,16'"),
        (["nowhere.py"], "nowhere.py"),
        (["--families", "resnet"], "--families resnet"),
        (["mmaction_configs/demo_stage0.py", "--families", "x3d"], "not both"),
    ],
)
def test_bad_input_is_one_line(monkeypatch, capsys, arguments, words):
    assert command_lines.run(monkeypatch, "show_support", *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and words in error and error.count("\n") == 1


def test_a_config_of_ones_own(monkeypatch, capsys):
    options = ["mmaction_configs/demo_stage0.py", "--clip-shape", "3,8,48,56"]
    assert command_lines.run(monkeypatch, "show_support", *options) == 0
    found = capsys.readouterr()
    assert "saved by all-2D" in found.out and "packed" in found.out and not found.err
