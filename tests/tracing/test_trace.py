"""What a model's code does beside traced operations is traced right, or its module is kept whole."""

import functools
import math
import random
from math import sqrt

import numpy as np
import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

import ada3d_fx
from ada3d_fx import Ada3DError, Policy, UnsupportedModel

CLIP = (3, 4, 6, 6)


@fx.wrap
def wrapped(x):
    return x * 2 if x.shape[0] > 1 else x + x


@functools.lru_cache
def ramp(size):
    return torch.arange(size).float()


class Part(nn.Module):
    def __init__(self, code):
        super().__init__()
        self.code = code
        self.register_buffer("table", torch.arange(8.0))
        self.weight = nn.Parameter(torch.rand(4, 1, 1, 1))
        self.note = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(4, 1, 1, 1)

    def forward(self, x):
        return CODE[self.code](self, x)


class Net(nn.Module):
    def __init__(self, code):
        super().__init__()
        self.conv = nn.Conv3d(3, 4, 3, padding=1)
        self.part = Part(code)
        self.pool, self.fc = nn.AdaptiveAvgPool3d(1), nn.Linear(4, 5)

    def forward(self, x):
        return self.fc(self.pool(self.part(self.conv(x))).flatten(1))


def channels(values):
    return values.view(1, -1, 1, 1, 1)


def statement(part, x):
    F.relu(x, inplace=True)
    return x


def accumulated(part, x):
    total = torch.zeros(4)
    total += x.mean((0, 2, 3, 4)) * 0 + 1
    return x * channels(total)


def filled(part, x):
    values = torch.zeros(1, 4, 1, 1, 1)
    values[:, 0] = x[0, 0, 0, 0, 0] * 0 + 3
    return x + values


def changed_later(part, x):
    values = torch.ones(4)
    x = x + channels(values)
    values[0] = 5
    return x * channels(values)


TRACED = {
    "literal": lambda part, x: x * channels(torch.tensor([0.1, 2.0, 3.0, 4.0])),
    "number": lambda part, x: x * torch.tensor(0.1),
    "typed": lambda part, x: x * channels(torch.tensor([0.1, 2.0, 3.0, 4.0])).to(x),
    "changed_later": changed_later,
    "attribute": lambda part, x: x * part.note,
    "part_of_a_buffer": lambda part, x: x * channels(part.table[2:6]),
    "math": lambda part, x: x / sqrt(x.shape[1]) + math.log(x.shape[1]),
    "wrapped": lambda part, x: wrapped(x),
    "made_on_the_fly": lambda part, x: nn.Hardswish()(x) * part.weight,
    "statement": statement,
}
WHOLE = {
    "accumulated": accumulated,
    "filled": filled,
    "cached": lambda part, x: x * ramp(int(x.shape[4])) if x.shape[1] > 1 else x,
    "torch_draw": lambda part, x: x + torch.rand(4, 1, 1, 1),
    "normal_in_place": lambda part, x: x + torch.empty(1).normal_(),
    "python_draw": lambda part, x: x if random.random() < 0.5 else -x,
    "numpy_draw": lambda part, x: x * np.random.rand(),
}
CODE = {**TRACED, **WHOLE}


def build(code):
    torch.manual_seed(0)
    model = Net(code).double().eval()
    return model, ada3d_fx.convert(model, CLIP), torch.randn(3, *CLIP, dtype=torch.float64)


def same_scores(model, adaptive, x):
    for call in (torch.no_grad, torch.enable_grad):
        for _ in range(2):  # nothing is kept from run to run
            torch.manual_seed(1), random.seed(1), np.random.seed(1)
            with call():
                wanted = model(x.clone())
            torch.manual_seed(1), random.seed(1), np.random.seed(1)
            with call():
                torch.testing.assert_close(adaptive(x.clone()), wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("code", CODE)
def test_scores_are_the_originals(code):
    ramp.cache_clear()
    model, adaptive, x = build(code)
    same_scores(model, adaptive, x)
    whole = any(
        n.op == "call_module" and "dense" in str(n.target)
        for n in adaptive.graph_module.graph.nodes
    )
    assert whole == (code in WHOLE) or code in ("typed", "part_of_a_buffer", "math", "wrapped")
    with torch.no_grad():
        policy = Policy.full(adaptive.plan, 3)
        policy.frames[:, 1], policy.stages[:] = False, False
        static = ada3d_fx.specialize(adaptive, 3, [0])
        if code not in ("torch_draw", "normal_in_place", "python_draw", "numpy_draw"):
            kept = x[:, :, [0, 2, 3]]
            torch.testing.assert_close(
                adaptive(x.clone(), policy), static(kept), rtol=1e-9, atol=1e-9
            )


def test_a_part_of_a_buffer_is_that_of_now():
    model, adaptive, x = build("part_of_a_buffer")
    adaptive.part.table.mul_(3)
    model.part.table.mul_(3)
    same_scores(model, adaptive, x)
    adaptive.load_state_dict({**adaptive.state_dict(), "part.table": torch.ones(8)})
    model.part.table.fill_(1)
    same_scores(model, adaptive, x)


def test_tracing_leaves_nothing_in_caches_of_functions():
    """They would hold tensors without values, which any model gets that asks for the same."""
    ramp.cache_clear()
    _, adaptive, _ = build("cached")
    ada3d_fx.price(adaptive, Policy.full(adaptive.plan, 1))
    assert ramp.cache_info().currsize == 0
    assert torch.equal(ramp(6), torch.arange(6.0))


def test_draws_are_new_in_each_run():
    for code in ("torch_draw", "normal_in_place", "numpy_draw"):
        _, adaptive, x = build(code)
        assert not torch.equal(adaptive(x), adaptive(x))


def test_a_model_whose_own_forward_draws_is_refused():
    class Draws(Net):
        def forward(self, x):
            return super().forward(x + torch.rand(1))

    with pytest.raises(UnsupportedModel, match="draws random numbers"):
        ada3d_fx.convert(Draws("math"), CLIP)


@pytest.mark.filterwarnings("ignore:.*jit.script")
def test_a_scripted_part_is_named():
    model = Net("math")
    model.part = torch.jit.script(nn.ReLU())
    with pytest.raises(Ada3DError, match=r"part is compiled by torch\.jit"):
        ada3d_fx.convert(model, CLIP)


def test_a_class_that_registers_its_subclasses_sees_none():
    seen = []

    class Registering(nn.Module):
        def __init_subclass__(cls, **options):
            seen.append(cls)

        def forward(self, x):
            return x.relu()

    model = Net("math")
    model.part = Registering()
    adaptive = ada3d_fx.convert(model, CLIP)
    assert seen == [] and type(adaptive.part) is Registering
