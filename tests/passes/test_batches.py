"""Attention within frames runs once for all clips, whatever their lengths."""

import pytest
import torch
from families import FAMILIES, shared_family
from models import alone, calls_of, clips, randomise
from torch import nn
from torch.nn import functional as F

import ada3d_fx
from ada3d_fx import Policy
from ada3d_fx.packed.time_forms import time_form

SHAPE, C = (3, 6, 8, 8), 12
EXACT = dict(rtol=1e-9, atol=1e-9)


class WithinFrames(nn.Module):
    """Attention among the four patches of each frame, then over time at each of them."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.patches = nn.Conv3d(3, C, (1, 4, 4), (1, 4, 4))
        self.norm, self.qkv = nn.LayerNorm(C), nn.Linear(C, 3 * C)
        first = kind in ("batch first", "weights used")
        self.attention = nn.MultiheadAttention(C, 2, batch_first=first)
        self.over_time = nn.MultiheadAttention(C, 2, batch_first=True)
        self.fc = nn.Linear(C, 5)

    def forward(self, x):
        x = self.patches(x).flatten(3).permute(0, 2, 3, 1)  # [N, T, patches, C]
        n, t, p, c = x.shape
        y = self.norm(x).reshape(n * t, p, c)
        x = x + self.within(y).reshape(n, t, p, c)
        y = x.transpose(1, 2).reshape(n * p, t, c)
        y = self.over_time(y, y, y, need_weights=False)[0]
        return self.fc((x + y.reshape(n, p, t, c).transpose(1, 2)).mean((1, 2)))

    def within(self, y):
        if self.kind == "function":
            q, k, v = self.qkv(y).unflatten(2, (3, 2, -1)).permute(2, 0, 3, 1, 4).unbind(0)
            return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        if self.kind == "batch second":
            y = y.transpose(0, 1)
            return self.attention(y, y, y)[0].transpose(0, 1)
        if self.kind == "batch first":
            return self.attention(y, y, 2 * y, need_weights=False)[0]
        made, weights = self.attention(y, y, y)
        made += y  # into its part of what was made for all
        return weights @ made


KINDS = ["batch second", "batch first", "weights used", "function"]


@pytest.fixture(params=["runs", "gathered"])
def form(request):
    """Run by run, as on a CPU, and once for all runs, as on a GPU."""
    with time_form(request.param):
        yield request.param


def network(kind):
    torch.manual_seed(0)
    model = randomise(WithinFrames(kind))
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0, 0.5)
    return model


def ragged(plan, n=7):
    return Policy.random(plan, n, torch.arange(1, n + 1) / n, 0.5)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_scores_and_gradients_are_those_of_each_clip_alone(kind, checkpointing, form):
    model = network(kind)
    adaptive, x = ada3d_fx.convert(model, SHAPE, checkpointing=checkpointing), clips(7, SHAPE)
    policy = ragged(adaptive.plan)
    got, wanted = adaptive(x, policy), alone(model, x, policy)
    torch.testing.assert_close(got, wanted, **EXACT)
    got.square().sum().backward(), wanted.square().sum().backward()
    for path, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(adaptive.get_parameter(path).grad, parameter.grad, **EXACT)
    with torch.no_grad():
        torch.testing.assert_close(adaptive(x, policy), wanted, **EXACT)
        torch.testing.assert_close(adaptive(x), model(x), **EXACT)


@pytest.mark.parametrize("kind", KINDS[:3])
def test_it_runs_once_where_launches_cost_and_attention_over_time_for_each_length(kind, form):
    adaptive, x = ada3d_fx.convert(network(kind), SHAPE), clips(7, SHAPE)
    policy = ragged(adaptive.plan)
    frames, lengths = int(policy.num_frames.sum()), len(set(policy.num_frames.tolist()))
    within = calls_of(adaptive, "attention", x, policy)
    if form == "runs":
        assert len(within) == lengths
    else:
        assert within == [(4, frames, C) if kind == "batch second" else (frames, 4, C)]
    assert len(calls_of(adaptive, "over_time", x, policy)) == lengths


class Watching(nn.Module):
    """No module of attention; its result depends on the entries of a batch alone."""

    def forward(self, queries, keys, values):
        return queries.cumsum(-1) + keys * values, None


def test_modules_of_attention_that_are_replaced_later_are_seen(form):
    model = network("batch second")
    adaptive, x = ada3d_fx.convert(model, SHAPE), clips(7, SHAPE)
    policy = ragged(adaptive.plan)
    before = adaptive(x, policy)
    turned = nn.MultiheadAttention(C, 2, batch_first=True).double()  # of the same frames' patches
    for made in (nn.MultiheadAttention(C, 3).double(), Watching(), turned):
        for root in (adaptive, model):
            root.attention = made
        if made is turned:  # attends over the frames then, as the model's code has it
            policy = Policy.cat([policy[2:3], policy[2:3]])
            x = x[:2]
            wanted = model(x[:, :, policy.frames[0]])
        else:
            wanted = alone(model, x, policy)
        got = adaptive(x, policy)
        torch.testing.assert_close(got, wanted, **EXACT)
        assert len(got) != len(before) or (got - before).abs().max() > 1e-3
    policy, x = ragged(adaptive.plan, 6), clips(6, SHAPE)  # each clip is a run of its own
    torch.testing.assert_close(adaptive(x, policy), alone(model, x, policy), **EXACT)


def test_timesformer_attends_within_all_frames_at_once(form):
    adaptive = shared_family("timesformer")[1]
    shape = FAMILIES["timesformer"][2]
    x, policy = clips(6, shape), ragged(adaptive.plan, 6)
    for path, module in adaptive.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            taken = calls_of(adaptive, path, x, policy)
            is_once = form != "runs" and ".attentions.1." in path
            assert len(taken) == (1 if is_once else 6), path
