"""The command line of the HTML page."""

import command_lines


def test_a_folder_without_a_comparison_is_told(monkeypatch, capsys, tmp_path):
    args = command_lines.parse(monkeypatch, "report", "d", "--tradeoff", "e", "--out", "f.html")
    assert (args.folder, args.tradeoff, args.out, args.title) == ("d", "e", "f.html", None)
    assert command_lines.run(monkeypatch, "report", tmp_path) == 2
    assert "run tools/compare.py first" in capsys.readouterr().err
