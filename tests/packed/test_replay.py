"""Replayed passes are the passes, and what cannot be replayed is not. Needs a GPU but for the tables."""

import copy
import gc
import threading
import weakref

import oracle
import pytest
import torch
from families import FAMILIES, dense, on_gpu, shared_family
from models import CLIP, NEEDS_GPU, clips, resnet3d
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models import mobilenet_v2

import ada3d_fx
from ada3d_fx import Policy, inference
from ada3d_fx.inference import infer
from ada3d_fx.packed import replay
from ada3d_fx.packed.packing import common_policy
from ada3d_fx.packed.segments import numbers_kept, numbers_on
from ada3d_fx.packed.time_forms import time_form

EXACT = dict(rtol=1e-9, atol=1e-9)
CPU = torch.device("cpu")


def test_numbers_are_made_once_where_they_are_kept():
    kept = {}
    with numbers_kept(kept):
        first, other = numbers_on([1, 2], CPU), numbers_on([True, False], CPU)
        assert numbers_on([1, 2], CPU) is first and other.dtype == torch.bool
        assert numbers_on(((0, 1), (2, 3)), CPU).shape == (2, 2)
    assert len(kept) == 3 and numbers_on([1, 2], CPU) is not first


def test_a_policy_that_all_clips_share_is_told():
    plan = shared_family("r2plus1d")[1].plan
    one = Policy.random(plan, 1, generator=torch.Generator().manual_seed(0))
    other = Policy.full(plan, 1)
    assert common_policy(Policy.cat([one, one])) == common_policy(one) != common_policy(other)
    assert common_policy(Policy.cat([one, other])) is None
    gates = (one.frames.double(), one.stages.double())
    assert common_policy(Policy(one.frames, one.stages, gates)) is None


def captured(replays):
    return sum(isinstance(p, replay._Pass) for p in replays._passes.values())


def small(model=None):
    """A network in float32 and its clips, where autocast and precision change what is computed."""
    network = ada3d_fx.convert(model or resnet3d().float(), clip_shape=CLIP).cuda()
    return network, clips(1, CLIP).float().cuda()


@NEEDS_GPU
@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_familys_replays_equal_its_oracle(name):
    model, adaptive, moved = on_gpu(name)
    torch.manual_seed(0)
    policies = [Policy.random(adaptive.plan, 1, 0.6, 0.5), Policy.full(adaptive.plan, 1)]
    inputs = [clips(1, FAMILIES[name][2]) * scale for scale in (1, -0.5)]
    with torch.no_grad():
        wanted = [
            [oracle.scores(model, adaptive.plan, x, p, run=dense) for x in inputs] for p in policies
        ]
        for call in range(5):
            for policy, own in zip(policies, wanted):
                got = moved(inputs[call % 2].cuda(), policy.to("cuda"))
                torch.testing.assert_close(got.cpu(), own[call % 2], **EXACT)
    if moved.conversion.is_traced and moved.replays._state.is_plain:
        assert captured(moved.replays) >= 1, name


@NEEDS_GPU
def test_passes_are_captured_when_they_come_again_and_the_latest_ones_are_remembered(monkeypatch):
    monkeypatch.setattr(replay, "REMEMBERED", 3)
    network, x = small()
    one, two = Policy.full(network.plan, 1), Policy.full(network.plan, 2)
    with torch.no_grad():
        for calls in range(1, 5):
            network(x, one)
            assert captured(network.replays) == (calls >= replay.CAPTURED_AT)
        for _ in range(4):
            network(torch.cat([x, x]), two)
        assert captured(network.replays) == 2
        mixed = Policy.cat([one, Policy.random(network.plan, 1, 0.5, 0.0)])
        for _ in range(4):
            network(torch.cat([x, x]), mixed)
        assert captured(network.replays) == 2  # clips that differ come again too seldom
        for frames in (0.25, 0.5, 0.75):
            for _ in range(4):
                network(
                    x, Policy.random(network.plan, 1, frames, 0.0, torch.Generator().manual_seed(0))
                )
        assert len(network.replays._passes) == 3
        torch.testing.assert_close(network(x, one), network(x, one))


@NEEDS_GPU
def test_what_surrounds_a_pass_decides_which_one_it_is():
    network, x = small()

    def calls(n=4):
        with torch.no_grad():
            return [network(x) for _ in range(n)][-1]

    single = calls()
    with torch.autocast("cuda", torch.bfloat16):
        half = calls()
    with torch.autocast("cuda", torch.float16):
        other = calls()
    assert len({single.dtype, half.dtype, other.dtype}) == 3 or not torch.equal(
        half, other.to(half)
    )
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        exact = calls()
    assert not torch.equal(exact, single)
    assert torch.equal(calls(1), single)
    with time_form("separated"):
        calls()
    with torch.inference_mode():
        assert calls().is_inference()
    assert not calls(1).is_inference()
    assert captured(network.replays) == 6


@NEEDS_GPU
def test_under_autocast_changed_weights_are_seen():
    network, x = small()
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
        before = [network(x) for _ in range(4)][-1]
        for parameter in network.parameters():
            parameter.mul_(1.1)
        after = network(x)
    fresh = ada3d_fx.convert(network.plain(), clip_shape=CLIP).cuda()
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
        torch.testing.assert_close(after, fresh(x), rtol=1e-2, atol=1e-2)
    assert not torch.allclose(before, after, rtol=1e-2, atol=1e-2)


@NEEDS_GPU
def test_folded_memory_that_is_left_stays_with_its_graph():
    """Autocast and float32 fold into memory of their own, in turns, and others use what is free."""
    network, x = small()
    with torch.no_grad():
        wanted = [network(x) for _ in range(4)][-1]
        for _ in range(5):
            with torch.autocast("cuda", torch.bfloat16):
                network(torch.cat([x, x, x]))
            others = [torch.full((2**16,), 7.0, device="cuda") for _ in range(200)]
            assert torch.equal(network(x), wanted)
            assert all(bool((o == 7).all()) for o in others)


@NEEDS_GPU
def test_results_are_the_callers_own():
    network, x = small()
    with torch.no_grad():
        made = [network(x * scale) for scale in (1, 2, 3, 4, 5)]
        assert len({float(m.sum()) for m in made}) == 5
        for scale, got in zip((1, 2, 3, 4, 5), made):
            torch.testing.assert_close(network(x * scale), got)


class OnTheHost(nn.Module):
    """Takes a number of the host's in each pass, which changes without a trace."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x):
        return x * self.scale

    def _apply(self, fn, recurse=True):
        return self


class Net(nn.Module):
    def __init__(self, part):
        super().__init__()
        self.conv = nn.Conv3d(3, 4, 3, padding=1)
        self.part, self.fc = part, nn.Linear(4, 5)

    def forward(self, x):
        return self.fc(self.part(self.conv(x).mean((2, 3, 4))))


@NEEDS_GPU
def test_what_the_host_changes_is_computed():
    network, x = small(Net(OnTheHost()).eval())
    with torch.no_grad():
        for call in range(5):
            own = x * (call + 1)
            torch.testing.assert_close(
                network(own).cpu(), network.plain().cpu()(own.cpu()), rtol=1e-2, atol=1e-3
            )
            network.part.scale.add_(1)
        assert not captured(network.replays)
        torch.cuda.synchronize()
        assert torch.ones(3, device="cuda").sum() == 3  # the device is as before


@NEEDS_GPU
def test_what_waits_for_the_device_is_not_captured():
    replays, network, x = replay.Replays(), nn.Identity().eval(), torch.ones(4, device="cuda")
    with torch.no_grad():
        for scale in range(1, 7):
            got = replays(lambda v: v * float(v.sum()), x * scale, network, network)
            assert got.tolist() == [4.0 * scale**2] * 4
    assert not captured(replays)
    network, clip = small()  # and the next one can be
    with torch.no_grad():
        for _ in range(4):
            network(clip)
    assert captured(network.replays) == 1


@NEEDS_GPU
def test_whoever_follows_what_is_computed_sees_it():
    network, x = small()
    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return func(*args, **(kwargs or {}))

    with torch.no_grad():
        for _ in range(4):
            network(x)
        with Watch():
            network(x)
        assert len(seen) > 50
        calls = []
        handle = network.cls_head.register_forward_hook(lambda *args: calls.append(1))
        for _ in range(5):
            network(x)
        handle.remove()
    network(x).sum().backward()
    assert next(network.parameters()).grad is not None


@NEEDS_GPU
def test_threads_and_streams_do_not_mix():
    network, x = small()
    inputs = [x * scale for scale in range(1, 5)]
    with torch.no_grad():
        wanted = [network(own) for own in inputs]
    wrong = []

    def work(number):
        with torch.no_grad(), torch.cuda.stream(torch.cuda.Stream()):
            torch.cuda.current_stream().wait_stream(torch.cuda.default_stream())
            for _ in range(50):
                got = network(inputs[number])
                torch.cuda.current_stream().synchronize()
                if not torch.allclose(got, wanted[number], rtol=1e-3, atol=1e-5):
                    wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and captured(network.replays) == 1


@NEEDS_GPU
def test_memory_goes_with_the_network():
    small()
    gc.collect()
    before = torch.cuda.memory_allocated()
    network, x = small()
    with torch.no_grad():
        for _ in range(4):
            network(x)
    assert captured(network.replays) == 1
    copied = copy.deepcopy(network)
    assert copied.replays is not network.replays and not copied.replays._passes
    gone = weakref.ref(network)
    del network, copied, x
    gc.collect()
    assert gone() is None and torch.cuda.memory_allocated() <= before


@NEEDS_GPU
def test_a_plain_networks_calls_are_replayed():
    torch.manual_seed(0)
    model, images = mobilenet_v2().eval().cuda(), torch.randn(8, 3, 64, 64).cuda()
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for scale in (1, 2, 3, 4):
            torch.testing.assert_close(
                infer(model, images * scale), model(images * scale), rtol=1e-3, atol=1e-3
            )
        made = inference._made[model]
        assert captured(made.replays) == 1
        for last in (images[:5], images.contiguous(memory_format=torch.channels_last)):
            torch.testing.assert_close(infer(model, last), model(last), rtol=1e-3, atol=1e-3)
