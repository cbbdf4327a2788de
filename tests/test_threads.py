"""Threads: conversion, prices and inference at once; each gives what it gives alone.

Tests run each of them in a loop while another works, as often as it takes for the races that were
there before to show up.
"""

import builtins
import copy
import functools
import math
import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch
import torch.utils.checkpoint
from torch import fx, nn

import ada3d_fx
from ada3d_fx import Policy
from ada3d_fx.cost.count import count

CLIP = (3, 4, 6, 6)


@functools.lru_cache
def ramp(size):
    return 1 + torch.arange(size).double() * torch.ones(size).double()


@fx.wrap
def doubled(x):
    return x * 2 if x.shape[0] > 0 else x


class Block(nn.Module):
    """What tracing meets: checkpoints, functions of math, wrapped ones, caches."""

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv3d(channels, channels, (3, 1, 1), padding=(1, 0, 0), bias=False)
        self.norm = nn.BatchNorm3d(channels)
        self.weight = nn.Parameter(torch.rand(channels, 1, 1, 1))

    def inner(self, x):
        return self.norm(self.conv(x)).relu() * self.weight

    def forward(self, x):
        again = functools.partial(torch.utils.checkpoint.checkpoint, use_reentrant=False)
        y = again(self.inner, x) if x.requires_grad else self.inner(x)
        return doubled(y) / math.sqrt(x.shape[1]) + x


class Cached(nn.Module):
    def forward(self, x):
        return x * ramp(int(x.shape[4])) if x.shape[1] > 1 else x


class Net(nn.Module):
    def __init__(self, channels, blocks):
        super().__init__()
        self.stem = nn.Conv3d(3, channels, 3, padding=1)
        self.layers = nn.Sequential(*(Block(channels) for _ in range(blocks)), Cached())
        self.pool, self.fc = nn.AdaptiveAvgPool3d(1), nn.Linear(channels, 5)

    def forward(self, x):
        return self.fc(self.pool(self.layers(self.stem(x))).flatten(1))


def nets(n):
    torch.manual_seed(0)
    return [Net(4 + i, 1 + i % 3).double().eval() for i in range(n)]


def clips(n):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, *CLIP, dtype=torch.float64, generator=generator)


def globals_that_fx_replaces():
    """What torch.fx and this project's tracing replace, and functions of this file."""
    owners = (nn.Module, math, random, torch.utils.checkpoint, builtins, sys.modules[__name__])
    return [dict(vars(owner)) for owner in owners]


@pytest.fixture(autouse=True)
def quick_switches():
    """Threads take turns a thousand times as often, and leave all globals as they were."""
    interval, before = sys.getswitchinterval(), globals_that_fx_replaces()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)
    for old, new in zip(before, globals_that_fx_replaces()):
        assert [
            k for k in old | new if old.get(k) is not new.get(k) and k != "__warningregistry__"
        ] == []


def at_once(*calls):
    """Run functions in a thread each, started together; return what they give."""
    barrier = threading.Barrier(len(calls))

    def run(call):
        barrier.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [f.result() for f in [pool.submit(run, call) for call in calls]]


@contextmanager
def meanwhile(*calls):
    """Run functions over and over, in a thread each; what they raise is raised here."""
    done, started = threading.Event(), threading.Barrier(len(calls) + 1)

    def loop(call):
        call()
        started.wait()
        while not done.is_set():
            call()

    with ThreadPoolExecutor(len(calls)) as pool:
        running = [pool.submit(loop, call) for call in calls]
        started.wait(30)
        try:
            yield
        finally:
            done.set()
        for future in running:
            future.result()


def gives(function, wanted):
    def check():
        given = function()
        assert torch.equal(given, wanted), (given, wanted)

    return check


def scores(network, x, *policy):
    def run():
        with torch.no_grad():
            return network(x, *policy)

    return run


def test_conversions_at_once_are_those_one_after_the_other():
    models, x = nets(3), clips(2)
    wanted = [ada3d_fx.convert(model, CLIP) for model in models]
    made = at_once(*(functools.partial(ada3d_fx.convert, m, CLIP) for m in models))
    for one, other in zip(made, wanted):
        assert str(one.plan) == str(other.plan)
        assert one.graph_module.code == other.graph_module.code
        assert torch.equal(scores(one, x)(), scores(other, x)())


def test_conversion_disturbs_no_inference_and_no_training():
    others, x = nets(3), clips(2)
    plain, adaptive = others[0], ada3d_fx.convert(others[1], CLIP)
    policy = Policy.random(adaptive.plan, 2, generator=torch.Generator().manual_seed(0))

    def gradient():
        (made,) = torch.autograd.grad(
            others[2](x.clone().requires_grad_()).sum(), others[2].fc.weight
        )
        return made

    loops = (
        gives(scores(plain, x), scores(plain, x)()),
        gives(scores(adaptive, x, policy), scores(adaptive, x, policy)()),
        gives(gradient, gradient()),
    )
    (model,) = nets(1)
    with meanwhile(*loops):
        ada3d_fx.convert(model, CLIP)


def test_prices_at_once_are_those_one_after_the_other():
    adaptives = [ada3d_fx.convert(model, CLIP) for model in nets(2)]
    fresh = copy.deepcopy(adaptives)
    policies = [
        Policy.random(a.plan, 8, generator=torch.Generator().manual_seed(0)) for a in adaptives
    ]
    wanted = [ada3d_fx.price(a, policy) for a, policy in zip(adaptives, policies)]
    calls = [functools.partial(ada3d_fx.price, a, policy) for a, policy in zip(fresh, policies)]
    given = at_once(*calls, *calls)
    assert all(torch.equal(one, other) for one, other in zip(given, wanted + wanted))


def test_pricing_disturbs_no_inference_and_no_training():
    torch.full((1_000_000,), float("nan"))  # what memory without values may hold
    plain, model, x = *nets(2), clips(2)
    adaptive = ada3d_fx.convert(model, CLIP)
    policy = Policy.random(adaptive.plan, 2, generator=torch.Generator().manual_seed(0))
    weight = adaptive.fc.weight
    everything = {k: v.clone() for k, v in adaptive.state_dict().items()}

    def gradient():
        return torch.autograd.grad(adaptive(x, policy).sum(), weight)[0]

    loops = (
        gives(scores(adaptive, x, policy), scores(adaptive, x, policy)()),
        gives(scores(plain, x), scores(plain, x)()),
        gives(gradient, gradient()),
    )
    table = ada3d_fx.price_table(adaptive).complete()
    with meanwhile(*loops):
        adaptive.__dict__.pop("price_tables")
        again = ada3d_fx.price_table(adaptive).complete()
    assert torch.equal(again.stages, table.stages) and torch.equal(again.base, table.base)
    assert all(torch.equal(v, everything[k]) for k, v in adaptive.state_dict().items())


class Interrupted(nn.Module):
    """Its forward lets another thread run ``work`` to the end."""

    def __init__(self, work):
        super().__init__()
        self.work = work

    def forward(self, x):
        at_once(self.work)
        return x


def test_in_the_middle_of_a_conversion_another_thread_finds_all_as_it_was():
    (plain, model), x = nets(2), clips(2)
    infer, before, seen = scores(plain, x), nn.Module.__call__, []
    wanted = infer()

    def work():
        ramp.cache_clear()
        seen.append(torch.equal(infer(), wanted) and nn.Module.__call__ is before)
        inputs = x.clone().requires_grad_()
        plain(inputs).sum().backward()  # its checkpoint runs again in backward

    model.layers.append(Interrupted(work))
    model.layers.insert(0, Cached())
    ada3d_fx.convert(model, CLIP)
    assert len(seen) >= 2 and all(seen)


def test_in_the_middle_of_a_count_another_thread_finds_all_as_it_was():
    """Also what functions keep in caches, and the hooks and attributes of the counted module."""
    model, x, seen = Cached(), clips(1), []
    infer, wanted = scores(model, x), x * (1 + torch.arange(6))
    counted = nn.Sequential(model, nn.Linear(6, 2).double().train())
    attributes = [dict(vars(m)) for m in counted.modules()]

    def work():
        seen.append(torch.equal(infer(), wanted))
        seen.append([dict(vars(m)) for m in counted[:2].modules()][1:] == attributes[1:])
        seen.append(
            not any(m._forward_hooks or m._forward_pre_hooks for m in counted[:2].modules())
        )

    ramp.cache_clear()
    torch.full((1_000_000,), float("nan"))  # what memory without values may hold
    count(nn.Sequential(*counted, Interrupted(work)), (x,))
    assert len(seen) == 3 and all(seen), seen


def test_one_network_scores_under_many_policies_at_once():
    adaptive, x = ada3d_fx.convert(nets(3)[2], CLIP), clips(2)
    policies = [
        Policy.random(adaptive.plan, 2, generator=torch.Generator().manual_seed(i))
        for i in range(16)
    ]
    wanted = [scores(adaptive, x, policy)() for policy in policies]
    for _ in range(3):
        given = at_once(*(scores(adaptive, x, policy) for policy in policies))
        assert all(torch.equal(one, other) for one, other in zip(given, wanted))
