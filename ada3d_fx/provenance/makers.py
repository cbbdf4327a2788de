"""Who made the rows of a report, and whether all of them were made alike."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from . import made_from

UNKNOWN = "unknown"
Results = Mapping[str, Sequence[Mapping[str, Any]]]  # of each row, the results of its runs


def made_by(results: Results) -> dict[str, Any]:
    """Return the command, the config and the versions that made all rows.

    Where they were several, they are told one after the other.
    """
    every = [result for runs in results.values() for result in runs]
    versions = [result.get("versions") or {} for result in every]
    names = list(dict.fromkeys(name for one in versions for name in one))
    return {
        "command": _all_of(result.get("command") for result in every),
        "config": _all_of(result.get("config") for result in every),
        "versions": {name: _all_of(one.get(name) for one in versions) for name in names},
    }


def of_rows(results: Results) -> dict[str, Any]:
    """Return who made which rows, and the differences between them.

    Returns:
        ``made_by``: a dictionary for each command, with ``rows``, ``command``, ``config``,
        ``versions``; ``made_from``: of each row, a digest of what each of its runs was made from;
        ``made_differently``: where rows were made from something else than the first run of ada3d,
        or of the first row where there is no ada3d, a line for each such difference, which names
        the rows.
    """
    groups: dict[str, dict] = {}
    for name, runs in results.items():
        for result in runs:
            maker = {key: result.get(key) or UNKNOWN for key in ("command", "config", "versions")}
            group = groups.setdefault(json.dumps(maker, sort_keys=True), {"rows": [], **maker})
            if name not in group["rows"]:
                group["rows"].append(name)
    return {
        "made_by": list(groups.values()),
        "made_from": {name: [_digest(result) for result in runs] for name, runs in results.items()},
        "made_differently": differently(results),
    }


def differently(results: Results) -> list[str]:
    """Tell which rows were made from something else than ada3d, or the first row without it.

    Rows that differ in the same share a line, such as ``upper (seed 0; seed 1), random (seed 0),
    against ada3d: version of torch: 2.12 -> 2.13``.
    """
    if not results:
        return []
    first = "ada3d" if "ada3d" in results else next(iter(results))
    rows: dict[str, dict[str, list[str]]] = {}  # the difference -> name of a row -> its runs
    for name, runs in results.items():
        for result in runs:
            found = made_from.unequal_rows(results[first][0], result)
            if found:
                run = f"seed {result['seed']}"
                run += "" if result.get("fold") is None else f", fold {result['fold']}"
                told = "; ".join(made_from.shortened(found))
                rows.setdefault(told, {}).setdefault(name, []).append(run)
    return [
        f"{', '.join(_with_runs(named))}, against {first}: {told}" for told, named in rows.items()
    ]


def _with_runs(named: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"{name} ({'; '.join(runs)})" for name, runs in named.items()]


def _digest(result: Mapping[str, Any]) -> str:
    record = result.get("made_from")
    return made_from.digest(record) if isinstance(record, Mapping) else UNKNOWN


def _all_of(values) -> str:
    told = [UNKNOWN if value is None else str(value) for value in values]
    return "; ".join(dict.fromkeys(told))
