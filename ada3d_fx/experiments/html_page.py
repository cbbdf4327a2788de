"""One self-contained HTML page of an experiment: tables, and pictures embedded."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path

from .. import files
from ..comparison import report as comparison_report
from ..comparison import tradeoff
from ..errors import Ada3DError
from ..report import reading, tables
from ..report.statistics import DIFFERENCE_COLUMNS

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9rem }
th, td { padding: 0.25rem 0.7rem; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
tr.ours td { background: #eef6ee; font-weight: 600 }
figure { margin: 1rem 0; overflow-x: auto } img { max-width: 100%; height: auto }
figcaption, .note { color: #555; font-size: 0.85rem }
code { background: #f4f4f4; padding: 0.1rem 0.3rem; overflow-wrap: anywhere }
"""
CAPTIONS = {
    "usage.png": "What the clips of each class use under the learned policies; the number of videos in brackets.",
    "policies.png": "Policies of single clips: dropped frames are dark and crossed out; stages in "
    "green run in 3D, in grey in 2D.",
    "tradeoff.png": "Accuracy over cost.",
}
PNG_BEGIN, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND"
# What the page shows of results beside their rows, see `reading.check`.
ABOUT = {"command": str, "config": str, "seconds": reading.NUMBER, "versions": {}}
PARTS = {
    "gmacs_share?": reading.NUMBER,
    "differences?": [reading.row_kind(DIFFERENCE_COLUMNS)],
    "kinds?": [reading.row_kind(tables.KIND_COLUMNS)],
    "classes?": [reading.row_kind(tables.CLASS_COLUMNS)],
}


def write_page(
    folder: str | Path, sweep: str | Path | None = None, out: str | Path | None = None,
    title: str | None = None,
) -> Path:  # fmt: skip
    """Write the page of an experiment and return its path.

    Args:
        folder: what tools/compare.py left.
        sweep: what tools/tradeoff.py left; None: no trade-off.
        out: the page; None: report.html in the folder.
        title: its heading; None: the config's name.

    Raises:
        Ada3DError: a folder without the tool's files, or with files that are cut off or foreign.
        OSError: the page cannot be written.
    """
    text = page(Path(folder), Path(sweep) if sweep else None, title)
    path = Path(out) if out else Path(folder) / "report.html"
    files.write_text(path, text)
    return path


def load(path: Path, tool: str, columns: Sequence[tuple[str, str, str]]) -> dict:
    """Read a tool's JSON file.

    Args:
        path: the file.
        tool: the tool that writes such files.
        columns: those of its rows.

    Raises:
        Ada3DError: no such file, or one that is cut off or not the tool's.
    """
    hint = f"run tools/{tool}.py first" if not path.is_file() else f"run tools/{tool}.py again"
    result = reading.read_json(path, hint)
    try:
        reading.check(result, {**ABOUT, "rows": [reading.row_kind(columns)], **PARTS})
        if not result["rows"]:
            raise ValueError("it has no rows")
    except ValueError as error:
        raise Ada3DError(f"{path} was not written by tools/{tool}.py: {error}; {hint}") from error
    return result


def table(rows: Sequence[Mapping], columns: Sequence[tuple[str, str, str]]) -> str:
    """Write rows as a table of HTML; a value that is not there is a dash."""
    head = "".join(f"<th>{html.escape(title)}</th>" for _, title, _ in columns)
    lines = []
    for row in rows:
        cells = [
            html.escape(form.format(row[key])) if row.get(key) is not None else "-"
            for key, _, form in columns
        ]
        mark = ' class="ours"' if row.get("name") == "ada3d" else ""
        lines.append(f"<tr{mark}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def picture(path: Path) -> str:
    """Embed a picture with its caption; nothing where there is no file.

    Raises:
        Ada3DError: a file that is cut off, or no PNG.
    """
    if not path.is_file():
        return ""
    content, caption = path.read_bytes(), CAPTIONS[path.name]
    if not content.startswith(PNG_BEGIN) or PNG_END not in content[-12:]:
        raise Ada3DError(f"{path} is cut off, or no PNG; delete it, or make it again")
    data = base64.b64encode(content).decode()
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def made_with(result: Mapping) -> str:
    """Say with which command, versions and time a result was made."""
    words = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return (
        f'<p class="note"><code>{html.escape(result["command"])}</code><br>'
        f"{html.escape(words)}; {result['seconds']:.0f} s</p>"
    )


def page(folder: Path, sweep: Path | None, title: str | None) -> str:
    """Write the page as text; see `write_page`."""
    columns = (*comparison_report.COLUMNS, tables.EXITS)
    result = load(folder / "report.json", "compare", columns)
    parts = [f"<h1>{html.escape(title or Path(result['config']).stem)}</h1>"]
    share = result.get("gmacs_share")
    ours = next((row for row in result["rows"] if row.get("name") == "ada3d"), {})
    if share and ours.get("accuracy") is not None:
        parts.append(
            f"<p>Ada3D is right on {ours['accuracy']:.1f} % of the videos at "
            f"<b>{100 * share:.0f} %</b> of the recognizer's multiply-adds, selection network "
            "included.</p>"
        )
    parts += [
        "<h2>Comparison</h2>",
        table(result["rows"], tables.with_exits(comparison_report.COLUMNS, result["rows"])),
        made_with(result),
    ]
    for line in result.get("made_differently", ()):
        parts.append(f'<p class="note">made differently: {html.escape(line)}</p>')
    for heading, key, columns, note in (
        ("Differences", "differences", DIFFERENCE_COLUMNS,
         "Points of accuracy; 95 % intervals of a paired bootstrap over videos."),
        ("Usage by kind", "kinds", tables.KIND_COLUMNS, ""),
        ("Usage by class", "classes", tables.CLASS_COLUMNS, ""),
    ):  # fmt: skip
        if result.get(key):
            columns = tables.with_exits(columns, result[key])
            parts += [f"<h2>{heading}</h2>", table(result[key], columns)]
            parts += [f'<p class="note">{note}</p>'] if note else []
    parts += [picture(folder / "usage.png")]
    if (folder / "policies.png").is_file():
        parts += ["<h2>Examples</h2>", picture(folder / "policies.png")]
    if sweep is not None:
        both = (*tradeoff.COLUMNS, *tradeoff.EXIT_COLUMNS)
        swept = load(sweep / "tradeoff.json", "tradeoff", both)
        by_threshold = "target" in swept["rows"][0]
        columns = tradeoff.columns_of(swept["rows"]) if by_threshold else tradeoff.COLUMNS
        parts += ["<h2>Trade-off</h2>", picture(sweep / "tradeoff.png")]
        parts += [table(swept["rows"], columns), made_with(swept)]
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>'
        f"{html.escape(title or 'Ada3D')}</title>"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )
