"""Every family of MMAction2's 3D recognizers, reduced, goes through ``convert`` unedited."""

import oracle
import pytest
import torch
from families import FAMILIES, config_of, dense, family, shared_family
from mmaction.registry import MODELS
from mmaction.structures import ActionDataSample
from mmengine.optim import OptimWrapper
from models import clips
from torch import nn

import ada3d_fx
from ada3d_fx import Policy

NAMES = sorted(FAMILIES)
# name -> stages, frame unit
PLANS = {
    "slowfast": (["stem", "res2", "res3", "res4", "res5"], 4),
    "r2plus1d": (["stem", "res2", "res3", "res4", "res5"], 1),
    "c2d": ([], 1),
    "csn_ir": (["stem", "res2", "res3", "res4", "res5"], 1),
    "csn_ip": (["stem", "res2", "res3", "res4", "res5"], 1),
    "x3d": (["stem", "res2", "res3", "res4", "res5"], 1),
    "c3d": (["conv1", "conv2", "conv3", "conv4", "conv5"], 1),
    "c3d_long": (["conv1", "conv2", "conv3", "conv4", "conv5"], None),
    "tpn": (["res4", "res5", "neck"], 1),
    "posec3d": (["res3", "res4"], 1),
    "mvit": (["stem", "blocks.0", "blocks.1-2"], 1),
    "uniformer": (["stem", "blocks1", "blocks2", "blocks3", "blocks4"], 1),
    "uniformerv2": (["stem", "transformer.resblocks", "transformer.dpe"], 2),
    "uniformerv2_8": (["transformer.dpe"], 1),
    "timesformer": ([], 1),
    "timesformer_joint": ([], 1),
    "timesformer_space": ([], 1),
    "videomae": ([], 2),
    "videomae_learned": ([], 2),
    "swin": ([], 1),
    "inflated": (["features.2", "features.3-4"], 1),
    "custom": (["stem", "inner", "last"], 1),
}


def converted(name, **options):
    model = family(name, **options)
    return model, ada3d_fx.convert(model, clip_shape=FAMILIES[name][2])


def times_of(frames):
    return frames.nonzero().flatten().tolist()


def ragged(plan, n, seed=0):
    torch.manual_seed(seed)
    policy = Policy.random(plan, n, torch.rand(n), torch.rand(n))
    return Policy.cat([policy, Policy.full(plan, 1)])


@pytest.mark.parametrize("name", NAMES)
def test_a_family_equals_its_original_and_its_oracle(name):
    model, adaptive = shared_family(name)
    x = clips(4, FAMILIES[name][2])
    names, unit = PLANS[name]
    assert [stage.name for stage in adaptive.plan.stages] == names
    assert adaptive.plan.frame_unit == unit
    with torch.no_grad():
        torch.testing.assert_close(adaptive(x), dense(model, x), rtol=1e-9, atol=1e-9)
        policy = ragged(adaptive.plan, 3)
        if unit is not None:
            assert len(set(policy.num_frames.tolist())) > 1
        got = adaptive(x, policy)
        wanted = oracle.scores(model, adaptive.plan, x, policy, run=dense)
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)
    full, num_stages = dense(model, x[:1].detach()), adaptive.plan.num_stages
    if num_stages:  # each gate does something
        one_off = Policy(
            torch.ones(num_stages, adaptive.plan.num_frames, dtype=torch.bool),
            ~torch.eye(num_stages, dtype=torch.bool),
        )
        changes = (adaptive(x[:1].expand(num_stages, -1, -1, -1, -1), one_off) - full).abs()
        assert (changes.amax(1) > 1e-9).all(), dict(zip(names, changes.amax(1).tolist()))


@pytest.mark.parametrize("name", NAMES)
def test_a_family_trains_as_its_original(name):
    """Full packs in training mode: scores, gradients and BatchNorm statistics are the dense ones."""
    model, adaptive = converted(name)
    for network in (model, adaptive):
        network.train()
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        _without_sync(network)
    x = clips(2, FAMILIES[name][2])
    torch.manual_seed(3)  # stochastic depth draws
    wanted = dense(model, x)
    torch.manual_seed(3)
    got = adaptive(x)
    torch.testing.assert_close(got, wanted, rtol=1e-7, atol=1e-9)
    weights = clips(2, (5, 1, 1, 1)).flatten(1)
    (wanted * weights).sum().backward()
    (got * weights).sum().backward()
    gradients = dict(adaptive.named_parameters())
    for path, parameter in model.named_parameters():
        if parameter.grad is not None:
            _close(gradients[path].grad, parameter.grad)
    originals = dict(model.named_buffers())
    for path, buffer in adaptive.named_buffers():
        torch.testing.assert_close(buffer, originals[path], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_a_familys_ragged_gradients_are_its_oracles(name):
    model, adaptive = shared_family(name)
    adaptive.zero_grad()
    x, policy = clips(3, FAMILIES[name][2]), ragged(adaptive.plan, 2)
    got = adaptive(x, policy)
    weights = clips(3, (5, 1, 1, 1)).flatten(1)
    (got * weights).sum().backward()
    specialized = [
        ada3d_fx.specialize(
            adaptive, int(f.sum()), s.tolist(), copy_weights=False, frames=times_of(f)
        )(clip[None][:, :, f])
        for clip, f, s in zip(x, policy.frames, policy.stages)
    ]
    torch.testing.assert_close(got, torch.cat(specialized), rtol=1e-9, atol=1e-9)
    mine = {k: p.grad for k, p in adaptive.named_parameters()}
    total = {k: torch.zeros_like(p) for k, p in model.named_parameters()}
    for clip, frames, stages, weight in zip(x, policy.frames, policy.stages, weights):
        sliced = oracle.sliced(model, adaptive.plan, stages.tolist())
        oracle.at_times(sliced, times_of(frames), len(frames))
        (dense(sliced, clip[None][:, :, frames]) * weight).sum().backward()
        for path, parameter in sliced.named_parameters():
            if parameter.grad is not None:
                total[oracle.original_path(sliced, path)] += parameter.grad
    adaptive.zero_grad()
    for path, gradient in mine.items():
        if gradient is not None:
            _close(gradient, total[path])


def _close(gradient, wanted):
    """To 1e-6 of the largest entry: BatchNorm over two clips of one pixel is badly conditioned."""
    assert (gradient - wanted).abs().max() <= 1e-6 * wanted.abs().max() + 1e-12


def _without_sync(network):
    """SyncBatchNorm trains on GPUs only; MMEngine's runner turns it into BatchNorm the same way."""
    for module in network.modules():
        for name, child in list(module.named_children()):
            if isinstance(child, nn.SyncBatchNorm):
                plain = nn.BatchNorm3d(child.num_features, child.eps, child.momentum).to(
                    child.weight
                )
                plain.load_state_dict(child.state_dict())
                setattr(module, name, plain.train(child.training))


def test_what_keeps_its_frames_says_why():
    reasons = [str(reason) for reason in shared_family("c3d_long")[1].plan.reasons]
    assert any("fc6" in reason and "fails on clips" in reason for reason in reasons), reasons
    assert any("mixes entries of several frames" in reason for reason in reasons), reasons


def test_what_runs_densely_is_listed_with_its_reason():
    _, adaptive = shared_family("custom")
    dense = {reason.where: reason.why for reason in adaptive.plan.dense}
    assert "cannot be traced" in dense["backbone.inner"]
    assert "softmax" in dense["backbone"]
    assert not shared_family("x3d")[1].plan.dense


@pytest.mark.parametrize("name", NAMES)
def test_mmaction2s_way_of_use(name):
    """As MMAction2's own recognizer tests do: train_step, then test_step of several views."""
    shape = FAMILIES[name][2]
    config = config_of(name)
    config["data_preprocessor"].update(mean=[0.0] * shape[0], std=[1.0] * shape[0])
    config["cls_head"]["average_clips"] = None
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type="Ada3DRecognizer",
            recognizer=config,
            clip_shape=shape,
            random_policy=dict(frames=0.5, stages=0.5),
            testing={"policy": "random"},
        )
    )
    _without_sync(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    model.train()
    sample = [ActionDataSample().set_gt_label(i) for i in (1, 2)]
    inputs = [torch.randint(0, 256, (1, *shape), dtype=torch.uint8) for _ in sample]
    log = model.train_step(dict(inputs=inputs, data_samples=sample), OptimWrapper(optimizer))
    assert torch.isfinite(log["loss"])
    assert ("loss_aux" in log) == (name == "tpn")
    model.eval()
    inputs = [torch.randint(0, 256, (3, *shape), dtype=torch.uint8) for _ in sample]
    with torch.no_grad():
        predicted = model.test_step(dict(inputs=inputs, data_samples=sample))
    for one in predicted:
        assert one.pred_score.shape == (3, 5)  # average_clips None: a row per view
        assert one.policy_frames.shape == (3, shape[1])


@pytest.mark.parametrize(
    "name", ["slowfast", "uniformerv2", "swin", "timesformer", "videomae", "x3d", "tpn"]
)
def test_policies_are_learned_whatever_there_is_to_decide(name):
    """Units of frames, frames that stay, no stages: every phase of training takes steps."""
    shape = FAMILIES[name][2]
    model = MODELS.build(
        dict(
            type="Ada3DRecognizer",
            recognizer=config_of(name),
            clip_shape=shape,
            selector=dict(
                type="SelectionNetwork",
                backbone=dict(type="SmallConvNet", channels=(8, 8)),
                input_size=16,
                pretrain=True,
            ),
            objective=dict(
                gamma=2.0, samples=2, entropy=0.1
            ),  # entropy: a gradient even if all are wrong
        )
    ).train()
    sample = [ActionDataSample().set_gt_label(i) for i in (1, 2)]
    inputs = [torch.randint(0, 256, (1, *shape), dtype=torch.uint8) for _ in sample]
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1e-2))
    for phase in ("warmup", "selection", "joint"):
        model.set_training_phase(phase)
        before = {k: p.detach().clone() for k, p in model.named_parameters()}
        log = model.train_step(dict(inputs=inputs, data_samples=sample), optimizer)
        assert torch.isfinite(log["loss"])
        moved = {
            k.split(".")[0] for k, p in model.named_parameters() if not torch.equal(p, before[k])
        }
        assert moved == ({"selector"} if phase == "selection" else {"selector", "recognizer"})
    with torch.no_grad():
        predicted = model.eval().test_step(dict(inputs=inputs, data_samples=sample))
    unit = model.plan.frame_unit
    for one in predicted:
        kept = int(one.policy_frames.sum())
        assert kept == shape[1] if unit is None else kept % unit == 0
        assert int(one.recognizer_macs[0]) <= model.full_macs
