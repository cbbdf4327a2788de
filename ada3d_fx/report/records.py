"""Policies and results as files, and the one grammar of ``--policy``."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import files
from ..errors import Ada3DError, require_number
from ..plan import StagePlan
from ..policy import Policy
from . import reading

# The options of random:..., with what they are without being given.
RANDOM_OPTIONS: dict[str, float | int] = {"frames": 0.7, "stages": 0.4, "seed": 0, "n": 1000}
BOUNDS = {"frames": (0, 1), "stages": (0, 1), "seed": (0, 2**63 - 1), "n": (1, 10**7)}


def write_json(path: str | Path, report: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write a report as JSON, the whole of it or nothing.

    Raises:
        OSError: the file or its folder cannot be written.
        ValueError: numbers that JSON lacks (NaN, infinities).
    """
    files.write_text(path, json.dumps(report, indent=2, allow_nan=False) + "\n")


POLICY_FIELDS = (
    *("video", "view", "label", "predicted", "frames", "stages"),
    *("num_frames", "num_stages", "macs", "selector_macs"),
)

BITS, WHOLE = re.compile("[01]+"), re.compile("-?[0-9]{1,18}")
CLIP = {  # what `reading.check` finds in a row
    "video": reading.VALUE, "view": int, "label?": int, "predicted?": int, "frames": BITS,
    "stages": re.compile("[01]*"), "num_frames": int, "num_stages": int, "macs": int,
    "selector_macs": int,
}  # fmt: skip


def policy_words(frames: Tensor, stages: Tensor) -> dict[str, Any]:
    """One clip's decisions as strings of 0 and 1, and how many of each are on.

    Args:
        frames: bool [T], the kept frames.
        stages: bool [K], the stages that run in 3D.
    """
    words = {
        name: "".join("1" if bit else "0" for bit in bits.tolist())
        for name, bits in (("frames", frames), ("stages", stages))
    }
    return {**words, "num_frames": int(frames.sum()), "num_stages": int(stages.sum())}


def policy_file_kind(path: str | Path) -> str:
    """Tell 'json' from 'csv' by the name of a file of policies.

    Raises:
        Ada3DError: another ending.
    """
    kind = Path(path).suffix.removeprefix(".")
    if kind not in ("json", "csv"):
        raise Ada3DError(f"{path}: policies are written to a .json or a .csv file")
    return kind


def write_policies(path: str | Path, clips: Sequence[Mapping[str, Any]]) -> None:
    """Write a row of `POLICY_FIELDS` for each clip, as .json or .csv.

    Raises:
        Ada3DError: another ending.
    """
    if policy_file_kind(path) == "json":
        write_json(path, {"clips": list(clips)})
        return
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, POLICY_FIELDS)
    writer.writeheader()
    writer.writerows(clips)
    files.write_text(path, text.getvalue())


def read_clips(path: str | Path) -> list[dict[str, Any]]:
    """Read the rows that `write_policies` wrote, with numbers as numbers.

    Raises:
        Ada3DError: no such file, or one that is cut off or of another format.
    """
    hint, kind = "give a file that tools/test.py --policies wrote", policy_file_kind(path)
    try:
        if kind == "json":
            read = reading.read_json(path, hint)
        else:
            read = {"clips": _csv_rows(reading.read_text(path, hint, "surrogateescape"))}
        reading.check(read, {"clips": [CLIP]})
        rows = [{name: row.get(name) for name in POLICY_FIELDS} for row in read["clips"]]
        _check_lengths(rows)
    except (ValueError, csv.Error) as error:
        raise Ada3DError(f"{path} was not written by tools/test.py: {error}; {hint}") from error
    return rows


def _csv_rows(text: str) -> list[dict[str, Any]]:
    """Read the rows of a CSV file: what is not there is left out, what is no whole number a text."""
    words = ("video", "frames", "stages")
    return [
        {
            name: value if name in words or not WHOLE.fullmatch(value) else int(value)
            for name, value in row.items()
            if isinstance(value, str) and (value or name in words)
        }
        for row in csv.DictReader(io.StringIO(text, newline=""))
    ]


def _check_lengths(rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        raise ValueError("it holds no clips")
    for index, row in enumerate(rows):
        for name in ("frames", "stages"):
            length, first = len(row[name]), len(rows[0][name])
            if length != first:
                raise ValueError(f"clips[{index}] has {length} {name}, the first has {first}")


def policies_of(clips: Sequence[Mapping[str, Any]]) -> Policy:
    """Make the policies of rows of `POLICY_FIELDS`, none of which exited; see `decisions_of`."""
    return Policy(*_decisions(clips))


def decisions_of(clips: Sequence[Mapping[str, Any]]) -> tuple[Policy, Tensor]:
    """Make the policies of M clips, in order, and tell which exited: bool [N]; those have no frame.

    Raises:
        Ada3DError: no clips, or clips with different numbers of decisions.
    """
    frames, stages = _decisions(clips)
    kept = frames.any(1)
    return Policy(frames[kept], stages[kept]), ~kept


def _decisions(clips: Sequence[Mapping[str, Any]]) -> tuple[Tensor, Tensor]:
    bits = [[[bit == "1" for bit in clip[name]] for clip in clips] for name in ("frames", "stages")]
    try:
        frames, stages = (torch.tensor(rows, dtype=torch.bool) for rows in bits)
    except ValueError as error:
        raise Ada3DError(f"policies: the clips differ in their decisions: {error}") from error
    return frames, stages.view(len(clips), -1) if stages.numel() else stages


# ------------------------------------------------------------------------ the grammar of --policy


class PolicyChoice(NamedTuple):
    """What ``--policy TEXT`` asks for."""

    text: str  # as it was typed
    kind: str  # 'learned', 'full', 'random', 'fixed', 'literal' or 'file'
    options: dict[str, float | int]  # those given after 'random:'
    frames: str = ""  # of 'fixed': T bits; of 'literal': T bits, or how many frames are kept
    stages: str = ""  # of 'fixed' and 'literal': K bits


def parse_policy(
    text: str, kinds: Sequence[str], options: Sequence[str] = tuple(RANDOM_OPTIONS)
) -> PolicyChoice:
    """Parse ``--policy``: the only parser of its grammar.

    ``learned``, ``full``, ``random[:frames=F,stages=S,seed=I,n=N]``, FRAMES/STAGES (T bits or a
    number of frames, a slash, K bits), or the name of a .json or .csv file of policies. Tools that
    execute the same policy for all clips take 'fixed' instead of 'literal', which is bits only.

    Args:
        text: what was typed.
        kinds: the kinds that the tool takes, of 'learned', 'full', 'random', 'fixed', 'literal', 'file'.
        options: the options of 'random' that the tool takes, of `RANDOM_OPTIONS`.

    Raises:
        Ada3DError: none of these.
    """
    word, _, rest = text.partition(":")
    literal = re.fullmatch(r"([0-9]+)/([01]*)", text)
    if word in ("learned", "full") and word in kinds and word == text:
        return PolicyChoice(text, word, {})
    if word == "random" and "random" in kinds:
        return PolicyChoice(text, "random", _random_options(text, rest, options))
    if literal and "literal" in kinds:
        return PolicyChoice(text, "literal", {}, literal[1], literal[2])
    if literal and "fixed" in kinds and not set(literal[1]) - set("01"):
        return PolicyChoice(text, "fixed", {}, literal[1], literal[2])
    if Path(text).suffix in (".json", ".csv") and "file" in kinds:
        return PolicyChoice(text, "file", {})
    example = ",".join(f"{name}={RANDOM_OPTIONS[name]}" for name in options)
    expected = {"learned": "learned", "full": "full", "random": f"random:{example}",
                "fixed": "FRAMES/STAGES, bits such as 1011/10100",
                "literal": "FRAMES/STAGES such as 3/10100 or 1011/10100",
                "file": "a .json or .csv file of tools/test.py"}  # fmt: skip
    raise Ada3DError(f"--policy {text}: expected {', or '.join(expected[kind] for kind in kinds)}")


def _random_options(text: str, given: str, allowed: Sequence[str]) -> dict[str, float | int]:
    options: dict[str, float | int] = {}
    for item in filter(None, given.split(",")):
        name, _, value = item.partition("=")
        try:
            if name not in allowed:
                raise KeyError(name)
            options[name] = type(RANDOM_OPTIONS[name])(value)
            require_number(name, options[name], *BOUNDS[name])
        except (KeyError, ValueError, Ada3DError) as error:
            example = ",".join(f"{one}={RANDOM_OPTIONS[one]}" for one in allowed)
            what = error if isinstance(error, Ada3DError) else repr(item)
            raise Ada3DError(f"--policy {text}: {what}; try random:{example}") from error
    return options


def policy_of(choice: PolicyChoice, plan: StagePlan) -> Policy:
    """Make the policies that were asked for, of any kind but 'learned'.

    Raises:
        Ada3DError: bits of other numbers than the plan's, or a file that holds no policies.
    """
    if choice.kind == "full":
        return Policy.full(plan, 1)
    if choice.kind == "random":
        values = RANDOM_OPTIONS | choice.options
        generator = torch.Generator().manual_seed(int(values["seed"]))
        return Policy.random(plan, int(values["n"]), values["frames"], values["stages"], generator)
    if choice.kind == "file":
        return policies_of(read_clips(choice.text))
    if choice.kind != "literal":
        raise ValueError(f"{choice.kind} policies are made from clips, not from a plan")
    frames, t, k = choice.frames, plan.num_frames, plan.num_stages
    if len(frames) != t and len(frames) < 10 and int(frames) <= t:
        frames = "1" * int(frames) + "0" * (t - int(frames))
    if (len(frames), len(choice.stages)) != (t, k) or set(frames) - set("01"):
        raise Ada3DError(
            f"--policy {choice.text}: this network takes {t} bits (or a number of frames), a slash "
            f"and {k} bits, such as {'1' * t}/{'1' * k}"
        )
    return Policy(_bits(frames), _bits(choice.stages))


def _bits(text: str) -> Tensor:
    return torch.tensor([[bit == "1" for bit in text]], dtype=torch.bool).view(1, -1)
