"""Laws 1-3, 5, 7, 8 of the design on real MMAction2 ResNet3d recognizers, against the slow
oracle."""

import copy
import itertools
import pickle

import families
import oracle
import pytest
import torch
from models import CLIP, RESNETS, clips, dense_scores, named, resnet3d, shared_conversion
from torch import nn

import ada3d_fx
from ada3d_fx import Ada3DError, Policy, UnsupportedModel
from ada3d_fx.learn.losses import with_dropped

EXACT = dict(rtol=1e-9, atol=1e-9)
FAMILY = [*RESNETS, "slowonly"]


def converted(name, shape=CLIP, **options):
    model = named(name)
    return model, ada3d_fx.convert(model, clip_shape=shape, **options)


def every_length(plan, stages=None):
    """One clip for each kept length, frames and stages drawn at random."""
    frames = torch.zeros(plan.num_frames, plan.num_frames, dtype=torch.bool)
    for length in range(1, plan.num_frames + 1):
        frames[length - 1, torch.randperm(plan.num_frames)[:length]] = True
    bits = torch.rand(plan.num_frames, plan.num_stages) < 0.5 if stages is None else stages
    return Policy(frames, bits)


@pytest.mark.parametrize("name", FAMILY)
def test_full_policy_is_the_original(name):
    model, adaptive = shared_conversion(name)
    x = clips(3)
    with torch.no_grad():
        expected = dense_scores(model, x)
        torch.testing.assert_close(adaptive(x), expected, **EXACT)
    torch.testing.assert_close(adaptive(x), expected, **EXACT)  # with gradients: nothing is folded


@pytest.mark.parametrize("name", FAMILY)
def test_ragged_batch_is_clip_by_clip_and_specialize_and_oracle(name):
    model, adaptive = shared_conversion(name)
    policy = every_length(adaptive.plan)
    x = clips(len(policy))
    with torch.no_grad():
        batch = adaptive(x, policy)
        alone = torch.cat([adaptive(x[i : i + 1], policy[i]) for i in range(len(x))])
        naive = oracle.scores(model, adaptive.plan, x, policy)
        static = torch.cat(
            [
                ada3d_fx.specialize(adaptive, int(p.num_frames), p.stages[0].tolist())(
                    c[None][:, :, p.frames[0]]
                )
                for c, p in zip(x, (policy[i] for i in range(len(x))))
            ]
        )
    torch.testing.assert_close(batch, naive, **EXACT)
    torch.testing.assert_close(alone, naive, **EXACT)
    torch.testing.assert_close(static, naive, **EXACT)
    torch.testing.assert_close(adaptive(x, policy), naive, **EXACT)


def test_every_combination_of_lengths_and_stages_in_one_batch():
    model, adaptive = converted("i3d_r18", shape=(3, 4, 32, 32))
    plan = adaptive.plan
    bits = [
        (u, v)
        for u in itertools.product([False, True], repeat=4)
        if any(u)
        for v in itertools.product([False, True], repeat=plan.num_stages)
    ]
    policy = Policy(torch.tensor([u for u, _ in bits]), torch.tensor([v for _, v in bits]))
    x = clips(2, (3, 4, 32, 32)).repeat(len(bits) // 2 + 1, 1, 1, 1, 1)[: len(bits)]
    checked = torch.randperm(len(bits))[:60]
    with torch.no_grad():
        batch = adaptive(x, policy)
        torch.testing.assert_close(
            batch[checked], oracle.scores(model, plan, x[checked], policy[checked]), **EXACT
        )


@pytest.mark.parametrize("kept", ["first", "last", "middle", "all"])
@pytest.mark.parametrize("on", [True, False])
def test_edges_of_a_clip(kept, on):
    model, adaptive = shared_conversion("i3d_pool2")
    places = {"first": [0], "last": [7], "middle": [3], "all": range(8)}
    frames = torch.zeros(2, 8, dtype=torch.bool)
    frames[:, list(places[kept])] = True
    policy = Policy(frames, torch.full((2, adaptive.plan.num_stages), on))
    x = clips(2)
    with torch.no_grad():
        expected = oracle.scores(model, adaptive.plan, x, policy)
        torch.testing.assert_close(adaptive(x, policy), expected, **EXACT)


@pytest.mark.parametrize("frames", [5, 7, 13])
def test_lengths_that_strides_do_not_divide(frames):
    shape = (3, frames, 32, 32)
    model, adaptive = converted("i3d_strided", shape)
    assert adaptive.plan.frame_unit == 1
    policy = every_length(adaptive.plan)
    x = clips(frames, shape)
    with torch.no_grad():
        expected = oracle.scores(model, adaptive.plan, x, policy)
        torch.testing.assert_close(adaptive(x, policy), expected, **EXACT)


def test_order_of_the_batch_does_not_matter():
    _, adaptive = shared_conversion("i3d")
    policy, x = every_length(adaptive.plan), clips(8)
    shuffled = torch.randperm(8)
    with torch.no_grad():
        torch.testing.assert_close(
            adaptive(x[shuffled], policy[shuffled]), adaptive(x, policy)[shuffled], **EXACT
        )


def test_other_sizes_than_the_plans():
    model, adaptive = shared_conversion("i3d")
    x = clips(2, (3, 8, 48, 40))
    with torch.no_grad():
        torch.testing.assert_close(adaptive(x), dense_scores(model, x), **EXACT)


def test_float32_and_bfloat16_autocast():
    model, adaptive = converted("i3d")
    x, policy = clips(3).float(), Policy.random(adaptive.plan, 3)
    exact = oracle.scores(model, adaptive.plan, x.double(), policy).float()
    adaptive.float()
    scale = exact.abs().max()
    with torch.no_grad():
        assert (adaptive(x, policy) - exact).abs().max() < 1e-4 * scale
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = adaptive(x, policy)
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).abs().max() < 0.1 * scale


def test_state_dict_is_the_originals_both_ways():
    model, adaptive = converted("nonlocal")
    other = resnet3d("nonlocal", seed=7)
    assert list(adaptive.state_dict()) == list(model.state_dict())
    assert [n for n, _ in adaptive.named_parameters()] == [n for n, _ in model.named_parameters()]
    adaptive.load_state_dict(other.state_dict(), strict=True)
    model.load_state_dict(adaptive.state_dict(), strict=True)
    x = clips(2)
    with torch.no_grad():
        torch.testing.assert_close(adaptive(x), dense_scores(other, x), **EXACT)
        torch.testing.assert_close(dense_scores(model, x), dense_scores(other, x), **EXACT)


def test_names_of_modules_are_the_originals():
    model, adaptive = shared_conversion("i3d")
    ours = [name for name, _ in adaptive.named_modules() if name]
    assert ours == [
        n for n, _ in model.named_modules() if n.startswith(("backbone", "cls_head")) and n
    ]


@pytest.mark.parametrize(
    "trip",
    [copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a)), ada3d_fx.convert],
    ids=["deepcopy", "pickle", "convert twice"],
)
def test_round_trips_keep_behaviour(trip):
    _, adaptive = converted("i3d_strided", stages="block")
    adaptive.backbone.conv1.conv.weight.data.mul_(1.5)
    again = trip(adaptive) if trip is not ada3d_fx.convert else trip(adaptive, CLIP, "block")
    policy, x = every_length(adaptive.plan), clips(8)
    with torch.no_grad():
        torch.testing.assert_close(again(x, policy), adaptive(x, policy), **EXACT)
        again.backbone.conv1.conv.weight.mul_(2)
        assert not torch.allclose(again(x, policy), adaptive(x, policy))
    assert again.plan == adaptive.plan
    assert not any(module.training for module in again.modules())


def test_torch_save_round_trip(tmp_path):
    _, adaptive = converted("i3d")
    torch.save(adaptive, tmp_path / "adaptive.pt")
    again = torch.load(tmp_path / "adaptive.pt", weights_only=False)
    with torch.no_grad():
        torch.testing.assert_close(again(clips(1)), adaptive(clips(1)), **EXACT)


def test_the_model_is_not_changed():
    model = resnet3d("nonlocal")
    before = copy.deepcopy(model)
    adaptive = ada3d_fx.convert(model, CLIP)
    adaptive.backbone.conv1.conv.weight.data.zero_()
    assert str(model) == str(before)
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), before.state_dict().values())
    )


# ---- training behaviour (law 7)


def statistics(model):
    return {n: b.clone() for n, b in model.named_buffers() if "running" in n}


@pytest.mark.parametrize("name", ["i3d", "i3d_strided", "nonlocal"])
def test_training_step_of_a_full_pack_is_the_dense_one(name):
    model, adaptive = converted(name)
    for module in (model, adaptive):
        module.train()
    for head in (model.cls_head, adaptive.cls_head):
        head.dropout.eval()
    x = clips(3)
    dense_scores(model, x).square().sum().backward()
    adaptive(x).square().sum().backward()
    for (key, a), b in zip(model.named_parameters(), adaptive.parameters()):
        torch.testing.assert_close(
            b.grad, a.grad, rtol=1e-7, atol=1e-9, msg=lambda m, key=key: f"{key}: {m}"
        )
    ours = statistics(adaptive)
    for key, value in statistics(model).items():
        torch.testing.assert_close(ours[key], value, **EXACT)


def test_gradients_of_a_ragged_batch_are_the_oracles():
    model, adaptive = converted("i3d_r18")
    policy, x = every_length(adaptive.plan), clips(8)
    adaptive(x, policy).square().sum().backward()
    total = {}
    for i in range(8):
        alone = oracle.sliced(model, adaptive.plan, policy.stages[i].tolist())
        alone.zero_grad()
        dense_scores(alone, x[i : i + 1][:, :, policy.frames[i]]).square().sum().backward()
        for key, value in alone.named_parameters():
            key = key.replace("conv.conv.", "conv.")
            total[key] = total.get(key, 0) + value.grad
    for key, value in adaptive.named_parameters():
        torch.testing.assert_close(value.grad, total[key], rtol=1e-7, atol=1e-9)


def test_every_parameter_has_a_gradient_whatever_the_policy():
    _, adaptive = converted("i3d")
    frames = torch.zeros(2, 8, dtype=torch.bool)
    frames[:, 0] = True
    adaptive(clips(2), Policy(frames, torch.zeros(2, 5, dtype=torch.bool))).sum().backward()
    assert all(p.grad is not None for p in adaptive.parameters())


def test_norm_eval_frozen_stages_and_dropout_survive():
    model = resnet3d("i3d", norm_eval=True, frozen_stages=2)
    adaptive = ada3d_fx.convert(model, CLIP)
    adaptive.train()
    norms = [m for m in adaptive.backbone.modules() if isinstance(m, nn.BatchNorm3d)]
    assert norms and not any(m.training for m in norms)
    frozen = {n for n, p in adaptive.named_parameters() if not p.requires_grad}
    assert frozen == {
        n
        for n, _ in model.named_parameters()
        if n.startswith(("backbone.conv1", "backbone.layer1", "backbone.layer2"))
    }
    assert adaptive.cls_head.dropout.training
    x = clips(2)
    assert not torch.equal(adaptive(x), adaptive(x))
    adaptive.eval()
    assert torch.equal(adaptive(x), adaptive(x))


def test_folding_follows_the_weights():
    model, adaptive = converted("i3d")
    x = clips(2)
    with torch.no_grad():
        adaptive(x)
    adaptive.train()
    adaptive(x).sum().backward()
    torch.optim.SGD(adaptive.parameters(), lr=0.01).step()
    adaptive.eval()
    model.load_state_dict(adaptive.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(adaptive(x), dense_scores(model, x), **EXACT)


def test_hooks_see_their_modules():
    _, adaptive = converted("i3d")
    seen = []
    adaptive.backbone.conv1.bn.register_forward_hook(lambda *_: seen.append(1))
    with torch.no_grad():
        adaptive(clips(1))
    assert seen == [1]


# ---- the program and its errors


def test_the_graph_reads_as_a_program():
    _, adaptive = shared_conversion("i3d")
    code = adaptive.graph_module.code
    assert "rows = ada3d_fx_packed_packing_pack_frames(clips, packing)" in code
    for k, stage in enumerate(adaptive.plan.stages):
        assert f"gate_{stage.name} = ada3d_fx_packed_packing_stage_gate(packing, {k})" in code
    assert "self.backbone.conv1.conv(rows, segments, gate_stem)" in code


@pytest.mark.parametrize(
    "make, words",
    [
        (
            lambda a: a(torch.zeros(3, 8, 32, 32, dtype=torch.float64)),
            ["[3, 8, 32, 32]", "[N, 3, 8, H, W]"],
        ),
        (lambda a: a(torch.zeros(1, 2, 3, 8, 32, 32).double()), ["fold the views"]),
        (lambda a: a(clips(1, (3, 7, 32, 32))), ["[1, 3, 7, 32, 32]", "clip_shape"]),
        (lambda a: a(torch.zeros(1, 3, 8, 32, 32, dtype=torch.uint8)), ["torch.uint8", "floating"]),
        (lambda a: a(clips(2), Policy.full(a.plan, 3)), ["policy.frames", "[3, 8]", "[2, 8]"]),
        (lambda a: a(clips(1), torch.ones(1, 8)), ["Tensor", "ada3d_fx.Policy"]),
        (lambda a: a(clips(0)), ["[0, 3, 8, 32, 32]"]),
        (lambda a: ada3d_fx.specialize(a, 9, [1] * 5), ["num_frames=9", "up to 8"]),
        (lambda a: ada3d_fx.specialize(a, 8, [1] * 4), ["4 stage decisions", "5"]),
    ],
)
def test_bad_input_is_named(make, words):
    _, adaptive = shared_conversion("i3d")
    with pytest.raises(Ada3DError) as error:
        make(adaptive)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(
    "model, words",
    [
        (lambda: dict(type="Recognizer3D"), ["dict", "MODELS.build"]),
        (lambda: _without_backbone(), ["`backbone`"]),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), ["Conv2d", "2D recognizer"]),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 32 * 32, 4)), ["nothing to decide"]),
        (lambda: nn.Sequential(nn.Conv3d(3, 4, 3, padding=1)), ["time axis"]),
    ],
)
def test_models_that_cannot_convert_say_why(model, words):
    with pytest.raises(Ada3DError) as error:
        ada3d_fx.convert(model().double() if not isinstance(model(), dict) else model(), CLIP)
    assert all(word in str(error.value) for word in words), error.value


def _without_backbone():
    model = resnet3d("i3d_r18")
    del model._modules["backbone"]
    return model


class _DropsInTraining(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(3, 4, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool3d(1)

    def forward(self, x):
        x = self.pool(self.conv(x)).flatten(1)
        return nn.functional.dropout(x, 0.5, self.training)


def test_a_model_that_asks_for_its_mode_has_a_program_for_each():
    adaptive = ada3d_fx.convert(_DropsInTraining().double(), clip_shape=(3, 4, 8, 8))
    x = clips(2, (3, 4, 8, 8))
    torch.testing.assert_close(adaptive.eval()(x), adaptive(x))
    dropped = torch.stack([adaptive.train()(x) == 0 for _ in range(20)])
    assert dropped.any() and not dropped.all()


def test_a_2d_recognizer_is_told():
    from mmaction.registry import MODELS

    flat = MODELS.build(
        dict(
            type="Recognizer2D",
            backbone=dict(type="ResNet", depth=18, pretrained=None, norm_eval=False),
            cls_head=dict(type="TSNHead", num_classes=4, in_channels=512),
        )
    )
    with pytest.raises(UnsupportedModel, match="2D recognizer"):
        ada3d_fx.convert(flat, CLIP)


def test_bad_options_are_named():
    for options, words in [
        (dict(clip_shape=(3, 8, 32)), ["(3, 8, 32)", "C, T, H, W"]),
        (dict(clip_shape=CLIP, stages="stages"), ["'stages'", "block"]),
        (dict(clip_shape=CLIP, stages={"layer9": "x"}), ["'layer9'", "matches none"]),
    ]:
        with pytest.raises(Ada3DError) as error:
            ada3d_fx.convert(resnet3d("i3d_r18"), **options)
        assert all(word in str(error.value) for word in words), error.value


def test_a_module_that_no_rule_was_written_for():
    """A user's own network: unknown operations run densely per length, and are right."""

    class Attention(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.qkv = nn.Linear(channels, 3 * channels)

        def forward(self, x):
            n, c, t, h, w = x.shape
            q, k, v = self.qkv(x.flatten(2).transpose(1, 2)).chunk(3, dim=-1)
            y = (q @ k.transpose(1, 2)).softmax(-1) @ v
            return x + y.transpose(1, 2).reshape(n, c, t, h, w)

    class Excite(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.fc = nn.Conv3d(channels, channels, 1)

        def forward(self, x):
            return x * self.fc(x.mean((2, 3, 4), keepdim=True)).sigmoid()

    torch.manual_seed(3)
    network = nn.Sequential(
        nn.Conv3d(3, 8, 3, padding=1, stride=(1, 4, 4)),
        *(nn.ReLU(), Attention(8), Excite(8)),
        nn.Conv3d(8, 8, (3, 1, 1), padding=(1, 0, 0)),
        *(Attention(8), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 4)),
    )
    network = network.double().eval()
    adaptive = ada3d_fx.convert(network, CLIP)
    assert adaptive.plan.frame_unit == 1
    policy, x = every_length(adaptive.plan), clips(8)
    with torch.no_grad():
        expected = oracle.scores(
            network, adaptive.plan, x, policy, run=lambda model, clip: model(clip)
        )
        torch.testing.assert_close(adaptive(x, policy), expected, **EXACT)
    assert list(adaptive.state_dict()) == list(network.state_dict())


def test_frames_that_cannot_be_dropped_stay_with_the_reason():
    class Flattened(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv3d(3, 4, 3, padding=1, stride=(1, 8, 8))
            self.fc = nn.Linear(4 * 8 * 4 * 4, 5)

        def forward(self, x):
            return self.fc(self.conv(x).flatten(1))

    network = Flattened().double()
    adaptive = ada3d_fx.convert(network, CLIP)
    plan = adaptive.plan
    assert plan.frame_unit is None and plan.num_stages == 1
    assert any(reason.where == "fc" for reason in plan.reasons), plan
    x = clips(2)
    policy = Policy.random(plan, 2, frames=0.3, stages=0.5)
    assert policy.frames.all()
    with torch.no_grad():
        expected = oracle.scores(network, plan, x, policy, run=lambda model, clip: model(clip))
        torch.testing.assert_close(adaptive(x, policy), expected, **EXACT)
    with pytest.raises(Ada3DError, match="whole units of 8"):
        adaptive(x[:1], Policy(torch.arange(8)[None] < 4, policy.stages[:1]))


@pytest.mark.parametrize("positions", ["own", "kept"])
def test_a_clip_of_one_frame_has_stages_to_choose_only(positions):
    network, (channels, _, *size) = families.family("x3d"), families.FAMILIES["x3d"][2]
    adaptive = ada3d_fx.convert(network, (channels, 1, *size), positions=positions)
    plan = adaptive.plan
    assert (plan.num_frames, plan.frame_unit) == (1, None) and plan.num_stages
    policy = Policy.random(plan, 4, stages=0.5)
    x = clips(4, (channels, 1, *size))
    with torch.no_grad():
        expected = oracle.scores(network, plan, x, policy)
        torch.testing.assert_close(adaptive(x, policy), expected, **EXACT)


@pytest.mark.parametrize("name", ["i3d_r18", "slowfast", "x3d", "csn_ir", "r2plus1d"])
def test_checkpointing_changes_memory_only(name):
    """Gradients, statistics and scores are those without; fewer values are kept for backward."""
    if name == "i3d_r18":
        model, shape = resnet3d(name), CLIP
    else:
        model, shape = families.family(name), families.FAMILIES[name][2]
    without = [m for m in model.modules() if isinstance(m, (nn.Dropout, nn.Dropout3d))]
    for module in without:
        module.p = 0.0
    pair = [ada3d_fx.convert(model, shape, checkpointing=asked) for asked in (False, True)]
    pair.append(copy.deepcopy(pair[1]))  # which is asked for the same
    x = torch.randn(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    policy = Policy.random(pair[0].plan, 3, 0.6, 0.5, generator=torch.Generator().manual_seed(0))
    kept, scores = [], []
    for adaptive in pair:
        adaptive.train()
        saved = []
        torch.manual_seed(0)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, saved=saved: (saved.append(t.numel()), t)[1], lambda t: t
        ):
            out = adaptive(x, policy)
            out.square().sum().backward()
        scores.append(out.detach())
        kept.append(sum(saved))
        adaptive.eval()
        with torch.no_grad():
            scores[-1] = torch.cat([scores[-1], adaptive(x, policy)])
    assert kept[1] < kept[0] / 2 and kept[2] == kept[1]
    for other, found in zip(pair[1:], scores[1:]):
        torch.testing.assert_close(found, scores[0], **EXACT)
        for kind in ("named_parameters", "named_buffers"):
            theirs = dict(getattr(other, kind)())
            for path, value in getattr(pair[0], kind)():
                mine = theirs[path]
                if kind == "named_parameters":
                    value, mine = value.grad, mine.grad
                torch.testing.assert_close(mine, value, **EXACT, msg=path)


def test_checkpointing_survives():
    """with_cp: blocks are computed anew in backward, with the gradients that they have without."""
    x = clips(3)
    plain, saving = (
        ada3d_fx.convert(resnet3d("i3d_r18", with_cp=cp), CLIP) for cp in (False, True)
    )
    assert saving.training_module is not saving.graph_module
    blocks = [n for n in saving.training_module._modules if n.startswith("checkpoint_")]
    assert len(blocks) == 8  # two for each of four stages
    policy = Policy.random(plain.plan, 3, 0.6, 0.5, generator=torch.Generator().manual_seed(0))
    kept = []
    for adaptive in (plain, saving):
        adaptive.train()
        for module in adaptive.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, saved=saved: (saved.append(t.numel()), t)[1], lambda t: t
        ):
            adaptive(x, policy).sum().backward()
        kept.append(sum(saved))
    assert kept[1] < kept[0] / 2
    other = dict(saving.named_parameters())
    for path, parameter in plain.named_parameters():
        torch.testing.assert_close(other[path].grad, parameter.grad, rtol=1e-7, atol=1e-9)


def test_sub_batchnorm_trains_as_the_original():
    """MMAction2's SubBatchNorm3D: other statistics in training than in evaluation."""
    model = resnet3d("i3d_r18", norm_cfg=dict(type="SubBatchNorm3D", num_splits=2))
    adaptive, x = ada3d_fx.convert(model, CLIP), clips(4)
    torch.testing.assert_close(adaptive(x), dense_scores(model, x), rtol=1e-9, atol=1e-9)
    for network in (model, adaptive):
        network.train()
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    torch.testing.assert_close(adaptive(x), dense_scores(model, x), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", ["i3d_r18", "i3d_stage_strides", "i3d_3x3x3", "slowonly"])
def test_gates_have_the_gradients_of_blends(name):
    """Straight-through: values as without gates, gradients as if each stage blended its two
    kernels and each kept frame were weighted."""
    model, adaptive = shared_conversion(name)
    policy = every_length(adaptive.plan)
    x, weight = clips(len(policy)), torch.randn(len(policy), 5, dtype=torch.float64)

    def loss(scores):
        return (scores.softmax(1) * weight).sum()

    gates = [bits.double().requires_grad_() for bits in (policy.frames, policy.stages)]
    gated = Policy(policy.frames, policy.stages, tuple(gates))
    every = Policy(torch.ones_like(policy.frames), policy.stages)
    for dropped in (False, True):
        scores = adaptive(x, gated)
        if dropped:
            both = adaptive(torch.cat([x, x]), Policy.cat([gated, every]))
            scores = with_dropped(both[: len(x)], both[len(x) :], gated)
        torch.testing.assert_close(scores, adaptive(x, policy), **EXACT)
        gradients = torch.autograd.grad(loss(scores), gates)
        twin = oracle.gate_gradients(model, adaptive.plan, x, policy, loss, dropped)
        for ours, theirs in zip(gradients, twin):
            assert theirs.abs().max() > 0
            torch.testing.assert_close(ours, theirs, **EXACT)
        assert dropped == bool(twin[0][~policy.frames].any())


@pytest.mark.skipif(
    torch.__version__ < "2.5", reason="the compiler of 2.4 fails (docs/how_it_works.md)"
)
def test_a_compiled_network_decides_as_the_eager_one():
    """Decisions stay with each batch: what is compiled for one policy does not serve another."""
    _, adaptive = converted("i3d_r18", shape=(3, 4, 16, 16))
    x = clips(2, (3, 4, 16, 16))
    torch._dynamo.reset()
    compiled = torch.compile(adaptive, backend="eager")
    policies = [Policy.random(adaptive.plan, 2, 0.5, 0.5) for _ in range(3)]
    with torch.no_grad():
        for policy in [*policies, Policy.full(adaptive.plan, 2), policies[0]]:
            torch.testing.assert_close(compiled(x, policy), adaptive(x, policy), **EXACT)
    torch._dynamo.reset()
