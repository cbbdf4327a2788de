"""What a recognizer's policies cost, and whether Ada3D can pay for it, before any training."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from .. import files
from ..mm.config import load_config
from ..policy import Policy
from ..progress import Console
from ..provenance.command import versions
from ..report import figures, records, tables
from .price_report import POLICY_COLUMNS, PriceReport
from .price_timing import price_seconds

POLICY_KINDS = ("full", "random", "literal", "file")  # of --policy


@dataclass(frozen=True)
class Output:
    """What is made beside the price list."""

    policies: Sequence[str] = ()  # priced too, as --policy takes them
    executed: int = 0  # count what the packed program runs for so many clips of each
    every: bool = False  # price every policy there is
    times: bool = False  # time conversion, table and look-ups
    json: str | None = None  # write everything to this file
    csv: str | None = None  # write the priced policies, or else the price list
    picture: str | None = None  # draw price over frames, and the cost by stage


def analyze(
    path: str,
    cfg_options: Sequence[str] = (),
    clip_shape: tuple[int, int, int, int] | None = None,
    convention: str = "fvcore",
    selector: bool = True,
    views: int = 1,
    output: Output = Output(),
    console: Console | None = None,
) -> str:
    """Price a config's recognizer, write the files that are wanted, and return the text.

    Args:
        path: an Ada3D config or a plain recognizer's.
        cfg_options: KEY=VALUE entries of it.
        clip_shape: see `PriceReport`, as the others.
        convention: what counts.
        selector: price a selection network too.
        views: clips per video.
        output: what is made beside the price list.
        console: where progress is shown.

    Raises:
        Ada3DError: a config that cannot be priced, or a policy that its plan does not allow.
    """
    choices = [records.parse_policy(text, POLICY_KINDS) for text in output.policies]
    if output.picture:
        figures.picture_kind(output.picture)
    config = load_config(path, cfg_options)
    report = PriceReport(config, clip_shape, convention, selector, views, console)
    rows = [
        report.policy_row(choice.text, *checked_policy(choice, report), output.executed)
        for choice in choices
    ]
    every = report.every_policy() if output.every else []
    seconds = price_seconds(report) if output.times else {}
    if output.csv:
        flat = [{k: v for k, v in row.items() if not isinstance(v, dict)} for row in rows]
        write_csv(output.csv, every or flat or report.price_list())
    if output.json:
        asked = {"policies": rows, "all": every, "seconds": seconds}
        records.write_json(output.json, {"config": path, **as_json(report), **asked})
    if output.picture:
        draw(report, output.picture, Path(path).stem)
    return "\n\n".join([report.text(), *_words(rows, every, seconds)])


def checked_policy(choice: records.PolicyChoice, report: PriceReport) -> tuple[Policy, int]:
    """Make the policies that were asked for, and check that the plan allows them.

    Returns:
        The policies, and of how many more clips a file says that they exited.
    """
    exits = 0
    if choice.kind == "file":
        policy, exited = records.decisions_of(records.read_clips(choice.text))
        exits = int(exited.sum())
    else:
        policy = records.policy_of(choice, report.plan)
    report.adaptive.check(policy, len(policy))
    return policy, exits


def _words(
    rows: Sequence[Mapping], every: Sequence[Mapping], seconds: Mapping[str, float]
) -> list[str]:
    parts = []
    if rows:
        lines = [tables.table(rows, tables.with_exits(POLICY_COLUMNS, rows))]
        for row in rows:
            if "executed" in row:
                ran = row["executed"]
                lines.append(
                    f"{row['name']}: {ran['clips']} clips as one batch: price {ran['price']:,}, "
                    f"executed {ran['macs']:,} multiply-adds; {ran['copied']:,} elements copied"
                )
        parts.append("\n".join(lines))
    if every:
        parts.append("\n".join(f"{r['frames']:3d} {r['stages']} {r['macs']:,}" for r in every))
    if seconds:
        lines = [f"  {name}: {value:.3g}" for name, value in seconds.items()]
        parts.append("\n".join(["seconds:", *lines]))
    return parts


def as_json(report: PriceReport) -> dict:
    """Return the whole report for machines."""
    saved, table = report.payoff, report.table
    return {
        "clip_shape": list(report.plan.clip_shape),
        "convention": report.convention,
        "views": report.views,
        "plan": str(report.plan),
        "prices": report.price_list(),
        "selector": report.selector,
        "payoff": {**asdict(saved), "pays": saved.pays, "verdict": saved.verdict},
        "unsupported": table.unsupported,
        "uncalled": table.uncalled,
        "versions": versions(),
    }


def write_csv(path: str | Path, rows: Sequence[Mapping]) -> None:
    """Write rows that have the keys of the first one."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    files.write_text(path, text.getvalue())


def draw(report: PriceReport, path: str | Path, name: str) -> None:
    """Draw price over kept frames, a band for each number of active stages; and cost by stage."""
    plan, table = report.plan, report.table
    lengths = table.lengths
    lines = []
    for active in range(plan.num_stages + 1):
        dearest = table.stages[lengths].sort(1, descending=True).values[:, :active].sum(1)
        cheapest = table.stages[lengths].sort(1).values[:, :active].sum(1)
        base = table.base[lengths]
        band = [((base + part).double() / 1e9).tolist() for part in (cheapest, dearest)]
        lines.append(figures.Line(f"{active} of {plan.num_stages} stages 3D", *band))
    full = table.stages[-1].tolist()
    parts = {"2D part": int(table.base[-1])}
    parts |= {f"+ {stage.name}": value for stage, value in zip(plan.stages, full)}
    if report.selector:
        parts["selection"] = report.selector
    figures.draw_prices(
        lengths,
        lines,
        {name: value / 1e9 for name, value in parts.items()},
        path,
        title=f"{name}, clip {' x '.join(map(str, plan.clip_shape))}",
        original=table.full / 1e9,
        selector=report.selector / 1e9,
    )
