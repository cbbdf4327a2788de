"""One vocabulary of options, and errors in one line."""

import argparse
import warnings

import pytest

from ada3d_fx import cli, values

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
    assert values.words("a,b") == ["a", "b"] and values.size("64x48") == (64, 48)


@pytest.mark.parametrize(
    "parse, text",
    [
        *((values.clip_shape, text) for text in ("a,b", "3,8,224", "3,0,224,224", "3,8,224,224,1")),
        *((values.usage, text) for text in ("0.5", "a:b", "1/0:1", "0.5:0.5:0.5", "-1:0.5")),
        *((values.size, text) for text in ("64", "axb", "64x", "x")),
        (values.numbers, "a,1"),
        (values.numbers, "1,nan"),
        *((values.positive, text) for text in ("0", "-1", "nan", "inf", "much")),
        (values.whole_numbers, "1.5"),
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
