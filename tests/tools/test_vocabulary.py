"""All tools: small, with help that works, and with one vocabulary."""

import ast
import subprocess
import sys

import command_lines
import pytest

SOURCES = {
    name: (command_lines.ROOT / "tools" / f"{name}.py").read_text() for name in command_lines.TOOLS
}
# Options that are told in one place, and the tools that may have another meaning for them: none.
OLD = (
    "--budget",
    "--budgets",
    "--targets",
    "--shape",
    "--family",
    "--zoo",
    "--recognizer",
    "--plot",
)
HELP = """
import runpy, sys
for name in sys.argv[1:]:
    sys.argv = [name, "--help"]
    print(f"=== {name}", flush=True)
    try:
        runpy.run_path(name, run_name="__main__")
    except SystemExit as left:
        assert left.code == 0
"""


def test_there_are_tools():
    assert {"train", "test", "compare", "tradeoff", "report"} <= set(command_lines.TOOLS)


@pytest.mark.parametrize("name", command_lines.TOOLS)
def test_a_tool_is_options_and_one_call(name):
    source = SOURCES[name]
    assert len(source.splitlines()) <= 120
    tree = ast.parse(source)
    functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert functions == ["parse_args", "main"]
    assert not [node for node in tree.body if isinstance(node, ast.ClassDef)]


@pytest.mark.parametrize("name", command_lines.TOOLS)
def test_a_tool_imports_no_other_tool(name):
    for node in ast.walk(ast.parse(SOURCES[name])):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {part.split(".")[0] for part in names} & {*command_lines.TOOLS, "tools"}


@pytest.mark.parametrize("name", command_lines.TOOLS)
def test_a_tool_imports_the_package_where_warnings_are_muted(name):
    """Whatever else it imports at its top is Python's own."""
    for node in ast.parse(SOURCES[name]).body:
        if isinstance(node, ast.ImportFrom):
            assert node.module in {"__future__", *sys.stdlib_module_names}
        elif isinstance(node, ast.Import):
            assert {alias.name for alias in node.names} <= set(sys.stdlib_module_names)


def help_of(*names):
    paths = [str(command_lines.ROOT / "tools" / f"{name}.py") for name in names]
    done = subprocess.run(
        [sys.executable, "-c", HELP, *paths], capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(command_lines.ROOT), "PATH": "", "COLUMNS": "100"},
    )  # fmt: skip
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout.split("=== ")[1:]


def test_every_help_works_without_warnings_and_tells_defaults():
    texts = help_of(*command_lines.TOOLS)
    assert len(texts) == len(command_lines.TOOLS)
    for name, text in zip(command_lines.TOOLS, texts, strict=True):
        assert "python tools/" in text and "default: " in text, name
        options = {word.strip(",[]") for word in text.split() if word.strip("[").startswith("--")}
        assert not options & set(OLD), name
        first = ast.get_docstring(ast.parse(SOURCES[name])).splitlines()[0]
        assert first in text.replace("\n", " "), name


@pytest.mark.slow
@pytest.mark.parametrize("name", command_lines.TOOLS)
def test_a_tool_alone_prints_its_help_without_warnings(name):
    assert help_of(name)


def options_of(name, monkeypatch):
    """{option: its help} of a tool."""
    found = {}

    def keep(parser, *args, **options):
        found.update({o: a.help for a in parser._actions for o in a.option_strings})
        raise SystemExit(0)

    monkeypatch.setattr(command_lines.load(name).cli.Parser, "parse_args", keep)
    with pytest.raises(SystemExit):
        command_lines.load(name).parse_args()
    return found


def test_every_option_has_help(monkeypatch):
    for name in command_lines.TOOLS:
        assert all(text for text in options_of(name, monkeypatch).values()), name


def test_one_option_means_the_same_everywhere(monkeypatch):
    """But for --gmacs (one or several), --json (of what), and where the defaults of a tool differ."""
    meanings: dict[str, dict[str, str]] = {}
    for name in command_lines.TOOLS:
        for option, text in options_of(name, monkeypatch).items():
            meanings.setdefault(option, {})[name] = text.partition(" (default")[0]
    for option in ("--cfg-options", "--clip-shape", "--seeds", "--folds", "--calibrate-on",
                   "--recognizer-checkpoint", "--verbose", "--work-dir", "--launcher", "--redo"):  # fmt: skip
        assert len(set(meanings[option].values())) == 1, option
        assert len(meanings[option]) >= 2, option
    assert all(text.startswith("GMACs per clip") for text in meanings["--gmacs"].values())
    assert all("for machines" in text for text in meanings["--json"].values())
