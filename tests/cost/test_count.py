"""A count without arithmetic is fvcore's own, operation by operation and module by module."""

import logging

import pytest
import torch
from counting import fvcores
from families import FAMILIES, dense, family, shared_family
from mmaction.models.backbones import swin
from models import CLIP, resnet3d
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import ada3d_fx
from ada3d_fx import Ada3DError
from ada3d_fx.cost.count import count, elements
from ada3d_fx.cost.shapes_only import no_arithmetic

NO_PRODUCTS = ("batch_norm", "layer_norm", "adaptive_avg_pool2d")


class Operations(nn.Module):
    """One of each operation whose shape is made in a way of its own."""

    def __init__(self):
        super().__init__()
        self.same = nn.Conv3d(4, 6, (2, 3, 4), padding="same", dilation=(1, 2, 1))
        self.valid = nn.Conv2d(6, 6, 3, stride=2, padding="valid", groups=3)
        self.up = nn.ConvTranspose2d(6, 3, 3, stride=2, output_padding=1)
        self.line = nn.Conv1d(3, 5, 3, padding=1)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.register_buffer("index", torch.tensor([0, 2, 2]))

    def forward(self, x):
        x = F.relu(self.same(x), inplace=True)
        x = self.up(self.valid(x[:, :, 0]))
        x = x.flatten(2)[:, :, self.index[self.index > 0]].clone()
        x = self.line(x)
        squares = x.matmul(x.transpose(1, 2))
        y = torch.baddbmm(x, squares, x)[:, :4].transpose(1, 2)
        y = self.attention(y, y, y)[0]
        y = torch.einsum("abc,dbc->ad", y, y)
        return torch.tensordot(y, y, dims=([1], [0])) @ y.softmax(1)[0]


def test_counts_of_single_operations():
    module = Operations().eval()
    inputs = torch.zeros(2, 4, 3, 8, 8)
    by_module, by_operator, unsupported = fvcores(module, inputs)
    counted = count(module, (inputs,))
    assert counted.by_module == by_module and counted.by_operator == by_operator
    assert set(unsupported) <= set(counted.unsupported)
    with torch.no_grad(), no_arithmetic():
        shape = module(inputs).shape
    assert shape == module(inputs).shape


@pytest.mark.parametrize("name", FAMILIES)
def test_counts_of_recognizers(name):
    _, adaptive = shared_family(name)
    static = ada3d_fx.specialize(adaptive, adaptive.plan.num_frames, [1] * adaptive.plan.num_stages)
    clip = torch.zeros(1, *FAMILIES[name][2], dtype=torch.float64)
    swin.compute_mask.cache_clear()  # it keeps masks: a count is one of the first run
    by_module, by_operator, unsupported = fvcores(static, clip)
    counted = count(static, (clip,))
    assert counted.by_module == by_module
    assert counted.by_operator == by_operator
    assert counted.unsupported == unsupported


@pytest.mark.parametrize("name", FAMILIES)
def test_products_are_those_of_an_independent_counter(name):
    """torch.utils.flop_counter counts two for a multiply-add, and only products."""
    _, adaptive = shared_family(name)
    static = ada3d_fx.specialize(adaptive, adaptive.plan.num_frames, [1] * adaptive.plan.num_stages)
    clip = torch.zeros(1, *FAMILIES[name][2], dtype=torch.float64)
    counted = count(static, (clip,))
    products = counted.total - sum(counted.by_operator[kind] for kind in NO_PRODUCTS)
    static.requires_grad_(False)  # torch 2.4's counter fails where a module gets a parameter
    # as single products: before torch 2.15 it does not count the fused attention of the CPU
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        static(clip)
    # fvcore reads einsum's cost from a text of four digits (numpy.einsum_path)
    rounded = counted.by_operator["einsum"] * 1e-3
    assert abs(2 * products - counter.get_total_flops()) <= rounded


def test_what_a_model_caches_while_it_is_counted_is_forgotten():
    """Swin keeps attention masks in a cache of a function; a count has none with values in it."""
    swin.compute_mask.cache_clear()
    model, shape = family("swin"), FAMILIES["swin"][2]
    clips = torch.randn(2, *shape, dtype=torch.float64)
    with torch.no_grad():
        wanted = dense(model, clips)
    swin.compute_mask.cache_clear()
    torch.full((10_000_000,), float("nan"))  # what uninitialised memory may hold
    adaptive = ada3d_fx.convert(model, shape)
    ada3d_fx.price_table(adaptive).complete()
    count(model.backbone, (clips,))
    with torch.no_grad():
        assert torch.equal(dense(model, clips), wanted)
        torch.testing.assert_close(adaptive(clips), wanted, rtol=1e-9, atol=1e-9)


class _Remembering(nn.Module):
    """It keeps what it made in the first run."""

    kept = None

    def forward(self, x):
        if self.kept is None:
            self.kept = torch.ones_like(x)
        return x * self.kept


def test_what_a_module_keeps_of_a_count_is_forgotten():
    module, x = _Remembering(), torch.randn(2, 3)
    count(module, (x,))
    assert module.kept is None and torch.equal(module(x), x)


def test_nothing_is_left_behind():
    model = family("x3d").train()
    flags = [m.training for m in model.modules()]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    logger = logging.getLogger("fvcore.nn.jit_analysis")
    level = logger.level
    count(model.backbone, (torch.zeros(1, 3, 8, 32, 32, dtype=torch.float64),))
    assert logger.level == level
    assert [m.training for m in model.modules()] == flags
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert float(torch.ones(3).sum()) == 3


def test_conventions():
    static = ada3d_fx.specialize(ada3d_fx.convert(resnet3d("i3d"), CLIP), 8, [1] * 5)
    clip = torch.zeros(1, *CLIP, dtype=torch.float64)
    whole, bare = count(static, (clip,)), count(static, (clip,), "paper")
    assert bare.total == whole.total - whole.by_operator["batch_norm"]
    with pytest.raises(Ada3DError, match="convention='macs'; there are fvcore, paper"):
        count(static, (clip,), "macs")


def test_elements_of_copies():
    class Copies(nn.Module):
        def forward(self, x):
            return torch.cat([x[:, [0, 1]], x], 1)

    made = elements(Copies(), (torch.zeros(2, 3),), ("aten::cat", "aten::index", "aten::clone"))
    assert made == {"aten::cat": 10, "aten::index": 4}


def test_modules_that_are_not_called_are_named():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            return self.used(x)

    assert count(Half(), (torch.zeros(1, 2),)).uncalled == ("unused",)
