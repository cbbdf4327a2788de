"""Parts of a comparison are used again only where they were made from the same."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import experiment_parts
import pytest
from experiment_parts import Said

import ada3d_fx.mm  # noqa: F401
from ada3d_fx import Ada3DError
from ada3d_fx.comparison.compare import compare
from ada3d_fx.comparison.run import ComparisonRun, Setup
from ada3d_fx.provenance.made_from import FILE, MadeOtherwise

ROWS = ("upper", "random", "ada3d")


def setup_of(folder, *options, **others):
    return Setup(
        str(folder / "config.py"), options, str(folder / "plain.pth"), str(folder / "out"), **others
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with config, data, and a comparison that command A made."""
    folder = tmp_path_factory.mktemp("reuse")
    experiment_parts.write(folder, experiment_parts.config_of(folder))
    argv, sys.argv = sys.argv, ["compare.py", "A"]
    compare(setup_of(folder), ROWS)
    sys.argv = argv
    return folder


@pytest.fixture
def copy(made, tmp_path, monkeypatch):
    """A copy of it, data and config too, for command B."""
    folder = tmp_path / "copy"
    shutil.copytree(made, folder)
    text = (folder / "config.py").read_text().replace(str(made), str(folder))
    (folder / "config.py").write_text(text)
    monkeypatch.setattr(sys, "argv", ["compare.py", "B"])
    return folder


def run(setup, rows=ROWS, **options):
    said = Said()
    compare(setup, rows, console=said, **options)
    report = json.loads(Path(setup.work_dir, "report.json").read_text())
    return report, "\n".join(said.lines)


def states(folder):
    """{path: when it was written} of results and checkpoints."""
    return {
        path.relative_to(folder): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.suffix == ".pth" or path.name in ("result.json", FILE)
    }


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_copied_folder_is_used_again_and_its_report_is_the_same(made, copy):
    before = states(copy)
    report, said = run(setup_of(copy))
    assert states(copy) == before and "iterations" not in said
    first = json.loads((made / "out" / "report.json").read_text())
    for key in ("rows", "kinds", "classes", "differences", "shares", "made_by", "made_from"):
        assert report[key] == first[key], key
    assert [maker["command"] for maker in report["made_by"]] == ["compare.py A"]
    assert report["made_differently"] == []


def test_a_row_of_a_copied_folder_tests_the_copys_checkpoint(copy):
    """Not that of the first folder, whose path its result was made with."""
    (copy / "out" / "seed0" / "ada3d" / "epoch_3.pth").unlink()
    with pytest.raises(Ada3DError, match=r"no file at .*ada3d/epoch_3.pth"):
        run(setup_of(copy), ["shuffled"])


@pytest.mark.parametrize(
    "option, told",
    [
        ("model.objective.gamma=3.0", "model.objective.gamma: nothing -> 3.0"),
        ("train_dataloader.batch_size=2", "train_dataloader.batch_size: 4 -> 2"),
    ],
)
def test_other_options_are_told_before_anything_is_made(copy, option, told):
    before = states(copy)
    with pytest.raises(MadeOtherwise) as error:
        run(setup_of(copy, option))
    assert told in str(error.value) and "seed0/ada3d" in str(error.value)
    assert "--redo" in str(error.value)
    assert states(copy) == before


def test_other_data_and_another_recognizer_are_told(copy):
    path = copy / "list.txt"
    path.write_text(path.read_text().replace("7.mp4 3", "7.mp4 2"))
    shutil.copy(copy / "model.pth", copy / "plain.pth")
    with pytest.raises(MadeOtherwise) as error:
        run(setup_of(copy), ["upper"])
    assert "model.recognizer_checkpoint: " in str(error.value)
    assert "test_dataloader.dataset.ann_file: " in str(error.value)


def test_redo_makes_what_differs_anew_and_keeps_the_old_beside_it(copy):
    """A comparison of other rules for testing: training is kept, and so is what is equal."""
    out, option = copy / "out" / "seed0", "test_dataloader.batch_size=2"
    before = states(out / "ada3d")
    report, said = run(setup_of(copy, option, redo=True), ["upper", "ada3d"])
    assert (out / "upper.old-1" / "result.json").is_file() and (out / "upper").is_dir()
    assert (out / "ada3d" / "result.json.old-1").is_file() and "iterations" not in said
    after = states(out / "ada3d")
    assert after.pop(Path("result.json")) != before.pop(Path("result.json")) and after == before
    assert "upper is made anew, the old one is upper.old-1 now: test_dataloader.batch_size" in said
    assert report["made_differently"][0].startswith("random (seed 0), against ada3d: test_data")
    before = states(out)
    run(setup_of(copy, option), ["upper", "ada3d"])
    assert states(out) == before


def interrupted(copy):
    """As if the training of ada3d had been killed after the second of three epochs."""
    for name in ("result.json", "epoch_3.pth"):
        (copy / "out" / "seed0" / "ada3d" / name).unlink()


def test_a_training_does_not_go_on_from_another(copy):
    interrupted(copy)
    before = states(copy)
    with pytest.raises(MadeOtherwise, match=r"phases.phases.2.selector_lr: 0.01 -> 0.5"):
        run(setup_of(copy, "custom_hooks.0.phases.2.selector_lr=0.5"), ["ada3d"])
    assert states(copy) == before


@pytest.mark.slow
def test_a_training_goes_on_from_the_same_and_redo_begins_it_again(made, copy):
    out = copy / "out" / "seed0" / "ada3d"
    whole = json.loads((out / "result.json").read_text().replace(str(made), str(copy)))
    interrupted(copy)
    _, said = run(setup_of(copy), ["ada3d"])
    assert "joint: 2 iterations" in said and "selection: " not in said
    result = json.loads((out / "result.json").read_text())
    for one in (whole, result):
        one["row"].pop("train_seconds")
        one.pop("command")
    assert result == whole
    option = "custom_hooks.0.phases.2.selector_lr=0.5"
    report, said = run(setup_of(copy, option, redo=True), ["ada3d"])
    assert (out.with_name("ada3d.old-1") / "epoch_2.pth").is_file()
    assert "warmup" not in said and "selection: 2 iterations" in said  # the warm-up is the same
    assert {maker["command"] for maker in report["made_by"]} == {"compare.py A", "compare.py B"}


def test_a_warm_up_of_something_else_is_not_gone_on_from(copy):
    shutil.rmtree(copy / "out" / "seed0" / "ada3d")
    with pytest.raises(MadeOtherwise, match=r"warmup: made from.*\n  train_dataloader.batch_size"):
        run(setup_of(copy, "train_dataloader.batch_size=2"), ["ada3d"])
    (copy / "out" / "seed0" / "warmup" / FILE).write_text("{")
    with pytest.raises(MadeOtherwise, match=r"warmup: made from something else:\n  unknown"):
        run(setup_of(copy), ["ada3d"])


def test_folders_without_records_are_unknown_and_can_be_reported(copy):
    for path in (copy / "out").rglob(FILE):
        path.unlink()
    for path in (copy / "out").rglob("result.json"):
        edit(path, lambda result: [result.pop(k) for k in ("made_from", "command", "own_keys")])
    with pytest.raises(MadeOtherwise, match="unknown: no whole made_from"):
        run(setup_of(copy))
    report, _ = run(setup_of(copy, "model.objective.gamma=9"), report_only=True)
    assert report["command"] == "unknown" and report["reported_by"] == "compare.py B"
    assert [row["name"] for row in report["rows"]] == list(ROWS)
    assert list(report["made_from"].values()) == [["unknown"]] * len(ROWS)
    [line] = report["made_differently"]
    assert line.startswith(", ".join(f"{name} (seed 0)" for name in ROWS))
    assert "unknown" in (copy / "out" / "report.md").read_text()


def test_a_report_alone_names_the_maker_and_no_other(copy):
    report, _ = run(setup_of(copy, "model.objective.gamma=9"), report_only=True)
    assert (report["command"], report["reported_by"]) == ("compare.py A", "compare.py B")
    assert report["made_differently"] == []
    with pytest.raises(MadeOtherwise):
        run(setup_of(copy, "model.objective.gamma=9"), report_only=True, pictures=1)


def test_a_report_alone_makes_nothing_to_draw(copy):
    shutil.rmtree(copy / "out" / "seed0" / "ada3d")
    with pytest.raises(Ada3DError, match=r"--pictures: there is no row ada3d in .*seed0 to draw"):
        run(setup_of(copy), report_only=True, pictures=1)
    assert not (copy / "out" / "seed0" / "ada3d").exists()


@pytest.mark.parametrize("content", ['{"row": {"na', '{"rows": []}', "[]", ""])
def test_a_broken_result_does_not_count_and_is_told_once(copy, content):
    run, path = ComparisonRun(setup_of(copy), 0, console=Said()), copy / "out" / "seed0" / "upper"
    (path / "result.json").write_text(content)
    assert run.result("upper") is None and run.looking().result("upper") is None
    [line] = run.console.lines
    assert "upper/result.json is cut off, or no result of this tool" in line


@pytest.mark.slow
def test_a_row_of_a_broken_result_is_made_anew(copy):
    path = copy / "out" / "seed0" / "upper" / "result.json"
    whole = json.loads(path.read_text())
    path.write_text('{"row": {"na')
    run(setup_of(copy), ["upper"])
    assert json.loads(path.read_text())["row"] == whole["row"]
    assert path.with_name("result.json.old-1").read_text() == '{"row": {"na'


def test_a_checkpoint_that_is_another_now_is_not_tested(copy):
    shutil.copy(copy / "model.pth", copy / "out" / "seed0" / "ada3d" / "epoch_3.pth")
    with pytest.raises(Ada3DError, match="pth has changed since its result was made"):
        run(setup_of(copy), ["ada3d", "shuffled"])


def test_rows_made_from_something_else_are_named_in_the_report(copy):
    options = {"redo": True, "variants": {"dearer": {"model.objective.gamma": 3.0}}}
    out = copy / "out" / "seed0"
    shutil.copytree(out / "ada3d", out / "dearer")
    edit(out / "dearer" / "result.json",
         lambda r: (r["made_from"].update({"model.objective.gamma": 3.0, "version of torch": "1"}),
                    r.update(own_keys=[*r["own_keys"], "model.objective.gamma"])))  # fmt: skip
    report, _ = run(dataclasses.replace(setup_of(copy), **options), report_only=True)
    [line] = report["made_differently"]
    assert line.startswith("dearer (seed 0), against ada3d: version of torch: ")
