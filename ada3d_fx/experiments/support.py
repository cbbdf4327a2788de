"""What converts: the 3D recognizers that MMAction2 ships, or one config, a row for each."""

from __future__ import annotations

import gc
import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import files
from ..convert import convert
from ..cost.price import price_table
from ..errors import Ada3DError, UnsupportedModel
from ..mm.build import build_recognizer
from ..mm.config import clip_shape_of, load_config, recognizer_config
from ..mm.zoo import Shipped, shipped_recognizers
from ..progress import Console, quiet
from ..provenance.command import command_line, versions
from ..report import reading, records, tables
from .export_support import ENDINGS, Shape, exports

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
EXPORTS = (
    ("onnxruntime", "ONNX Runtime", "{}"),
    ("openvino", "OpenVINO", "{}"),
    ("why_not_adaptive", "why not adaptively", "{}"),
)
# What a recognizer's config has that changes nothing of what it exports as.
NEUTRAL = ("num_classes", "dropout_ratio", "pretrained", "init_cfg", "loss_cls", "average_clips",
           "train_cfg", "test_cfg", "data_preprocessor")  # fmt: skip


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
    export: bool = False,
) -> str:
    """Convert each recognizer and return the table of what came of it.

    Args:
        path: a config; None: those that MMAction2 ships.
        cfg_options: KEY=VALUE entries of it.
        clip_shape: (C, T, H, W); None: as each config's test pipeline says.
        families: only these folders of MMAction2's configs.
        summary: a row for all configs of a family that are alike.
        markdown: the table in Markdown.
        json: write the rows to this file too, with command and versions.
        out: write the table to this file too.
        console: where progress is shown.
        export: export each recognizer too, see `exports`. This takes hours; ``json`` then holds the
            rows that are made so far, and those that are in it are not made again.

    Raises:
        Ada3DError: no such config or family, or no shape of a clip.
    """
    wanted = [Shipped(path, load_config(path, cfg_options))] if path else shipped(families)
    kept = _kept(json) if export else {}
    rows: list[dict] = []
    done: dict = {}  # by what is in the config: the row of the first that has it
    exported: dict = {_of_exports(row): row["exports"] for row in kept.values() if "exports" in row}
    for one in (console or Console()).track(wanted, "converting"):
        shape = clip_shape or one.config.model.get("clip_shape") or clip_shape_of(one.config)
        if one.name in kept and kept[one.name]["clip_shape"] == list(shape):
            rows.append(kept[one.name])
            continue
        key = (str(one.config.model.to_dict()), shape)
        if key not in done:
            with quiet():
                done[key] = support(one, shape, exported if export else None)
            gc.collect()
        rows.append({**done[key], "config": one.name, "family": one.family})
        if json:
            others = [row for name, row in kept.items() if name not in _names(rows)]
            records.write_json(
                json,
                {"rows": [*rows, *others], "command": command_line(), "versions": versions()},
            )
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


def _kept(path: str | None) -> dict[str, dict]:
    """The rows of an earlier run, by config.

    Raises:
        Ada3DError: the file is no result of this tool.
    """
    if path is None or not Path(path).is_file():
        return {}
    hint = "take the file away to make its rows anew"
    content = reading.read_json(path, hint)
    try:
        reading.check(content, {"rows": [{"config": str, "clip_shape": [int]}]})
    except ValueError as error:
        raise Ada3DError(f"{path}: {error}; {hint}") from error
    return {row["config"]: row for row in content["rows"]}


def _names(rows: Sequence[Mapping]) -> set[str]:
    return {row["config"] for row in rows}


def _of_exports(row: Mapping) -> tuple:
    """What recognizers have in common that export alike."""
    return row["network"], tuple(row["clip_shape"])


def _network(value: Any) -> Any:
    """A model's config without what changes nothing of what it exports as."""
    if isinstance(value, dict):
        return {key: _network(inner) for key, inner in value.items() if key not in NEUTRAL}
    return [_network(one) for one in value] if isinstance(value, (list, tuple)) else value


def support(shipped: Shipped, shape: Shape, exported: dict | None = None) -> dict:
    """Return what there is to say of one config.

    Args:
        shipped: the config.
        shape: of its clips.
        exported: what exports, by what recognizers have in common that export alike: it is added
            to. None: nothing is exported.

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
    if exported is not None:
        row["network"] = hashlib.sha256(str(_network(model.to_dict())).encode()).hexdigest()[:16]
        if _of_exports(row) not in exported:
            exported[_of_exports(row)] = exports(recognizer, plan)
        row["exports"] = exported[_of_exports(row)]
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
    columns = SUMMARY if summary else COLUMNS
    if any("exports" in row for row in rows):
        columns = (*columns, *EXPORTS)
    text = tables.table(words, columns, markdown)
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
        words["reason"] = _short(reason)
    for engine in ENDINGS if "exports" in row else ():
        found = row["exports"][engine]
        words[engine] = found["exports"]
        if "why_not" in found:
            words["why_not_adaptive"] = _short(found["why_not"])
    return words


def _short(reason: str) -> str:
    return reason if len(reason) <= 100 else f"{reason[:97]}..."


def summarised(rows: Sequence[Mapping]) -> list[dict]:
    """Make one row of the configs of a family that agree in all but T and the share saved."""
    groups: dict[tuple, list[Mapping]] = {}
    for row in rows:
        stages = str(list(row.get("stages", {})))
        told = [row["exports"][engine]["exports"] for engine in ENDINGS if "exports" in row]
        key = (row["family"], stages, row.get("frame_unit"), row["execution"], *told)
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
    told = f"{len(rows)} configs: {', '.join(words)}; frames kept fixed in {kept}"
    for engine in ENDINGS if any("exports" in row for row in rows) else ():
        found = [row["exports"][engine]["exports"] for row in rows if "exports" in row]
        each = [f"{found.count(kind)} {kind}" for kind in ("adaptive", "specialised", "no")]
        told += f"\n{engine}: {', '.join(each)}"
    return told
