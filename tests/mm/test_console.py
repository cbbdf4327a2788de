"""MMEngine runs on a person's console: few lines there, everything in the log file."""

import copy
import logging
from pathlib import Path

import experiment_parts
import pytest
from mmengine.logging import MMLogger

import ada3d_fx.mm  # noqa: F401
from ada3d_fx import Ada3DError
from ada3d_fx.cli import user_errors
from ada3d_fx.mm.console import ConsoleHook, WarningHandler, build_runner, make_work_dir
from ada3d_fx.progress import Console


class Said(Console):
    """A console that keeps its lines, and what its bars did."""

    def __init__(self):
        super().__init__(terminal=False)
        self.lines, self.bars = [], []

    def say(self, text):
        self.lines.append(text)

    def bar(self, text, total, done=0):
        bar = super().bar(text, total, done)
        self.bars.append(bar)
        return bar


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What a whole run says, its runner and its config."""
    folder = tmp_path_factory.mktemp("console")
    config = experiment_parts.config_of(folder)
    config.experiment_name = "console"
    console = Said()
    runner = build_runner(config, console, "mine")
    runner.train()
    return console, runner, config


def test_a_line_for_each_phase_and_each_validation(trained):
    console, _, _ = trained
    lines = [line for line in console.lines if "warning" not in line]
    assert len(lines) == 6
    for line, phase in zip(lines[1::2], ("warmup", "selection", "joint")):
        assert line.startswith(f"  mine: {phase}: 2 iterations in ") and ", loss " in line
    for epoch, line in enumerate(lines[::2], 1):
        assert line.startswith(f"  mine: validation after epoch {epoch}: accuracy ")
        assert line.count("GMACs per clip") == 1


def test_bars_count_to_their_end_and_are_closed(trained):
    console, _, _ = trained
    texts = [bar.text for bar in console.bars]
    assert texts == ["mine: joint", *["mine: validating"] * 3]
    assert all(bar.done == bar.total for bar in console.bars)
    assert console._open == []


def test_the_log_file_has_everything(trained):
    _, runner, _ = trained
    text = Path(runner.logger.log_file).read_text()
    assert "Config:" in text and "Epoch(train)" in text and "Epoch(val)" in text


def test_a_run_that_goes_on_begins_where_it_stopped(trained):
    _, _, config = trained
    config = copy.deepcopy(config)
    config.experiment_name, config.resume = "again", True
    config.train_cfg.max_epochs = 4
    config.custom_hooks[0]["phases"][-1]["epochs"] = 2
    console = Said()
    build_runner(config, console).train()
    assert console.bars[0].done == console.bars[0].total == 8
    assert console.bars[0].made == 2 and "Loads checkpoint" not in "".join(console.lines)


def test_bars_are_closed_after_an_error(trained):
    _, _, config = trained
    config = copy.deepcopy(config)
    config.experiment_name, config.resume = "broken", False
    console = Said()
    runner = build_runner(config, console)

    class Broken(ConsoleHook):
        def after_train_iter(self, runner, *args, **kwargs):
            raise ZeroDivisionError

    runner.register_hook(Broken(console))
    with pytest.raises(ZeroDivisionError):
        runner.train()
    assert console.bars and console._open == []


def record(path, level, text):
    return logging.LogRecord("mmengine", level, str(path), 1, text, (), None)


def test_warnings_of_this_package_and_all_errors_are_shown_once():
    from ada3d_fx.mm import hooks

    handler = WarningHandler()
    handler.console = console = Said()
    handler.title = "mine"
    for epoch in range(2):
        for where in (hooks.__file__, logging.__file__):
            handler.handle(
                record(where, logging.WARNING, f"98.{epoch} % collapsed, {Path(where).stem}")
            )
    handler.handle(record(logging.__file__, logging.ERROR, "broken"))
    assert console.lines == ["  mine: warning: 98.0 % collapsed, hooks", "  mine: error: broken"]


def test_verbose_is_mmengines_own_console(trained):
    _, _, config = trained
    config = copy.deepcopy(config)
    config.experiment_name = "verbose"
    logger = build_runner(config, Console(verbose=True)).logger
    assert isinstance(logger, MMLogger)
    assert not [handler for handler in logger.handlers if isinstance(handler, WarningHandler)]
    assert any(type(handler) is logging.StreamHandler for handler in logger.handlers)


def test_a_work_dir_in_which_nothing_can_be_written(tmp_path):
    make_work_dir(tmp_path / "new" / "work")
    assert list((tmp_path / "new" / "work").iterdir()) == []
    (tmp_path / "file").write_text("text")
    for wrong in (tmp_path / "file", tmp_path / "file" / "work", tmp_path / ("a" * 300), "a\0b"):
        with pytest.raises(Ada3DError, match=r"work dir .* --work-dir"):
            make_work_dir(wrong)


def test_a_full_disk_is_told_in_one_line(capsys):
    def write():
        with open("/dev/full", "w") as file:  # every write to it finds the disk full
            file.write("text")

    assert user_errors(write)() == 2
    assert capsys.readouterr().err == "error: No space left on device; make room and run it again\n"

    def missing():
        Path("/absent/file").read_text()

    with pytest.raises(FileNotFoundError):  # which is ours
        user_errors(missing)()
