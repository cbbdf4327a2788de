"""Law 4: a price is fvcore's count of the specialized network, to the unit."""

import gc
import itertools

import pytest
import torch
from counting import fvcores
from families import FAMILIES, dense, shared_family
from models import CLIP, resnet3d, shared_conversion
from torch import nn

import ada3d_fx
from ada3d_fx import Ada3DError, Policy, PolicyDistribution
from ada3d_fx.cost import price
from ada3d_fx.cost.executed import executed
from ada3d_fx.cost.payoff import payoff
from ada3d_fx.cost.price import price_table
from ada3d_fx.cost.selector import selector_price
from ada3d_fx.learn.backbones import SmallConvNet
from ada3d_fx.learn.selector import SelectionNetwork


class Dense(nn.Module):
    """The original recognizer as one module for fvcore."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, clips):
        return dense(self.model, clips)


def fvcore_total(module, shape):
    return fvcores(module, torch.zeros(1, *shape, dtype=torch.float64))[0][""]


def check_prices(adaptive, policy):
    """Each distinct policy against fvcore on its specialized network."""
    channels, _, *size = adaptive.plan.clip_shape
    prices = ada3d_fx.price(adaptive, policy)
    assert prices.dtype == torch.int64 and prices.shape == (len(policy),)
    counted = {}
    for value, length, stages in zip(
        prices.tolist(), policy.num_frames.tolist(), policy.stages.tolist()
    ):
        key = (length, tuple(stages))
        if key not in counted:
            static = ada3d_fx.specialize(adaptive, length, stages)
            counted[key] = fvcore_total(static, (channels, length, *size))
            if len(counted) % 16 == 0:
                gc.collect()  # a trace holds the network's weights in a circle
        assert value == counted[key], key


@pytest.mark.parametrize("name", ["i3d", "i3d_strided", "nonlocal", "slowonly"])
def test_full_price_is_fvcores_total_of_the_original(name):
    model, adaptive = shared_conversion(name)
    full = Policy.full(adaptive.plan, 1)
    assert int(ada3d_fx.price(adaptive, full)) == fvcore_total(Dense(model), CLIP)


# TPN's neck makes modules while it runs, which fvcore itself cannot name
@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "tpn"])
def test_full_price_of_each_family_is_that_of_the_original(name):
    model, adaptive = shared_family(name)
    assert price_table(adaptive).full == fvcore_total(Dense(model), FAMILIES[name][2])


@pytest.mark.parametrize("name", ["i3d", "i3d_strided", "i3d_3x3x3", "nonlocal"])
def test_price_is_fvcores_total_of_the_specialized_network(name):
    _, adaptive = shared_conversion(name)
    check_prices(
        adaptive, Policy.random(adaptive.plan, 6, frames=torch.rand(6), stages=torch.rand(6))
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_price_of_each_family_is_that_of_the_specialized_network(name):
    _, adaptive = shared_family(name)
    check_prices(
        adaptive, Policy.random(adaptive.plan, 4, frames=torch.rand(4), stages=torch.rand(4))
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_prices_of_hundreds_of_random_policies(name):
    _, adaptive = shared_family(name)
    n, generator = 300, torch.Generator().manual_seed(0)
    frames, stages = torch.rand(2, n, generator=generator, dtype=torch.float64)
    check_prices(adaptive, Policy.random(adaptive.plan, n, frames, stages, generator))


def test_price_rises_with_every_decision():
    _, adaptive = shared_conversion("i3d_r18")
    policy = Policy.random(adaptive.plan, 10, frames=0.5, stages=0.4)
    base = ada3d_fx.price(adaptive, policy)
    for part in ("frames", "stages"):
        for place in range(getattr(policy, part).shape[1]):
            bits = {"frames": policy.frames.clone(), "stages": policy.stages.clone()}
            bits[part][:, place] = True
            more = Policy(**bits)
            grown = ada3d_fx.price(adaptive, more) - base
            changed = (more.num_frames + more.num_stages) > (policy.num_frames + policy.num_stages)
            assert (grown[changed] > 0).all() and (grown[~changed] == 0).all()


def test_a_table_counts_what_is_asked_for_and_only_once(monkeypatch):

    counted = []
    real = price.count
    monkeypatch.setattr(price, "count", lambda *args: counted.append(args) or real(*args))
    adaptive = ada3d_fx.convert(resnet3d("i3d_r18"), CLIP)
    assert not counted  # conversion prices nothing
    policy = Policy.random(adaptive.plan, 9, frames=torch.tensor([0.25, 0.5, 0.5] * 3))
    for _ in range(3):
        ada3d_fx.price(adaptive, policy)
    assert len(counted) == 3  # two numbers of frames, and all of them for the audit
    price_table(adaptive).complete()
    assert len(counted) == 8


def test_every_policy_and_the_expected_price():
    _, adaptive = shared_conversion("i3d_r18")
    table = price_table(adaptive)
    every = list(table.every())
    assert len(every) == 8 * 2**5 and table.full == max(value for _, _, value in every)
    by_policy = {(length, stages): value for length, stages, value in every}
    # 2.5 frames and 3 of 5 stages: all subsets of 3 are equally likely, two lengths too
    subsets = [on for on in itertools.product((False, True), repeat=5) if sum(on) == 3]
    mean = sum(by_policy[n, on] for n in (2, 3) for on in subsets) / (2 * len(subsets))
    assert table.expected(2.5 / 8, 3 / 5) == pytest.approx(mean, rel=1e-12)
    drawn = Policy.random(adaptive.plan, 20_000, 2.5 / 8, 3 / 5, torch.Generator().manual_seed(0))
    mean = ada3d_fx.price(adaptive, drawn).double().mean().item()
    assert table.expected(2.5 / 8, 3 / 5) == pytest.approx(mean, rel=0.01)
    assert table.expected(0, 0) == by_policy[1, (False,) * 5]  # one frame is always kept
    assert table.expected(1, 1) == table.full


def test_the_papers_convention_has_a_table_of_its_own():
    _, adaptive = shared_conversion("i3d_r18")
    policy = Policy.random(adaptive.plan, 8)
    bare = ada3d_fx.price(adaptive, policy, convention="paper")
    assert (bare < ada3d_fx.price(adaptive, policy)).all()
    with pytest.raises(Ada3DError, match="convention='paper2'"):
        ada3d_fx.price(adaptive, policy, convention="paper2")


def test_the_audit_names_what_no_count_includes():
    table = price_table(shared_family("x3d")[1])
    assert {"aten::add_", "aten::sigmoid", "aten::mul"} & set(table.unsupported)
    products = ("conv", "linear", "matmul", "mm", "bmm", "einsum", "attention", "dot")
    assert not [name for name in table.unsupported if any(word in name for word in products)]
    assert all(share > 0 for share in table.unsupported.values())
    assert table.uncalled == ()


QUICK = ("slowfast", "x3d", "uniformer", "custom")  # packed, partly dense, and what nobody ships


@pytest.mark.parametrize(
    "name", [pytest.param(f, marks=[] if f in QUICK else pytest.mark.slow) for f in FAMILIES]
)
def test_the_packed_program_runs_no_more_than_its_price(name):
    _, adaptive = shared_family(name)
    torch.manual_seed(0)
    for policy in (
        Policy.full(adaptive.plan, 2),
        Policy.random(adaptive.plan, 4, torch.rand(4), torch.rand(4)),
        Policy.random(adaptive.plan, 3, 0.0, 1.0),
    ):
        run = executed(adaptive, policy)
        assert run.price == int(ada3d_fx.price(adaptive, policy).sum())
        rounding = len(policy) * (name == "mvit")  # fvcore rounds what it reads of einsum
        assert run.macs <= run.price + rounding
        assert run.copied < run.price


def test_a_full_batch_executes_its_price_and_copies_the_input_only():
    _, adaptive = shared_conversion("i3d_r18")
    run = executed(adaptive, Policy.full(adaptive.plan, 2))
    assert run.macs == run.price
    assert run.copied == 2 * torch.Size(CLIP).numel()


def test_one_frame_executes_less_than_its_price():
    """The price counts the padding that outer taps see; the packed program leaves these taps out."""
    _, adaptive = shared_conversion("i3d_r18")
    plan = adaptive.plan
    one = Policy.random(plan, 1, frames=0.0, stages=1.0)
    run = executed(adaptive, one)
    assert run.macs == int(ada3d_fx.price(adaptive, Policy(one.frames, ~one.stages)))
    assert run.price == int(ada3d_fx.price(adaptive, one)) > run.macs


def test_prices_do_not_touch_the_network():
    adaptive = ada3d_fx.convert(resnet3d("i3d_r18"), CLIP).train()
    flags = [m.training for m in adaptive.modules()]
    before = {k: v.clone() for k, v in adaptive.state_dict().items()}
    policy = Policy.random(adaptive.plan, 3)
    ada3d_fx.price(adaptive, policy)
    executed(adaptive, policy)
    assert [m.training for m in adaptive.modules()] == flags
    assert all(torch.equal(v, before[k]) for k, v in adaptive.state_dict().items())
    clips = torch.randn(3, *CLIP, dtype=torch.float64)
    static = ada3d_fx.specialize(adaptive.eval(), 8, [1] * 5)
    with torch.no_grad():  # nothing that was made of shapes alone was kept, such as folded weights
        torch.testing.assert_close(adaptive(clips), static(clips), rtol=0, atol=1e-9)


@pytest.mark.parametrize("greedy", ["threshold", "count"])
def test_a_threshold_holds_a_budget(greedy):
    _, adaptive = shared_conversion("i3d_r18")
    table, generator = price_table(adaptive), torch.Generator().manual_seed(0)
    logits = [torch.randn(200, k, generator=generator) for k in (8, 5)]
    distribution = PolicyDistribution(*logits)
    thresholds = []
    for share in (0.15, 0.3, 0.6, 0.9):
        threshold = table.threshold(distribution, share * table.full, greedy)
        policy = distribution.mode(threshold, greedy)
        mean = table.look_up(policy.num_frames, policy.stages).double().mean() / table.full
        assert share - 0.01 < mean <= share
        thresholds.append(threshold)
    assert thresholds == sorted(thresholds, reverse=True)
    everything = distribution.mode(table.threshold(distribution, table.full, greedy), greedy)
    assert everything == Policy.full(adaptive.plan, 200)
    with pytest.raises(Ada3DError, match="cannot be had: these clips cost at least"):
        table.threshold(distribution, 0.01 * table.full, greedy)


# ------------------------------------------------------------------------------------ does it pay


def selector_of(plan, channels):
    return SelectionNetwork(plan, SmallConvNet(channels), input_size=32)


def test_payoff_of_a_cheap_selector():
    _, adaptive = shared_conversion("i3d_r18")
    table = price_table(adaptive)
    answer = payoff(table, 1)
    assert answer.pays and (answer.break_even_frames, answer.break_even_stages) == (1, 1)
    assert answer.original == table.full and answer.least == int(table.base[1])
    assert answer.stages_ceiling == 1 - int(table.base[8]) / table.full
    assert 0 < answer.stages_ceiling < answer.frames_ceiling < answer.ceiling < 1
    assert answer.verdict == "pays from 1 of 8 frames dropped, from 1 of 5 stages dropped"
    assert answer.usages[0] == (0.71, 0.44, (table.expected(0.71, 0.44) + 1) / table.full)


def test_break_even_is_where_the_total_falls_below_the_original():
    _, adaptive = shared_conversion("i3d_r18")
    table = price_table(adaptive)
    for selector in (table.full // 10, table.full // 3):
        answer = payoff(table, selector)
        frames = answer.break_even_frames
        kept = table.look_up(
            torch.tensor([8 - frames, 9 - frames]), torch.ones(2, 5, dtype=torch.bool)
        )
        assert kept[0] + selector < table.full <= kept[1] + selector
        best = sorted(table.stages[-1].tolist(), reverse=True)
        if (k := answer.break_even_stages) is None:
            assert sum(best) <= selector
        else:
            assert sum(best[:k]) > selector >= sum(best[: k - 1])


def test_payoff_of_a_selector_that_is_too_heavy():
    adaptive = shared_family("x3d")[1]
    table = price_table(adaptive)
    heavy = selector_price(selector_of(adaptive.plan, (64, 128)), adaptive.plan.clip_shape)
    answer = payoff(table, heavy)
    assert not answer.pays
    assert answer.verdict.startswith("cannot pay with this selection network: ")
    assert "use a lighter one (below" in answer.verdict


def test_payoff_where_stages_alone_cannot_pay():
    adaptive = shared_family("x3d")[1]
    table = price_table(adaptive)
    answer = payoff(table, table.full // 4)
    assert answer.pays and answer.break_even_stages is None
    assert "never by stages alone" in answer.verdict and "of 8 frames dropped" in answer.verdict
    assert answer.verdict.startswith("hardly pays (")
    answer = payoff(table, table.full // 2)
    assert answer.pays
    assert answer.verdict.startswith("cannot pay with this selection network but by extreme")


def test_payoff_where_frames_cannot_be_dropped():
    adaptive = shared_family("c3d_long")[1]
    assert adaptive.plan.frame_unit is None
    answer = payoff(price_table(adaptive), 0)
    assert answer.frames_ceiling == 0 and answer.break_even_frames is None
    assert "never by frames (none can be dropped)" in answer.verdict
