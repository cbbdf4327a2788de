"""What acts on tokens alone runs once for all clips, whatever their lengths."""

import copy

import oracle
import pytest
import torch
from models import alone, calls_of, clips, randomise
from torch import nn
from torch.nn import functional as F

import ada3d_fx
from ada3d_fx import Policy
from ada3d_fx.packed.time_forms import time_form
from ada3d_fx.packed.tokens import leading_sizes, pack_tokens, unpack_tokens

SHAPE, C = (3, 6, 8, 8), 12


class Transformer(nn.Module):
    """One block; its clips may be of any length."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv3d(3, C, (1, 4, 4), (1, 4, 4))
        self.norm, self.mixed_norm = nn.LayerNorm(C), nn.LayerNorm((4, C))
        self.qkv, self.proj = nn.Linear(C, 3 * C), nn.Linear(C, C)
        self.fc1, self.act = nn.Linear(C, 2 * C), nn.ReLU(inplace=True)
        self.fc2 = nn.utils.parametrizations.weight_norm(nn.Linear(2 * C, C))
        self.scale, self.of_patches = nn.Parameter(torch.ones(C)), nn.Parameter(torch.ones(4, C))
        self.fc = nn.Linear(C, 5)

    def forward(self, x):
        x = self.patches(x).flatten(3).permute(0, 2, 3, 1)  # [N, T, patches, C]
        x = self.mixed_norm(x) * self.of_patches  # all patches of a frame: not of tokens alone
        x = x.flatten(1, 2)
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        x = x + self.scale * self.proj(F.scaled_dot_product_attention(q, k, v))
        hidden = self.fc1(x)
        x = x + self.fc2(self.act(hidden)) + hidden[..., :C]  # after the write into it
        return self.fc(F.linear(x, self.proj.weight, bias=None).mean(1))


class Fixed(nn.Module):
    """A second axis as long as the clip: with frames that cannot be dropped, it looks like time."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv3d(3, 4, 3, padding=1), nn.Linear(4 * 6, 5)
        self.norm, self.bn = nn.LayerNorm(4), nn.BatchNorm3d(6)

    def forward(self, x):
        x = self.norm(self.conv(x).permute(0, 2, 3, 4, 1))  # [N, T, H, W, C]
        x = self.bn(x.softmax(1)) + 1
        return self.fc(x.mean((2, 3)).flatten(1))


class NormOfPatches(nn.Module):
    """A norm whose channels are the patches of a frame, behind a linear layer on tokens."""

    def __init__(self):
        super().__init__()
        self.patches, self.linear = nn.Conv3d(3, C, (1, 4, 4), (1, 4, 4)), nn.Linear(C, 4)
        self.norm, self.fc = nn.SyncBatchNorm(4), nn.Linear(4, 5)

    def forward(self, x):
        x = self.patches(x).flatten(3).permute(0, 2, 3, 1)
        y = self.norm(self.linear(x.softmax(1)).flatten(0, 1)).unflatten(0, x.shape[:2])
        return self.fc(y.mean((1, 2)))


class Written(nn.Module):
    """Code that writes into what a layer of tokens made, and keeps that for backward."""

    def __init__(self):
        super().__init__()
        self.patches, self.norm = nn.Conv3d(3, C, (1, 4, 4), (1, 4, 4)), nn.LayerNorm(C)
        self.linear, self.fc = nn.Linear(C, C), nn.Linear(C, 5)

    def forward(self, x):
        x = self.linear(self.norm(self.patches(x).flatten(2).transpose(1, 2)))
        x += x.mean(1, keepdim=True)
        return self.fc((x @ x.transpose(1, 2) @ x).mean(1))


class Tupled(nn.Module):
    """A module with several results, of tokens alone, which are used before and behind others."""

    def __init__(self):
        super().__init__()
        self.patches, self.norm = nn.Conv3d(3, C, (1, 4, 4), (1, 4, 4)), nn.LayerNorm(C)
        self.attention = nn.MultiheadAttention(C, 2, batch_first=True)
        self.linear, self.fc = nn.Linear(C, C), nn.Linear(C, 5)

    def forward(self, x):
        x = self.norm(self.patches(x).flatten(2).transpose(1, 2))
        y, weights = self.attention(x, x, x)
        x = weights @ self.linear(x + y)
        return self.fc((weights.transpose(1, 2) @ self.linear(x)).mean(1))


@pytest.fixture(autouse=True, params=["runs", "gathered"])
def form(request):
    """Run by run, as on a CPU, and on the tokens of all runs at once, as on a GPU."""
    with time_form(request.param):
        yield request.param


def network(kind):
    torch.manual_seed(0)
    return randomise(kind()).double().eval()


def ragged(plan):
    return Policy.random(plan, 7, torch.tensor([1, 2, 3, 3, 4, 6, 6]) / 6, 0.5)


def test_layers_of_tokens_run_once_where_launches_cost(form):
    adaptive, x = ada3d_fx.convert(network(Transformer), SHAPE), clips(7, SHAPE)
    policy = ragged(adaptive.plan)
    tokens, lengths = 4 * int(policy.num_frames.sum()), len(set(policy.num_frames.tolist()))
    for name, channels in {"norm": C, "qkv": C, "proj": C, "fc1": C, "act": 2 * C}.items():
        taken = calls_of(adaptive, name, x, policy)
        assert len(taken) == lengths if form == "runs" else taken == [(tokens, channels)], name
    for name in ("mixed_norm", "fc2"):  # over all patches of a frame; weights made anew by a hook
        assert len(calls_of(adaptive, name, x, policy)) == lengths, name


def test_a_module_of_several_results_runs_once_for_each_length():
    model, x = network(Tupled), clips(7, SHAPE)
    adaptive = ada3d_fx.convert(model, SHAPE)
    policy = ragged(adaptive.plan)
    lengths = len(set(policy.num_frames.tolist()))
    assert len(calls_of(adaptive, "attention", x, policy)) == lengths
    got = adaptive(x, policy)
    torch.testing.assert_close(got, alone(model, x, policy), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", [Transformer, Written])
def test_scores_and_gradients_are_those_of_each_clip_alone(kind, checkpointing):
    model = network(kind)
    adaptive, x = ada3d_fx.convert(model, SHAPE, checkpointing=checkpointing), clips(7, SHAPE)
    policy = ragged(adaptive.plan)
    weights = torch.randn(7, 5, dtype=torch.float64)
    for _ in range(2):
        got, wanted = adaptive(x, policy), alone(model, x, policy)
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)
        (got * weights).sum().backward(), (wanted * weights).sum().backward()
        theirs = dict(model.named_parameters())
        for name, parameter in adaptive.named_parameters():
            torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-9, atol=1e-9)
        for root in (adaptive, model):  # and after a step
            torch.optim.SGD(root.parameters(), 0.1).step()
            root.zero_grad()


def test_layers_that_are_replaced_or_watched_later_are_seen():
    model = network(Transformer)
    adaptive, x = ada3d_fx.convert(model, SHAPE), clips(7, SHAPE)
    policy = ragged(adaptive.plan)
    before = adaptive(x, policy)
    for root in (adaptive, model):
        root.fc1 = copy.deepcopy(model.fc1).double()
        root.fc1.weight.data.mul_(1.5)
        root.norm.register_forward_hook(lambda _, __, out: out * 1.1)
    got = adaptive(x, policy)
    torch.testing.assert_close(got, alone(model, x, policy), rtol=1e-9, atol=1e-9)
    assert (got - before).abs().max() > 1e-3


def test_a_norm_over_another_axis_is_none_of_tokens():
    model, x = network(NormOfPatches), clips(7, SHAPE)
    adaptive = ada3d_fx.convert(model, SHAPE)
    policy = ragged(adaptive.plan)
    got = adaptive(x, policy)
    torch.testing.assert_close(got, alone(model, x, policy), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [6, 8])
def test_an_axis_as_long_as_the_clip_is_not_taken_for_time(size):
    model = network(Fixed)
    adaptive = ada3d_fx.convert(model, (3, 6, 6, 6))
    assert adaptive.plan.frame_unit is None
    x = clips(4, (3, 6, size, size))
    policy = Policy.random(adaptive.plan, 4, stages=0.5)
    wanted = oracle.scores(model, adaptive.plan, x, policy, run=lambda own, clip: own(clip))
    torch.testing.assert_close(adaptive(x, policy), wanted, rtol=1e-9, atol=1e-9)


def test_packs_of_tokens_come_back_as_they_were():
    parts = [torch.randn(2, 3, 4), torch.randn(1, 5, 4).transpose(0, 1), torch.randn(7, 1, 4)]
    rows = pack_tokens(parts)
    assert rows.shape == (6 + 5 + 7, 4)
    for got, part in zip(unpack_tokens(rows, leading_sizes(parts)), parts):
        assert torch.equal(got, part)
    (only,) = unpack_tokens(pack_tokens(parts[:1]), leading_sizes(parts[:1]))
    assert only.data_ptr() == parts[0].data_ptr()
