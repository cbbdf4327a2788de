"""tools/test.py and tools/train.py in processes of their own: a person's console, and a log file."""

import command_lines
import experiment_parts
import pytest

import ada3d_fx.mm  # noqa: F401


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    experiment_parts.write(folder, experiment_parts.config_of(folder))
    return folder


def test_a_test_in_a_pipe(work, tmp_path):
    """Nothing is imported or registered beforehand; no warnings, no control codes, few lines."""
    files = ["config.py", "model.pth", "--work-dir", tmp_path]
    done = command_lines.start("test", *files, "--policy", "random:frames=0.5", cwd=work)
    assert done.returncode == 0, done.stderr
    for word in ("#3D", "selection network", "distinct policies of 8 clips", "policies.json"):
        assert word in done.stdout, word
    log = done.stderr.splitlines()
    assert log[0].startswith("log: ") and "test: accuracy" in log[1] and len(log) == 2
    assert "\x1b" not in done.stdout + done.stderr
    text = next(tmp_path.rglob("*.log")).read_text()
    assert "Config:" in text and "Epoch(test)" in text  # what is not on the console


def test_training_in_a_pipe_says_what_it_does(work, tmp_path):
    done = command_lines.start("train", "config.py", "--work-dir", tmp_path, cwd=work)
    assert done.returncode == 0, done.stderr
    text = done.stdout + done.stderr
    for word in ("log: ", "warmup: 2 iterations in ", "selection: 2 iterations in ", "loss ",
                 "validation after epoch 3: accuracy", "GMACs per clip", "checkpoints: "):  # fmt: skip
        assert word in text, word
    others = [line for line in text.splitlines() if "warning: policies" not in line]
    assert len(others) <= 9 and "\x1b" not in text and "Warning" not in text
    assert "Epoch(train)" not in text


def test_everything_is_on_the_console_where_it_is_wanted(work, tmp_path, monkeypatch, capsys):
    files = [work / "config.py", work / "model.pth", "--work-dir", tmp_path, "--verbose"]
    assert command_lines.run(monkeypatch, "test", *files) == 0
    text = capsys.readouterr().out
    assert "Epoch(test)" in text and "Config:" in text


def test_the_command_line_is_parsed(monkeypatch, capsys):
    files = ["config.py", "model.pth"]
    args = command_lines.parse(
        monkeypatch, "test", *files, "--gmacs", "0.4", "--calibrate-on", "train",
        "--policies", "p.csv", "--json", "m.json",
    )  # fmt: skip
    assert (args.gmacs, args.calibrate_on, args.policies) == (0.4, "train", "p.csv")
    assert command_lines.parse(monkeypatch, "test", *files).calibrate_on == "val"
    assert command_lines.run(monkeypatch, "test", *files, "--budget", "1") == 2
    assert "unrecognized arguments: --budget" in capsys.readouterr().err
