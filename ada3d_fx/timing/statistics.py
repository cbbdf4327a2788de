"""What rounds of seconds say: medians, how sure they are, and what of a saving is there.

Rounds are paired: in one round every row ran once, so what slows a machine down for a while is in all
of them. Draws for the intervals take whole rounds, therefore.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import numpy as np

DRAWS = 2000
SEED = 0  # of the draws: the same rounds always have the same intervals
LEVEL = 0.95
LEAST_SAVING = 0.01  # of the multiply-adds; below it, no share of the saving is told

Interval = list[float]  # its lower and its upper end


def drawn_medians(
    rounds: Mapping[str, Sequence[float]], draws: int = DRAWS, seed: int = SEED
) -> dict[str, np.ndarray]:
    """Draw round numbers with replacement, and take the median of each row in each draw.

    Args:
        rounds: row -> its seconds in each of R rounds, in the same order for every row.
        draws: how often R rounds are drawn.
        seed: of the draws.

    Returns:
        Row -> float64 [draws]; one index is the same rounds in every row.

    Raises:
        ValueError: no rounds, or rows of different numbers of rounds.
    """
    counts = {len(seconds) for seconds in rounds.values()}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(f"rows have {sorted(counts)} rounds; expected one number above 0")
    (count,) = counts
    chosen = np.random.default_rng(seed).integers(0, count, (draws, count))
    return {
        name: np.median(np.asarray(seconds, dtype=np.float64)[chosen], axis=1)
        for name, seconds in rounds.items()
    }


def interval(values: np.ndarray, level: float = LEVEL) -> Interval:
    """Return the two ends between which this share of drawn values lies, the middle one.

    Args:
        values: a figure in each draw.
        level: the share, between 0 and 1.
    """
    outside = (1 - level) / 2
    return [float(end) for end in np.quantile(values, [outside, 1 - outside])]


def realised(seconds: float, dense: float, macs: float) -> float | None:
    """Return the share of a theoretical saving that is there in seconds.

    Args:
        seconds: of the row.
        dense: seconds of the dense row that it is compared with.
        macs: multiply-adds of the row, as a fraction of the dense ones.

    Returns:
        (1 - seconds / dense) / (1 - macs), which is 1 where all is there and below 0 where the row is
        slower; None where nothing is to be saved.
    """
    return (1 - seconds / dense) / (1 - macs) if 1 - macs > LEAST_SAVING else None


def medians_with_intervals(
    rounds: Mapping[str, Sequence[float]],
) -> dict[str, tuple[float, Interval]]:
    """Return each row's median and the interval of it.

    Args:
        rounds: see `drawn_medians`.
    """
    drawn = drawn_medians(rounds)
    return {
        name: (statistics.median(seconds), interval(drawn[name]))
        for name, seconds in rounds.items()
    }


def against(
    rounds: Mapping[str, Sequence[float]], name: str, peers: Sequence[str], macs: float
) -> dict[str, dict]:
    """Compare a row with each of several dense ones.

    Args:
        rounds: see `drawn_medians`.
        name: the row.
        peers: the dense rows.
        macs: multiply-adds of the row, as a fraction of the dense ones.

    Returns:
        Peer -> 'time', seconds as a fraction of the peer's, with 'time_interval'; and 'realised', the
        share of the theoretical saving, with 'realised_interval'; both None where nothing is to be
        saved.
    """
    drawn = drawn_medians({one: rounds[one] for one in {name, *peers}})
    own = statistics.median(rounds[name])
    compared = {}
    for peer in peers:
        dense = statistics.median(rounds[peer])
        ratio = drawn[name] / drawn[peer]
        share = realised(own, dense, macs)
        compared[peer] = {
            "time": own / dense,
            "time_interval": interval(ratio),
            "realised": share,
            "realised_interval": None if share is None else interval((1 - ratio) / (1 - macs)),
        }
    return compared


def fastest(rounds: Mapping[str, Sequence[float]], names: Sequence[str]) -> str | None:
    """Return the row with the smallest median, the first of equals; None of no names."""
    return min(names, key=lambda name: statistics.median(rounds[name]), default=None)
