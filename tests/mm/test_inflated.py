"""InflatedNet: on a still clip it is the 2D network that it was made of, and it trains like the rest."""

import copy
import pickle

import mm_parts
import pytest
import torch
from mmaction.registry import MODELS
from mmengine.runner import Runner
from models import randomise
from torch import nn
from torchvision.models import get_model, get_model_weights
from torchvision.models.feature_extraction import create_feature_extractor

import ada3d_fx
from ada3d_fx import Ada3DError, Policy
from ada3d_fx.mm.checkpoint import load_checkpoint
from ada3d_fx.mm.inflated import BUILT_WITH, InflatedNet
from ada3d_fx.mm.inflation import inflate_weight

TINY = dict(inverted_residual_setting=[[1, 8, 1, 1], [2, 8, 1, 2], [2, 16, 1, 2]])
# net -> torchvision's name of its features, their channels, the plan's stages, side of an image
NETS = {
    "resnet18": ("layer4", 512, ["stem", "res2", "res3", "res4", "res5"], 32),
    "resnet50": ("layer4", 2048, ["stem", "res2", "res3", "res4", "res5"], 32),
    "resnext50_32x4d": ("layer4", 2048, ["stem", "res2", "res3", "res4", "res5"], 32),
    "mobilenet_v2": ("features", 1280, ["2", "3-4", "5-7", "8-14", "15-17"], 64),
    "mobilenet_v3_small": ("features", 576, ["2", "3-4", "5-9", "10-11"], 64),
    "efficientnet_b0": ("features", 1280, ["2", "3", "4", "5-6", "7"], 64),
    "efficientnet_v2_s": ("features", 1280, ["4", "5-6"], 64),
    "mnasnet0_5": ("layers", 1280, ["8", "9", "10", "11-12", "13"], 64),
    "regnet_y_400mf": ("trunk_output", 440, ["block1", "block2", "block3", "block4"], 32),
    "densenet121": ("relu", 1024, [f"denseblock{i}" for i in (1, 2, 3, 4)], 32),
    "googlenet": ("inception5b", 1024, ["inception3", "inception4", "inception5"], 64),
    "squeezenet1_1": ("features", 512, ["3-4", "6-7", "9-12"], 64),
    "vgg11_bn": ("features", 512, ["0", "4", "8-11", "15-18", "22-25"], 32),
    "alexnet": ("features", 256, ["0", "3", "6-10"], 64),
}
QUICK = ("resnet18", "mobilenet_v2", "regnet_y_400mf")
every_net = pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NETS]
)


def flat(name, seed=0, **options):
    """torchvision's network for images with random weights and statistics, in float64."""
    torch.manual_seed(seed)
    return randomise(get_model(name, weights=None, **BUILT_WITH.get(name, {}), **options))


def inflated(net2d, name, tmp_path, **options):
    """The network inflated from the weights of one for images."""
    path = tmp_path / "weights.pth"
    torch.save(net2d.state_dict(), path)
    net = InflatedNet(name, weights=str(path), **options).double().eval()
    net.init_weights()
    return net


def features_of(net2d, node, frames):
    return create_feature_extractor(net2d, {node: "features"})(frames)["features"]


@every_net
@torch.no_grad()
def test_on_a_still_clip_it_is_the_network_of_the_frame(name, tmp_path):
    node, channels, _, side = NETS[name]
    net2d = flat(name)
    net = inflated(net2d, name, tmp_path)
    image = torch.randn(2, 3, side, side, dtype=torch.float64)
    wanted = features_of(net2d, node, image)
    got = net(image[:, :, None].expand(-1, -1, 3, -1, -1))
    assert got.shape == (2, channels, 3, *wanted.shape[2:]) and len(net.inflated) >= 5
    for t in range(3):
        torch.testing.assert_close(got[:, :, t], wanted, rtol=1e-9, atol=1e-9)


@every_net
def test_it_converts_to_the_stages_of_its_kind(name):
    _, channels, stages, side = NETS[name]
    model = scorer(channels, net=name, init="mean")
    adaptive = ada3d_fx.convert(model, clip_shape=(3, 3, side, side))
    plan = adaptive.plan
    assert [
        stage.name.removeprefix("features.").removeprefix("layers.") for stage in plan.stages
    ] == stages
    assert sum(len(stage.sites) for stage in plan.stages) == len(model.backbone.inflated)
    assert plan.frame_unit == 1 and plan.execution == "packed"
    clips = torch.randn(2, *plan.clip_shape, dtype=torch.float64)
    with torch.no_grad():
        wanted = model.cls_head(model.backbone(clips))
        torch.testing.assert_close(adaptive(clips), wanted, rtol=1e-9, atol=1e-9)
        policy = Policy.random(plan, 2, torch.tensor([0.7, 1.0]), 0.5)
        for i in range(2):
            kept = policy.frames[i]
            alone = ada3d_fx.specialize(adaptive, int(kept.sum()), policy.stages[i].tolist())
            torch.testing.assert_close(
                adaptive(clips, policy)[i : i + 1], alone(clips[i : i + 1][:, :, kept]), rtol=1e-9, atol=1e-9
            )  # fmt: skip


def recognizer(channels=1280, classes=4, **backbone):
    config = mm_parts.recognizer(in_channels=channels, num_classes=classes)
    return {**config, "backbone": {"type": "InflatedNet", **backbone}}


def scorer(channels=1280, **backbone):
    return randomise(MODELS.build(recognizer(channels, **backbone)))


@torch.no_grad()
def test_frames_are_alone_until_the_side_taps_learn():
    net = InflatedNet("mobilenet_v2", net_options=TINY).double().eval()
    clip = torch.randn(1, 3, 4, 32, 32, dtype=torch.float64)
    apart = torch.cat([net(clip[:, :, t : t + 1]) for t in range(4)], 2)
    torch.testing.assert_close(net(clip), apart, rtol=1e-9, atol=1e-9)
    for path in net.inflated:
        net.get_submodule(path).weight.normal_()
    assert (net(clip) - apart).abs().max() > 1e-3


@torch.no_grad()
def test_mean_taps_are_the_network_of_the_frame_away_from_the_ends(tmp_path):
    net2d = flat("mobilenet_v2", **TINY)
    path = "features.3.conv.0.0"
    options = dict(init="mean", inflate=path.replace(".", r"\."), kernel=5, net_options=TINY)
    net = inflated(net2d, "mobilenet_v2", tmp_path, **options)
    assert net.inflated == [path] and net.get_submodule(path).kernel_size == (5, 1, 1)
    image = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    wanted = features_of(net2d, "features", image)
    got = net(image[:, :, None].expand(-1, -1, 7, -1, -1))
    for t in range(7):
        same = torch.allclose(got[:, :, t], wanted, rtol=1e-9, atol=1e-9)
        assert same == (2 <= t < 5), t


def test_a_kernel_is_the_sum_of_its_taps():
    kernel = torch.randn(4, 2, 3, 3, dtype=torch.float64)
    for init in ("centre", "mean"):
        taps = inflate_weight(kernel, 5, init)
        torch.testing.assert_close(taps.sum(2), kernel)
    assert torch.equal(inflate_weight(kernel, 1, "mean")[:, :, 0], kernel)


# ------------------------------------------------------------------------------------ weights


def test_weights_come_with_init_weights_into_recognizers_of_both_kinds(tmp_path):
    net2d = get_model("mobilenet_v2", weights=None, **TINY).half()
    torch.save({"state_dict": net2d.features.state_dict(prefix="features.")}, tmp_path / "half.pth")
    options = dict(net_options=TINY, weights=str(tmp_path / "half.pth"))
    plain = MODELS.build(recognizer(**options))
    ours = MODELS.build(mm_parts.model(recognizer=recognizer(**options)))
    for model, prefix in ((plain, "backbone."), (ours, "recognizer.backbone.")):
        model.init_weights()
        own = model.state_dict()
        for key, value in net2d.features.state_dict(prefix="features.").items():
            mine = own[prefix + key]
            mine = mine[:, :, mine.shape[2] // 2] if mine.ndim == 5 else mine
            assert torch.equal(mine, value.to(mine.dtype)), key


def test_names_are_fetched_when_weights_are_initialised_and_not_before(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for proxy in ("https_proxy", "HTTPS_PROXY", "http_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.setenv(
            proxy, "http://127.0.0.1:9" if "http" in proxy else ""
        )  # nothing listens
    net = InflatedNet("resnet18", weights="IMAGENET1K_V1")
    assert not list(tmp_path.iterdir())
    with pytest.raises(Ada3DError, match=r"weights of resnet18: IMAGENET1K_V1 cannot be fetched"):
        net.init_weights()
    url = get_model_weights("resnet18").IMAGENET1K_V1.url
    fetched = tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2]
    fetched.parent.mkdir(parents=True, exist_ok=True)
    net2d = get_model("resnet18", weights=None)
    torch.save(net2d.state_dict(), fetched)
    net.init_weights()
    assert torch.equal(net.conv1.weight[:, :, 1], net2d.conv1.weight)


def test_old_names_of_densenets_are_known(tmp_path):
    net2d = get_model("densenet121", weights=None)
    old = {
        key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): value
        for key, value in net2d.state_dict().items()
    }
    torch.save(old, tmp_path / "old.pth")
    net = InflatedNet("densenet121", weights=str(tmp_path / "old.pth"))
    net.init_weights()
    path = "features.denseblock2.denselayer3.conv2.weight"
    assert torch.equal(net.state_dict()[path][:, :, 0], net2d.state_dict()[path])


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda s: s.pop("features.0.1.weight"), r"1 tensors: features\.0\.1\.weight is missing"),
        (lambda s: s.update({"features.2.conv.0.0.weight": torch.zeros(16, 8, 3, 3)}),
         r"features\.2\.conv\.0\.0\.weight \[16, 8, 3, 3\] instead of \[16, 8, 1, 1\]"),
        (lambda s: s.update({"features.9.weight": torch.zeros(1)}), r"features\.9\.weight has no place"),
        (lambda s: s["features.0.1.bias"].fill_(torch.nan), r"not finite .*features\.0\.1\.bias"),
        (lambda s: [s.pop(k) for k in list(s) if k.startswith("features")], r"for another network\?"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_named(spoil, message, tmp_path):
    state = get_model("mobilenet_v2", weights=None, **TINY).state_dict()
    spoil(state)
    torch.save(state, tmp_path / "spoilt.pth")
    net = InflatedNet(net_options=TINY, weights=str(tmp_path / "spoilt.pth"))
    with pytest.raises(Ada3DError, match=message):
        net.init_weights()


def test_neither_a_file_nor_a_name():
    net = InflatedNet("resnet18", weights="IMAGENET21K")
    with pytest.raises(Ada3DError, match=r"'IMAGENET21K' is neither a file nor .*IMAGENET1K_V1"):
        net.init_weights()


# ------------------------------------------------------------------------------------ options


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(net="resnet19"), "no net='resnet19'; it has .*resnet18"),
        (dict(net="resnet18", net_options=dict(width=2)), "resnet18 cannot be built: .*width"),
        (dict(net="resnet18", kernel=2), "kernel=2; expected an odd number"),
        (dict(net="resnet18", init="zero"), "init='zero'; there are 'centre' and 'mean'"),
        (dict(net="resnet18", inflate="layer9"), r"inflate: 'layer9' matches none of 20 paths, such as conv1, "),
        (dict(net="resnet18", inflate=["conv1", "(x"]), r"inflate: '\(x' is no regex"),
        (dict(net="resnet18", frozen="bn7"), "frozen: 'bn7' matches none"),
        (dict(net="convnext_tiny"), r"convnext_tiny has \d+ operations .*features\.0\.1 computes permute"),
        (dict(net="shufflenet_v2_x0_5"), r"stage2\.0 computes size.*docs/support.md"),
        (dict(net="inception_v3"), "Mixed_5b computes avg_pool2d"),
        (dict(net="vit_b_16"), "vit_b_16 is no sequence of parts up to a pooling"),
        (dict(net="maxvit_t"), "maxvit_t is no sequence of parts up to a pooling"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told(options, message):
    if options["net"] == "maxvit_t":
        options["net_options"] = dict(input_size=(224, 224))
    with pytest.raises(Ada3DError, match=message):
        InflatedNet(**options)


def test_norm_eval_and_frozen_parts_stay_in_training():
    patterns = [r"^features\.[01]$", "features.4.1"]
    model = scorer(net_options=TINY, frozen=patterns)
    adaptive = ada3d_fx.convert(model, clip_shape=(3, 4, 32, 32)).train()
    stays = ("backbone.features.0.", "backbone.features.1.", "backbone.features.4.1.")
    before = copy.deepcopy(adaptive.state_dict())
    adaptive(torch.randn(2, 3, 4, 32, 32, dtype=torch.float64)).sum().backward()
    for path, parameter in adaptive.named_parameters():
        assert (parameter.grad is None) == path.startswith(stays), path
    for key, value in adaptive.state_dict().items():
        if "running_mean" in key:
            assert torch.equal(value, before[key]) == key.startswith(stays), key
    kept = ada3d_fx.convert(scorer(net_options=TINY, norm_eval=True), clip_shape=(3, 4, 32, 32))
    norms = [m for m in kept.train().modules() if isinstance(m, nn.BatchNorm3d)]
    assert norms and not any(norm.training for norm in norms) and kept.backbone.training


def test_copies_and_pickles_keep_the_scores():
    adaptive = ada3d_fx.convert(scorer(net_options=TINY, init="mean"), clip_shape=(3, 4, 32, 32))
    clips = torch.randn(2, 3, 4, 32, 32, dtype=torch.float64)
    wanted = adaptive(clips)
    for other in (copy.deepcopy(adaptive), pickle.loads(pickle.dumps(adaptive))):
        assert torch.equal(other(clips), wanted)


def test_it_trains_through_all_phases(tmp_path):
    mm_parts.write_clips(tmp_path)
    torch.save(get_model("mobilenet_v2", weights=None, **TINY).state_dict(), tmp_path / "2d.pth")
    backbone = dict(net_options=TINY, weights=str(tmp_path / "2d.pth"), norm_eval=True)
    config = mm_parts.run_config(tmp_path, tmp_path / "work", recognizer=recognizer(**backbone))
    Runner.from_cfg(config).train()
    weights = load_checkpoint(tmp_path / "work" / "epoch_3.pth")
    start = load_checkpoint(tmp_path / "2d.pth")
    taps = weights["recognizer.backbone.features.2.conv.0.0.weight"]
    assert taps.isfinite().all() and taps[:, :, 0].any()  # the side taps have left zero
    mean = "features.0.1.running_mean"
    assert torch.equal(weights[f"recognizer.backbone.{mean}"], start[mean])
