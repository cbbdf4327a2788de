"""Fused convolutions give what the operations give one after the other, and write nowhere else."""

import copy

import pytest
import torch
from families import FAMILIES, shared_family
from models import clips, randomise
from torch import nn
from torch.nn import functional as F

import ada3d_fx
from ada3d_fx import Policy
from ada3d_fx.packed.fused_operations import (
    ACTIVATIONS,
    LIBRARIES,
    How,
    by_cudnn,
    fused_operations_work,
    with_dense_strides,
)
from ada3d_fx.packed.time_forms import FORMS, time_form

SHAPE = (4, 4, 8, 8)
ONES = ((1, 1), (1, 1), (1, 1))  # padding, stride, dilation of images
needs_onednn = pytest.mark.skipif(
    not fused_operations_work(torch.float32, False),
    reason="this torch has no fused convolutions",
)


@pytest.fixture
def calls(monkeypatch):
    """What oneDNN was asked for: the activation, whether a sum is fused, and whether in place."""
    seen = []

    def convolve(x, weight, how, activation, other=None, overwrites=False):
        seen.append((activation, other is not None, other is not None and overwrites))
        return plain(x, weight, how, activation, other, overwrites)

    plain = LIBRARIES["cpu"].convolve
    replace_convolve(monkeypatch, convolve)
    return seen


def replace_convolve(monkeypatch, convolve):
    monkeypatch.setitem(LIBRARIES, "cpu", LIBRARIES["cpu"]._replace(convolve=convolve))


def ragged(plan, n, seed=0):
    torch.manual_seed(seed)
    return Policy.cat([Policy.random(plan, n, torch.rand(n), torch.rand(n)), Policy.full(plan, 1)])


def off(got, wanted):
    return float((got.double() - wanted.double()).abs().max() / wanted.abs().max())


TRANSFORMERS = ("swin", "mvit", "uniformer", "timesformer", "videomae")
PACKED = [name for name in sorted(FAMILIES) if not name.startswith(TRANSFORMERS)]


@needs_onednn
@pytest.mark.parametrize("name", PACKED)
def test_a_family_in_float32_gives_its_scores_in_float64(name, calls):
    model, adaptive = shared_family(name)
    x = clips(4, FAMILIES[name][2])
    policy = ragged(adaptive.plan, 3)
    small = ada3d_fx.convert(copy.deepcopy(model).float(), clip_shape=FAMILIES[name][2])
    with torch.inference_mode():
        for form in FORMS:
            calls.clear()
            for each in (policy, Policy.full(adaptive.plan, 4)):
                with time_form(form):
                    assert off(small(x.float(), each), adaptive(x, each)) < 1e-4
            assert calls
        calls.clear()
        with torch.backends.mkldnn.flags(enabled=False):
            assert off(small(x.float(), policy), adaptive(x, policy)) < 1e-4
        assert not calls


class Net(nn.Module):
    """A convolution of a fresh value, in front of what each subclass does."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv3d(4, 4, (3, 3, 3), padding=1)
        self.norm = nn.BatchNorm3d(4)
        self.frame = nn.Conv3d(4, 4, (1, 3, 3), padding=(0, 1, 1), bias=False)
        self.frame_norm = nn.BatchNorm3d(4)
        self.time = nn.Conv3d(4, 4, (3, 1, 1), padding=(1, 0, 0))
        self.time_norm = nn.BatchNorm3d(4)
        self.narrow = nn.Conv3d(4, 4, (1, 8, 8))
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool3d(1)
        self.fc = nn.Linear(4, 5)

    def forward(self, x):
        value = self.norm(self.first(x)).relu()
        return self.fc(self.pool(self.body(value, x)).flatten(1))

    def body(self, v, x):
        return self.relu(self.frame_norm(self.frame(v)) + v)


class AddsItsInput(Net):
    def body(self, v, x):  # the clips themselves must stay what they are
        return self.relu(self.frame_norm(self.frame(v)) + x)


class AddsTimes(Net):
    def body(self, v, x):
        return F.relu(self.time_norm(self.time(v)) + self.frame_norm(self.frame(v)))


class AddsInTurn(Net):
    def body(self, v, x):
        left = self.frame_norm(self.frame(v))
        right = self.time_norm(self.time(v))
        return torch.relu(right + left)


class Reused(Net):
    def body(self, v, x):  # what is added is needed afterwards
        w = self.frame_norm(self.frame(v))
        y = self.time_norm(self.time(v)) + w
        return y * 2 + w


class Viewed(Net):
    def body(self, v, x):
        w = self.frame_norm(self.frame(v))
        view = w[:, :2]
        y = self.time_norm(self.time(v)) + w
        return torch.cat([y[:, :2], view * 3], 1)


class Chain(Net):
    def body(self, v, x):
        y = self.frame_norm(self.frame(v)) + v
        z = self.time_norm(self.time(y)) + y
        return self.relu(z)


class Broadcast(Net):
    def body(self, v, x):
        return self.relu(self.frame(v) + self.narrow(v))


class Bounded(Net):
    def body(self, v, x):
        return F.relu6(9 * F.relu6(self.frame_norm(self.frame(9 * v)), inplace=True) + v)


class Constant(Net):
    def body(self, v, x):
        return (self.frame(v) + 0.25).relu_()


class Twice(Net):
    def body(self, v, x):
        y = self.frame(v)
        return self.relu(y) + self.frame(y)


class WithoutNorm(Net):
    def body(self, v, x):
        return self.relu(self.time(self.relu(self.frame(v))) + self.frame(v))


NETS = [Net, AddsItsInput, AddsTimes, AddsInTurn, Reused, Viewed, Chain, Broadcast, Bounded, Constant,
        Twice, WithoutNorm]  # fmt: skip


def made(kind):
    torch.manual_seed(0)
    return randomise(kind()).float()


def same(adaptive, model, x, tolerance=1e-5):
    """The network gives what the model does, under policies what it does in float64; x stays."""
    before, policy = x.clone(), ragged(adaptive.plan, len(x) - 1)
    twin = ada3d_fx.convert(copy.deepcopy(model).double(), clip_shape=SHAPE)
    with torch.inference_mode():
        assert off(adaptive(x), model.double()(x.double())) < tolerance
        assert off(adaptive(x, policy), twin(x.double(), policy)) < tolerance
    model.to(x.dtype)
    assert torch.equal(x, before)


@needs_onednn
@pytest.mark.parametrize("kind", NETS, ids=[kind.__name__ for kind in NETS])
def test_odd_sums_are_the_models(kind, calls):
    model = made(kind)
    same(ada3d_fx.convert(model, clip_shape=SHAPE), model, torch.randn(3, *SHAPE))
    assert calls


@needs_onednn
def test_what_is_fused(calls):
    def seen(kind):
        calls.clear()
        with torch.inference_mode():
            ada3d_fx.convert(made(kind), clip_shape=SHAPE)(torch.randn(2, *SHAPE))
        return calls

    relu, none = ("relu", False, False), ("none", False, False)
    assert seen(Net) == [relu, ("relu", True, False)]  # its input is what is added
    assert seen(AddsTimes) == [relu, none, ("relu", True, True)]
    assert seen(Reused) == [relu, none, ("none", True, False)]
    assert seen(Constant) == [relu]  # nothing to fuse in the second


@needs_onednn
def test_a_relu_that_is_watched_or_replaced_counts(calls):
    model = made(Net)
    adaptive = ada3d_fx.convert(model, clip_shape=SHAPE)
    x, heard = torch.randn(2, *SHAPE), []
    same(adaptive, model, x)
    handle = adaptive.relu.register_forward_hook(lambda *args: heard.append(1))
    same(adaptive, model, x)
    assert heard
    handle.remove()
    adaptive.relu = model.relu = nn.LeakyReLU(0.5)
    same(adaptive, model, x)
    with torch.no_grad():
        adaptive.frame.weight.data.mul_(2)
        model.frame.weight.data.mul_(2)
    adaptive.relu = model.relu = nn.ReLU()
    same(adaptive, model, x)


class Pooled(Net):
    """A temporal convolution, a ReLU and a pool of frames."""

    def __init__(self):
        super().__init__()
        self.shrink = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))

    def body(self, v, x):
        return self.shrink(self.relu(self.time_norm(self.time(v))))


@needs_onednn
def test_a_pool_that_is_watched_changed_or_replaced_counts(calls):
    model = made(Pooled)
    adaptive = ada3d_fx.convert(model, clip_shape=SHAPE)
    x, heard = torch.randn(3, *SHAPE), []
    folded = adaptive.conversion.folded
    assert [path for path, _ in folded.taken_over.pools] == ["shrink"]
    same(adaptive, model, x)
    handle = adaptive.shrink.register_forward_hook(lambda *args: heard.append(1))
    same(adaptive, model, x)
    assert heard
    handle.remove()
    adaptive.shrink.kernel_size = model.shrink.kernel_size = (1, 2, 2)
    same(adaptive, model, x)
    adaptive.shrink = model.shrink = nn.MaxPool3d((1, 2, 2), (1, 1, 1))
    same(adaptive, model, x)
    adaptive.shrink = model.shrink = nn.AvgPool3d((1, 2, 2))
    same(adaptive, model, x)
    assert not folded.refresh()


@pytest.mark.skipif(
    not fused_operations_work(torch.bfloat16, False), reason="no bfloat16 in oneDNN here"
)
def test_bfloat16(calls):
    model = made(AddsTimes)
    adaptive = ada3d_fx.convert(model, clip_shape=SHAPE).bfloat16()
    x = torch.randn(3, *SHAPE)
    policy = ragged(adaptive.plan, 2)
    with torch.inference_mode():
        got = adaptive(x.bfloat16(), policy)
        wanted = ada3d_fx.convert(model.double(), clip_shape=SHAPE)(x.double(), policy)
    assert got.dtype == torch.bfloat16 and off(got, wanted) < 3e-2 and calls


def test_a_torch_without_them_goes_on(monkeypatch):
    def missing(*args):
        raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute")

    fused_operations_work.cache_clear()
    replace_convolve(monkeypatch, missing)
    try:
        assert not fused_operations_work(torch.float32, False)
        model = made(AddsTimes)
        same(ada3d_fx.convert(model, clip_shape=SHAPE), model, torch.randn(3, *SHAPE))
        replace_convolve(monkeypatch, lambda x, *args: x * 0)  # other numbers
        fused_operations_work.cache_clear()
        assert not fused_operations_work(torch.float32, False)
    finally:
        fused_operations_work.cache_clear()


def test_axes_of_size_one_get_the_strides_of_a_dense_tensor():
    """As frames of one pixel have; the strides of channels last are as right, but not for all of torch."""
    x = torch.randn(6, 32, 1, 1, 1).contiguous(memory_format=torch.channels_last_3d)
    x = x.as_strided(x.shape, (32, 1, 32, 32, 32))
    dense = with_dense_strides(x)
    assert dense.stride() == (32, 1, 1, 1, 1) and torch.equal(dense, x)
    assert dense.data_ptr() == x.data_ptr()
    wide = torch.randn(2, 4, 3, 2, 2).contiguous(memory_format=torch.channels_last_3d)
    assert with_dense_strides(wide) is wide


@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_what_cudnn_has_nothing_for_runs_one_after_the_other(activation, added, monkeypatch):
    def nothing(*args):
        raise RuntimeError("GET was unable to find an engine to execute this computation")

    monkeypatch.setattr(torch, "cudnn_convolution_relu", nothing)
    monkeypatch.setattr(torch, "cudnn_convolution_add_relu", nothing)
    x, weight, bias = torch.randn(2, 8, 5, 5) * 4, torch.randn(8, 8, 3, 3), torch.randn(8)
    other = torch.randn(2, 8, 5, 5) if added else None
    made = by_cudnn(x, weight, How(*ONES, bias, 1), activation, other)
    wanted = F.conv2d(x, weight, bias, padding=1) + (0 if other is None else other)
    torch.testing.assert_close(made, ACTIVATIONS[activation].plain(wanted))


def test_other_errors_of_cudnn_are_not_hidden(monkeypatch):
    def fails(*args):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch, "cudnn_convolution_relu", fails)
    x, weight = torch.randn(2, 8, 5, 5), torch.randn(8, 8, 3, 3)
    with pytest.raises(RuntimeError, match="illegal memory"):
        by_cudnn(x, weight, How(*ONES, None, 1), "relu")
