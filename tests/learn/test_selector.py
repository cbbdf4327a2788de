"""The selection network: shapes, starting probabilities, any length, weights, normalisation,
price."""

from functools import partial

import pytest
import torch
from torch import nn

from ada3d_fx.cost.selector import selector_price
from ada3d_fx.errors import Ada3DError
from ada3d_fx.learn.backbones import SmallConvNet, load_backbone, mobilenet_v2
from ada3d_fx.learn.heads import FrameHead, MeanHead
from ada3d_fx.learn.selector import LEAST_SLOPE, SelectionNetwork, bounded
from ada3d_fx.plan import Stage, StagePlan

HEADS = {"mean": MeanHead, "frame": FrameHead, "context": partial(FrameHead, context=True)}


def plan(frames=8, stages=5, unit=1):
    return StagePlan((3, frames, 16, 16), tuple(Stage(str(k), ()) for k in range(stages)), unit)


def selector(head="frame", p=None, **options):
    torch.manual_seed(0)
    options.setdefault("input_size", 16)
    return SelectionNetwork(p or plan(), SmallConvNet((4, 6)), HEADS[head], **options).eval()


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("unit", [1, 2, None])
def test_one_logit_per_unit_and_stage(head, unit):
    dist = selector(head, plan(unit=unit))(torch.randn(3, 3, 8, 20, 24))
    assert dist.frame_logits.shape == (3, {1: 8, 2: 4, None: 0}[unit])
    assert dist.stage_logits.shape == (3, 5)
    assert dist.frame_probs.shape == (3, 8)
    assert dist.sample().frames.shape == (3, 8)


@pytest.mark.parametrize("head", HEADS)
def test_starting_probabilities(head):
    dist = selector(head, frame_prob=0.8, stage_prob=0.3)(torch.randn(2, 3, 8, 16, 16))
    torch.testing.assert_close(dist.frame_probs, torch.full((2, 8), 0.8), atol=0.02, rtol=0)
    torch.testing.assert_close(dist.stage_probs, torch.full((2, 5), 0.3), atol=0.02, rtol=0)


def test_bounded_logits_start_where_they_should_and_stay_within_bounds():
    net = selector(frame_prob=0.9, stage_prob=0.3, max_logit=3.0)
    clips = torch.randn(2, 3, 8, 16, 16)
    dist = net(clips)
    torch.testing.assert_close(dist.frame_probs, torch.full((2, 8), 0.9), atol=0.02, rtol=0)
    torch.testing.assert_close(dist.stage_probs, torch.full((2, 5), 0.3), atol=0.02, rtol=0)
    nn.init.constant_(net.head.stage_out.bias, 1e3)
    assert net(clips).stage_logits.tolist() == [[3.0] * 5] * 2
    with pytest.raises(Ada3DError, match=r"frame_prob=0\.99 is a logit of 4\.60, beyond"):
        selector(frame_prob=0.99, max_logit=3.0)
    with pytest.raises(Ada3DError, match=r"max_logit=0\.0"):
        selector(max_logit=0.0)


def test_bounded_logits_find_back_from_an_end():
    logits = torch.tensor([-30.0, -2.0, 0.5, 2.0, 30.0], requires_grad=True)
    made = bounded(logits, 3.0)
    torch.testing.assert_close(made, 3 * (logits / 3).tanh())
    with torch.no_grad():
        assert torch.equal(bounded(logits, 3.0), made)
    slopes = 1 - (logits.detach() / 3).tanh().square()
    (outwards,) = torch.autograd.grad(made, logits, -logits.detach().sign(), retain_graph=True)
    torch.testing.assert_close(outwards, -logits.detach().sign() * slopes)
    (back,) = torch.autograd.grad(made, logits, logits.detach().sign(), retain_graph=True)
    torch.testing.assert_close(back, logits.detach().sign() * slopes.clamp(min=LEAST_SLOPE))
    assert slopes[0] < 1e-6 < slopes[1]


def test_what_was_certain_can_be_unlearned():
    net = selector(max_logit=3.0)
    nn.init.constant_(net.head.stage_out.bias, 40.0)
    optimizer = torch.optim.SGD(net.parameters(), lr=5.0)
    for _ in range(200):
        probabilities = net(torch.randn(2, 3, 8, 16, 16)).stage_probs
        optimizer.zero_grad()
        probabilities.mean().backward()
        optimizer.step()
    assert probabilities.max() < 0.5


@pytest.mark.parametrize("length", [1, 2, 5, 16])
def test_a_frame_head_serves_any_length(length):
    dist = selector("frame")(torch.randn(2, 3, length, 16, 16))
    assert dist.frame_probs.shape == (2, length)


def test_a_mean_head_refuses_clips_of_another_length():
    with pytest.raises(Ada3DError, match="type='FrameHead'"):
        selector("mean")(torch.randn(1, 3, 5, 16, 16))


def test_a_mean_head_ignores_the_order_of_frames():
    """What the paper's head can know: the mean over frames."""
    net, clips = selector("mean"), torch.randn(2, 3, 8, 16, 16)
    torch.testing.assert_close(net(clips).frame_logits, net(clips.flip(2)).frame_logits)
    other = selector("frame")
    assert not torch.allclose(other(clips).frame_logits, other(clips.flip(2)).frame_logits)


def test_clips_do_not_see_each_other():
    net, clips = selector("frame"), torch.randn(3, 3, 8, 16, 16)
    torch.testing.assert_close(net(clips).frame_logits[1:2], net(clips[1:2]).frame_logits)


def test_normalisation_gives_the_backbone_its_own_pixels():
    class Probe(nn.Module):
        def forward(self, images):
            self.seen = images
            return images.mean((2, 3))

    probe = Probe()
    net = SelectionNetwork(
        plan(), probe, input_size=None, clip_mean=[100, 110, 120], clip_std=[50, 60, 70],
        input_mean=[127.5] * 3, input_std=[127.5] * 3,
    )  # fmt: skip
    pixels = torch.randint(0, 256, (1, 3, 8, 4, 4)).float()
    shape = (1, 3, 1, 1, 1)
    clips = (pixels - torch.tensor([100.0, 110, 120]).view(shape)) / torch.tensor(
        [50.0, 60, 70]
    ).view(shape)
    net(clips)
    wanted = (pixels / 127.5 - 1).transpose(1, 2).flatten(0, 1)
    torch.testing.assert_close(probe.seen, wanted, atol=1e-5, rtol=0)
    with pytest.raises(Ada3DError, match="all of"):
        SelectionNetwork(plan(), probe, input_size=None, clip_mean=[0.0] * 3)


def test_weights_load_in_half_precision_and_refuse_clearly(tmp_path):
    source, target = mobilenet_v2(0.25), mobilenet_v2(0.25)
    kept = {k: v.half() for k, v in source.state_dict().items() if v.is_floating_point()}
    path = tmp_path / "weights.pth"
    torch.save(kept, path)
    load_backbone(target, path)
    torch.testing.assert_close(
        target.features[0][0].weight, kept["features.0.0.weight"].float(), rtol=0, atol=0
    )
    with pytest.raises(Ada3DError, match=r"features.* has shape"):
        load_backbone(mobilenet_v2(1.0), path)
    with pytest.raises(Ada3DError, match="lacks"):
        load_backbone(SmallConvNet(), path)
    with pytest.raises(Ada3DError, match="no file at"):
        load_backbone(target, tmp_path / "absent.pth")
    (tmp_path / "text.pth").write_text("not weights")
    with pytest.raises(Ada3DError, match="no file of torch's"):
        load_backbone(target, tmp_path / "text.pth")


def test_price_is_the_backbone_on_every_frame_and_the_heads():
    net = SelectionNetwork(plan(), SmallConvNet((4,)), MeanHead, input_size=16)
    conv, norm = 8 * 8 * 27 * 4, 8 * 8 * 4
    heads = 4 * (8 + 5)
    # the normalisation is priced by fvcore at one to two multiply-adds a value
    assert 8 * (conv + norm) + heads <= selector_price(net, (3, 8, 64, 64))
    assert selector_price(net, (3, 8, 64, 64)) <= 8 * (conv + 2 * norm) + heads


def test_paper_price_of_mobilenet_v2():
    """Sec. 4.1: "it only requires 0.08 GFLOPs to compute features for each frame"."""
    net = SelectionNetwork(plan(), head=MeanHead)
    assert selector_price(net, (3, 8, 224, 224)) / 8 == pytest.approx(0.08e9, rel=0.1)


def test_classifier_is_paid_where_it_is_used_and_judges_frames_alone():
    net = selector(num_classes=7)
    assert net.classify(net.frame_features(torch.randn(2, 3, 8, 16, 16))).shape == (2, 8, 7)
    deciding = selector_price(net, (3, 8, 16, 16))
    assert deciding == selector_price(selector(), (3, 8, 16, 16))
    both = selector_price(net, (3, 8, 16, 16), classify=True)
    assert both - deciding == 8 * 6 * 7  # frames, features, classes
    alone = selector_price(net, (3, 8, 16, 16), decide=False, classify=True)
    assert 0 < both - alone < deciding
    with pytest.raises(Ada3DError, match="num_classes"):
        selector().classify(torch.randn(1, 8, 6))


def test_clip_classifier_trains_what_judges_clips():
    net = selector("context", num_classes=7, classify_by="clip")
    scores = net.classify(net.frame_features(torch.randn(2, 3, 8, 16, 16)))
    assert scores.shape == (2, 1, 7)
    scores.sum().backward()
    assert net.head.stage_hidden[0].weight.grad.abs().sum() > 0
    assert net.head.embed[0].weight.grad.abs().sum() > 0
    assert selector("mean", num_classes=7, classify_by="clip").classify(
        torch.randn(2, 8, 6)
    ).shape == (2, 1, 7)


def test_context_shows_frames_how_much_the_clip_changes():
    """The first frame's logit depends on a frame that is neither it nor its neighbour by more than
    the clip's mean."""
    torch.manual_seed(0)
    features = torch.randn(1, 8, 6)
    swapped = features[:, [0, 1, 2, 5, 4, 3, 6, 7]]  # the same mean, other changes
    for name, differs in (("frame", False), ("context", True)):
        head = selector(name).double().head
        torch.nn.init.normal_(head.frame_out.weight)
        before, after = (head(x.double())[0][0, 0] for x in (features, swapped))
        assert (abs(before - after) > 1e-6) == differs


def test_motion_shows_the_backbone_each_difference_to_the_frame_before():
    seen = []

    class Watch(SmallConvNet):
        def forward(self, images):
            seen.append(images)
            return super().forward(images)

    net = SelectionNetwork(plan(), Watch((4,), in_channels=6), motion=True, input_size=None)
    clips = torch.randn(2, 3, 8, 16, 16)
    net(clips)
    images = seen[-1].unflatten(0, (2, 8))
    torch.testing.assert_close(images[:, :, :3], clips.transpose(1, 2))
    torch.testing.assert_close(images[:, 1:, 3:], clips.transpose(1, 2).diff(dim=1))
    assert not images[:, 0, 3:].any()
    assert selector_price(net, (3, 8, 16, 16)) > 0
    with pytest.raises(Ada3DError, match="in_channels=6"):
        SelectionNetwork(plan(), SmallConvNet((4,)), motion=True)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"classify_by": "word"}, "classify_by"),
        ({"frame_prob": 1.0}, "frame_prob"),
        ({"stage_prob": 0.0}, "stage_prob"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(Ada3DError, match=message):
        selector(**options)


def test_wrong_clips_are_named():
    with pytest.raises(Ada3DError, match=r"\[N, C, T, H, W\]"):
        selector()(torch.randn(3, 8, 16, 16))
    with pytest.raises(Ada3DError, match="units of 2"):
        selector(p=plan(unit=2))(torch.randn(1, 3, 7, 16, 16))


def test_small_frames_are_each_frame_resized_by_itself():
    net = selector()
    clips = torch.randn(2, 3, 8, 40, 24)
    small = net.small_frames(clips)
    assert small.shape == (16, 3, 16, 16)
    for i, frame in enumerate(clips.transpose(1, 2).flatten(0, 1)):
        alone = torch.nn.functional.interpolate(
            frame[None], (16, 16), mode="bilinear", antialias=True
        )
        assert torch.equal(small[i], alone[0])
    for same in (selector(input_size=None), selector(input_size=40)):
        square = torch.randn(2, 3, 8, 40, 40)
        assert torch.equal(same.small_frames(square), square.transpose(1, 2).flatten(0, 1))
