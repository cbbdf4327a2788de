#!/usr/bin/env python
"""One self-contained HTML page of an experiment.

    python tools/report.py DIR [--tradeoff DIR2] [--out DIR/report.html] [--title TEXT]

DIR is what tools/compare.py left (report.json, usage.png, policies.png), DIR2 what
tools/tradeoff.py left. Pictures are embedded; the page needs nothing beside it.
"""

from __future__ import annotations

import argparse
import base64
import html
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import compare
import tradeoff

from ada3d_fx import Ada3DError
from ada3d_fx.cli import user_errors
from ada3d_fx.report import tables
from ada3d_fx.report.statistics import DIFFERENCE_COLUMNS

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


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="what tools/compare.py left")
    parser.add_argument("--tradeoff", help="what tools/tradeoff.py left")
    parser.add_argument("--out", help="the page (DIR/report.html)")
    parser.add_argument("--title", help="its heading")
    return parser.parse_args()


def load(path: Path, tool: str) -> dict:
    """A tool's JSON file.

    Raises:
        Ada3DError: no such file, or none of the tool's.
    """
    if not path.is_file():
        raise Ada3DError(f"no file at {path}; run tools/{tool}.py first")
    try:
        found = json.loads(path.read_text())
        found["rows"], found["versions"]
    except (ValueError, KeyError, TypeError) as error:
        raise Ada3DError(f"{path} was not written by tools/{tool}.py: {error!r}") from error
    return found


def table(rows: Sequence[Mapping], columns: Sequence[tuple[str, str, str]]) -> str:
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
    if not path.is_file():
        return ""
    data, caption = base64.b64encode(path.read_bytes()).decode(), CAPTIONS[path.name]
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def made_with(result: Mapping) -> str:
    words = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return (
        f'<p class="note"><code>{html.escape(result["command"])}</code><br>'
        f"{html.escape(words)}; {result['seconds']:.0f} s</p>"
    )


def page(folder: Path, sweep: Path | None, title: str | None) -> str:
    result = load(folder / "report.json", "compare")
    parts = [f"<h1>{html.escape(title or Path(result['config']).stem)}</h1>"]
    share = result.get("gmacs_share")
    if share:
        ours = next(row for row in result["rows"] if row["name"] == "ada3d")
        parts.append(
            f"<p>Ada3D is right on {ours['accuracy']:.1f} % of the videos at "
            f"<b>{100 * share:.0f} %</b> of the recognizer's multiply-adds, selection network "
            "included.</p>"
        )
    parts += ["<h2>Comparison</h2>", table(result["rows"], compare.COLUMNS), made_with(result)]
    for heading, key, columns, note in (
        ("Differences", "differences", DIFFERENCE_COLUMNS,
         "Points of accuracy; 95 % intervals of a paired bootstrap over videos."),
        ("Usage by kind", "kinds", tables.KIND_COLUMNS, ""),
        ("Usage by class", "classes", tables.CLASS_COLUMNS, ""),
    ):  # fmt: skip
        if result.get(key):
            parts += [f"<h2>{heading}</h2>", table(result[key], columns)]
            parts += [f'<p class="note">{note}</p>'] if note else []
    parts += [picture(folder / "usage.png")]
    if (folder / "policies.png").is_file():
        parts += ["<h2>Examples</h2>", picture(folder / "policies.png")]
    if sweep is not None:
        turned = load(sweep / "tradeoff.json", "tradeoff")
        dialled = "target" in turned["rows"][0]
        columns = tradeoff.DIAL_COLUMNS if dialled else tradeoff.COLUMNS
        parts += ["<h2>Trade-off</h2>", picture(sweep / "tradeoff.png")]
        parts += [table(turned["rows"], columns), made_with(turned)]
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>'
        f"{html.escape(title or 'Ada3D')}</title>"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


@user_errors
def main() -> None:
    args = parse_args()
    folder = Path(args.folder)
    out = Path(args.out) if args.out else folder / "report.html"
    text = page(folder, Path(args.tradeoff) if args.tradeoff else None, args.title)
    out.write_text(text, encoding="utf-8")
    print(out)


if __name__ == "__main__":
    sys.exit(main())
