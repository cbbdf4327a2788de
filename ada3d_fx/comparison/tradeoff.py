"""Accuracy over cost: Ada3D trained at several values, or several thresholds of one checkpoint."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from .. import files
from ..errors import Ada3DError
from ..mm import console as mm_console
from ..mm.checkpoint import load_weights
from ..mm.checks import check_config
from ..mm.config import calibration_list, forget_start, load_config
from ..mm.metric import row_of
from ..mm.testing import calibrate
from ..progress import Console
from ..provenance.command import provenance
from ..provenance.makers import of_rows
from ..report import figures, records, tables
from ..report.statistics import aggregate
from .report import COLUMNS as COMPARISON_COLUMNS
from .rows import check_made, make
from .run import ComparisonRun, Setup

SWEPT = ("upper", "ada3d", "random_ft")
COLUMNS = (("setting", "setting", "{}"), *COMPARISON_COLUMNS)
THRESHOLD_COLUMNS = (
    ("target", "target GMACs", "{:.4g}"), ("threshold", "threshold", "{:.4f}"),
    *tables.COLUMNS[1:],
)  # fmt: skip
EXIT_COLUMNS = (
    tables.COLUMNS[0], *THRESHOLD_COLUMNS[:2], ("exit", "exit above", "{:.4f}"),
    tables.EXITS, *tables.COLUMNS[1:],
)  # fmt: skip
WITH_EXIT = "ada3d with exit"


def tradeoff(
    setup: Setup,
    values: Sequence[float],
    option: str,
    checkpoint: str | None = None,
    seeds: Sequence[int] = (0,),
    folds: Sequence[int | None] = (None,),
    console: Console | None = None,
) -> str:
    """Make the rows, leave tradeoff.json, tradeoff.md and tradeoff.png, and return the table.

    Args:
        setup: the config, and where the results go.
        values: of the option.
        option: what is trained at each value: 'gamma' or 'budget', of the objective.
        checkpoint: test this one instead, its threshold set for each value in GMACs per clip.
        seeds: a training run for each.
        folds: a training run for each.
        console: where progress is shown.

    Raises:
        Ada3DError: nothing that measures accuracy, or bad input of the runs.
        MadeOtherwise: parts that are there were made from something else; see ``setup.redo``.
    """
    begin, console = time.monotonic(), console or Console()
    default = load_config(setup.config, setup.cfg_options).get("work_dir") or "work_dirs"
    folder = Path(setup.work_dir or f"{default}_tradeoff")
    console.say(f"logs and results: {folder}")
    if checkpoint:
        rows = thresholds(setup, values, checkpoint, folder, console)
        columns = columns_of(rows)
    else:
        rows, columns = sweep(setup, values, option, seeds, folds, folder, console), COLUMNS
    if any(row["accuracy"] is None for row in rows):
        raise Ada3DError("the config's test_evaluator measures no accuracy: nothing to draw")
    records.write_json(folder / "tradeoff.json", {"rows": rows, **provenance(setup.config, begin)})
    files.write_text(folder / "tradeoff.md", tables.table(rows, columns, markdown=True) + "\n")
    figures.draw_curves(curves(rows), folder / "tradeoff.png", Path(setup.config).stem)
    return f"{tables.table(rows, columns)}\n\npicture: {folder / 'tradeoff.png'}"


def sweep(
    setup: Setup,
    values: Sequence[float],
    option: str,
    seeds: Sequence[int],
    folds: Sequence[int | None],
    folder: Path,
    console: Console,
) -> list[dict]:
    """Train at each value; return a row for each value and each of `SWEPT`.

    What does not depend on the value, the warm-up, is made once.
    """
    runs = {
        value: sweep_runs(setup, value, option, seeds, folds, folder, console) for value in values
    }
    every = [run for of_value in runs.values() for run in of_value]
    for run in every:
        run.check()
    if not setup.redo:
        check_made(every, SWEPT)
    rows = []
    for value in values:
        setting = f"{option} {_word(value)}"
        console.say(setting)
        for name in SWEPT:
            results = [make(run, name) for run in runs[value]]
            row = {**aggregate(name, results), "setting": setting, "value": value}
            rows.append(row | {"made_by": of_rows({name: results})["made_by"]})
    return sorted(rows, key=lambda row: row["value"])


def sweep_runs(
    setup: Setup,
    value: float,
    option: str,
    seeds: Sequence[int],
    folds: Sequence[int | None],
    folder: Path,
    console: Console,
) -> list[ComparisonRun]:
    """Return the runs of one value, which share their warm-ups with those of the others."""
    here = dataclasses.replace(
        setup, cfg_options=[*setup.cfg_options, f"model.objective.{option}={value}"],
        work_dir=str(folder / f"{option}_{_word(value)}"),
    )  # fmt: skip
    runs = [ComparisonRun(here, seed, fold, console) for seed in seeds for fold in folds]
    for run in runs:
        run.warm_start = folder / run.name / "warmup"
    return runs


def _word(value: float) -> str:
    """Return a value in few digits if that is the value, else in all of them."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def thresholds(
    setup: Setup, values: Sequence[float], checkpoint: str, folder: Path, console: Console
) -> list[dict]:
    """Set the threshold of one checkpoint for each cost; return a row for each.

    Where the config lets clips exit, there is a second row for each, of the same checkpoint with both
    thresholds set; and the first is left out at a cost that cannot be met without exits.
    """
    config = load_config(setup.config, setup.cfg_options)
    config.work_dir, config.load_from, config.resume = str(folder), None, False
    forget_start(config)
    check_config(config, (setup.calibrate_on, "test"))
    runner = mm_console.build_runner(config, console)
    load_weights(runner.model, checkpoint)
    loader = runner.build_dataloader(calibration_list(config, setup.calibrate_on))
    rows, confidence = [], runner.model.exit
    names = ["ada3d"] if confidence is None else ["ada3d", WITH_EXIT]
    for target, name in itertools.product(values, names):
        runner.model.exit = confidence if name == WITH_EXIT else None
        try:
            found = calibrate(
                runner, loader, target, lambda clips: console.track(clips, "setting the threshold")
            )
        except Ada3DError as error:
            if name == names[-1]:
                raise
            console.say(f"without exits, {error}")
            continue
        row = row_of(name, runner.test())
        rows.append({**row, "target": target, **found.entries()})
    return rows


def columns_of(rows: Sequence[Mapping]) -> Sequence[tuple[str, str, str]]:
    """Choose the columns for the rows of `thresholds`."""
    return EXIT_COLUMNS if any("exit" in row for row in rows) else THRESHOLD_COLUMNS


def curves(rows: Sequence[Mapping]) -> dict[str, list[tuple[float, float]]]:
    """Collect (GMACs, accuracy) of each method, the cheapest first; Upper is one point."""
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        points.setdefault(row["name"], []).append((row["gmacs"], row["accuracy"]))
    return {name: sorted(set(of_row)) for name, of_row in points.items()}
