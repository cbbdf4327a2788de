"""The results of a comparison -> tables, differences and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.config import Config

from .. import files
from ..errors import Ada3DError
from ..mm.config import class_names
from ..mm.testing import examples
from ..report import figures, policy_pictures, records, statistics, tables
from ..report.statistics import DIFFERENCE_COLUMNS, aggregate, differences

COLUMNS = (*tables.COLUMNS[:2], ("mean_class_accuracy", "mean class %", "{:.2f}"),
           ("accuracy_std", "std of seeds", "{:.2f}"), *tables.COLUMNS[2:],
           ("runs", "runs", "{}"))  # fmt: skip
# Rows without a selection network, against which recognizer_only is compared too.
PLAIN_ROWS = (
    *("upper", "random", "random_ft", "static_ft", "upper_small"),
    *("recognizer_only", "recognizer_shuffled"),
)


def write_report(
    results: Mapping[str, Sequence[Mapping]], folder: Path, config: Config, about: Mapping
) -> str:
    """Write report.json, report.txt, report.md and usage.png; return the text for the console.

    Args:
        results: of each row, the results of its runs (see `ComparisonRun`).
        folder: where the files go.
        config: says what the classes are called.
        about: what report.json says of its making; ``made_differently`` is told with the tables.

    Raises:
        Ada3DError: no results.
    """
    if not results:
        raise Ada3DError(f"--report-only: {folder} holds no results of these runs")
    rows = [aggregate(name, runs) for name, runs in results.items()]
    kinds = usage_by_kind(next((row for row in rows if row["name"] == "ada3d"), {}))
    usage = statistics.usage_by_class(results.get("ada3d", []), class_names(config))
    gaps = differences(results)
    plain = {name: runs for name, runs in results.items() if name in PLAIN_ROWS}
    gaps += differences(plain, "recognizer_only")
    share = {row["name"]: row["gmacs"] / rows[0]["gmacs"] for row in rows}
    result = {
        "rows": rows, "kinds": kinds, "classes": usage, "differences": gaps,
        "fixed_policies": {
            name: told
            for name, runs in results.items()
            if (told := [one for run in runs if (one := fixed_policy(run)) is not None])
        },
        "gmacs_share": share.get("ada3d"), "shares": share, **about,
    }  # fmt: skip
    records.write_json(folder / "report.json", result)
    parts = [(rows, tables.with_exits(COLUMNS, rows)), (gaps, DIFFERENCE_COLUMNS),
             (kinds, tables.KIND_COLUMNS),
             (usage, tables.with_exits(tables.CLASS_COLUMNS, usage))]  # fmt: skip
    notes = fixed_policies(results)
    notes += [f"made differently: {line}" for line in about.get("made_differently", ())]
    for markdown, name in ((False, "report.txt"), (True, "report.md")):
        text = [tables.table(part, columns, markdown) for part, columns in parts if part]
        files.write_text(folder / name, "\n\n".join([*text, *notes]) + "\n")
    if usage:
        figures.draw_usage(usage, folder / "usage.png")
    shown = [tables.table(part, columns) for part, columns in parts[:3] if part]
    return "\n\n".join([*shown, *notes])


def fixed_policies(results: Mapping[str, Sequence[Mapping]]) -> list[str]:
    """Tell the policies of rows that have one for all clips, a line for each of their runs."""
    lines = []
    for name, runs in results.items():
        for result in runs:
            if (found := fixed_policy(result)) is None:
                continue
            fold = "" if result["fold"] is None else f", fold {result['fold']}"
            lines.append(
                f"{name} (seed {result['seed']}{fold}): {found['policy']} for all clips, "
                f"{found['gmacs']:.4g} GMACs of {found['allowed_gmacs']:.4g}{_of_search(found)}"
            )
    return lines


def fixed_policy(result: Mapping) -> Mapping | None:
    """Return what a result tells of the one policy of all its clips; None where each has its own."""
    return (result.get("told") or {}).get("fixed_policy")


def _of_search(found: Mapping) -> str:
    if "tried" not in found:
        return ""
    return (
        f"; of {found['tried']} policies it is right most often after the warm-up, for "
        f"{found['accuracy']:.1f} % of {found['clips']} training clips"
    )


def usage_by_kind(row: Mapping) -> list[dict]:
    """List what a row measured for each kind of classes (see `PolicyCostMetric`)."""
    kinds = [key.removeprefix("frames_") for key in row if key.startswith("frames_")]
    return [
        {"kind": kind} | {key: row[f"{key}_{kind}"] for key in ("accuracy", "frames", "stages")}
        for kind in kinds
    ]


def draw_examples(count: int, config: Config, runner, path: Path) -> None:
    """Draw the policies of ``count`` clips of the test list, taken from all classes in turn."""
    dataset, model = runner.test_dataloader.dataset, runner.model
    labels = [int(dataset.get_data_info(i)["label"]) for i in range(len(dataset))]
    order = sorted(range(len(labels)), key=lambda i: (labels[:i].count(labels[i]), labels[i]))
    names = {label: str(label) for label in range(model.num_classes)} | class_names(config)
    classes = list(dict.fromkeys(labels[i] for i in order))
    step = max(1, len(classes) // count)
    chosen = [i for i in order if labels[i] in classes[::step]][:count]
    shown = [examples(model, dataset[i], names[labels[i]], names, labelled=True)[0] for i in chosen]
    policy_pictures.draw_policies(shown, path)
