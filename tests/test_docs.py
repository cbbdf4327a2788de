"""What the documents say is so: code prints what they show, commands parse, links lead somewhere."""

import contextlib
import importlib.util
import inspect
import io
import os
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from unittest import mock

import pytest
from mmaction.registry import MODELS

from ada3d_fx import Ada3DError
from ada3d_fx.comparison.rows import ROWS
from ada3d_fx.learn.estimators import Estimator, Reinforce, StraightThrough
from ada3d_fx.learn.reward import Objective
from ada3d_fx.learn.selector import SelectionNetwork
from ada3d_fx.mm.config import load_config, parse_options
from ada3d_fx.mm.options import TestingOptions, TrainingOptions
from ada3d_fx.mm.steps import STEPS

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = {
    path.relative_to(ROOT).as_posix(): path
    for path in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
}
BLOCK = re.compile(r"^```([^\n`]*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
# Programs that commands may start beside the tools; nothing else goes unchecked.
PROGRAMS = {"pip", "pre-commit", "git"}
# Scripts that start a tool in several processes: the tool, and which of their words are their own.
STARTS = {
    "dist_train.sh": ("train.py", {1}), "dist_test.sh": ("test.py", {2}),
    "slurm_train.sh": ("train.py", {0, 1}), "slurm_test.sh": ("test.py", {0, 1}),
    "dist_infer.sh": ("infer.py", {2}), "slurm_infer.sh": ("infer.py", {0, 1}),
}  # fmt: skip
# Kinds of fenced blocks: what runs, what is parsed, what a Python block prints, what is only read.
KINDS = {"python", "bash", "text output", "text"}

every_document = pytest.mark.parametrize("name", DOCUMENTS)


def read(name):
    return DOCUMENTS[name].read_text(encoding="utf-8")


def blocks(text, *kinds):
    return [(info.strip(), body) for info, body in BLOCK.findall(text) if info.strip() in kinds]


def spans(text):
    """Inline code, outside of fenced blocks."""
    return CODE.findall(BLOCK.sub("", text))


# ------------------------------------------------------------------------------ Python blocks


def wrong_output(text, folder):
    """Run a document's Python blocks in a fresh process; where one does not print what the next
    block ``text output`` shows, or fails, say so."""
    found = blocks(text, "python", "text output")
    mark = "== end of block =="
    script = [f"{body}\nprint({mark!r})" for kind, body in found if kind == "python"]
    if not script:
        return []
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(script)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return [done.stderr[-2000:]]
    printed, last, wrong = iter(done.stdout.split(mark)), "", []
    for kind, body in found:
        if kind == "python":
            last = next(printed)
        elif essence(body) != essence(last):
            wrong.append(f"shown:\n{body}\nprinted:\n{last}")
    return wrong


def essence(text):
    """Printed text without what documents leave out: blank ends, and where fx frees values."""
    lines = [re.sub(r";  [\w =]+ = None$", "", line).rstrip() for line in text.splitlines()]
    return "\n".join(lines).strip()


@every_document
def test_python_blocks_run_and_print_what_is_shown(name, tmp_path):
    assert wrong_output(read(name), tmp_path) == []


# ----------------------------------------------------------------------------------- commands


def commands(text):
    """Every command of a document, as words: those of bash blocks, and inline ones of tools."""
    for _, body in blocks(text, "bash"):
        yield from simple_commands(body)
    for span in spans(text):
        if re.match(r"(python |bash )?tools/\w+\.(py|sh) ", span):
            first = "" if span.startswith(("python ", "bash ")) else "python "
            yield from simple_commands(first + span)


def simple_commands(script):
    """The commands of a script as words; variables have their values, a loop's its first one."""
    values = {}
    for line in script.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
        lexer.whitespace_split = True
        words = []
        for word in [*lexer, ";"]:
            if set(word) - set(";&|"):
                put = re.sub(r"\$\{?(\w+)\}?", lambda m: values.get(m[1], m[0]), word)
                words += put.split() if re.fullmatch(r"\$\w+", word) else [put]
                continue
            words = words[1:] if words[:1] == ["do"] else words
            while words and re.match(r"\w+=", words[0]):
                variable, _, value = words.pop(0).partition("=")
                values[variable] = value
            if words[:1] == ["for"]:
                values[words[1]] = words[3]
            elif words and words != ["done"]:
                yield words
            words = []


def mistake(words):
    """What is wrong with a command: a program, file, config or option that there is not."""
    for word in words:
        config = re.search(r"(?:mmaction_configs|\.mim/configs)/(.+\.py)$", word)
        if config and not (ROOT / "mmaction_configs" / config[1]).is_file():
            return f"{word}: no such config"
    script = re.search(r"(?:^|/)tools/(\w+\.(?:py|sh))$", words[1]) if len(words) > 1 else None
    if script is None:
        return None if words[0] in PROGRAMS else f"{' '.join(words)}: an unknown program"
    path = ROOT / "tools" / script[1]
    if not path.is_file() or words[0] != {".py": "python", ".sh": "bash"}[path.suffix]:
        return f"{' '.join(words)}: no such tool"
    if path.name in STARTS:
        tool, own = STARTS[path.name]
        arguments = [word for place, word in enumerate(words[2:]) if place not in own]
        return refusal(path.with_name(tool), arguments)
    if path.suffix == ".sh":
        unknown = [w for w in words[2:] if w.startswith("-") and w not in path.read_text()]
        return f"{path.name}: unknown {unknown}" if unknown else None
    return refusal(path, words[2:])


def refusal(path, arguments):
    """Why a tool's own parser does not take these arguments, or None."""
    spec = importlib.util.spec_from_file_location(f"tool_{path.stem}", path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    said = io.StringIO()
    with (
        mock.patch.object(sys, "argv", [path.name, *arguments]),
        mock.patch.dict(os.environ),
        contextlib.redirect_stderr(said),
    ):
        try:
            tool.parse_args()
        except (SystemExit, Ada3DError) as error:
            return f"{shlex.join([path.name, *arguments])}: {said.getvalue() or error}"
    return None


@every_document
def test_commands_parse(name):
    assert [wrong for words in commands(read(name)) if (wrong := mistake(words))] == []


# ---------------------------------------------------------------------------- links and paths


def slug(heading):
    """GitHub's anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def dead_links(text, folder):
    """Relative links and pictures that lead nowhere, and paths of the repository that are none."""
    dead = []
    for target in LINK.findall(BLOCK.sub("", text)):
        if re.match(r"https?:", target):
            continue
        place, _, anchor = target.partition("#")
        inner = text if not place else None
        if place and not (folder / place).exists():
            dead.append(target)
        elif anchor:
            inner = inner or (folder / place).read_text(encoding="utf-8")
            headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", inner), re.MULTILINE)
            if anchor not in map(slug, headings):
                dead.append(target)
    for span in spans(text):
        if re.fullmatch(r"(ada3d_fx|docs|mmaction_configs|tests|tools)/[\w./]+", span):
            dead += [] if (ROOT / span).exists() or ".mim" in span else [span]
        elif re.fullmatch(r"ada3d_\w+\.py", span):
            dead += [] if (ROOT / "mmaction_configs" / span).exists() else [span]
    return dead


@every_document
def test_links_lead_somewhere(name):
    text = read(name)
    text = (
        re.sub(r"`tests/results/`", "", text) if name == "CHANGELOG.md" else text
    )  # its old place
    assert dead_links(text, DOCUMENTS[name].parent) == []


@every_document
def test_blocks_are_of_known_kinds(name):
    assert {info.strip() for info, _ in BLOCK.findall(read(name))} <= KINDS
    assert read(name).count("\n```") % 2 == 0, "a block does not end"


# --------------------------------------------------------------------------- options and phases


def parameters(*functions):
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    found = [p for f in functions for p in inspect.signature(f).parameters.values()]
    return {p.name for p in found if p.kind in kinds and p.name != "self"}


def test_every_option_is_told_and_exists():
    selector = parameters(SelectionNetwork) | {"weights", "pretrain"}  # what `build_selector` adds
    made = {"plan", "num_classes", "classify_by", "clip_mean", "clip_std"}  # what it fills in
    options = {
        "selector": selector - made,
        "training": parameters(TrainingOptions),
        "testing": parameters(TestingOptions),
        "objective": parameters(Estimator, Reinforce, StraightThrough, Objective) | {"type"},
    }
    text = read("docs/training.md").partition("\n## Options\n")[2].partition("\n## ")[0]
    told = {group: set(re.findall(rf"`{group}\.(\w+)`", text)) for group in options}
    assert told == options
    for name in DOCUMENTS.keys() - {"CHANGELOG.md"}:  # which has the old names too
        for group, option in re.findall(r"\bmodel\.(\w+)\.(\w+)", read(name)):
            assert option in options.get(group, {option}), f"{name}: model.{group}.{option}"


def test_rows_exist():
    for name in DOCUMENTS:
        for words in commands(read(name)):
            for option, value in pairwise(words):
                if option == "--rows":
                    assert set(value.split(",")) <= {*ROWS, "all"}, name


def variants(words):
    """The config of a command, and the entries of each of its variants."""
    (config,) = (word for word in words if word.startswith("mmaction_configs/"))
    for text in re.split(r" --variant ", " ".join(words))[1:]:
        yield config, text.partition(" --")[0].split()[1:]


def test_every_variant_makes_a_model():
    found = [
        variant
        for words in commands(read("docs/experiments.md"))
        if "--variant" in words
        for variant in variants(words)
    ]
    assert found
    for path, entries in found:
        config = load_config(ROOT / path, parse_options(entries))
        MODELS.build({**config.model, "recognizer_checkpoint": None})


def test_every_phase_is_told():
    text = read("docs/training.md").partition("\n## Phases\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == set(STEPS)


def test_the_readme_is_a_page():
    assert len(read("README.md").splitlines()) <= 160


# ------------------------------------------------------------------- that the tests above can fail


def test_a_wrong_output_is_seen(tmp_path):
    block = "```python\nx = 1\n```\n```python\nprint(x + 1)\n```\n```text output\n{}\n```\n"
    assert wrong_output(block.format(2), tmp_path) == []
    assert "printed:\n2" in wrong_output(block.format(3), tmp_path)[0].replace("\n\n", "\n")
    assert "NameError" in wrong_output("```python\nprint(y)\n```\n", tmp_path)[0]


@pytest.mark.parametrize(
    "command, words",
    [
        ("python tools/report.py DIR --colour red", "--colour"),
        ("python tools/train.py", "config"),
        ("python tools/reports.py DIR", "no such tool"),
        ("python tools/train.py mmaction_configs/ada3d_dem.py", "no such config"),
        ("bash tools/demo.sh --smaller", "--smaller"),
        ("bash tools/dist_train.sh CONFIG 2 --auto-scale", "--auto-scale"),
        ("conda install ada3d_fx", "unknown program"),
        ("for n in 1 2; do python tools/report.py \\\n  run$n --title $m --colours; done  # slow", "run1 --title '$m'"),
        ("X='--colour red' \npython tools/report.py DIR $X", "--colour red"),
        ("pip install . && X=1 python tools/test.py CONFIG", "checkpoint"),
    ],
)  # fmt: skip
def test_a_wrong_command_is_seen(command, words):
    found = [mistake(c) for c in commands(f"```bash\n{command}\n```\n")]
    assert words.lower() in str(found[-1]).lower() and found[-1]


def test_a_wrong_command_in_a_sentence_is_seen():
    (words,) = commands("Then `tools/report.py DIR --colour red` makes a page.")
    assert "--colour" in mistake(words)


def test_a_dead_link_is_seen(tmp_path):
    (tmp_path / "a.md").write_text("# One heading: two, three")
    text = "# Mine\n[a](a.md) [b](b.md) ![c](c.png) [d](a.md#one-heading-two-three) [e](a.md#two)"
    text += " [f](#mine) [g](#yours) `tools/demo.sh` `tools/dem.sh` `ada3d_dem.py`"
    dead = ["b.md", "c.png", "a.md#two", "#yours", "tools/dem.sh", "ada3d_dem.py"]
    assert dead_links(text, tmp_path) == dead
