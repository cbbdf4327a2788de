"""Every video of a list decoded before a training: what is broken, and what is odd."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..errors import Ada3DError
from ..mm.checks import listed_datasets, video_file
from ..mm.config import load_config
from ..progress import Console
from ..report import records
from ..videos.broken import limit_of
from ..videos.lists import Entry, VideoList
from ..videos.probe import CONTAINERS
from ..videos.probing import probe_all

SPLITS = ("train", "val", "test")
HUGE_PIXELS, HUGE_FRAMES = 4096 * 2304, 100_000
TRUNCATED = 0.9  # of the frames that a header tells of
SHOWN = 10  # findings of a kind on the console
READERS = {"DecordInit": "decord", "PyAVInit": "pyav", "OpenCVInit": "opencv"}
# Phrases of `videos.probe.probe` and the kind of finding that they are.
ERRORS = {
    "is not there": "missing",
    "is a folder": "a folder",
    "is an empty file": "empty",
    "may not be read": "unreadable",
    "has no video": "no video in it",
    "hangs": "hangs",
    "crashes": "crashes",
}


@dataclass(frozen=True)
class CheckOptions:
    """How lists are checked."""

    processes: int | None = None  # videos decoded at a time; None: as many as there are cores
    timeout: float = 60.0  # seconds without a new frame after which decoding hangs
    quick: bool = False  # the first and the last frame only
    json: str | None = None  # write the findings to this file


@dataclass(frozen=True)
class DataList:
    """A list, and what a run asks of its videos."""

    videos: VideoList
    reader: str = "decord"  # what decodes them
    clip_frames: int = 1  # frames of a video that a clip spans
    filename_tmpl: str = "img_{:05}.jpg"  # of frames in folders
    start_index: int = 1  # of the first of them


@dataclass(frozen=True)
class Finding:
    """What is wrong with a line of a list."""

    line: int
    video: str
    kind: str
    why: str
    broken: bool  # it cannot be used; otherwise it is odd


@dataclass
class ListReport:
    """What was found in a list."""

    path: str
    videos: int = 0  # that were looked at
    findings: list[Finding] = field(default_factory=list)

    @property
    def broken(self) -> list[Finding]:
        """The findings for which a training stops."""
        return [finding for finding in self.findings if finding.broken]


def check_lists(
    lists: Sequence[DataList], options: CheckOptions, console: Console
) -> tuple[str, bool]:
    """Check lists, write ``options.json``, and return the findings as text, and if any is broken.

    Raises:
        Ada3DError: a list that cannot be read.
    """
    reports = [check_list(one, options, console) for one in lists]
    if options.json:
        content = [{**asdict(report), "broken": len(report.broken)} for report in reports]
        records.write_json(options.json, {"lists": content})
    return "\n\n".join(map(report_text, reports)), any(report.broken for report in reports)


def check_list(data: DataList, options: CheckOptions, console: Console) -> ListReport:
    """Decode every video of a list, and judge it.

    Raises:
        Ada3DError: a list that cannot be read.
    """
    report = ListReport(data.videos.path)
    total = sum(1 for _ in data.videos.entries(bad=lambda *_: None))
    lines: dict[int, int] = {}  # hash of a path -> where it was listed first

    def bad(line: int, why: str) -> None:
        kind = "label" if ": label " in why else "line"
        report.findings.append(Finding(line, "", kind, why.partition(": ")[2], True))

    def requests() -> Iterator[tuple[Entry, Mapping[str, Any]]]:
        for entry in data.videos.entries(bad):
            key = hash(entry.path)
            if key in lines:
                why = f"line {lines[key]} lists it too"
                report.findings.append(Finding(entry.line, entry.path, "listed twice", why, False))
            lines.setdefault(key, entry.line)
            path = video_file(entry.path) if data.reader == "decord" else entry.path
            yield entry, {"path": path, "reader": data.reader, "whole": not options.quick}

    with console.bar(f"decoding the videos of {Path(report.path).name}", total) as bar:
        if data.videos.frames:
            for entry, _ in requests():
                report.findings += folder_findings(entry, data)
                bar.advance()
        else:
            processes = min(options.processes or os.cpu_count() or 1, max(total, 1))
            for entry, found in probe_all(requests(), processes, options.timeout):
                report.findings += findings(entry, found, data, options.quick)
                bar.advance()
    report.videos = total
    report.findings.sort(key=lambda finding: finding.line)
    return report


def findings(entry: Entry, found: Mapping[str, Any], data: DataList, quick: bool) -> list[Finding]:
    """Judge a video by what `videos.probe.probe` says of it."""

    def finding(kind: str, why: str, broken: bool = False) -> Finding:
        return Finding(entry.line, entry.path, kind, why, broken)

    error = found["error"]
    if error:
        kind = next((kind for words, kind in ERRORS.items() if error.startswith(words)), None)
        ending = _wrong_ending(entry.path, found)
        return [finding(kind or "does not decode", error + (f"; {ending}" if ending else ""), True)]
    frames = found["told"] if quick else found["frames"]
    judged = []
    if not quick and found["frames"] < TRUNCATED * found["told"] - 1:
        why = f"{frames} frames decode of the {found['told']} that its header tells of"
        judged.append(finding("truncated", why))
    if frames == 1:
        judged.append(finding("one frame", "has one frame"))
    elif 0 < frames < data.clip_frames:
        why = f"has {frames} frames; a clip spans {data.clip_frames}, so that some are repeated"
        judged.append(finding("short", why))
    if found["width"] * found["height"] > HUGE_PIXELS or frames > HUGE_FRAMES:
        judged.append(finding("huge", _size(found["width"], found["height"], frames)))
    if _wrong_ending(entry.path, found):
        judged.append(finding("other ending", _wrong_ending(entry.path, found)))
    return judged


def _size(width: int, height: int, frames: int) -> str:
    frame = width * height * 3
    return (
        f"is of {width} x {height}: a decoded frame takes {frame / 2**20:.0f} MiB, all {frames} "
        f"frames {frames * frame / 2**30:.1f} GiB"
    )


def _wrong_ending(path: str, found: Mapping[str, Any]) -> str:
    ending = os.path.splitext(path)[1].lower()
    container = found["container"]
    if container and ending in CONTAINERS and CONTAINERS[ending] not in container:
        return f"is a file of {container.split(',')[0]} ({found['codec']}), not what {ending} says"
    return ""


def folder_findings(entry: Entry, data: DataList) -> list[Finding]:
    """Look for the first and the last frame in a folder of frames."""
    if not os.path.isdir(entry.path):
        return [Finding(entry.line, entry.path, "missing", "no such folder", True)]
    judged = []
    for index in {0, (entry.frames or 1) - 1}:
        name = data.filename_tmpl.format(data.start_index + index)
        if not os.path.isfile(os.path.join(entry.path, name)):
            why = f"has no {name}; the list tells of {entry.frames} frames"
            judged.append(Finding(entry.line, entry.path, "missing", why, True))
    if (entry.frames or 0) < data.clip_frames:
        why = f"has {entry.frames} frames; a clip spans {data.clip_frames}"
        judged.append(Finding(entry.line, entry.path, "short", why, False))
    return judged


def report_text(report: ListReport) -> str:
    """Tell what was found in a list: how much of each kind, and the first lines of it."""
    odd = len(report.findings) - len(report.broken)
    text = [f"{report.path}: {report.videos} videos, {len(report.broken)} broken, {odd} odd"]
    kinds = Counter((not finding.broken, finding.kind) for finding in report.findings)
    for (is_odd, kind), count in sorted(kinds.items()):
        text.append(f"  {kind:<16} {count:>6}  {'odd' if is_odd else 'broken'}")
        mine = [f for f in report.findings if f.kind == kind and f.broken != is_odd]
        text += [f"    line {f.line}: {f.video} {f.why}".replace(":  ", ": ") for f in mine[:SHOWN]]
        if count > SHOWN:
            text.append(f"    and {count - SHOWN} more (--json FILE writes them all)")
    return "\n".join(text)


# ----------------------------------------------------------------------------- which lists there are


def lists_of(config: Config, splits: Sequence[str] = SPLITS) -> list[DataList]:
    """Return the lists of a config, each once.

    Raises:
        Ada3DError: it has no list of videos or of folders of frames.
    """
    lists = []
    for dataset, num_classes in listed_datasets(config, tuple(splits)):
        videos = VideoList.of(dataset, num_classes)
        if videos is not None:
            pipeline = [t for t in dataset.get("pipeline") or () if isinstance(t, Mapping)]
            lists.append(
                DataList(
                    videos, _reader(pipeline), _clip_frames(pipeline),
                    dataset.get("filename_tmpl", "img_{:05}.jpg"), dataset.get("start_index", 1),
                )
            )  # fmt: skip
    if not lists:
        raise Ada3DError("the config has no list of videos (VideoDataset, RawframeDataset)")
    return lists


def plain_lists(
    paths: Sequence[str],
    folder: str | None = None,
    delimiter: str = " ",
    num_classes: int | None = None,
    clip_frames: int = 1,
) -> list[DataList]:
    """Return lists of videos that no config tells of.

    Args:
        paths: of the lists.
        folder: to which the paths in them are relative; None: each list's own.
        delimiter: between path and labels.
        num_classes: labels must be below; None: any will do.
        clip_frames: frames of a video that a clip spans.
    """
    return [
        DataList(
            VideoList(
                path, os.path.dirname(path) if folder is None else folder, delimiter,
                multi_class=True, num_classes=num_classes,
            ),
            clip_frames=clip_frames,
        )
        for path in paths
    ]  # fmt: skip


def lists_of_config(path: str, cfg_options: Sequence[str]) -> list[DataList]:
    """Return the lists of a config file.

    Raises:
        Ada3DError: see `lists_of`.
    """
    return lists_of(load_config(path, cfg_options))


def _reader(pipeline: Sequence[Mapping]) -> str:
    kinds = (READERS.get(str(t.get("type")).split(".")[-1]) for t in pipeline)
    return next((reader for reader in kinds if reader), "decord")


def _clip_frames(pipeline: Sequence[Mapping]) -> int:
    for transform in pipeline:
        length = transform.get("clip_len")
        if isinstance(length, int):
            uniform = str(transform.get("type")).startswith("Uniform")
            return 1 + (length - 1) * (1 if uniform else transform.get("frame_interval", 1))
    return 1


def check_before_training(config: Config, splits: Sequence[str], console: Console) -> None:
    """Decode every video of a config's lists, and tell what is broken or odd.

    Raises:
        Ada3DError: a list has more broken videos than ``broken_videos.limit`` allows.
    """
    for data in lists_of(config, splits):
        report = check_list(data, CheckOptions(), console)
        limit = limit_of(config, report.videos)
        bad_lines = [f for f in report.broken if f.kind in ("line", "label")]
        if bad_lines or len({f.video for f in report.broken}) > limit:
            raise Ada3DError(
                f"{report_text(report)}\nbroken_videos.limit allows {limit:g} broken videos; take "
                "their lines out of the list, or set broken_videos=dict(limit=...) in the config"
            )
        console.say(report_text(report))
