"""Rewards, baselines and the policy gradient, against exhaustive sums over every policy
(float64)."""

import itertools
import math

import pytest
import torch

from ada3d_fx.distribution import PolicyDistribution
from ada3d_fx.errors import Ada3DError
from ada3d_fx.learn.estimators import Reinforce, StraightThrough
from ada3d_fx.learn.losses import Baseline, policy_loss, straight_through_loss
from ada3d_fx.learn.reward import CostWeight, Objective, correctness, costs, reward
from ada3d_fx.policy import Policy


def policies(frames=2, stages=2):
    """Every executable policy: at least one frame."""
    bits = [
        (u, v)
        for u in itertools.product([False, True], repeat=frames)
        for v in itertools.product([False, True], repeat=stages)
        if any(u)
    ]
    return Policy(torch.tensor([u for u, _ in bits]), torch.tensor([v for _, v in bits]))


def distribution(seed=0, n=1, frames=2, stages=2):
    generator = torch.Generator().manual_seed(seed)
    logits = [torch.randn(n, k, generator=generator, dtype=torch.float64) for k in (frames, stages)]
    return PolicyDistribution(*(x.requires_grad_() for x in logits))


def some_rewards(count, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, count, generator=generator, dtype=torch.float64)


def expected_gradient(dist, rewards):
    """Eq. 6 by definition: R(u) weighs the frames' and R(v) the stages' score functions."""
    every = policies()
    log_frames, log_stages = dist.repeat_interleave(len(every)).log_prob(every)
    weight = (log_frames + log_stages).exp().detach()
    loss = (weight * (rewards[0] * log_frames + rewards[1] * log_stages)).sum()
    return torch.autograd.grad(loss, [dist.frame_logits, dist.stage_logits])


def test_expected_gradient_is_that_of_the_expected_reward():
    dist, every = distribution(), policies()
    rewards = some_rewards(len(every))
    log_frames, log_stages = dist.repeat_interleave(len(every)).log_prob(every)
    frames = (rewards[0] * (log_frames + log_stages.detach()).exp()).sum()
    stages = (rewards[1] * (log_frames.detach() + log_stages).exp()).sum()
    analytic = torch.autograd.grad(frames + stages, [dist.frame_logits, dist.stage_logits])
    for ours, theirs in zip(expected_gradient(dist, rewards), analytic, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("baseline", ["leave_one_out", "greedy", "moving_average"])
def test_every_baseline_is_unbiased(baseline):
    """The estimator's mean over every pair of samples, weighted by its probability, is eq. 6
    exactly."""
    dist, every = distribution(), policies()
    rewards = some_rewards(len(every))
    log_frames, log_stages = dist.repeat_interleave(len(every)).log_prob(every)
    probs = (log_frames + log_stages).exp().detach()
    rule = Baseline(baseline).eval()
    rule.average.fill_(0.7)
    mode = dist.mode()
    greedy = next(i for i in range(len(every)) if every[i] == mode)
    total = [torch.zeros_like(dist.frame_logits), torch.zeros_like(dist.stage_logits)]
    for i, j in itertools.product(range(len(every)), repeat=2):
        advantages = [rule.advantage(r[[i, j]][None], r[greedy][None]) for r in rewards]
        loss = policy_loss(dist, every[[i, j]], *advantages)
        grads = torch.autograd.grad(loss, [dist.frame_logits, dist.stage_logits])
        for sum_, grad in zip(total, grads, strict=True):
            sum_ -= probs[i] * probs[j] * grad
    for ours, theirs in zip(total, expected_gradient(dist, rewards), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


def test_sampled_gradient_approaches_the_expected_one():
    dist, every = distribution(), policies()
    rewards = some_rewards(len(every))
    many = 40_000
    samples = dist.repeat_interleave(many).sample(torch.Generator().manual_seed(0))
    code = torch.cat([every.frames, every.stages], 1).long() @ torch.tensor([8, 4, 2, 1])
    drawn = torch.cat([samples.frames, samples.stages], 1).long() @ torch.tensor([8, 4, 2, 1])
    index = (drawn[:, None] == code).float().argmax(1)
    rule, unread = Baseline(), rewards[0][:1]
    loss = policy_loss(dist, samples, *(rule.advantage(r[index][None], unread) for r in rewards))
    grads = torch.autograd.grad(-loss, [dist.frame_logits, dist.stage_logits])
    for ours, theirs in zip(grads, expected_gradient(dist, rewards), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0.02)


def test_rescored_log_probability_is_the_sampled_one():
    """The log-probability of a draw equals how often it is drawn, summed over all its bits by
    hand."""
    dist = distribution(n=3)
    policy = dist.sample(torch.Generator().manual_seed(3))
    frames, stages = dist.log_prob(policy)
    for n in range(3):
        prob = [1.0, 1.0]
        for which, (probs, bits) in enumerate(
            ((dist.frame_probs, policy.frames), (dist.stage_probs, policy.stages))
        ):
            for p, bit in zip(probs[n].tolist(), bits[n].tolist(), strict=True):
                prob[which] *= p if bit else 1 - p
        best = dist.frame_logits[n].argmax()
        if policy.frames[n].sum() == 1 and policy.frames[n, best]:
            prob[0] += (1 - dist.frame_probs[n]).prod().item()
        assert frames[n].exp().item() == pytest.approx(prob[0], abs=1e-12)
        assert stages[n].exp().item() == pytest.approx(prob[1], abs=1e-12)


def test_reward_is_eq_4():
    policy = Policy(
        torch.tensor([[True, True, False, False]] * 2), torch.tensor([[True, False]] * 2)
    )
    cost_frames, cost_stages = costs(policy, Objective())
    correct = torch.tensor([1.0, 0.0])
    assert reward(correct, cost_frames, 0.3).tolist() == pytest.approx([0.5, -0.3])
    assert reward(correct, cost_stages, 0.3).tolist() == pytest.approx([0.75, -0.3])


def test_flops_cost_is_the_share_of_the_full_price():
    policy = Policy(torch.ones(2, 3, dtype=torch.bool), torch.ones(2, 1, dtype=torch.bool))
    objective = Objective(cost="flops")
    frames, stages = costs(policy, objective, torch.tensor([50, 200]), 200)
    assert frames.tolist() == stages.tolist() == [0.25, 1.0]
    with pytest.raises(Ada3DError, match="price"):
        costs(policy, objective)


def test_correctness_of_label_sets():
    scores = torch.tensor([[0.1, 0.9, 0.5, 0.3], [0.9, 0.1, 0.5, 0.3]])
    labels = torch.tensor([[0, 1, 0, 1], [0, 1, 1, 0]])
    assert correctness(scores, torch.tensor([1, 1])).tolist() == [1, 0]
    assert correctness(scores, labels).tolist() == [1, 0]
    by_hand = [(1 / 1 + 2 / 3) / 2, (1 / 2 + 2 / 4) / 2]
    precision = correctness(scores, labels, "average_precision")
    assert precision.tolist() == pytest.approx(by_hand)


def test_soft_correctness_is_the_labels_probability():
    scores = torch.tensor([[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]])
    soft = correctness(scores, torch.tensor([1, 0]), temperature=1.0)
    sharp = correctness(scores, torch.tensor([1, 0]), temperature=0.01)
    assert sharp.tolist() == pytest.approx([0, 1])
    assert soft.tolist() == pytest.approx(
        [scores[0].softmax(0)[1].item(), scores[1].softmax(0)[0].item()]
    )
    assert correctness(scores, torch.tensor([1, 0])).tolist() == [0, 1]


def test_cost_weight_follows_the_budget_and_stays_in_its_bounds():
    cost, right = torch.tensor([0.5]), torch.tensor([1.0])
    assert reward(right, cost, 2.0, torch.tensor(1.5)).tolist() == [0.25]
    free = CostWeight(Objective(gamma=2.0))
    free.update(torch.tensor(9.0))
    assert free.value == 1 and not free.state_dict()
    held = CostWeight(Objective(gamma=2.0, budget=0.5, budget_rate=0.1))
    assert set(held.state_dict()) == {"value"}
    held.update(torch.tensor(0.6))
    assert held.value.item() == pytest.approx(math.exp(0.1 * 0.2))
    held.eval().update(torch.tensor(0.6))
    assert held.value.item() == pytest.approx(math.exp(0.1 * 0.2))
    held.train()
    for gmacs, bound in ((5.0, 3.0), (0.0, 0.01)):
        for _ in range(200):
            held.update(torch.tensor(gmacs))
        assert held.value.item() == pytest.approx(bound)  # 1 + gamma, and nearly nothing


def test_moving_average_uses_earlier_batches_only():
    rule, unread = Baseline("moving_average", momentum=0.5), torch.zeros(1)
    first = rule.advantage(torch.tensor([[1.0, 3.0]]), unread)
    assert first.tolist() == [[1.0, 3.0]]
    assert rule.advantage(torch.tensor([[4.0, 4.0]]), unread).tolist() == [[2.0, 2.0]]
    assert rule.average.item() == 3.0
    rule.eval().advantage(torch.tensor([[9.0, 9.0]]), unread)
    assert rule.average.item() == 3.0


def test_entropy_bonus_pulls_towards_even_odds():
    dist = distribution()
    samples, zero = policies()[:2], torch.zeros(1, 2, dtype=torch.float64)
    (grad,) = torch.autograd.grad(
        policy_loss(dist, samples, zero, zero, entropy=1.0), dist.stage_logits
    )
    assert torch.equal(grad.sign(), dist.stage_logits.sign())


@pytest.mark.parametrize(
    "wrong",
    [
        {"cost": "time"},
        {"baseline": "none"},
        {"samples": 1},
        {"multi_label": "f1"},
        {"budget": 0.0},
        {"reward_temperature": -1.0},
        {"reward_temperature": float("inf")},
        {"gamma": float("nan")},
        {"gamma": -5.0},
        {"gamma": "high"},
        {"stage_exponent": float("nan")},
        {"budget": float("nan")},
        {"budget_rate": 0.0},
        {"entropy": -0.1},
        {"samples": 2.5},
        {"samples": 0},
        {"momentum": 1.5, "baseline": "moving_average"},
        {"gama": 1.0},
    ],
)
def test_an_estimator_refuses(wrong):
    with pytest.raises(Ada3DError, match=next(iter(wrong))):
        Reinforce(**wrong)


def test_straight_through_gives_each_decision_the_gradient_of_its_own_reward():
    """ScoringModel that depend on the gates: what flows back is eq. 4's derivative, R(u) for frames and
    R(v) for stages, times the probabilities' own."""
    dist = distribution(n=3)
    objective = Objective(gamma=2.0, reward_temperature=0.5)
    policy = dist.straight_through(dist.sample(torch.Generator().manual_seed(0)))
    assert torch.equal(policy.gates[0] > 0.5, policy.frames)
    labels, mix = torch.tensor([0, 1, 2]), torch.randn(4, 3, dtype=torch.float64)

    def scores(frames, stages):
        return torch.cat([frames, stages], 1) @ mix

    found = torch.autograd.grad(
        straight_through_loss(scores(*policy.gates), labels, policy, objective, 0.7),
        [dist.frame_logits, dist.stage_logits],
    )
    hard = [gate.detach().requires_grad_() for gate in policy.gates]
    correct = correctness(scores(*hard), labels, temperature=0.5)
    usage = hard[0].mean(1), hard[1].mean(1) ** 2
    # R(u) + R(v), where the accuracy gained is worth the mean of what is saved by both
    value = correct * (3.0 - 0.7 * sum(usage).detach() / 2)
    value = (value - correct.detach() * 0.7 * sum(usage)).mean()
    wanted = torch.autograd.grad(-value, hard)
    for ours, gate, logits in zip(found, wanted, (dist.frame_logits, dist.stage_logits)):
        p = logits.detach().sigmoid()
        torch.testing.assert_close(ours, gate * p * (1 - p))


def test_straight_through_needs_what_has_a_gradient():
    for options in ({}, {"reward_temperature": 0.5, "cost": "flops"}):
        with pytest.raises(Ada3DError, match="StraightThrough needs"):
            StraightThrough(**options)
    dist, objective = distribution(n=2), Objective(reward_temperature=1.0)
    with pytest.raises(Ada3DError, match="gates"):
        straight_through_loss(torch.zeros(2, 3), torch.zeros(2).long(), dist.sample(), objective)
