"""MMEngine runs for a person: a bar with the time left and a few lines; the log goes to its file."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import tempfile
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..errors import Ada3DError
from ..progress import Bar, Console, duration
from . import processes
from .hooks import InvalidLossHook
from .metric import row_of
from .optim import unwrap
from .saving import WholeCheckpointHook, WholeRunner

PACKAGE = Path(__file__).parents[1]


def build_runner(config: Config, console: Console | None = None, title: str = "") -> Runner:
    """Build MMEngine's runner, with `ConsoleHook`, `InvalidLossHook`, and a quiet console.

    Its checkpoints are written whole, see `WholeCheckpointHook`.

    Args:
        config: the run's config.
        console: where progress is shown; None: a new one.
        title: what the run is called there.

    Raises:
        Ada3DError: a work dir in which nothing can be written; or the processes of a distributed run
            cannot start, or start differently.
    """
    console = console or Console()
    make_work_dir(config.work_dir)
    processes.prepare(config)
    runner = (WholeRunner if console.verbose else ConsoleRunner).from_cfg(config)
    processes.check_agreement(config)
    WholeCheckpointHook.take_over(runner)
    runner.register_hook(ConsoleHook(console, title), priority="VERY_LOW")
    if not any(isinstance(hook, InvalidLossHook) for hook in runner.hooks):
        runner.register_hook(InvalidLossHook(), priority="VERY_HIGH")
    return runner


def make_work_dir(path: str | Path) -> None:
    """Make a work dir, and try to write in it.

    Raises:
        Ada3DError: a file of that name, a folder in which one may not write, or a full disk.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(bytes(2**20))  # what the first lines of a log and a config take, and more
            file.flush()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise Ada3DError(
            f"work dir {path}: nothing can be written there: {why}; choose another, --work-dir DIR"
        ) from error


class ConsoleRunner(WholeRunner):
    """A runner whose logger writes to its file and shows warnings on the console."""

    def build_logger(self, *args, **kwargs) -> MMLogger:
        """Build the logger, and replace the handler that writes everything to the console."""
        logger = super().build_logger(*args, **kwargs)
        logger.handlers = [
            handler for handler in logger.handlers if isinstance(handler, logging.FileHandler)
        ]
        for (
            handler
        ) in logger.handlers:  # a log in an encoding without some name is no reason to stop
            handler.stream.reconfigure(encoding="utf-8", errors="backslashreplace")
        if is_main_process():
            logger.handlers.append(WarningHandler())
        return logger

    def register_hook(self, hook, priority=None) -> None:
        """Register a hook; warnings are shown on the console of a `ConsoleHook`."""
        super().register_hook(hook, priority)
        for handler in self.logger.handlers:
            if isinstance(hook, ConsoleHook) and isinstance(handler, WarningHandler):
                handler.console, handler.title = hook.console, hook.title

    def load_or_resume(self) -> None:
        """Load a checkpoint; what is printed meanwhile goes to the log."""
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            super().load_or_resume()
        if printed.getvalue():
            self.logger.info(printed.getvalue().strip())

    def train(self):
        """Train; no bar is left on the console whatever happens."""
        try:
            return super().train()
        finally:
            self._close_bars()

    def test(self) -> dict:
        """Test; no bar is left on the console whatever happens."""
        try:
            return super().test()
        finally:
            self._close_bars()

    def _close_bars(self) -> None:
        for hook in self.hooks:
            if isinstance(hook, ConsoleHook):
                hook.console.close()


class WarningHandler(logging.Handler):
    """Shows this package's warnings, and every error, on the console.

    What other packages warn of (deprecations, parts that a config does not use) is in the log. The
    same message, with whatever numbers, is shown once in a run, unless it is marked with ``each``.
    """

    def __init__(self):
        super().__init__(logging.WARNING)
        self.console, self.title = Console(), ""
        self._shown: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a person should see this record."""
        ours = Path(record.pathname).is_relative_to(PACKAGE)
        return ours or record.levelno >= logging.ERROR

    def emit(self, record: logging.LogRecord) -> None:
        """Show the record above the bars."""
        message = record.getMessage()
        kind = re.sub(r"[\d.]+", "0", message)  # each epoch has its own numbers
        if kind not in self._shown or getattr(record, "each", False):
            self._shown.add(kind)
            prefix = f"{self.title}: " if self.title else ""
            self.console.say(f"  {prefix}{record.levelname.lower()}: {message}")


def only_warnings(console: Console) -> None:
    """Show on the console what this package warns of, and nothing else that MMEngine logs."""
    handler = WarningHandler()
    handler.console = console
    logger = MMLogger.get_current_instance()
    for old in logger.handlers:
        old.close()
    logger.handlers = [handler]


@HOOKS.register_module()
class ConsoleHook(Hook):
    """Shows how far a run is: a bar, a line for each phase of training and each evaluation.

    Tools add it to their runners, configs do not name it.

    Args:
        console: where it is shown; None: a new one.
        title: what the run is called.
    """

    priority = "VERY_LOW"

    def __init__(self, console: Console | None = None, title: str = ""):
        self.console, self.title = console or Console(), title
        self._run: Bar | None = None
        self._evaluation: Bar | None = None
        self._phase: str | None = None

    # ------------------------------------------------------------------------------- training

    def before_train(self, runner) -> None:
        """Begin the bar of the whole run, where a resumed run stopped."""
        self._phase = self._phase_of(runner)
        self._begin(runner)
        if runner.iter < runner.max_iters:
            self._run = self.console.bar(self._text(), runner.max_iters, runner.iter)

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Say what a phase took when another begins."""
        phase = self._phase_of(runner)
        if phase != self._phase:
            self._tell_phase(runner)
            self._phase = phase
            self._begin(runner)

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """One step of the bar."""
        if outputs and "loss" in outputs:
            self._losses.append(torch.as_tensor(outputs["loss"]).detach())
        if self._run is not None:
            self._run.advance(text=self._text())

    def after_train(self, runner) -> None:
        """Say what the last phase took."""
        if self._run is not None:
            self._run.close()
            self._tell_phase(runner)

    def _begin(self, runner) -> None:
        self._since, self._first = time.monotonic(), runner.iter
        self._losses: deque[torch.Tensor] = deque(maxlen=100)

    def _phase_of(self, runner) -> str:
        return getattr(unwrap(runner.model), "training_phase", "training")

    def _text(self) -> str:
        return f"{self._prefix}{self._phase}"

    @property
    def _prefix(self) -> str:
        return f"{self.title}: " if self.title else ""

    def _tell_phase(self, runner) -> None:
        made = runner.iter - self._first
        if not made:
            return
        words = f"{made} iterations in {duration(time.monotonic() - self._since)}"
        if self._losses:
            words += f", loss {torch.stack(list(self._losses)).mean().item():.4g}"
        self.console.say(f"  {self._text()}: {words}")

    # ----------------------------------------------------------------------------- evaluation

    def before_val_epoch(self, runner) -> None:
        """Begin the bar of a validation."""
        self._evaluation = self.console.bar(f"{self._prefix}validating", len(runner.val_dataloader))

    def before_test_epoch(self, runner) -> None:
        """Begin the bar of a test."""
        self._evaluation = self.console.bar(f"{self._prefix}testing", len(runner.test_dataloader))

    def after_val_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """One step of the bar."""
        if self._evaluation is not None:
            self._evaluation.advance()

    after_test_iter = after_val_iter

    def after_val_epoch(self, runner, metrics: Mapping[str, float] | None = None) -> None:
        """Say what the validation found."""
        self._tell_metrics(metrics, f"validation after epoch {runner.epoch}")

    def after_test_epoch(self, runner, metrics: Mapping[str, float] | None = None) -> None:
        """Say what the test found."""
        self._tell_metrics(metrics, "test")

    def _tell_metrics(self, metrics: Mapping[str, float] | None, what: str) -> None:
        if self._evaluation is not None:
            self._evaluation.close()
            self._evaluation = None
        row = row_of("", metrics or {})
        words = [] if row["accuracy"] is None else [f"accuracy {row['accuracy']:.2f} %"]
        for key, form in (("gmacs", "{:.4g} GMACs per clip"), ("frames", "{:.2f} frames"),
                          ("stages", "{:.2f} 3D stages")):  # fmt: skip
            words += [form.format(row[key])] if key in row else []
        if row.get("left_out"):
            listed = row["tested"] + row["left_out"]
            words.append(f"of {row['tested']} of {listed} videos: {row['left_out']} do not decode")
        if words:
            self.console.say(f"  {self._prefix}{what}: {', '.join(words)}")
