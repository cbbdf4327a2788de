"""Clips that need no recognizer: who is sure, what moves together, what a cost asks for."""

import math

import pytest
import torch
from models import shared_conversion

from ada3d_fx import Ada3DError, Policy, PolicyDistribution, price_table
from ada3d_fx.exits import Scored, certainty, log_odds, probability, spread, sure, tied

EXACT = {"rtol": 0, "atol": 1e-9}


def test_certainty_is_the_log_odds_of_the_most_probable_class():
    scores = 3 * torch.randn(50, 7, generator=torch.Generator().manual_seed(0)).double()
    best = scores.softmax(1).amax(1)
    torch.testing.assert_close(certainty(scores), (best / (1 - best)).log(), **EXACT)
    torch.testing.assert_close(certainty(scores + 100), certainty(scores), **EXACT)
    for confidence in (0.2, 0.5, 0.9):
        assert torch.equal(sure(certainty(scores), confidence), best > confidence)


def test_certainty_does_not_saturate_as_probabilities_do():
    scores = torch.tensor([[0.0, 60.0, -5.0], [0.0, 90.0, -5.0]])
    assert (scores.softmax(1).amax(1) == 1).all()
    first, second = certainty(scores).tolist()
    assert 59 < first < 60 and 89 < second < 90


def test_nothing_exits_that_is_no_number_or_at_a_confidence_of_one():
    scores = torch.tensor([[0.0, math.nan], [0.0, 1e4], [2.0, 2.0]])
    assert sure(certainty(scores), 0.4).tolist() == [False, True, True]
    assert not sure(certainty(scores), 1.0).any()
    assert not sure(certainty(torch.zeros(0, 4)), 0.5).any()


def test_one_dial_moves_both_thresholds():
    start = (0.6, 0.9)
    assert tied(0.6, start) == pytest.approx(0.9, abs=1e-12)
    moved = [tied(t, start) for t in (0.1, 0.5, 0.9)]
    assert moved == sorted(moved, reverse=True)  # dearer frames, easier exits
    for threshold, confidence in zip((0.1, 0.5, 0.9), moved):
        total = log_odds(threshold) + log_odds(confidence)
        assert total == pytest.approx(log_odds(0.6) + log_odds(0.9), abs=1e-9)
        # from wherever one starts on the way
        assert tied(0.3, (threshold, confidence)) == pytest.approx(tied(0.3, start), abs=1e-9)
    assert tied(0.99, (0.5, 1.0)) == 1.0 and probability(log_odds(0.3)) == pytest.approx(0.3)


@pytest.mark.parametrize("exited", [[0, 0, 0], [0, 1, 0], [1, 1, 1]])
def test_what_was_computed_has_its_place_among_all(exited):
    exited = torch.tensor(exited, dtype=torch.bool)
    computed = int((~exited).sum())
    policy = Policy(torch.ones(computed, 4, dtype=torch.bool), torch.ones(computed, 2).bool())
    scored = Scored(policy, exited, torch.zeros(3, 5))
    assert torch.equal(scored.frames.any(1), ~exited) and scored.frames.shape == (3, 4)
    assert torch.equal(scored.stages.all(1), ~exited) and scored.stages.shape == (3, 2)
    values = torch.arange(1, computed + 1)
    assert spread(values, exited)[~exited].tolist() == values.tolist()
    assert not spread(values, exited)[exited].any()
    both = Scored.cat([scored, scored])
    assert len(both.policy) == 2 * computed and torch.equal(both.exited[3:], exited)
    assert torch.equal(both.frames, torch.cat([scored.frames] * 2))


def clips_of(number=200):
    """A distribution of policies, and how certain the clips' classes are."""
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(number, k, generator=generator) for k in (8, 5)]
    scores = 3 * torch.randn(number, 6, generator=generator)
    return PolicyDistribution(*logits), certainty(scores)


@pytest.mark.parametrize("greedy", ["threshold", "count", "systematic"])
def test_both_thresholds_hold_a_cost(greedy):
    """From the selection network alone to the whole recognizer for every clip."""
    _, adaptive = shared_conversion("i3d_r18")
    table, beside = price_table(adaptive), 1000
    distribution, certainties = clips_of()

    def exited(threshold):
        return sure(certainties, tied(threshold, (0.5, 0.9)))

    found = []
    for share in (0.0, 0.02, 0.1, 0.3, 0.6, 0.9, 1.0):
        target = share * table.full + beside
        threshold = table.threshold(distribution, target, greedy, beside, exited)
        policy, out = distribution.mode(threshold, greedy), exited(threshold)
        # the slow way: clip by clip
        costs = [
            beside + (0 if out[i] else int(table.look_up(one.num_frames, one.stages)[0]))
            for i in range(len(policy))
            for one in [policy[i]]
        ]
        mean = sum(costs) / len(costs)
        assert target - 0.02 * table.full < mean <= target
        found.append((threshold, int(out.sum())))
    thresholds, exits = zip(*found)
    assert list(thresholds) == sorted(thresholds, reverse=True)
    assert list(exits) == sorted(exits, reverse=True)
    assert exits[0] == len(certainties) and exits[-1] == 0
    assert 0 < exits[2] < len(certainties)
    with pytest.raises(Ada3DError, match=r"at least 1e-06 each \(the recognizer never runs"):
        table.threshold(distribution, beside - 1, greedy, beside, exited)


def test_the_least_cost_without_exits_counts_the_selection_network():
    _, adaptive = shared_conversion("i3d_r18")
    table, (distribution, _) = price_table(adaptive), clips_of(10)
    least = (int(table.base[1]) + 5 * 10**9) / 1e9
    with pytest.raises(Ada3DError, match=rf"at least {least:.4g} each \(one unit of frames"):
        table.threshold(distribution, 4e9, beside=5 * 10**9)
