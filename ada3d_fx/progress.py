"""What a tool shows while it works: single lines, and bars with the time left."""

from __future__ import annotations

import atexit
import codecs
import contextlib
import io
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Sized
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

Item = TypeVar("Item")

# Without a terminal: at most one line of progress in this time, and in this share of the whole.
SECONDS_BETWEEN_LINES, SHARE_BETWEEN_LINES = 90.0, 0.05


class Console:
    """Where a tool says what it does: standard error, so that its results can be piped on.

    On a terminal a bar shows what is done and the time left, and vanishes when it is complete.
    Without one (a pipe, a file, continuous integration) there are plain lines, about one a minute
    and at most twenty for a bar, and no control codes. In distributed runs only the main process says anything.

    Args:
        verbose: everything is logged to the console anyway: no bars and no lines of progress.
        terminal: draw bars; None: if standard error is a terminal and no CI runs this.
    """

    def __init__(self, verbose: bool = False, terminal: bool | None = None):
        self.verbose = verbose
        self.terminal = _is_terminal() if terminal is None else terminal
        self._last_line = time.monotonic()
        self._bars: Progress | None = None
        self._open: list[Bar] = []

    def say(self, text: str) -> None:
        """Print one line, above the bars if there are some."""
        if not is_main_process():
            return
        self._last_line = time.monotonic()
        if self._bars is not None:
            self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def bar(self, text: str, total: int, done: int = 0) -> Bar:
        """Begin to show the progress of something that takes ``total`` steps.

        It ends with the ``with`` block in which the bar is used, or by its ``close``.

        Args:
            text: what is being done, such as "training".
            total: number of steps.
            done: steps that were done before, in a run that goes on.
        """
        bar = Bar(self, text, total, done)
        if self.verbose or not is_main_process():
            return bar
        self._open.append(bar)
        if self.terminal:
            if self._bars is None:
                self._bars = _rich_bars()
                self._bars.start()
                atexit.register(self.close)  # an interrupted tool must show the cursor again
            bar.task = self._bars.add_task(text, total=total, completed=done)
        return bar

    def track(
        self, items: Iterable[Item], text: str, total: int | None = None
    ) -> Iterator[Item]:  # fmt: skip
        """Yield the items, with a bar beside them.

        Args:
            items: what to go through.
            text: what is being done.
            total: how many items there are; None: their ``len()``.
        """
        if total is None:
            assert isinstance(items, Sized), "give the total of what has no len()"
            total = len(items)
        with self.bar(text, total) as bar:
            for item in items:
                yield item
                bar.advance()

    def close(self) -> None:
        """End all bars, also after an error."""
        for bar in list(self._open):
            bar.close()

    def _show(self, bar: Bar) -> None:
        if self._bars is not None and bar.task is not None:
            self._bars.update(bar.task, completed=bar.done, description=bar.text)
        elif bar in self._open:
            whole = bar.seconds_left() + time.monotonic() - bar.start if bar.made else 0.0
            gap = max(SECONDS_BETWEEN_LINES, SHARE_BETWEEN_LINES * whole)
            if time.monotonic() - self._last_line >= gap:
                self.say(f"  {bar.text}: {bar.words()}")

    def _end(self, bar: Bar) -> None:
        if bar in self._open:
            self._open.remove(bar)
        if self._bars is not None and bar.task is not None:
            self._bars.remove_task(bar.task)
            bar.task = None
            if not self._open:
                self._bars.stop()
                self._bars = None
                atexit.unregister(self.close)


class Bar:
    """The progress of one thing, made by `Console.bar`."""

    def __init__(self, console: Console, text: str, total: int, done: int = 0):
        self.console, self.text, self.total, self.done = console, text, total, done
        self.task: Any = None  # rich's name of this bar
        self.start, self._before = time.monotonic(), done

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def advance(self, steps: int = 1, text: str | None = None) -> None:
        """Say that so many more steps are done; ``text`` replaces what is being done."""
        self.done += steps
        self.text = text or self.text
        self.console._show(self)

    def close(self) -> None:
        """Take the bar away."""
        self.console._end(self)

    @property
    def made(self) -> int:
        """Steps that were done since the bar began."""
        return self.done - self._before

    def seconds_left(self) -> float:
        """Estimate the time left by what the steps so far took."""
        return (time.monotonic() - self.start) / self.made * max(self.total - self.done, 0)

    def words(self) -> str:
        """Tell the share that is done, and the time left: ``'45 %, 2 min 10 s left'``."""
        share = f"{100 * self.done / max(self.total, 1):.0f} %"
        return f"{share}, {duration(self.seconds_left())} left" if self.made else share


def duration(seconds: float) -> str:
    """Tell seconds in words: ``'7 s'``, ``'2 min 10 s'``, ``'1 h 5 min'``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def is_main_process() -> bool:
    """Return whether this is the first process of a distributed run, or the only one."""
    names = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK")  # torchrun, Slurm, Open MPI
    return next((os.environ[name] for name in names if name in os.environ), "0") == "0"


def print_every_name() -> None:
    """Print names that the console's encoding lacks as the bytes that they are, or else escaped."""

    def as_it_can(error: UnicodeError) -> tuple[str | bytes, int]:
        try:
            return codecs.lookup_error("surrogateescape")(error)
        except UnicodeError:
            return codecs.backslashreplace_errors(error)

    codecs.register_error("ada3d_fx.names", as_it_can)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="ada3d_fx.names")


def print_no_more() -> None:
    """Forget what is still to be printed: whoever read it, such as `head`, has left."""
    with contextlib.suppress(io.UnsupportedOperation):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_terminal() -> bool:
    dumb = os.environ.get("TERM", "").lower() in ("dumb", "unknown")
    return sys.stderr.isatty() and not dumb and not os.environ.get("CI")


def _rich_bars() -> Progress:
    """Make rich's bars on standard error; rich takes the colours away where NO_COLOR is set."""
    from rich.console import Console as RichConsole
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(),
               TimeLeft(), TextColumn("left"))  # fmt: skip
    console = RichConsole(stderr=True, force_terminal=True)
    return Progress(*columns, console=console, transient=True, redirect_stdout=False)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Mute what the constructors of recognizers log and warn of."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
