"""Upper, Random, Random FT, Ada3D and its ablations side by side, over seeds and folds."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from ..errors import Ada3DError
from ..mm.config import parse_options
from ..progress import Console
from ..provenance.command import provenance
from ..provenance.makers import made_by, of_rows
from .report import draw_examples, write_report
from .rows import MAIN, NEED_POLICIES, ROWS, SCORES, check_made, make
from .run import ComparisonRun, Setup


def compare(
    setup: Setup,
    rows: Sequence[str] = tuple(MAIN),
    seeds: Sequence[int] = (0,),
    folds: Sequence[int | None] = (None,),
    pictures: int = 0,
    report_only: bool = False,
    console: Console | None = None,
) -> str:
    """Make the rows that are not there yet, write the report and return its text.

    Args:
        setup: the config and what its runs have in common.
        rows: names of `ROWS`, or 'all'; the variants of ``setup`` are made too.
        seeds: a run for each.
        folds: a run for each; None: the config's own fold.
        pictures: draw the policies of so many clips.
        report_only: make no rows; report those that are there, as what they were made from.
        console: where progress is shown.

    Raises:
        Ada3DError: an unknown row, a row that the config cannot have, or bad input of the runs.
        MadeOtherwise: rows that are there were made from something else; see ``setup.redo``.
    """
    begin, console = time.monotonic(), console or Console()
    check_rows(rows, setup.variants)
    runs = [ComparisonRun(setup, seed, fold, console) for seed in seeds for fold in folds]
    folder, config = runs[0].folder.parent, runs[0].config
    names = [*wanted_rows(rows, config.model), *setup.variants]
    if not report_only:
        for run in runs:
            run.check()
        if not setup.redo:
            check_made(runs, names)
        console.say(f"rows: {', '.join(names)}; logs and checkpoints: {folder}")
        for run in runs:
            for name in names:
                make(run, name)
    elif pictures:
        check_made(runs[:1], ["ada3d"])
        if runs[0].result("ada3d") is None:
            raise Ada3DError(f"--pictures: there is no row ada3d in {runs[0].folder} to draw")
    results = {
        name: made
        for name in (*ROWS, *setup.variants)
        if (made := [r for run in runs if (r := run.result(name)) is not None])
    }
    about = {"seeds": list(seeds), "folds": list(folds), **provenance(setup.config, begin)}
    if report_only:
        about |= {"reported_by": about["command"], **made_by(results)}
    text = write_report(results, folder, config, about | of_rows(results))
    if pictures:
        run = runs[0].looking() if report_only else runs[0]
        draw_examples(pictures, config, run.tester(make(run, "ada3d")), folder / "policies.png")
    return f"{text}\n\nthese tables and usage by class: {folder / 'report.md'}"


def check_rows(rows: Sequence[str], variants: Mapping[str, Mapping]) -> None:
    """Check the names of rows and variants.

    Raises:
        Ada3DError: an unknown row, or a variant without entries or with the name of a row.
    """
    unknown = [name for name in rows if name not in (*ROWS, "all")]
    if unknown:
        raise Ada3DError(f"--rows: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    if any(name in ROWS or not entries for name, entries in variants.items()):
        raise Ada3DError("--variant takes a name of its own and config entries, NAME KEY=VALUE ...")


def wanted_rows(rows: Sequence[str], model: Mapping) -> list[str]:
    """List the rows to be made: those that the config can have.

    Rows of both networks need predictions of both; some of them a policy of every clip.

    Raises:
        Ada3DError: such a row was asked for by name.
    """
    names = list(ROWS) if "all" in rows else list(rows)
    if model.get("exit") is not None:
        asked = [name for name in rows if name in NEED_POLICIES]
        if asked:
            raise Ada3DError(
                f"--rows {','.join(asked)}: clips that exit have no policy for the recognizer alone; "
                "leave these rows out, or model.exit"
            )
        names = [name for name in names if name not in NEED_POLICIES]
    if (model.get("testing") or {}).get("predict_with") == "both":
        return names
    asked = [name for name in rows if name in SCORES]
    if asked:
        raise Ada3DError(f"--rows {','.join(asked)}: for a config with predict_with='both'")
    return [name for name in names if name not in SCORES]


def parse_variants(variants: Sequence[Sequence[str]]) -> dict[str, dict]:
    """Parse ``--variant NAME KEY=VALUE ...``: ``[['dearer', 'a=1']]`` -> ``{'dearer': {'a': 1}}``."""
    return {name: parse_options(pairs) for name, *pairs in variants}
