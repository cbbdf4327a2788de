"""A recognizer that sees differences of frames: those of the whole clip, whatever a policy keeps."""

import mm_parts
import pytest
import torch
from mmaction.registry import MODELS
from mmengine.runner import Runner

import ada3d_fx
from ada3d_fx import Ada3DError, Policy
from ada3d_fx.cost.count import count
from ada3d_fx.experiments.exporting import preprocessing_of
from ada3d_fx.mm.checkpoint import load_checkpoint, load_recognizer
from ada3d_fx.mm.differences import with_differences

SHAPE = (6, *mm_parts.CLIP_SHAPE[1:])


def recognizer(**backbone):
    config = mm_parts.recognizer()
    config["backbone"].update(in_channels=6, **backbone)
    config["data_preprocessor"]["type"] = "DifferencePreprocessor"
    return config


def options(**more):
    return {"recognizer": recognizer(), "clip_shape": SHAPE, **more}


def pixels(n=2, views=1):
    return [
        torch.randint(0, 256, (views, *mm_parts.CLIP_SHAPE), dtype=torch.uint8) for _ in range(n)
    ]


def prepared(model, inputs):
    data = {"inputs": inputs, "data_samples": [None] * len(inputs)}
    return model.data_preprocessor(data)["inputs"]


def test_differences_are_those_of_consecutive_frames_of_the_clip():
    model, inputs = MODELS.build(mm_parts.model(**options())), pixels(2, views=3)
    got = prepared(model, inputs)
    assert got.shape == (2, 3, *SHAPE)
    frames = (torch.stack(inputs).float() - 120) / 60
    torch.testing.assert_close(got[:, :, :3], frames)
    torch.testing.assert_close(got[:, :, 3:, 1:], frames[:, :, :, 1:] - frames[:, :, :, :-1])
    assert not got[:, :, 3:, 0].any()


def test_what_a_kept_frame_shows_depends_on_no_policy():
    """Without temporal kernels each frame is alone: others that are kept change nothing but the mean."""
    model = MODELS.build(mm_parts.model(**options()))
    network = model.recognizer.double().eval()
    clips = prepared(model, pixels(1))[0].double()
    with torch.no_grad():
        alone = []
        for t in range(4):
            kept = torch.arange(4) == t
            policy = Policy(kept[None], torch.zeros(1, model.plan.num_stages, dtype=torch.bool))
            alone.append(network(clips, policy))
            first_only = ada3d_fx.specialize(network, 1, [0] * model.plan.num_stages)
            torch.testing.assert_close(
                alone[-1], first_only(clips[:, :, kept]), rtol=1e-9, atol=1e-9
            )
        both = torch.tensor([[False, True, False, True]])
        got = network(clips, Policy(both, torch.zeros(1, model.plan.num_stages, dtype=torch.bool)))
    torch.testing.assert_close(got, (alone[1] + alone[3]) / 2, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("motion", [False, True])
def test_the_selection_network_sees_the_frames_alone(motion):
    backbone = {"type": "SmallConvNet", "channels": (4, 6), "in_channels": 6 if motion else 3}
    selector = mm_parts.selector(backbone=backbone, motion=motion)
    model = MODELS.build(mm_parts.model(**options(selector=selector))).eval()
    clips = prepared(model, pixels())[:, 0]
    features = model.selector.frame_features(clips)
    assert torch.equal(features, model.selector.frame_features(clips[:, :3]))


def test_the_price_is_that_of_the_wider_convolution():
    model = MODELS.build(mm_parts.model(**options()))
    plain = model.recognizer.plain().eval()
    assert model.full_macs == count(plain, (torch.zeros(1, *SHAPE),)).total
    frames_only = MODELS.build(mm_parts.model())
    assert model.full_macs > frames_only.full_macs
    assert model.selector_macs == frames_only.selector_macs


@torch.no_grad()
def test_it_starts_from_a_recognizer_of_frames_as_that_one(tmp_path):
    plain = MODELS.build(mm_parts.recognizer())
    plain.init_weights()
    torch.save(plain.state_dict(), tmp_path / "frames.pth")
    path = str(tmp_path / "frames.pth")
    model = MODELS.build(mm_parts.model(**options(recognizer_checkpoint=path)))
    model.init_weights()
    model.eval(), plain.eval()
    clips = with_differences(torch.randn(2, *mm_parts.CLIP_SHAPE))
    wanted = plain.cls_head(plain.backbone(clips[:, :3]))
    torch.testing.assert_close(model.recognizer(clips), wanted, rtol=1e-4, atol=1e-5)
    other = MODELS.build(mm_parts.recognizer())  # takes frames only
    torch.save(MODELS.build(recognizer()).state_dict(), tmp_path / "both.pth")
    with pytest.raises(Ada3DError, match=r"conv1\.conv\.weight \[4, 6, 3, 3, 3\] instead of"):
        load_recognizer(other, tmp_path / "both.pth")


@torch.no_grad()
def test_an_inflated_network_takes_differences(tmp_path):
    from ada3d_fx.mm.inflated import InflatedNet

    net = InflatedNet("squeezenet1_1", in_channels=6).eval()
    clips = with_differences(torch.randn(1, 3, 3, 32, 32))
    narrow = InflatedNet("squeezenet1_1").eval()
    torch.save({k: v[:, :, v.shape[2] // 2] if v.ndim == 5 else v for k, v in narrow.state_dict().items()},
               tmp_path / "2d.pth")  # fmt: skip
    for one in (net, narrow):
        one.weights = str(tmp_path / "2d.pth")
        one.init_weights()
    torch.testing.assert_close(net(clips), narrow(clips[:, :3]), rtol=1e-4, atol=1e-5)
    net.features[0].weight[:, 3:] = 1.0
    assert (net(clips) - narrow(clips[:, :3])).abs().max() > 1e-3
    with pytest.raises(Ada3DError, match="in_channels=2; expected 3 or more"):
        InflatedNet("squeezenet1_1", in_channels=2)


def test_what_does_not_fit_is_told():
    with pytest.raises(
        Ada3DError, match=r"clip_shape=\(3, 4, 32, 32\): .* set clip_shape=\(6, 4, 32, 32\)"
    ):
        MODELS.build(mm_parts.model(recognizer=recognizer()))
    model = MODELS.build(mm_parts.model(**options()))
    with pytest.raises(Ada3DError, match=r"shape \[4, 3, 8, 8\], expected \[views, 3, T, H, W\]"):
        prepared(model, [torch.zeros(4, 3, 8, 8)] * 2)


def test_it_trains_through_all_phases_and_exports(tmp_path):
    mm_parts.write_clips(tmp_path)
    config = mm_parts.run_config(tmp_path, tmp_path / "work", **options())
    runner = Runner.from_cfg(config)
    runner.train()
    before, after = (load_checkpoint(tmp_path / "work" / f"epoch_{i}.pth") for i in (1, 3))
    key = "recognizer.backbone.conv1.conv.weight"
    assert not torch.equal(before[key][:, 3:], after[key][:, 3:])
    model = runner.model.eval()
    told = preprocessing_of(config)
    assert told["differences"] is True
    path = tmp_path / "network.onnx"
    ada3d_fx.export(model.recognizer, path, model.selector, preprocessing=told)
    clips = prepared(model, pixels(3))[:, 0]
    with torch.no_grad():
        policy = model.choose_policy(clips)
        wanted = model.recognizer(clips, policy).numpy()
    got = ada3d_fx.Session(path)(clips.numpy(), policy)
    assert abs(got - wanted).max() < 1e-4 * abs(wanted).max()
