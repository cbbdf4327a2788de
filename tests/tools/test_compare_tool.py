"""The command line of the comparison; what it does is tested in tests/experiments."""

import command_lines
import experiment_parts
import pytest

import ada3d_fx.mm  # noqa: F401


def test_the_command_line_is_parsed(monkeypatch):
    args = command_lines.parse(
        monkeypatch, "compare", "config.py", "--recognizer-checkpoint", "plain{fold}.pth",
        "--rows", "upper,ada3d", "--seeds", "0,1", "--folds", "2,3", "--work-dir", "out",
        "--variant", "dearer", "model.objective.gamma=3", "--variant", "b", "x=1", "y=2",
        "--cfg-options", "a.b=1", "c=(1,2)", "--pictures", "4", "--calibrate-on", "val", "--redo",
    )  # fmt: skip
    assert (args.rows, args.seeds, args.folds) == (["upper", "ada3d"], [0, 1], [2, 3])
    assert args.variant == [["dearer", "model.objective.gamma=3"], ["b", "x=1", "y=2"]]
    assert args.cfg_options == ["a.b=1", "c=(1,2)"] and args.calibrate_on == "val"
    assert (args.recognizer_checkpoint, args.pictures) == ("plain{fold}.pth", 4)
    assert args.redo
    args = command_lines.parse(monkeypatch, "compare", "config.py")
    assert not args.redo
    assert args.rows == ["upper", "random", "random_ft", "ada3d"]
    assert (args.seeds, args.folds, args.calibrate_on) == ([0], [None], "train")


def test_the_tables_are_printed_and_mistakes_are_told(monkeypatch, capsys, tmp_path):
    """As it is typed: the work dir is a relative path."""
    experiment_parts.write(tmp_path, experiment_parts.config_of(tmp_path))
    monkeypatch.chdir(tmp_path)
    arguments = ["config.py", "--work-dir", "out", "--rows", "upper"]
    assert command_lines.run(monkeypatch, "compare", *arguments) == 2
    assert "no trained recognizer at None" in capsys.readouterr().err
    arguments += ["--recognizer-checkpoint", "plain.pth"]
    assert command_lines.run(monkeypatch, "compare", *arguments) == 0
    found = capsys.readouterr()
    assert found.out.startswith("policy") and "upper" in found.out
    assert "out/report.md" in found.out and (tmp_path / "out" / "report.json").is_file()
    assert "logs and checkpoints: out" in found.err and "mmengine" not in found.err
    arguments += ["--cfg-options", "test_dataloader.batch_size=2"]
    assert command_lines.run(monkeypatch, "compare", *arguments) == 2
    assert "error: out/seed0/upper: made from something else:\n  test_dataloader" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    "wrong, message",
    [
        (["--rows", "lower"], "--rows: lower"),
        (["--seeds", "x"], "expected whole numbers"),
        (["--variant", "ada3d", "a=1"], "--variant takes a name of its own"),
        (["--variant", "mine", "a"], "expected KEY=VALUE"),
        (["--recognizer", "plain.pth"], "unrecognized arguments: --recognizer"),  # no abbreviation
    ],
)
def test_bad_options_are_told(monkeypatch, capsys, wrong, message):
    assert command_lines.run(monkeypatch, "compare", "config.py", *wrong) == 2
    assert message in capsys.readouterr().err
