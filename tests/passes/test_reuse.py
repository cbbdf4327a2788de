"""Modules that are called at several places, and windows and kernels of every kind over time."""

import oracle
import pytest
import torch
from models import clips
from torch import nn

import ada3d_fx
from ada3d_fx import Policy, UnsupportedModel

EXACT = dict(rtol=1e-9, atol=1e-9)
SHAPE = (3, 8, 8, 8)


class Pools(nn.Module):
    """One pool at two places, where clips have different lengths."""

    def __init__(self, pool, dense=False):
        super().__init__()
        self.conv = nn.Conv3d(3, 4, (3, 1, 1), padding=(1, 0, 0))
        self.second = nn.Conv3d(4, 4, (3, 1, 1), padding=(1, 0, 0))
        self.pool, self.dense = pool, dense
        self.last, self.fc = nn.AdaptiveAvgPool3d(1), nn.Linear(4, 5)

    def forward(self, x):
        x = self.pool(torch.relu(self.conv(x)))
        if self.dense:  # an operation without a packed form
            x = x + torch.softmax(x, 2)
        x = torch.relu(self.second(x))
        x = self.pool(torch.softmax(x, 2) if self.dense else x)
        return self.fc(self.last(x).flatten(1))


POOLS = {
    "halving": (2, 2),
    "wide": (3, 2),
    "stride 1": (3, 1),
    "whole": (4, 4),
}


def every_length(plan):
    frames = torch.zeros(plan.num_frames, plan.num_frames, dtype=torch.bool)
    for length in range(1, plan.num_frames + 1):
        frames[length - 1, torch.randperm(plan.num_frames)[:length]] = True
    return Policy(frames, torch.rand(plan.num_frames, plan.num_stages) < 0.5)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("pool", POOLS)
def test_a_pool_at_several_places_fits_each_call(pool, dense):
    kernel, stride = POOLS[pool]
    torch.manual_seed(0)
    model = Pools(nn.MaxPool3d((kernel, 1, 1), (stride, 1, 1)), dense).double().eval()
    shape = (3, 16, 4, 4)
    adaptive = ada3d_fx.convert(model, clip_shape=shape)
    if adaptive.plan.frame_unit != 1:
        assert not dense or kernel > 2
    unit = adaptive.plan.frame_unit or 16
    policy, x = Policy.random(adaptive.plan, 12, torch.rand(12), torch.rand(12)), clips(12, shape)
    assert len(set(policy.num_frames.tolist())) > 2 or unit > 4
    run = lambda model, x: model(x)  # noqa: E731
    wanted = oracle.scores(model, adaptive.plan, x, policy, run=run).detach()
    with torch.no_grad():
        torch.testing.assert_close(adaptive(x, policy), wanted, **EXACT)
    prices = ada3d_fx.price(adaptive, policy)
    for i, (frames, stages) in enumerate(zip(policy.frames, policy.stages)):
        static = ada3d_fx.specialize(adaptive, int(frames.sum()), stages.tolist())
        clip = x[i : i + 1, :, frames]
        torch.testing.assert_close(static(clip).detach(), wanted[i : i + 1], **EXACT)
        assert ada3d_fx.cost.count.count(static, (clip,)).total == prices[i]


class Kernel(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.conv = nn.Conv3d(3, 4, (3, 1, 1), padding=(1, 0, 0))
        self.odd = nn.Conv3d(4, 4, **options)
        self.last, self.fc = nn.AdaptiveAvgPool3d(1), nn.Linear(4, 5)

    def forward(self, x):
        return self.fc(self.last(torch.relu(self.odd(torch.relu(self.conv(x))))).flatten(1))


KERNELS = {
    "even, dilated": dict(kernel_size=(2, 1, 1), dilation=(2, 1, 1), padding=(1, 0, 0)),
    "four taps, dilated": dict(kernel_size=(4, 3, 3), dilation=(2, 1, 1), padding=(3, 1, 1)),
    "same": dict(kernel_size=3, padding="same"),
    "same, dilated": dict(kernel_size=(5, 1, 1), dilation=(2, 1, 1), padding="same"),
    "same, even": dict(kernel_size=(4, 1, 1), padding="same"),
    "valid": dict(kernel_size=(1, 3, 3), padding="valid"),
    "valid over time": dict(kernel_size=(3, 1, 1), padding="valid"),
}


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_of_every_kind(kernel):
    torch.manual_seed(0)
    model = Kernel(**KERNELS[kernel]).double().eval()
    adaptive = ada3d_fx.convert(model, clip_shape=SHAPE)
    gated = {site for stage in adaptive.plan.stages for site in stage.sites}
    assert ("odd" in gated) == (kernel in ("same", "same, dilated"))
    policy = Policy.random(adaptive.plan, 8, torch.rand(8), torch.rand(8))
    x = clips(8, SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(adaptive(x), model(x), **EXACT)
        got = adaptive(x, policy)
    for i, (frames, stages) in enumerate(zip(policy.frames, policy.stages)):
        static = ada3d_fx.specialize(adaptive, int(frames.sum()), stages.tolist())
        torch.testing.assert_close(
            static(x[i : i + 1, :, frames]).detach(), got[i : i + 1], **EXACT
        )
        if stages.all():
            torch.testing.assert_close(
                model(x[i : i + 1, :, frames]).detach(), got[i : i + 1], **EXACT
            )


class Indices(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(3, 4, (3, 1, 1), padding=(1, 0, 0))
        self.pool = nn.MaxPool3d((1, 2, 2), return_indices=True)
        self.last, self.fc = nn.AdaptiveAvgPool3d(1), nn.Linear(4, 5)

    def forward(self, x, scale=None, again=False):
        x, where = self.pool(self.conv(x))
        x = x + 0.1 * (where % 3)
        if scale is not None:
            x = x * scale
        return self.fc(self.last(x).flatten(1))


def test_optional_arguments_and_pools_that_give_indices():
    torch.manual_seed(0)
    model = Indices().double().eval()
    adaptive, x = ada3d_fx.convert(model, clip_shape=SHAPE), clips(3, SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(adaptive(x), model(x), **EXACT)


def test_further_arguments_are_refused():
    class Two(Indices):
        def forward(self, x, scale):
            return super().forward(x, scale)

    with pytest.raises(ada3d_fx.Ada3DError, match="scale"):
        ada3d_fx.convert(Two(), clip_shape=SHAPE)


def test_a_pool_that_fails_at_full_length_is_refused():
    model = Pools(nn.MaxPool3d((16, 1, 1))).double().eval()
    with pytest.raises(UnsupportedModel, match="pool"):
        ada3d_fx.convert(model, clip_shape=SHAPE)


class OneFrameMeetsTwo(nn.Module):
    """A gate of one frame, where another value of the model has one frame too."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(3, 4, (3, 1, 1), padding=(1, 0, 0))
        self.pool, self.even = nn.MaxPool3d((2, 1, 1)), nn.Conv3d(4, 4, (2, 1, 1))
        self.up, self.gate = nn.Upsample(scale_factor=(2, 1, 1)), nn.Conv3d(4, 4, 1)
        self.last, self.fc = nn.AdaptiveAvgPool3d(1), nn.Linear(4, 5)

    def forward(self, x):
        x = self.up(self.even(self.pool(self.conv(x))))
        x = x * self.gate(nn.functional.adaptive_avg_pool3d(x, 1)).sigmoid()
        return self.fc(self.last(x).flatten(1))


def test_one_frame_may_meet_several():
    torch.manual_seed(0)
    model, shape = OneFrameMeetsTwo().double().eval(), (3, 4, 8, 8)
    adaptive, x = ada3d_fx.convert(model, clip_shape=shape), clips(3, shape)
    policy = Policy(torch.ones(3, 4, dtype=torch.bool), torch.tensor([[True], [False], [True]]))
    run = lambda model, x: model(x)  # noqa: E731
    wanted = oracle.scores(model, adaptive.plan, x, policy, run=run).detach()
    with torch.no_grad():
        torch.testing.assert_close(adaptive(x, policy), wanted, **EXACT)


class PoolsBehindPools(nn.Module):
    """Modules over time that are called where time is, and again where it is gone."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(3, 4, (3, 1, 1), padding=(1, 0, 0))
        self.stride = nn.Conv3d(4, 4, 1, stride=(2, 1, 1))
        self.last, self.fc = nn.AdaptiveMaxPool3d((1, None, None)), nn.Linear(4, 5)

    def forward(self, x):
        x = self.last(self.stride(self.conv(x)))
        return self.fc(self.last(self.stride(x)).mean((2, 3, 4)))


def test_modules_over_time_are_called_where_time_is_gone():
    torch.manual_seed(0)
    model = PoolsBehindPools().double().eval()
    adaptive, x = ada3d_fx.convert(model, clip_shape=SHAPE), clips(4, SHAPE)
    policy = Policy.random(adaptive.plan, 4, torch.rand(4), 0.5)
    run = lambda model, x: model(x)  # noqa: E731
    wanted = oracle.scores(model, adaptive.plan, x, policy, run=run)
    torch.testing.assert_close(adaptive(x, policy), wanted, **EXACT)
