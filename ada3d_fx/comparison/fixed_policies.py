"""The best policy that is the same for all clips, at the price of policies that are not."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..cost.price import PriceTable, price_table
from ..mm.config import training_list
from ..mm.testing import right_under
from ..policy import Policy
from ..provenance.made_from import digest
from ..report import records
from . import matching
from .run import ComparisonRun

CLIPS = 512  # of the training list, drawn by SEED: on them policies are tried
SEED = 0
LEAST_SHARE = 0.85  # of the price: cheaper policies are not tried
FEW_PATTERNS = 30  # all choices of frames are tried where there are so many or fewer
FEW_STAGES = 6  # all sets of stages are tried where there are so many or fewer
TOLD = 5  # of the best policies, how many a result names

Bits = tuple[bool, ...]


class Candidates(NamedTuple):
    """The policies to be tried: M of them."""

    policies: Policy
    macs: Tensor  # int64 [M], what each costs

    @property
    def words(self) -> list[str]:
        """The policies as FRAMES/STAGES, a bit each."""
        both = [
            records.policy_words(u, v) for u, v in zip(self.policies.frames, self.policies.stages)
        ]
        return [f"{one['frames']}/{one['stages']}" for one in both]


def search(run: ComparisonRun, gmacs: float, options: Mapping[str, Any]) -> dict[str, Any]:
    """Find the policy under which the recognizer after the warm-up is right for most training clips.

    Args:
        run: whose config, recognizer and training list count. What was found is kept in its folder.
        gmacs: what the policy may cost.
        options: entries of the model that differ from the config's, such as testing.policy.

    Returns:
        ``policy`` as FRAMES/STAGES, its ``gmacs``, the ``allowed_gmacs``, how many were ``tried`` on
        how many ``clips``, the ``accuracy`` there in percent, and the ``best`` few with theirs.

    Raises:
        MadeOtherwise: a search is there that was made from something else.
        NotMade: there is none, and the run only looks.
    """
    candidates = candidates_of(price_table(run.model.recognizer), round(gmacs * 1e9))
    asked = {"clips": CLIPS, "seed": SEED, "candidates": digest(candidates.words)}

    def find(runner: Any) -> dict[str, Any]:
        right, clips = _try(run, runner, candidates.policies)
        return {**_told(candidates, right, clips), "allowed_gmacs": gmacs}

    return run.search("static_search", {**asked, "allowed_gmacs": gmacs}, options, find)


def _try(run: ComparisonRun, runner: Any, policies: Policy) -> tuple[Tensor, int]:
    """Count for how many clips each policy is right, int64 [M], and the clips."""
    config = training_list(run.config)
    config["sampler"] = {"type": "DefaultSampler", "shuffle": True, "seed": SEED}
    loader = runner.build_dataloader(config)
    batches = min(len(loader), math.ceil(CLIPS / loader.batch_size))
    title = f"{run.name}: trying {len(policies)} policies"
    shown = run.console.track(itertools.islice(loader, batches), title, batches)
    return right_under(runner.model, shown, policies, CLIPS)


def _told(candidates: Candidates, right: Tensor, clips: int) -> dict[str, Any]:
    words, order = candidates.words, ranked(right, candidates.macs)
    rows = [
        {
            "policy": words[i],
            "gmacs": candidates.macs[i].item() / 1e9,
            "accuracy": 100 * right[i].item() / clips,
        }
        for i in order[:TOLD]
    ]
    return {**rows[0], "tried": len(words), "clips": clips, "best": rows}


def ranked(right: Tensor, macs: Tensor) -> list[int]:
    """Order policies: those that are right most often first, of equals the cheaper one.

    Args:
        right: int64 [M], for how many clips each is right.
        macs: int64 [M], what each costs.
    """
    return sorted(range(len(right)), key=lambda i: (-int(right[i]), int(macs[i])))


def evenly(table: PriceTable, gmacs: float) -> dict[str, Any]:
    """Keep as many frames, evenly spaced, as a price allows with all stages on.

    One unit of frames is kept at least, whatever it costs.

    Args:
        table: the network's prices.
        gmacs: what the policy may cost.

    Returns:
        ``policy`` as FRAMES/STAGES, its ``gmacs``, and the ``allowed_gmacs``.
    """
    lengths, stages = torch.tensor(table.lengths), table.plan.num_stages
    macs = table.look_up(lengths, torch.ones(len(lengths), stages, dtype=torch.bool))
    last = max(int((macs <= round(gmacs * 1e9)).sum()) - 1, 0)
    kept = even(len(lengths), last + 1)
    frames = "".join(("1" if bit else "0") * table.lengths[0] for bit in kept)
    return {
        "policy": f"{frames}/{'1' * stages}",
        "gmacs": macs[last].item() / 1e9,
        "allowed_gmacs": gmacs,
    }


# ------------------------------------------------------------------------------------- candidates


def candidates_of(table: PriceTable, allowed: int) -> Candidates:
    """List the policies that cost ``allowed`` multiply-adds or little less.

    Where none costs between `LEAST_SHARE` of it and it, those next below are listed; where all cost
    more, the cheapest. Of each number of frames there are a few patterns, see `frame_patterns`, each
    with every set of `stage_sets`.

    Args:
        table: the network's prices.
        allowed: multiply-adds of a clip.
    """
    sets = stage_sets(table.plan.num_stages)
    stages = torch.tensor(sets, dtype=torch.bool).view(len(sets), -1)
    lengths = table.lengths
    macs = torch.stack([table.look_up(torch.full((len(sets),), n), stages) for n in lengths])
    low, high = _band(macs, allowed)
    frames, chosen, prices = [], [], []
    for row, length in zip(macs, lengths, strict=True):
        fitting = ((row >= low) & (row <= high)).nonzero().flatten().tolist()
        for pattern in frame_patterns(len(lengths), length // lengths[0]) if fitting else ():
            frames += [pattern] * len(fitting)
            chosen += fitting
            prices += row[fitting].tolist()
    units = torch.tensor(frames, dtype=torch.bool)
    policies = Policy(units.repeat_interleave(lengths[0], 1), stages[chosen])
    return Candidates(policies, torch.tensor(prices))


def _band(macs: Tensor, allowed: int) -> tuple[float, float]:
    fitting = macs[macs <= allowed]
    high = int(fitting.max()) if len(fitting) else int(macs.min())
    return LEAST_SHARE * (allowed if high >= LEAST_SHARE * allowed else high), high


def frame_patterns(units: int, kept: int) -> list[Bits]:
    """List patterns that keep ``kept`` of ``units`` frame units, each once, evenly spaced ones first.

    All there are if those are few; else the evenly spaced one, it moved to the start and to the end
    and stretched to both, and as many units without a gap at the start, in the middle and at the end.
    """
    first = even(units, kept)
    if math.comb(units, kept) <= FEW_PATTERNS:
        every = (_bits(units, places) for places in itertools.combinations(range(units), kept))
        return list(dict.fromkeys([first, *every]))
    starts = [i * units // kept for i in range(kept)]
    both = [round(i * (units - 1) / (kept - 1)) for i in range(kept)] if kept > 1 else [0]
    patterns = [_bits(units, starts), _bits(units, [units - 1 - i for i in starts])]
    patterns.append(_bits(units, both))
    gaps = (0, (units - kept) // 2, units - kept)
    patterns += [_bits(units, range(gap, gap + kept)) for gap in gaps]
    return list(dict.fromkeys([first, *patterns]))


def even(units: int, kept: int) -> Bits:
    """Keep the middle unit of each of ``kept`` equal parts of the clip."""
    return _bits(units, matching.middles(kept, units))


def stage_sets(stages: int) -> list[Bits]:
    """List sets of stages that are on, each once.

    All there are if those are few; else for each number of stages the first ones, the last ones, and
    evenly spaced ones.
    """
    if stages <= FEW_STAGES:
        return list(itertools.product((False, True), repeat=stages))
    return list(dict.fromkeys(_nested(stages)))


def _nested(stages: int) -> Iterator[Bits]:
    yield _bits(stages, ())
    for on in range(1, stages + 1):
        yield _bits(stages, range(on))
        yield _bits(stages, range(stages - on, stages))
        yield even(stages, on)


def _bits(size: int, places: Sequence[int] | range) -> Bits:
    return tuple(i in places for i in range(size))
