"""The forms of a temporal convolution give the same numbers, and none waits for the device."""

import copy
import warnings

import oracle
import pytest
import torch
from families import FAMILIES, dense, shared_family
from models import CLIP, clips, dense_scores, shared_conversion
from torch import nn
from torch.nn import functional as F

import ada3d_fx
from ada3d_fx import Ada3DError, Policy, Segments
from ada3d_fx.packed import time_forms, time_layout
from ada3d_fx.packed.packing import StageGate
from ada3d_fx.packed.segments import as_rows
from ada3d_fx.packed.time_forms import FORM, FORMS, time_form
from ada3d_fx.packed.twins import become_twin

EXACT = dict(rtol=1e-9, atol=1e-9)
OTHERS = [name for name in FORMS if name != "runs"]
CONVOLUTIONS = {
    "3x1x1": dict(kernel_size=(3, 1, 1), padding=(1, 0, 0)),
    "3x3x3, strided": dict(kernel_size=3, padding=1, stride=(2, 2, 1), bias=False),
    "5x3x2, strided": dict(kernel_size=(5, 3, 2), padding=(2, 1, 0), stride=(2, 1, 1)),
    "5x1x1, stride 3": dict(kernel_size=(5, 1, 1), padding=(2, 0, 0), stride=(3, 1, 1)),
    "3x3x3, dilated": dict(kernel_size=3, padding=(2, 1, 2), dilation=(2, 1, 2)),
    "5x1x1, dilated, strided": dict(
        kernel_size=(5, 1, 1), padding=(4, 0, 0), dilation=(2, 1, 1), stride=(2, 1, 1)
    ),
    "5x3x1, same": dict(kernel_size=(5, 3, 1), padding="same"),
    "depthwise": dict(kernel_size=3, padding=1, stride=(1, 2, 2), groups=4),
    "two groups, strided": dict(kernel_size=(3, 1, 1), padding=(1, 0, 0), groups=2, stride=(2, 1, 1)),
    # these have runs in every form
    "even": dict(kernel_size=(2, 1, 1), padding=(1, 0, 0)),
    "odd padding": dict(kernel_size=(5, 1, 1), padding=(3, 0, 0)),
    "one frame, strided": dict(kernel_size=(1, 3, 3), stride=(2, 1, 1)),
    "circular": dict(kernel_size=3, padding=1, padding_mode="circular"),
}  # fmt: skip
RUNS_ONLY = ("even", "odd padding", "one frame, strided", "circular")
TABLES = [
    ((1, 2, 3, 4, 8), (True, False, True, True, True)),
    ((3, 3, 3, 5, 5), (False, True, False, True, True)),
    ((1, 1, 2, 2), (True, True, True, True)),
    ((6, 1, 4, 6), (False, False, False, False)),
    ((7,), (True,)),
    ((5, 5, 5), (True, False, True)),
    ((2, 9, 2), None),
]


def twin(name):
    torch.manual_seed(0)
    conv = nn.Conv3d(4, 8, **CONVOLUTIONS[name]).double()
    become_twin(conv)
    return conv.to(memory_format=torch.channels_last_3d)


def pack_of(lengths):
    return as_rows(torch.randn(sum(lengths), 4, 6, 5, dtype=torch.float64)).requires_grad_()


def one_by_one(conv, rows, lengths, on):
    """Each clip on its own, by the whole kernel or by its centre slice."""
    made = []
    for clip, own in zip(rows.split(list(lengths)), on or (True,) * len(lengths)):
        clip, weight, padding = clip.transpose(0, 2), conv.weight, conv.padding
        if conv.padding_mode != "zeros":
            clip, padding = F.pad(clip, [1] * 6, mode=conv.padding_mode), 0
        elif not own:
            weight = weight[:, :, conv.kernel_size[0] // 2][:, :, None]
            padding = padding if padding == "same" else (0, *padding[1:])
        dilation = conv.dilation if own else (1, *conv.dilation[1:])
        out = F.conv3d(clip, weight, conv.bias, conv.stride, padding, dilation, conv.groups)
        made.append(out.transpose(0, 2))
    return torch.cat(made)


@pytest.mark.parametrize("lengths, on", TABLES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_form_gives_each_clip_its_own_convolution(name, form, lengths, on):
    conv, rows = twin(name), pack_of(lengths)
    gate = None if on is None else StageGate(on)
    with time_form(form):
        made = conv(rows, Segments(lengths), gate)
    wanted = one_by_one(conv, rows, lengths, None if name in RUNS_ONLY else on)
    torch.testing.assert_close(made, wanted, **EXACT)
    assert made.squeeze(2).is_contiguous(memory_format=torch.channels_last)
    factor = torch.randn_like(wanted)
    inputs = [rows, *conv.parameters()]
    got = torch.autograd.grad((made * factor).sum(), inputs)
    for ours, theirs in zip(got, torch.autograd.grad((wanted * factor).sum(), inputs)):
        torch.testing.assert_close(ours, theirs, **EXACT)


@pytest.mark.parametrize("form", OTHERS)
@pytest.mark.parametrize("seed", range(20))
def test_random_tables_and_windows(form, seed):
    generator = torch.Generator().manual_seed(seed)

    def draw(low, high, n=1):
        return torch.randint(low, high + 1, (n,), generator=generator).tolist()

    lengths = tuple(draw(1, 9, draw(1, 8)[0]))
    on = tuple(bool(bit) for bit in draw(0, 1, len(lengths)))
    (reach,), (dilation,), (stride,), (groups,) = draw(1, 3), draw(1, 3), draw(1, 3), draw(1, 2)
    conv = nn.Conv3d(
        4, 6, (2 * reach + 1, 3, 1), (stride, 1, 1), (reach * dilation, 1, 0), (dilation, 1, 1), groups
    ).double()  # fmt: skip
    become_twin(conv)
    rows = pack_of(lengths)
    with time_form(form):
        made = conv(rows, Segments(lengths), StageGate(on))
    torch.testing.assert_close(made, one_by_one(conv, rows, lengths, on), **EXACT)


@pytest.mark.parametrize("form", OTHERS)
@pytest.mark.parametrize(
    "name", ["3x1x1", "3x3x3, strided", "depthwise", "5x1x1, dilated, strided"]
)
def test_gates_have_the_gradients_of_runs(name, form):
    lengths, on = (1, 3, 3, 5, 5, 5), (True, False, True, True, False, True)
    conv, rows = twin(name), pack_of(lengths)
    gradients = {}
    for each in ("runs", form):
        soft = torch.tensor(on).double().requires_grad_()
        with time_form(each):
            made = conv(rows, Segments(lengths), StageGate(on, soft))
        (gradients[each],) = torch.autograd.grad(made.sin().sum(), soft)
    assert gradients["runs"][1:].all()  # a clip of one frame has no side taps
    torch.testing.assert_close(gradients[form], gradients["runs"], **EXACT)


def convolutions(call):
    """How many convolutions a call takes."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        call()
    return sum(event.name == "aten::convolution" for event in profiler.events())


@pytest.mark.parametrize(
    "lengths, on, runs, other",
    [
        ((1, 2, 3, 4, 4, 5), (True, True, False, False, True, True), 5, 2),
        ((2, 3, 4), (True, True, True), 3, 1),
        ((4, 4, 4), (True, True, True), 1, 1),
        ((2, 3, 4), (False, False, False), 1, 1),
        ((4, 4, 5), (True, True, False), 2, 2),
    ],
)
@pytest.mark.parametrize("name", ["3x1x1", "depthwise"])
def test_a_form_takes_two_convolutions_at_most(name, lengths, on, runs, other):
    conv, rows = twin(name), pack_of(lengths)
    for form in FORMS:
        with time_form(form):
            count = convolutions(lambda: conv(rows, Segments(lengths), StageGate(on)))
            forms = time_layout.time_layout(form, lengths, on, time_layout.Window(1, 1, 1))
        assert count == (runs if form == "runs" else other), form
        assert (forms is None) == (runs <= other)  # else nothing is copied for it


def ragged(plan, n, seed):
    torch.manual_seed(seed)
    return Policy.cat([Policy.random(plan, n, torch.rand(n), torch.rand(n)), Policy.full(plan, 1)])


# not those that run densely, nor C3D twice
PACKED = [name for name in sorted(FAMILIES) if name not in ("swin", "mvit", "c3d_long")]


@pytest.mark.parametrize("form", OTHERS)
@pytest.mark.parametrize("name", PACKED)
def test_a_family_equals_its_oracle_in_every_form(name, form):
    model, adaptive = shared_family(name)
    x, policy = clips(4, FAMILIES[name][2]), ragged(adaptive.plan, 3, 0)
    with torch.no_grad():
        wanted = oracle.scores(model, adaptive.plan, x, policy, run=dense)
        with time_form(form):
            folded = adaptive(x, policy)
            with torch.enable_grad():
                unfolded = adaptive(x, policy)
            full = adaptive(x)
        torch.testing.assert_close(full, dense(model, x), **EXACT)
    torch.testing.assert_close(folded, wanted, **EXACT)
    torch.testing.assert_close(unfolded, wanted, **EXACT)


@pytest.mark.parametrize("form", OTHERS)
@pytest.mark.parametrize("name", ["i3d_strided", "i3d_stage_strides", "i3d_3x3x3", "slowonly"])
@pytest.mark.parametrize("seed", range(3))
def test_laws_1_to_3_under_random_policies(name, form, seed):
    model, adaptive = shared_conversion(name)
    x, policy = clips(5, seed=seed), ragged(adaptive.plan, 4, seed)
    with torch.no_grad(), time_form(form):
        packed = adaptive(x, policy)
        for i in range(5):
            alone = adaptive(x[i : i + 1], policy[i])
            torch.testing.assert_close(packed[i : i + 1], alone, **EXACT)
        torch.testing.assert_close(adaptive(x), dense_scores(model, x), **EXACT)
    wanted = oracle.scores(model, adaptive.plan, x, policy)
    torch.testing.assert_close(packed, wanted, **EXACT)


@pytest.mark.parametrize("form", OTHERS)
@pytest.mark.parametrize("name", ["i3d_strided", "slowonly"])
def test_a_network_has_the_gradients_of_runs(name, form):
    _, adaptive = shared_conversion(name)
    policy = ragged(adaptive.plan, 3, 1)
    gradients = {}
    for each in ("runs", form):
        x = clips(4).requires_grad_()
        inputs = [x, *(p for p in adaptive.parameters() if p.requires_grad)]
        with time_form(each):
            gradients[each] = torch.autograd.grad(adaptive(x, policy).sin().sum(), inputs)
    for ours, theirs in zip(gradients[form], gradients["runs"]):
        torch.testing.assert_close(ours, theirs, **EXACT)


@pytest.mark.parametrize("form", OTHERS)
def test_blocks_that_run_again_in_backward_take_the_form_of_forward(form):
    """Also where the form is no longer asked for then, as in the threads of a GPU's backward."""
    model = copy.deepcopy(shared_conversion("slowonly")[0]).train()
    adaptive = ada3d_fx.convert(model, CLIP, checkpointing=True).train()
    x, policy = clips(4).requires_grad_(), ragged(adaptive.plan, 3, 1)
    gradients = {}
    for each in ("runs", form):
        torch.manual_seed(0)  # of dropout
        with time_form(each):
            scores = adaptive(x, policy).sin().sum()
        (once,) = torch.autograd.grad(scores, x, retain_graph=True)
        (gradients[each],) = torch.autograd.grad(scores, x)
        assert torch.equal(once, gradients[each])
    torch.testing.assert_close(gradients[form], gradients["runs"], **EXACT)


@pytest.mark.skipif(
    torch.__version__ < "2.5", reason="the compiler of 2.4 fails (docs/how_it_works.md)"
)
@pytest.mark.parametrize("form", OTHERS)
def test_a_compiled_network_takes_the_form_without_a_warning(form):
    _, adaptive = shared_conversion("slowonly")
    x, policy = clips(3), ragged(adaptive.plan, 2, 0)
    torch._dynamo.reset()
    compiled = torch.compile(adaptive, backend="eager")
    with torch.no_grad():
        with time_form(form), warnings.catch_warnings():
            warnings.simplefilter("error")
            made = compiled(x, policy)
        torch.testing.assert_close(made, adaptive(x, policy), **EXACT)
    torch._dynamo.reset()


@pytest.mark.parametrize("form", OTHERS)
def test_fused_convolutions_take_the_form_that_is_asked_for(form):
    """In float32 without gradients, oneDNN's convolutions run by runs; a form is not passed over."""
    model = ada3d_fx.convert(nn.Sequential(
        nn.Conv3d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 2),
    ), clip_shape=(3, 4, 8, 8))  # fmt: skip
    x, policy = torch.randn(4, 3, 4, 8, 8), Policy.random(model.plan, 4, 0.5, 0.5)
    taken = time_layout.remembered_layout.cache_info
    with torch.no_grad():
        before = taken()
        runs = model(x, policy)
        assert taken() == before
        with time_form(form):
            torch.testing.assert_close(model(x, policy), runs, rtol=1e-4, atol=1e-5)
        assert taken() != before


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["slowfast", "x3d"])
def test_scores_under_autocast_are_near_those_in_float32(name, form):
    model, _ = shared_family(name)
    adaptive = ada3d_fx.convert(copy.deepcopy(model).float(), clip_shape=FAMILIES[name][2])
    x, policy = clips(4, FAMILIES[name][2]).float(), ragged(adaptive.plan, 3, 0)
    for grad in (False, True):  # folded, and not
        with torch.set_grad_enabled(grad), time_form(form):
            wanted = adaptive(x, policy)
            with torch.autocast("cpu", torch.bfloat16):
                made = adaptive(x, policy)
        assert 0 < (made - wanted).abs().max() < 0.05 * wanted.abs().max()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["3x1x1", "3x3x3, strided", "depthwise"])
def test_a_convolution_under_autocast_has_near_gradients(name, form):
    lengths, on = (1, 3, 3, 5, 5, 5), (True, False, True, True, False, True)
    conv = twin(name).float()
    rows = pack_of(lengths).detach().float().requires_grad_()
    factor, found = torch.tensor(1.0), []
    for low in (False, True):
        with time_form(form), torch.autocast("cpu", torch.bfloat16, enabled=low):
            made = conv(rows, Segments(lengths), StageGate(on))
        assert made.dtype == (torch.bfloat16 if low else torch.float32)
        factor = factor if low else torch.randn_like(made).bfloat16().float()
        gradients = torch.autograd.grad((made.float() * factor).sum(), [rows, *conv.parameters()])
        found.append([made, *gradients])
    for wanted, ours in zip(*found):
        assert (ours.float() - wanted).abs().max() < 0.02 * wanted.abs().max()


def test_an_unknown_form_is_told_and_the_former_one_is_back():
    message = "time_form: 'fast'; there are runs, gathered, separated"
    with pytest.raises(Ada3DError, match=message), time_form("fast"):
        pass
    assert set(FORM.values()) <= set(FORMS)
    cpu = torch.device("cpu")
    with time_form("gathered"):
        with time_form("separated"):
            assert time_forms.form_on(cpu) == "separated"
        assert time_forms.form_on(cpu) == "gathered"
    assert time_forms.form_on(cpu) == "runs" == time_forms.form_on(torch.device("meta"))
