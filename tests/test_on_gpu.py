"""On a GPU: every family equals the oracle on the CPU, in every form, and a pass waits for nothing.

Skipped where there is no GPU; docs/performance.md tells on which one it was seen.
"""

import copy

import oracle
import pytest
import torch
from families import FAMILIES, dense, on_gpu, shared_family
from models import CLIP, NEEDS_GPU, clips, resnet3d

import ada3d_fx
from ada3d_fx import Policy
from ada3d_fx.cost.executed import executed
from ada3d_fx.cost.selector import selector_price
from ada3d_fx.learn.backbones import SmallConvNet
from ada3d_fx.learn.selector import SelectionNetwork
from ada3d_fx.packed.fused_operations import fused_operations_work
from ada3d_fx.packed.time_forms import FORMS, time_form

pytestmark = NEEDS_GPU
EXACT = dict(rtol=1e-9, atol=1e-9)


def ragged(plan, n):
    torch.manual_seed(0)
    policy = Policy.random(plan, n, torch.rand(n), torch.rand(n))
    return Policy.cat([policy, Policy.full(plan, 1)])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_family_equals_its_oracle(name, form):
    model, adaptive, moved = on_gpu(name)
    x, policy = clips(4, FAMILIES[name][2]), ragged(adaptive.plan, 3)
    with torch.no_grad(), time_form(form):
        got = moved(x.cuda(), policy)
        wanted = oracle.scores(model, adaptive.plan, x, policy, run=dense)
        torch.testing.assert_close(got.cpu(), wanted, **EXACT)
        torch.testing.assert_close(moved(x.cuda()).cpu(), dense(model, x), **EXACT)
        shared = moved(x.cuda(), policy, torch.tensor([0, 0, 3, 1]))
        wanted = oracle.scores(model, adaptive.plan, x[[0, 0, 3, 1]], policy, run=dense)
        torch.testing.assert_close(shared.cpu(), wanted, **EXACT)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_familys_ragged_gradients_are_the_cpus(name, form):
    _, adaptive, moved = on_gpu(name)
    x, policy = clips(3, FAMILIES[name][2]), ragged(adaptive.plan, 2)
    weights = clips(3, (5, 1, 1, 1)).flatten(1)
    adaptive.zero_grad()
    (adaptive(x, policy) * weights).sum().backward()
    with time_form(form):
        (moved(x.cuda(), policy) * weights.cuda()).sum().backward()
    gradients = {path: p.grad for path, p in adaptive.named_parameters()}
    adaptive.zero_grad()
    for path, parameter in moved.named_parameters():
        wanted = gradients[path]
        assert (parameter.grad is None) == (wanted is None), path
        if wanted is not None:
            error = (parameter.grad.cpu() - wanted).abs().max()
            assert error <= 1e-6 * wanted.abs().max() + 1e-12, path


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["slowfast", "r2plus1d", "csn_ir", "x3d", "c3d", "tpn", "custom"])
def test_a_forward_pass_waits_for_nothing(name, form):
    """CUDA's own check; test_waiting.py asks the same of torch's meta device."""
    _, adaptive, moved = on_gpu(name)
    x, policy = clips(4, FAMILIES[name][2]).cuda(), ragged(adaptive.plan, 3)
    with torch.no_grad(), time_form(form):
        moved(x, policy)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            moved(x, policy)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def off(got, wanted):
    return float((got.cpu().double() - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_fused_convolutions_give_float64s_scores(name, form):
    """In float32, with and without TF32, and in half types, where cuDNN fuses what it can."""
    model, adaptive = shared_family(name)
    x, policy = clips(4, FAMILIES[name][2]), ragged(adaptive.plan, 3)
    moved = ada3d_fx.convert(copy.deepcopy(model).float(), clip_shape=FAMILIES[name][2]).cuda()
    with torch.inference_mode(), time_form(form):
        wanted = adaptive(x, policy)
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            assert off(moved(x.float().cuda(), policy), wanted) < 1e-4
        assert off(moved(x.float().cuda(), policy), wanted) < 2e-2
        with torch.backends.cudnn.flags(enabled=False):
            assert off(moved(x.float().cuda(), policy), wanted) < 1e-4


def test_convolutions_are_fused():
    """Else the test above could not fail."""
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert fused_operations_work(dtype, False, "cuda")
    moved = ada3d_fx.convert(resnet3d().float(), clip_shape=CLIP).cuda()
    x = clips(4, CLIP).float().cuda()
    for lower in (False, True):
        with torch.no_grad(), torch.autocast("cuda", dtype=torch.bfloat16, enabled=lower):
            moved(x)
            with torch.profiler.profile() as profiler:
                moved(x)
        names = {event.key for event in profiler.key_averages()}
        assert {"aten::cudnn_convolution_relu", "aten::cudnn_convolution_add_relu"} <= names


@pytest.mark.parametrize("form", FORMS)
def test_autocast_has_float32s_scores_within_hundredths(form):
    moved = ada3d_fx.convert(resnet3d().float(), clip_shape=CLIP).cuda()
    x, policy = clips(4, CLIP).float().cuda(), ragged(moved.plan, 3)
    with torch.no_grad():
        wanted = moved(x, policy)
        with time_form(form), torch.autocast("cuda", dtype=torch.bfloat16):
            got = moved(x, policy)
    assert (got.float() - wanted).abs().max() <= 0.05 * wanted.abs().max()


def test_memory_that_is_changed_and_moved_back():
    """Weights that change on the GPU are used there, and on the CPU after the network is moved."""
    _, _, moved = on_gpu("r2plus1d")
    x, policy = clips(3, FAMILIES["r2plus1d"][2]), ragged(moved.plan, 2)
    with torch.no_grad():
        before = moved(x.cuda(), policy)
        for parameter in moved.parameters():
            parameter.mul_(1.5)
        after = moved(x.cuda(), policy)
        assert (after - before).abs().max() > 1e-6
        torch.testing.assert_close(moved.cpu()(x, policy), after.cpu(), **EXACT)


def test_the_selection_network_decides_as_on_the_cpu():
    torch.manual_seed(0)
    plan = shared_family("r2plus1d")[1].plan
    selector = SelectionNetwork(plan, SmallConvNet((4, 6)), input_size=16).double().eval()
    x = clips(4, FAMILIES["r2plus1d"][2])
    with torch.no_grad():
        wanted = selector(x)
        got = selector.cuda()(x.cuda())
    torch.testing.assert_close(got.frame_logits.cpu(), wanted.frame_logits, **EXACT)
    torch.testing.assert_close(got.stage_logits.cpu(), wanted.stage_logits, **EXACT)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_prices_are_the_cpus(name):
    _, adaptive, moved = on_gpu(name)
    policy = ragged(adaptive.plan, 3)
    assert torch.equal(ada3d_fx.price(moved, policy.to("cuda")), ada3d_fx.price(adaptive, policy))
    assert executed(moved, policy) == executed(adaptive, policy)
    assert {value.device.type for value in moved.parameters()} == {"cuda"}


def test_a_selection_networks_price_is_the_cpus():
    plan = shared_family("r2plus1d")[1].plan
    selector = SelectionNetwork(plan, SmallConvNet((4, 6)), input_size=16, num_classes=5).eval()
    wanted = selector_price(selector, plan.clip_shape, classify=True)
    assert selector_price(selector.cuda(), plan.clip_shape, classify=True) == wanted
