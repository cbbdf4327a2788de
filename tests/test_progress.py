"""What a tool shows while it works, on a terminal and in a pipe."""

import io
import subprocess
import sys

import pytest

from ada3d_fx import progress
from ada3d_fx.progress import Console, duration


@pytest.fixture
def clock(monkeypatch):
    """[the time in seconds], to be changed."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def lines_of(clock, steps, seconds):
    """The times at which lines are printed while so many steps take so long each."""
    console, found = Console(terminal=False), []
    console.say = lambda text: (
        found.append((clock[0], text)),
        setattr(console, "_last_line", clock[0]),
    )
    for _ in console.track(range(steps), "counting"):
        clock[0] += seconds
    return found


def test_without_a_terminal_about_a_line_a_minute(clock):
    lines = lines_of(clock, steps=40, seconds=10)
    assert [time for time, _ in lines] == [90, 180, 270, 360]
    assert lines[0][1] == "  counting: 22 %, 5 min 10 s left"
    assert lines[-1][1] == "  counting: 90 %, 40 s left"


def test_a_run_of_hours_has_at_most_twenty_lines(clock):
    assert 15 <= len(lines_of(clock, steps=1000, seconds=60)) <= 20


def test_what_was_said_counts_as_a_sign_of_life(clock, capsys):
    console = Console(terminal=False)
    bar = console.bar("counting", 100)
    for _ in range(8):
        clock[0] += 30
        bar.advance()
        console.say("still here")
    assert "counting" not in capsys.readouterr().err


def test_what_is_quick_or_verbose_shows_no_progress(capsys):
    list(Console(terminal=False).track(range(3), "counting"))
    list(Console(verbose=True, terminal=True).track(range(3), "counting"))
    assert capsys.readouterr().err == ""


def test_the_time_left(clock):
    bar = Console(terminal=False).bar("training", total=100, done=20)
    assert bar.words() == "20 %"
    clock[0] = 30.0
    bar.advance(20)
    assert bar.words() == "40 %, 1 min 30 s left"  # 60 to go, 20 took 30 s
    bar.close()


@pytest.mark.parametrize(
    "seconds, words", [(0.4, "0 s"), (59.6, "1 min 0 s"), (130, "2 min 10 s"), (3900, "1 h 5 min")]
)
def test_durations(seconds, words):
    assert duration(seconds) == words


BARS = """
import runpy, sys
Console = runpy.run_path(sys.argv[1])["Console"]  # without the package, which takes seconds
console = Console({terminal})
for i in console.track(range(3), "counting"):
    console.say(f"at {{i}}")
print("result")
"""


def shown(terminal, **environment):
    return subprocess.run(
        [sys.executable, "-c", BARS.format(terminal=terminal), progress.__file__],
        capture_output=True, text=True, check=True,
        env={"PATH": "", "TERM": "xterm", **environment},
    )  # fmt: skip


def test_a_bar_is_on_standard_error_only_and_lines_stand_above_it():
    found = shown("terminal=True")
    assert found.stdout == "result\n"
    assert "counting" in found.stderr and "at 2" in found.stderr and "\x1b" in found.stderr
    assert "\x1b[?25h" in found.stderr.rpartition("at 2")[2]  # the cursor is shown again


def test_no_colour_where_it_is_not_wanted():
    assert "\x1b[3" in shown("terminal=True").stderr
    assert "\x1b[3" not in shown("terminal=True", NO_COLOR="1").stderr


@pytest.mark.parametrize("environment", [{}, {"CI": "true"}, {"FORCE_COLOR": "1"}])
def test_no_control_codes_in_a_pipe(environment):
    assert shown("", **environment).stderr == "at 0\nat 1\nat 2\n"


def test_only_the_main_process_says_anything():
    assert "at 0" not in shown("", RANK="1").stderr
    assert "at 0" in shown("", RANK="0").stderr


def test_bars_are_gone_after_an_error(capsys):
    console = Console(terminal=False)
    with pytest.raises(ZeroDivisionError):
        for _ in console.track(range(3), "counting"):
            1 / 0  # noqa: B018
    assert console._open == []
    console.bar("left open", 3)
    console.close()
    assert console._open == []


def test_a_terminal_is_one_only_if_it_can_draw(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("CI", raising=False)
    assert Console().terminal
    monkeypatch.setenv("CI", "1")
    assert not Console().terminal
    monkeypatch.delenv("CI")
    monkeypatch.setenv("TERM", "dumb")
    assert not Console().terminal


def test_an_interrupted_tool_shows_the_cursor_again():
    code = BARS.replace('console.say(f"at {{i}}")', "raise KeyboardInterrupt")
    found = subprocess.run(
        [sys.executable, "-c", code.format(terminal="terminal=True"), progress.__file__],
        capture_output=True, text=True, check=False, env={"PATH": "", "TERM": "xterm"},
    )  # fmt: skip
    assert found.returncode != 0
    assert found.stderr.rfind("\x1b[?25h") > found.stderr.rfind("\x1b[?25l") >= 0
