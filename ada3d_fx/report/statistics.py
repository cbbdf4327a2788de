"""Results of the same videos under several ways to decide -> rows, and paired differences.

A result is a mapping with ``row`` (numbers by name), ``clips`` (see `records.POLICY_FIELDS`),
``seed`` and ``fold`` (None where there are no folds).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Result = Mapping[str, Any]

BOOTSTRAP_DRAWS = 10_000
DRAWS_AT_ONCE = 1_000  # bounds the memory: an index for each video of each draw
DIFFERENCE_COLUMNS = (
    *(("name", "difference", "{}"), ("points", "points", "{:+.2f}")),
    *(("low", "95 % from", "{:+.2f}"), ("high", "to", "{:+.2f}")),
    *(("class_points", "mean class", "{:+.2f}"), ("class_low", "95 % from", "{:+.2f}")),
    *(("class_high", "to", "{:+.2f}"), ("runs", "runs", "{}")),
)


def classes_of(result: Result) -> Tensor:
    """Return each video's class, int64 [videos]."""
    return torch.tensor([clip["label"] for clip in result["clips"] if clip["view"] == 0])


def right(result: Result) -> Tensor:
    """Return whether each video's prediction is its label, float64 [videos] of 0 and 1."""
    predicted = [clip["predicted"] for clip in result["clips"] if clip["view"] == 0]
    return (torch.tensor(predicted) == classes_of(result)).double()


def aggregate(name: str, results: Sequence[Result]) -> dict[str, Any]:
    """Make one row of the results of several seeds and folds.

    Args:
        name: the row's name.
        results: one for each seed and fold.

    Returns:
        Means over the videos of all folds, averaged over seeds; ``accuracy_by_seed``; where there
        are several seeds ``accuracy_std``, the standard deviation of their accuracies; and how many
        ``runs`` and ``videos`` there are.
    """
    seeds = {result["seed"] for result in results}
    keys = [key for key, value in results[0]["row"].items() if isinstance(value, float)]
    videos = [sum(clip["view"] == 0 for clip in result["clips"]) for result in results]

    def mean(key: str, rows: list[int]) -> float:
        return sum(results[i]["row"][key] * videos[i] for i in rows) / sum(videos[i] for i in rows)

    every = list(range(len(results)))
    row: dict[str, Any] = {"name": name}
    row |= {key: mean(key, every) for key in keys if all(key in r["row"] for r in results)}
    by_seed = [
        mean("accuracy", [i for i in every if results[i]["seed"] == seed]) for seed in sorted(seeds)
    ]
    row["accuracy_by_seed"] = by_seed
    if len(seeds) > 1:
        row["accuracy_std"] = torch.tensor(by_seed, dtype=torch.float64).std().item()
    return row | {"runs": len(results), "videos": sum(videos) // len(seeds)}


def differences(
    results: Mapping[str, Sequence[Result]], mine: str = "ada3d"
) -> list[dict[str, Any]]:
    """Compare the accuracy of one row with each other row's, by a paired bootstrap over videos.

    Args:
        results: of each row, its runs. A video's score is its mean over seeds.
        mine: the row that is compared.

    Returns:
        A row of `DIFFERENCE_COLUMNS` for each other row that has runs of the same seeds and folds;
        in points of accuracy, with 95 % intervals.
    """
    if mine not in results:
        return []
    rows: list[dict[str, Any]] = []
    ours = {(result["seed"], result["fold"]): result for result in results[mine]}
    for name, others in results.items():
        theirs = {(r["seed"], r["fold"]): r for r in others}
        common = sorted(set(theirs) & set(ours), key=str)
        labelled = all(c["label"] is not None for key in common for c in ours[key]["clips"])
        if name == mine or not common or not labelled:
            continue
        by_fold: dict[int | None, list[Tensor]] = {}
        classes = {key[1]: classes_of(ours[key]) for key in common}
        for key in common:
            by_fold.setdefault(key[1], []).append(right(ours[key]) - right(theirs[key]))
        gaps = torch.cat([torch.stack(seeds).mean(0) for seeds in by_fold.values()])
        rows.append({
            "name": f"{mine} - {name}",
            **bootstrap(gaps, torch.cat([classes[fold] for fold in by_fold])),
            "runs": len(common),
        })  # fmt: skip
    return rows


def bootstrap(gaps: Tensor, classes: Tensor) -> dict[str, float]:
    """Return the mean of differences with its 95 % interval over videos drawn with replacement.

    Args:
        gaps: float64 [videos], the differences.
        classes: int64 [videos].

    Returns:
        In percent: ``points``, the mean, with ``low`` and ``high``; and ``class_points``, the mean
        of each class's mean, with ``class_low`` and ``class_high``.
    """
    _, classes = classes.unique(return_inverse=True)
    one_hot = F.one_hot(classes).double()

    def means(times: Tensor) -> Tensor:
        """Return both means [draws, 2] of videos taken so many times [draws, videos]."""
        of_class, size = (times * gaps) @ one_hot, times @ one_hot
        of_drawn = torch.where(size > 0, of_class / size, torch.nan)  # a class may not be drawn
        return torch.stack([of_class.sum(1) / size.sum(1), of_drawn.nanmean(1)], 1)

    draws = torch.cat([means(times) for times in _with_replacement(len(gaps))])
    low, high = torch.quantile(draws, torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
    intervals = (means(torch.ones(1, len(gaps), dtype=torch.float64))[0], low, high)
    return {
        f"{prefix}{name}": 100 * values[i].item()
        for i, prefix in enumerate(("", "class_"))
        for name, values in zip(("points", "low", "high"), intervals, strict=True)
    }


def _with_replacement(n: int) -> Iterator[Tensor]:
    """Yield how often each of ``n`` is drawn when n are, float64 [DRAWS_AT_ONCE, n] at a time."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(BOOTSTRAP_DRAWS // DRAWS_AT_ONCE):
        video_index = torch.randint(n, (DRAWS_AT_ONCE, n), generator=generator)
        ones = torch.ones_like(video_index, dtype=torch.float64)
        yield torch.zeros_like(ones).scatter_add_(1, video_index, ones)


def usage_by_class(
    results: Sequence[Mapping[str, Any]], names: Mapping[int, str]
) -> list[dict[str, Any]]:
    """Tell what the clips of each class use.

    Args:
        results: their ``clips`` count; a video of several results of one ``fold`` counts once.
        names: of the classes; a label without one is told as a number.

    Returns:
        A row of `tables.CLASS_COLUMNS` for each label, in their order.
    """
    by_label: dict[int, list[Mapping[str, Any]]] = {}
    videos: dict[int, set[tuple[Any, int]]] = {}
    for result in results:
        for at, clip in enumerate(result["clips"]):
            if clip["label"] is not None:
                by_label.setdefault(clip["label"], []).append(clip)
                if clip["view"] == 0:  # the results of a fold list the same clips
                    videos.setdefault(clip["label"], set()).add((result.get("fold"), at))
    return [
        {
            "label": label,
            "name": names.get(label, str(label)),
            "videos": len(videos[label]),
            "accuracy": 100 * _mean(clip["predicted"] == label for clip in clips),
            "frames": _mean(clip["num_frames"] for clip in clips),
            "stages": _mean(clip["num_stages"] for clip in clips),
            "gmacs": _mean((clip["macs"] + clip["selector_macs"]) / 1e9 for clip in clips),
            "exited": _mean(not clip["num_frames"] for clip in clips),
        }
        for label, clips in sorted(by_label.items())
    ]


def _mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)
