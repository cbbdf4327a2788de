"""Attention that a model's code writes out is one operation where nobody wants gradients."""

import copy

import oracle
import pytest
import torch
from families import FAMILIES, config_of
from models import clips, randomise
from torch import nn
from torch.nn import functional as F

import ada3d_fx
from ada3d_fx import Policy
from ada3d_fx.mm.build import build_recognizer
from ada3d_fx.packed.attention import attend

SHAPE, C = (3, 6, 8, 8), 12


class Writes(nn.Module):
    """One block whose attention is written out, in the way that ``how`` says."""

    def __init__(self, how="plain"):
        super().__init__()
        self.how, self.patches = how, nn.Conv3d(3, C, (1, 4, 4), (1, 4, 4))
        self.qkv, self.fc = nn.Linear(C, 3 * C), nn.Linear(C, 5)
        self.drop, self.softmax, self.idle = nn.Dropout(0.5), nn.Softmax(dim=-1), nn.Identity()

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)  # [N, tokens, C]
        q, k, v = (part.unflatten(-1, (3, 4)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        x = x + self.attention(q, k.transpose(-2, -1), v).transpose(1, 2).flatten(2)
        return self.fc(x.mean(1))

    def attention(self, q, k, v):
        if self.how == "plain":
            return self.drop((q * 0.5 @ k).softmax(dim=-1)) @ v
        if self.how == "scaled":
            return torch.matmul(self.idle(self.softmax(torch.matmul(q, k) / 2.0)), v)
        if self.how == "scaled first":
            return self.drop(F.softmax(0.3 * (q @ k), dim=-1)).matmul(v)
        if self.how == "other axis":
            return (q @ k).softmax(dim=-2) @ v
        if self.how == "biased":
            return (q @ k + 0.1).softmax(dim=-1) @ v
        if self.how == "in another type":
            return (q @ k).softmax(-1, dtype=torch.float64).to(v) @ v
        if self.how == "used twice":
            weights = (q @ k).softmax(-1)
            return weights @ v + weights.amax((1, 2, 3), keepdim=True)
        if self.how == "the other way round":
            return v.transpose(-2, -1).matmul((q @ k).softmax(-1)).transpose(-2, -1)
        if self.how == "by names":
            return self.softmax(input=F.softmax(input=q @ k, dim=-1)) @ v
        if self.how == "written in between":
            weights = (q @ k).softmax(-1)
            q.mul_(2.0)
            return weights @ v + q.mean((1, 2, 3), keepdim=True)
        scores = q @ k  # written into
        scores += 0.2
        return scores.softmax(-1) @ v


TAKEN = ("plain", "scaled", "scaled first")
LEFT = (
    "other axis", "biased", "in another type", "used twice", "the other way round", "by names",
    "written in between", "written into",
)  # fmt: skip


def converted(how):
    torch.manual_seed(0)
    model = randomise(Writes(how)).double().eval()
    return model, ada3d_fx.convert(model, clip_shape=SHAPE).eval()


def ragged(n=5):
    policy = Policy(torch.rand(n, 6) < 0.5, torch.ones(n, 0, dtype=torch.bool))
    policy.frames[:, 2] = True
    return policy


def calls(network, x, policy):
    """The scores, and how often torch's function was called."""
    with torch.no_grad(), torch.profiler.profile() as profile:
        scores = network(x, policy)
    names = [event.name for event in profile.events()]
    return scores, names.count("aten::scaled_dot_product_attention")


def wanted(model, network, x, policy):
    return oracle.scores(model, network.plan, x, policy, run=lambda model, x: model(x))


@pytest.mark.parametrize("how", (*TAKEN, *LEFT))
def test_attention_is_found_and_the_scores_stay(how):
    model, network = converted(how)
    x, policy = clips(5, SHAPE), ragged()
    with torch.no_grad():
        expected = wanted(model, network, x, policy)
    scores, count = calls(network, x, policy)
    assert (count > 0) == (how in TAKEN)
    torch.testing.assert_close(scores, expected, rtol=1e-9, atol=1e-9)
    assert network(x, policy).requires_grad  # with gradients the code itself runs
    torch.testing.assert_close(network(x, policy).detach(), expected, rtol=1e-9, atol=1e-9)


class Halved(nn.Dropout):
    def forward(self, x):
        return x / 2


def hook(module):
    module.register_forward_hook(lambda module, given, made: made * 2)


CHANGES = {
    "another class": lambda model: setattr(model, "drop", Halved()),
    "another module": lambda model: setattr(model, "drop", nn.Sigmoid()),
    "a hook": lambda model: hook(model.drop),
    "another axis": lambda model: setattr(model.softmax, "dim", -2),
    "weights": lambda model: model.qkv.weight.data.mul_(1.5),
}


@pytest.mark.parametrize("change", CHANGES)
def test_modules_between_the_products_may_change(change):
    how = "scaled" if change == "another axis" else "plain"
    model, network = converted(how)
    x, policy = clips(5, SHAPE), ragged()
    before, _ = calls(network, x, policy)
    for changed in (model, network.conversion.root):
        CHANGES[change](changed)
    with torch.no_grad():
        expected = wanted(model, network, x, policy)
    scores, count = calls(network, x, policy)
    torch.testing.assert_close(scores, expected, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(scores, before) and (count > 0) == (change == "weights")


def test_dropout_that_trains_drops():
    _, network = converted("plain")
    x, policy = clips(5, SHAPE), ragged()
    network.conversion.root.drop.train()
    first, count = calls(network, x, policy)
    assert not count and not torch.allclose(first, calls(network, x, policy)[0])
    network.conversion.root.drop.p = 0.0
    assert calls(network, x, policy)[1]
    copied = copy.deepcopy(network)
    copied.conversion.root.drop.p = 0.5
    assert not calls(copied, x, policy)[1] and calls(network, x, policy)[1]


@pytest.mark.parametrize("name", ["uniformer", "videomae"])
def test_attention_of_shipped_families_is_found(name):
    torch.manual_seed(0)
    shape = FAMILIES[name][2]
    model = randomise(build_recognizer(config_of(name))).double().eval()
    network = ada3d_fx.convert(model, clip_shape=shape).eval()
    x = clips(3, shape)
    policy = Policy.random(network.plan, 3, torch.rand(3), torch.rand(3))
    scores, count = calls(network, x, policy)
    assert count
    torch.testing.assert_close(network(x, policy).detach(), scores, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shapes", [((3, 4), (4, 5), (5, 2)), ((2, 3, 4), (4, 5), (5, 6))])
def test_shapes_that_the_function_does_not_take(shapes):
    torch.manual_seed(0)
    q, k, v = (torch.randn(*shape, dtype=torch.float64) for shape in shapes)
    torch.testing.assert_close(attend(q, k, v, 0.7), (q @ k * 0.7).softmax(-1) @ v)
