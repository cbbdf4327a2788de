"""What converts: the 3D recognizers that MMAction2 ships, or one config, a row for each."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from .. import files
from ..convert import convert
from ..cost.price import price_table
from ..errors import Ada3DError, UnsupportedModel
from ..mm.build import build_recognizer
from ..mm.config import clip_shape_of, load_config, recognizer_config
from ..mm.zoo import Shipped, shipped_recognizers
from ..progress import Console, quiet
from ..report import records, tables

COLUMNS = (
    ("config", "config", "{}"),
    ("frames", "T", "{}"),
    ("stage_names", "stages", "{}"),
    ("unit", "frame unit", "{}"),
    ("execution", "runs", "{}"),
    ("saved", "saved by all-2D", "{}"),
    ("reason", "why not", "{}"),
)
SUMMARY = (("family", "family", "{}"), *COLUMNS[1:6], ("count", "configs", "{}"), COLUMNS[6])
Shape = tuple[int, int, int, int]


def show_support(
    path: str | None = None,
    cfg_options: Sequence[str] = (),
    clip_shape: Shape | None = None,
    families: Sequence[str] | None = None,
    summary: bool = False,
    markdown: bool = False,
    json: str | None = None,
    out: str | None = None,
    console: Console | None = None,
) -> str:
    """Convert each recognizer and return the table of what came of it.

    Args:
        path: a config; None: those that MMAction2 ships.
        cfg_options: KEY=VALUE entries of it.
        clip_shape: (C, T, H, W); None: as each config's test pipeline says.
        families: only these folders of MMAction2's configs.
        summary: a row for all configs of a family that are alike.
        markdown: the table in Markdown.
        json: write the rows to this file too.
        out: write the table to this file too.
        console: where progress is shown.

    Raises:
        Ada3DError: no such config or family, or no shape of a clip.
    """
    wanted = [Shipped(path, load_config(path, cfg_options))] if path else shipped(families)
    rows, done = [], {}
    for one in (console or Console()).track(wanted, "converting"):
        shape = clip_shape or one.config.model.get("clip_shape") or clip_shape_of(one.config)
        key = (str(one.config.model.to_dict()), shape)
        if key not in done:
            with quiet():
                done[key] = support(one, shape)
            gc.collect()
        rows.append({**done[key], "config": one.name, "family": one.family})
    if json:
        records.write_json(json, rows)
    text = text_of(rows, summary, markdown, own=path is not None)
    if out:
        files.write_text(out, text + "\n")
    return text


def shipped(families: Sequence[str] | None = None) -> list[Shipped]:
    """List the recognizers that MMAction2 ships, of these families.

    Raises:
        Ada3DError: none there.
    """
    wanted = [s for s in shipped_recognizers() if families is None or s.family in families]
    if not wanted:
        raise Ada3DError(
            f"--families {','.join(families or ())}: MMAction2 ships no 3D recognizer there"
        )
    return wanted


def support(shipped: Shipped, shape: Shape) -> dict:
    """Return what there is to say of one config.

    Returns:
        ``reasons`` are of a refusal or of what stays undecided; ``dense`` tells what runs densely;
        ``saved_by_all_2d`` is the share of multiply-adds that all stages 2D save.
    """
    row = {"config": shipped.name, "family": shipped.family, "clip_shape": list(shape)}
    row["frames"] = shape[1]
    start = time.monotonic()
    model = shipped.config.model
    if model.get("type") == "Ada3DRecognizer":
        model = model.recognizer
    try:
        recognizer = build_recognizer(recognizer_config(model)).eval()
        built = time.monotonic()
        adaptive = convert(recognizer, clip_shape=shape)
    except UnsupportedModel as error:
        reasons = [str(reason) for reason in error.reasons]
        return {**row, "execution": "refused", "reasons": reasons}
    row["seconds"] = {"build": built - start, "convert": time.monotonic() - built}
    plan, table = adaptive.plan, price_table(adaptive)
    return {
        **row,
        "stages": {stage.name: len(stage.sites) for stage in plan.stages},
        "frame_unit": plan.frame_unit,
        "execution": plan.execution,
        "saved_by_all_2d": 1 - int(table.base[-1]) / table.full,
        "reasons": [str(reason) for reason in plan.reasons],
        "dense": [str(reason) for reason in plan.dense],
    }


# ------------------------------------------------------------------------------------- words


def text_of(rows: Sequence[Mapping], summary: bool, markdown: bool, own: bool) -> str:
    """Tell the rows as a table; of one's ``own`` config all reasons, else how many are what."""
    words = summarised(rows) if summary else [cells(row) for row in rows]
    text = tables.table(words, SUMMARY if summary else COLUMNS, markdown)
    if not own:
        return f"{text}\n\n{counts(rows)}"
    reasons = [*rows[0]["reasons"], *rows[0].get("dense", [])]
    return text if markdown else "\n  ".join([text, *reasons])


def cells(row: Mapping) -> dict:
    """Tell a row's values as words."""
    words = {**row, "config": Path(row["config"]).stem}
    if row["execution"] != "refused":
        names = list(row["stages"])
        words["stage_names"] = f"{len(names)}: {' '.join(names)}" if names else "0"
        words["unit"] = row["frame_unit"] or "all kept"
        words["saved"] = f"{100 * row['saved_by_all_2d']:.0f} %"
    if row["reasons"] and (row["execution"] == "refused" or row["frame_unit"] is None):
        reason = row["reasons"][0]
        words["reason"] = reason if len(reason) <= 100 else f"{reason[:97]}..."
    return words


def summarised(rows: Sequence[Mapping]) -> list[dict]:
    """Make one row of the configs of a family that agree in all but T and the share saved."""
    groups: dict[tuple, list[Mapping]] = {}
    for row in rows:
        stages = str(list(row.get("stages", {})))
        key = (row["family"], stages, row.get("frame_unit"), row["execution"])
        groups.setdefault(key, []).append(row)
    merged = []
    for alike in groups.values():
        words = {**cells(alike[0]), "count": len(alike), "family": alike[0]["family"]}
        words["frames"] = " ".join(str(t) for t in sorted({row["frames"] for row in alike}))
        shares = sorted({round(100 * row.get("saved_by_all_2d", 0)) for row in alike})
        if alike[0]["execution"] != "refused":
            words["saved"] = "-".join(str(s) for s in dict.fromkeys((shares[0], shares[-1]))) + " %"
        merged.append(words)
    return merged


def counts(rows: Sequence[Mapping]) -> str:
    """Say how many configs run how."""
    kinds = ("packed", "partly dense", "dense", "refused")
    words = [f"{sum(row['execution'] == kind for row in rows)} {kind}" for kind in kinds]
    kept = sum(row["execution"] != "refused" and row["frame_unit"] is None for row in rows)
    return f"{len(rows)} configs: {', '.join(words)}; frames kept fixed in {kept}"
