"""The command line of the FLOPs tool."""

import command_lines
import mm_parts
import pytest
from mmengine.config import Config


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("prices") / "config.py"
    Config({"model": mm_parts.model(recognizer_checkpoint="nowhere.pth")}).dump(str(path))
    return path


def test_prices_are_printed(config, monkeypatch, capsys, tmp_path):
    policies = ["--policy", "full", "--policy", "3/10100"]
    files = ["--json", tmp_path / "a.json", "--out", tmp_path / "a.png"]
    options = [*policies, *files, "--clip-shape", "3,2,32,32", "--selector", "off", "--all"]
    assert command_lines.run(monkeypatch, "analyze_flops", config, *options) == 2
    assert "this network takes 2 bits (or a number of frames)" in capsys.readouterr().err
    options[3] = "2/10100"
    assert command_lines.run(monkeypatch, "analyze_flops", config, *options) == 0
    found = capsys.readouterr()
    assert "stages: K=5" in found.out and "2/10100" in found.out and "verdict" in found.out
    assert (tmp_path / "a.json").is_file() and (tmp_path / "a.png").is_file()


@pytest.mark.parametrize(
    "wrong, message",
    [
        (["--policy", "1010/101"], "4 bits (or a number of frames), a slash and 5 bits"),
        (["--policy", "9/00000"], "takes 4 bits (or a number of frames)"),
        (["--policy", "0/00000"], "every clip must keep at least one frame"),
        (["--policy", "nothing"], "expected full, or random:"),
        (["--policy", "learned"], "expected full, or random:"),
        (["--policy", "random:frame=0.5"], "'frame=0.5'; try random:"),
        (["--policy", "random:frames=3"], "at most 1"),
        (["--policy", "nowhere.json"], "no file at nowhere.json"),
        (["--clip-shape", "3,8,224"], "expected C,T,H,W"),
        (["--clip-shape", "3,0,224,224"], "expected C,T,H,W"),
        (["--families", "i3d"], "give a CONFIG, or --families"),
    ],
)
def test_mistakes_are_told(config, monkeypatch, capsys, wrong, message):
    assert command_lines.run(monkeypatch, "analyze_flops", config, *wrong) == 2
    assert message in capsys.readouterr().err
