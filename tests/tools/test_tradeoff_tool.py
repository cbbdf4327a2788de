"""The command line of the trade-off."""

import command_lines
import pytest


def test_the_command_line_is_parsed(monkeypatch):
    args = command_lines.parse(
        monkeypatch, "tradeoff", "config.py", "--recognizer-checkpoint", "plain.pth",
        "--gmacs", "0.2,0.3", "--seeds", "0,1", "--redo",
    )  # fmt: skip
    assert args.gmacs == [0.2, 0.3] and args.gammas is None and args.seeds == [0, 1]
    assert args.redo
    args = command_lines.parse(
        monkeypatch, "tradeoff", "config.py", "--checkpoint", "model.pth", "--gmacs", "0.4",
        "--calibrate-on", "train",
    )  # fmt: skip
    assert (args.checkpoint, args.gmacs, args.calibrate_on) == ("model.pth", [0.4], "train")


@pytest.mark.parametrize(
    "wrong",
    [
        ["--gammas", "a,b"],
        ["--gammas", "1", "--checkpoint", "model.pth"],
        ["--gmacs", "1", "--gammas", "1"],
        [],
        ["--gammas", "1", "--seeds", "x"],
    ],
)
def test_bad_options_are_told(monkeypatch, capsys, wrong):
    assert command_lines.run(monkeypatch, "tradeoff", "config.py", *wrong) == 2
    assert capsys.readouterr().err.startswith("error: ")
