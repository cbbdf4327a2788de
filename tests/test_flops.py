"""Law 4: a price is fvcore's count of the specialized network, to the unit."""

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from models import CLIP, resnet3d, slowonly
from torch import nn

import ada3d_fx
from ada3d_fx import Policy


class Dense(nn.Module):
    """The original recognizer as one module for fvcore."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, clips):
        return self.model.cls_head(self.model.backbone(clips))


def fvcore_total(module, shape):
    counted = FlopCountAnalysis(module, torch.zeros(1, *shape, dtype=torch.float64))
    counted.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    return int(counted.total())


@pytest.mark.parametrize("name", ["i3d", "i3d_strided", "nonlocal", "slowonly"])
def test_full_price_is_fvcores_total_of_the_original(name):
    model = slowonly() if name == "slowonly" else resnet3d(name)
    adaptive = ada3d_fx.convert(model, CLIP)
    assert int(ada3d_fx.price(adaptive, Policy.full(adaptive.plan, 1))) == fvcore_total(
        Dense(model), CLIP
    )


@pytest.mark.parametrize("name", ["i3d", "i3d_strided", "i3d_3x3x3", "nonlocal"])
def test_price_is_fvcores_total_of_the_specialized_network(name):
    adaptive = ada3d_fx.convert(resnet3d(name), CLIP)
    policy = Policy.random(adaptive.plan, 6, frames=torch.rand(6), stages=torch.rand(6))
    prices = ada3d_fx.price(adaptive, policy)
    assert prices.dtype == torch.int64
    for i in range(len(policy)):
        length = int(policy.num_frames[i])
        static = ada3d_fx.specialize(adaptive, length, policy.stages[i].tolist())
        assert int(prices[i]) == fvcore_total(static, (3, length, 32, 32))


def test_price_rises_with_every_decision():
    adaptive = ada3d_fx.convert(resnet3d("i3d_r18"), CLIP)
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


def test_prices_do_not_touch_the_network():
    adaptive = ada3d_fx.convert(resnet3d("i3d_r18"), CLIP).train()
    flags = [m.training for m in adaptive.modules()]
    before = {k: v.clone() for k, v in adaptive.state_dict().items()}
    ada3d_fx.price(adaptive, Policy.random(adaptive.plan, 3))
    assert [m.training for m in adaptive.modules()] == flags
    assert all(torch.equal(v, before[k]) for k, v in adaptive.state_dict().items())
