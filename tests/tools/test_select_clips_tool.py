"""The command line of clip selection."""

import command_lines


def test_the_command_line_is_parsed(monkeypatch, capsys):
    files = ["config.py", "model.pth"]
    args = command_lines.parse(monkeypatch, "select_clips", *files, "--costs", "0.1,5")
    assert (args.costs, args.steps, args.seed) == ([0.1, 5.0], 1500, 0)
    assert command_lines.run(monkeypatch, "select_clips", *files, "--costs", "a") == 2
    assert "expected finite numbers" in capsys.readouterr().err
    assert command_lines.run(monkeypatch, "select_clips", *files) == 2
    assert "no file at config.py" in capsys.readouterr().err
