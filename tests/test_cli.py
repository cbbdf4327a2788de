"""One vocabulary of options, and errors in one line."""

import argparse
import errno
import os
import subprocess
import sys
import warnings

import command_lines
import pytest
from torch import distributed

from ada3d_fx import cli, values
from ada3d_fx.errors import Ada3DError

DOC = """What the tool does.

    python tools/tool.py CONFIG

Three rows:

- one.
"""


def test_help_is_the_docstring_and_tells_defaults(capsys):
    parser = cli.parser(DOC)
    cli.add_config(parser)
    cli.add_gmacs(parser)
    cli.add_seed(parser, 3)
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    text = capsys.readouterr().out
    assert "What the tool does." in text and "Three rows:\n\n- one." in text
    assert "random seed (default: 3)" in text and "(default: val)" in text
    assert text.count("default:") == 3  # --cfg-options has none that would tell anything


def test_errors_are_one_line_and_abbreviations_none(capsys):
    parser = cli.parser(DOC)
    cli.add_seeds(parser)
    for wrong, message in (
        (["--seeds", "a"], "expected whole numbers"),
        (["--seed", "1"], "--seed"),
    ):
        with pytest.raises(SystemExit) as left:
            parser.parse_args(wrong)
        error = capsys.readouterr().err
        assert left.value.code == 2 and error.count("\n") == 1
        assert error.startswith("error: ") and message in error and "--help" in error


def test_values():
    assert values.clip_shape("3,8,224,224") == (3, 8, 224, 224)
    assert values.usage("23/32:0.45") == (23 / 32, 0.45)
    assert values.numbers("0.1,5") == [0.1, 5.0] and values.whole_numbers("0,1") == [0, 1]
    assert values.integer("-3") == -3 and values.natural("0") == 0 and values.whole_number("7") == 7
    assert values.seed("4294967295") == 2**32 - 1 and values.seeds("0, 1") == [0, 1]
    assert values.counts("1,4") == [1, 4]
    assert values.words("a,b") == ["a", "b"] and values.size("64x48") == (64, 48)


@pytest.mark.parametrize(
    "parse, text",
    [
        *((values.clip_shape, text) for text in ("a,b", "3,8,224", "3,0,224,224", "3,8,224,224,1")),
        *((values.usage, text) for text in ("0.5", "a:b", "1/0:1", "0.5:0.5:0.5", "-1:0.5")),
        *((values.size, text) for text in ("64", "axb", "64x", "x")),
        (values.numbers, "a,1"),
        *((values.counts, text) for text in ("1,0", "", "1,", "-1", "1.5")),
        (values.numbers, "1,nan"),
        *((values.positive, text) for text in ("0", "-1", "nan", "inf", "much")),
        *(
            (parse, text)
            for text in ("1.5", "²", "\u0663", "1_0", "--5", "9" * 5000, "")
            for parse in (
                values.whole_numbers,
                values.integer,
                values.natural,
                values.whole_number,
                values.seed,
                values.seeds,
            )
        ),
        *((values.whole_number, text) for text in ("0", "-1")),
        *((values.seed, text) for text in ("-1", "4294967296")),
        *((values.seeds, text) for text in ("0,-1", "0,4294967296")),
        (values.natural, "-1"),
        *((values.size, text) for text in ("²x64", "\u0663x64", "64x" + "9" * 5000)),
        *((values.clip_shape, text) for text in ("3,\u0668,224,224", "3,8,224," + "9" * 5000)),
        *((values.usage, text) for text in ("²:1", "9" * 400 + ":1")),
        (values.words, ","),
    ],
)
def test_bad_values_are_named(parse, text):
    with pytest.raises(argparse.ArgumentTypeError, match=r"expected|fractions") as error:
        parse(text)
    assert repr(text) in str(error.value)


def test_an_interrupted_tool_says_so(capsys):
    @cli.user_errors
    def main():
        raise KeyboardInterrupt

    assert main() == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_warnings_of_other_packages_are_not_shown():
    @cli.user_errors
    def main():
        with warnings.catch_warnings(record=True) as seen:
            warnings.warn_explicit("theirs", FutureWarning, "a.py", 1, module="torch.jit")
            warnings.warn_explicit("ours", FutureWarning, "b.py", 1, module="ada3d_fx.convert")
        assert [str(one.message) for one in seen] == ["ours"]

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main() == 0


def test_files_that_cannot_be_written_are_refused_while_options_are_parsed(tmp_path, capsys):
    parser = cli.parser(DOC)
    cli.add_json(parser, "the rows")
    (tmp_path / "file").write_text("1")
    for path, words in (
        (tmp_path, "a folder is there"),
        (tmp_path / "file" / "a.json", "is no folder"),
        ("a\0b", "NUL"),
    ):
        with pytest.raises(SystemExit):
            parser.parse_args(["--json", str(path)])
        error = capsys.readouterr().err
        assert words in error and "--json" in error and error.count("\n") == 1
    for path in (str(tmp_path / "new" / "a.json"), str(tmp_path / "file"), "/dev/stdout"):
        assert parser.parse_args(["--json", path]).json == path
    assert sorted(os.listdir(tmp_path)) == ["file"]  # nothing is made by looking


@pytest.mark.parametrize(
    "error, words",
    [
        (PermissionError(errno.EACCES, "Permission denied", "a.json"), "a.json: Permission denied"),
        (FileExistsError(errno.EEXIST, "File exists", "work"), "work: File exists"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (UnicodeEncodeError(sys.getfilesystemencoding(), "\ud800", 0, 1, "why"), "'\\ud800'"),
    ],
)
def test_what_the_disk_refuses_is_said_in_a_line(error, words, capsys):
    @cli.user_errors
    def main():
        raise error

    assert main() == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and words in said and said.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file", "ours"),
        OSError(errno.EIO, "what"),
        UnicodeEncodeError("utf-16", "a", 0, 1, "why"),
        ValueError(),
    ],
)
def test_our_own_mistakes_are_raised(error):
    @cli.user_errors
    def main():
        raise error

    with pytest.raises(type(error)):
        main()


@pytest.mark.parametrize("mistake", [None, Ada3DError("wrong")])
def test_a_process_leaves_the_others_when_it_is_done_and_not_after_a_mistake(mistake, tmp_path):
    @cli.user_errors
    def main():
        place = f"file://{tmp_path / 'group'}"
        distributed.init_process_group("gloo", init_method=place, rank=0, world_size=1)
        if mistake:
            raise mistake

    try:
        assert main() == (2 if mistake else 0)
        assert distributed.is_initialized() == bool(mistake)
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


# The package without what it imports, which takes seconds; none of that is used here.
LIGHT = """
import os, sys, types
package = sys.modules["ada3d_fx"] = types.ModuleType("ada3d_fx")
package.__path__ = [os.path.join(os.environ["PYTHONPATH"], "ada3d_fx")]
from ada3d_fx import cli, files
from ada3d_fx.errors import Ada3DError
"""
NAMES = """
from ada3d_fx.progress import Console
from ada3d_fx.report import reading

@cli.user_errors
def main():
    for name in sys.argv[1:]:
        print(name)
        Console(terminal=False).say(name)
        files.write_text(name, name)
        read = reading.read_text(name, "try", "surrogateescape")
        assert read.encode("utf-8", "surrogateescape") == os.fsencode(name)
    print("\\ud800 \\u65e5 \\u00b2")
    if sys.getfilesystemencoding() == "utf-8":
        raise Ada3DError("nothing at \\u65e5.mp4")
    assert not os.path.isfile("\\u65e5.mp4")
    try:
        open("\\u65e5.mp4")
    except UnicodeEncodeError as error:
        print(cli.said_to_users(error))
    raise Ada3DError("nothing at \\u65e5.mp4")

sys.exit(main())
"""
ASCII, UTF8 = {"LC_ALL": "C", "PYTHONUTF8": "0"}, {"LC_ALL": "C.UTF-8"}


@pytest.mark.parametrize("locale", [ASCII, UTF8], ids=["ascii", "utf8"])
def test_every_name_is_printed_in_every_locale(locale, tmp_path):
    """In a process of its own: the locale is that of the whole process."""
    names = ["vid\u00e9o_²\u65e5.txt".encode(), b"caf\xe9.txt"]
    root = str(command_lines.ROOT)
    done = subprocess.run(
        [sys.executable, "-c", LIGHT + NAMES, *names], cwd=tmp_path, capture_output=True, check=False,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": root, **locale},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    out, err = done.stdout.splitlines(), done.stderr.splitlines()
    assert out[:2] == err[:2] == names
    assert {os.fsencode(name) for name in os.listdir(tmp_path)} == set(names)
    assert all((tmp_path / os.fsdecode(name)).read_bytes() == name for name in names)
    if locale is ASCII:
        assert out[2] == b"\\ud800 \\u65e5 \\xb2"
        assert out[3].startswith(b"'\\u65e5.mp4' cannot be a file's name")
        assert err[2].startswith(
            b"error: nothing at \\u65e5.mp4 (the names of files in this locale"
        )
        assert b"LC_ALL=C.UTF-8" in err[2] and b"LC_ALL=C.UTF-8" in out[3]
    else:
        assert out[2] == "\\ud800 \u65e5 ²".encode()
        assert err[2] == "error: nothing at \u65e5.mp4".encode()


MANY = """
@cli.user_errors
def main():
    for line in range(10**6):
        print(line)

sys.exit(main())
"""


def test_a_reader_that_has_left_is_no_error():
    root = str(command_lines.ROOT)
    with subprocess.Popen(
        [sys.executable, "-c", LIGHT + MANY], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": root},
    ) as run:  # fmt: skip
        assert run.stdout.readline() == b"0\n"
        run.stdout.close()
        assert run.stderr.read() == b"" and run.wait() == 141
