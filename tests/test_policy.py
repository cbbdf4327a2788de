"""Policies and their distribution (eq. 1-3): shapes, exact probabilities, and errors that name the
thing."""

import itertools
from types import SimpleNamespace

import oracle
import pytest
import torch

from ada3d_fx import Ada3DError, Policy, PolicyDistribution

PLAN = SimpleNamespace(num_frames=8, num_stages=5, frame_unit=1)


def every_policy(units, stages, unit=1):
    bits = [torch.tensor(list(itertools.product([False, True], repeat=n))) for n in (units, stages)]
    kept = bits[0][bits[0].any(1)]
    pairs = list(itertools.product(range(len(kept)), range(len(bits[1]))))
    return Policy(
        kept[[i for i, _ in pairs]].repeat_interleave(unit, 1), bits[1][[j for _, j in pairs]]
    )


@pytest.mark.parametrize("unit", [1, 2])
def test_probabilities_of_all_executable_policies_sum_to_one(unit):
    policies = every_policy(3, 2, unit)
    n = len(policies)
    logits = torch.randn(1, 3, dtype=torch.float64), torch.randn(1, 2, dtype=torch.float64)
    distribution = PolicyDistribution(logits[0].expand(n, 3), logits[1].expand(n, 2), unit)
    frames, stages = distribution.log_prob(policies)
    torch.testing.assert_close(
        (frames + stages).exp().sum(), torch.tensor(1.0).double(), rtol=0, atol=1e-12
    )


def test_samples_have_the_probabilities_that_log_prob_says():
    torch.manual_seed(1)
    logits = torch.tensor([[-1.5, -0.5, 0.2]]).double()
    n = 40_000
    distribution = PolicyDistribution(logits.expand(n, 3), torch.zeros(n, 1).double())
    policy = distribution.sample(torch.Generator().manual_seed(0))
    code = (policy.frames * torch.tensor([4, 2, 1])).sum(1)
    seen = torch.bincount(code, minlength=8) / n
    assert seen[0] == 0  # never without a frame
    every = every_policy(3, 1)
    every = every[~every.stages[:, 0]]
    expected = distribution.repeat_interleave(1)
    expected = (
        PolicyDistribution(logits.expand(7, 3), torch.zeros(7, 1).double()).log_prob(every)[0].exp()
    )
    codes = (every.frames * torch.tensor([4, 2, 1])).sum(1)
    error = (expected * (1 - expected) / n).sqrt()
    assert ((seen[codes] - expected).abs() < 5 * error).all()


def test_counting_mode_keeps_as_many_frames_as_a_draw_does_on_average():
    probs = torch.tensor([[0.45, 0.5, 0.55, 0.4], [0.9, 0.9, 0.9, 0.9], [0.1, 0.12, 0.1, 0.1]])
    distribution = PolicyDistribution(probs.logit(), torch.zeros(3, 0))
    policy = distribution.mode(greedy="count")
    assert policy.frames.tolist() == [
        [False, True, True, False],  # 1.9 frames; the threshold keeps 1
        [True, True, True, True],
        [False, True, False, False],  # 0.42 frames, but one is always kept
    ]
    assert distribution.mode(0.3, greedy="count").num_frames.tolist() == [3, 4, 1]
    assert distribution.mode(0.8, greedy="count").num_frames.tolist() == [1, 3, 1]
    for wrong in ({"greedy": "most"}, {"threshold": 1.0}):
        with pytest.raises(Ada3DError, match="mode: greedy="):
            distribution.mode(**wrong)


def test_systematic_mode_keeps_frames_that_are_alike_at_even_distances():
    alike = torch.full((3, 8), 0.3)  # 2.4 frames
    peaked = torch.tensor([[0.1, 0.1, 0.9, 0.1, 0.1, 0.1, 0.8, 0.1]])
    distribution = PolicyDistribution(torch.cat([alike, peaked]).logit(), torch.zeros(4, 0))
    policy = distribution.mode(greedy="systematic")
    assert policy.frames[0].nonzero().flatten().tolist() == [2, 5]
    assert policy.frames[3].nonzero().flatten().tolist() == [2, 6]


def test_systematic_mode_is_systematic_sampling():
    """As many frames as 'count', each in its own share of the probabilities."""
    generator = torch.Generator().manual_seed(3)
    for scale in (0.1, 1.0, 3.0, 30.0):
        logits = scale * torch.randn(200, 9, generator=generator, dtype=torch.float64)
        distribution = PolicyDistribution(logits, torch.zeros(200, 0))
        for threshold in (0.2, 0.5, 0.7):
            policy = distribution.mode(threshold, "systematic")
            count = distribution.mode(threshold, "count").num_frames
            assert torch.equal(policy.num_frames, count)
            probs = (logits - torch.tensor(threshold).double().logit()).sigmoid()
            for row, p, k in zip(
                policy.frames.tolist(), probs.tolist(), count.tolist(), strict=True
            ):
                assert row == oracle.systematic(p, k)


def test_counting_mode_keeps_whole_units_and_fixed_frames():
    distribution = PolicyDistribution(torch.zeros(1, 4), torch.ones(1, 1), frame_unit=2)
    assert distribution.mode(greedy="count").frames.tolist() == [[True] * 4 + [False] * 4]
    assert distribution.mode(greedy="systematic").frames.tolist() == [
        [True] * 2 + [False] * 2 + [True] * 2 + [False] * 2
    ]
    fixed = PolicyDistribution(torch.zeros(1, 0), torch.ones(1, 1), None, num_frames=3)
    assert all(fixed.mode(greedy=way).frames.all() for way in ("count", "systematic"))


def test_mode_is_the_threshold_and_keeps_the_best_frame():
    distribution = PolicyDistribution(
        torch.tensor([[-3.0, -1.0, -2.0], [1.0, -1.0, 2.0]]), torch.zeros(2, 2) + 0.1
    )
    policy = distribution.mode()
    assert policy.frames.tolist() == [[False, True, False], [True, False, True]]
    assert policy.stages.all()
    assert not distribution.mode(threshold=0.6).stages.any()


def test_units_are_kept_whole():
    policy = PolicyDistribution(torch.randn(50, 4), torch.randn(50, 2), frame_unit=2).sample()
    assert torch.equal(policy.frames[:, ::2], policy.frames[:, 1::2])


def test_frames_that_cannot_be_dropped_are_kept_and_cost_no_probability():
    distribution = PolicyDistribution(torch.zeros(2, 0), torch.randn(2, 3), None, num_frames=8)
    policy = distribution.sample()
    assert policy.frames.shape == (2, 8) and policy.frames.all()
    assert (distribution.log_prob(policy)[0] == 0).all() and (distribution.entropy()[0] == 0).all()
    assert distribution.frame_probs.shape == (2, 8)


def test_entropy_is_that_of_the_bernoullis():
    frames, stages = PolicyDistribution(torch.zeros(1, 4), torch.tensor([[100.0, 0.0]])).entropy()
    ln2 = torch.tensor([2.0]).log()
    torch.testing.assert_close(frames, 4 * ln2)
    torch.testing.assert_close(stages, ln2)


@pytest.mark.parametrize("frames, stages", [(0.7, 0.4), (0.3, 0.0), (1.0, 1.0), (0.55, 0.15)])
def test_random_policies_use_the_fractions_exactly_on_average(frames, stages):
    n = 20_000
    policy = Policy.random(
        PLAN, n, frames=frames, stages=stages, generator=torch.Generator().manual_seed(0)
    )
    assert abs(policy.num_frames.double().mean() / 8 - frames) < 0.01
    assert abs(policy.num_stages.double().mean() / 5 - stages) < 0.01
    per_frame = policy.frames.double().mean(0)
    assert (per_frame - frames).abs().max() < 0.02  # which ones is uniform
    assert policy.num_frames.max() - policy.num_frames.min() <= 1


def test_random_takes_a_fraction_for_each_clip():
    fractions = torch.tensor([0.125, 0.5, 1.0])
    policy = Policy.random(PLAN, 3, frames=fractions, stages=fractions)
    assert policy.num_frames.tolist() == [1, 4, 8]


def test_full_indexing_cat_and_repeat():
    full = Policy.full(PLAN, 3)
    assert len(full) == 3 and full.frames.all() and full.stages.all()
    policy = Policy.random(PLAN, 4)
    assert Policy.cat([policy[:1], policy[1:]]) == policy
    assert Policy.cat([policy[:1], policy[1:]]).gates is None
    assert policy[2] == policy[2:3] and policy[-1] == policy[3]
    assert policy.repeat_interleave(2)[torch.arange(0, 8, 2)] == policy
    assert repr(full[0]) == "Policy(1 clips: ######## #####)"


@pytest.mark.parametrize(
    "frames, stages, words",
    [
        (torch.ones(2, 8), torch.ones(2, 5).bool(), ["frames", "torch.float32", "torch.bool"]),
        (torch.ones(2, 8).bool(), torch.ones(2, 5).long(), ["stages", "torch.int64"]),
        (torch.ones(8).bool(), torch.ones(1, 5).bool(), ["frames", "[8]", "[N, T]"]),
        (torch.ones(2, 8).bool(), torch.ones(3, 5).bool(), ["2 clips", "3"]),
        (
            torch.tensor([[1, 0], [0, 0]]).bool(),
            torch.ones(2, 5).bool(),
            ["[1]", "at least one frame"],
        ),
        ([[True]], torch.ones(1, 5).bool(), ["frames", "list"]),
    ],
)
def test_bad_policies_are_named(frames, stages, words):
    with pytest.raises(Ada3DError) as error:
        Policy(frames, stages)
    assert all(word in str(error.value) for word in words), error.value


def test_fractions_outside_the_unit_interval_are_named():
    with pytest.raises(Ada3DError, match=r"frames=\[1.5\]"):
        Policy.random(PLAN, 1, frames=1.5)
