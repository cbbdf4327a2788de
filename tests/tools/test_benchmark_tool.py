"""The command line of the benchmark."""

import command_lines
import pytest

CONFIG = "mmaction_configs/demo_stage0.py"


def test_the_table_is_printed(monkeypatch, capsys):
    options = ["--clips", "1", "--clip-shape", "3,8,32,32", "--repeats", "1", "--usage", "1/2:0.2"]
    assert command_lines.run(monkeypatch, "benchmark", CONFIG, *options) == 0
    assert "packed, 4 of 8 frames, 1 of 5 stages" in capsys.readouterr().out


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
