"""All 3D recognizers that MMAction2 ships, unedited and at full depth.

Conversion at their own clips is in the slow tier (about five minutes); scores are in the tier `zoo`.
"""

import gc
import os

import oracle
import pytest
import torch
from families import dense
from torch import nn

import ada3d_fx
from ada3d_fx import Policy, UnsupportedModel
from ada3d_fx.mm.build import build_recognizer
from ada3d_fx.mm.config import clip_shape_of, recognizer_config
from ada3d_fx.mm.zoo import shipped_recognizers

# folder of configs -> how many, and how they run
FAMILIES = {
    "c2d": (2, {"packed"}),
    "c3d": (1, {"packed"}),
    "csn": (8, {"packed"}),
    "i3d": (6, {"packed", "partly dense"}),  # partly: non-local blocks
    "mvit": (7, {"partly dense"}),
    "posec3d": (7, {"packed"}),
    "r2plus1d": (2, {"packed"}),
    "rgbpose_conv3d": (2, {"packed"}),
    "slowfast": (5, {"packed"}),
    "slowonly": (11, {"packed", "partly dense"}),
    "swin": (6, {"dense"}),
    "timesformer": (3, {"partly dense"}),
    "tpn": (2, {"packed"}),
    "uniformer": (3, {"partly dense"}),
    "uniformerv2": (24, {"partly dense"}),
    "videomae": (2, {"partly dense"}),
    "videomaev2": (2, {"partly dense"}),
    "x3d": (2, {"packed"}),
}
# Positions are learned, or features flattened, for one size of frame; others are tested at 64x64.
ONE_SIZE = {"c3d", "mvit", "uniformerv2", "timesformer"}

# Models that are built for T frames: the oracle knows them by their names, and says what is right.
BUILT_FOR_T = {"timesformer", "uniformerv2", "videomae", "videomaev2"}


def of_family(name):
    return [shipped for shipped in shipped_recognizers() if shipped.family == name]


def distinct(name, *parts):
    """The family's configs that differ in clips or model, or in these parts of the model."""
    found = {}
    for shipped in of_family(name):
        model = shipped.config.model.to_dict()
        key = str({part: model.get(part) for part in parts or model})
        found.setdefault((key, clip_shape_of(shipped.config)), shipped)
    return list(found.values())


def build(shipped):
    torch.manual_seed(0)
    model = build_recognizer(recognizer_config(shipped.config.model)).eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return model


@pytest.mark.slow
def test_no_shipped_recognizer_is_forgotten():
    families = [shipped.family for shipped in shipped_recognizers()]
    assert {name: families.count(name) for name in set(families)} == {
        name: count for name, (count, _) in FAMILIES.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_shipped_recognizers_convert_or_say_why(name):
    kinds = set()
    for shipped in distinct(name):
        try:
            plan = ada3d_fx.convert(build(shipped), clip_shape=clip_shape_of(shipped.config)).plan
        except UnsupportedModel as error:
            assert all(reason.where and reason.why for reason in error.reasons)
            kinds.add("refused")
            continue
        kinds.add(plan.execution)
        assert plan.num_stages or plan.num_units
        assert plan.frame_unit == 1 or (plan.frame_unit and plan.reasons)
        assert plan.execution == "packed" or plan.dense
        gc.collect()
    assert kinds == FAMILIES[name][1]


@pytest.mark.zoo
@pytest.mark.parametrize("name", FAMILIES)
def test_shipped_recognizers_keep_their_scores(name):
    """Full policy against the original, and a ragged batch against its specialised networks; where
    positions follow the kept frames, against the original with positions taken out too."""
    torch.set_num_threads(os.cpu_count() or 1)
    for shipped in distinct(name, "backbone", "neck"):
        channels, frames, *size = clip_shape_of(shipped.config)
        shape = (channels, frames, *(size if name in ONE_SIZE else (64, 64)))
        model = build(shipped)
        large = sum(p.numel() for p in model.parameters()) > 100e6
        model = model.float() if large else model.double()
        tolerance = 1e-4 if large else 1e-9
        adaptive = ada3d_fx.convert(model, clip_shape=shape)
        n = 1 if large else 2
        clips = torch.randn(n, *shape, dtype=torch.float32 if large else torch.float64)
        policy = Policy.random(adaptive.plan, n, torch.rand(n), torch.rand(n))
        with torch.no_grad():
            wanted = dense(model, clips[:1])
            got = adaptive(clips[:1])
            assert (got - wanted).abs().max() <= tolerance * wanted.abs().max(), shipped.name
            got = adaptive(clips, policy)
            for i, (kept, stages) in enumerate(zip(policy.frames, policy.stages)):
                static = ada3d_fx.specialize(
                    adaptive,
                    int(kept.sum()),
                    stages.tolist(),
                    frames=kept.nonzero().flatten().tolist(),
                )
                alone = static(clips[i : i + 1][:, :, kept])[0]
                assert (got[i] - alone).abs().max() <= tolerance * alone.abs().max(), shipped.name
            if name in BUILT_FOR_T:
                wanted = oracle.scores(model, adaptive.plan, clips, policy, run=dense)
                assert (got - wanted).abs().max() <= tolerance * wanted.abs().max(), shipped.name
        print(shipped.name, "float32" if large else "float64", policy.num_frames.tolist())
        del model, adaptive, static
        gc.collect()


@pytest.mark.zoo
@pytest.mark.parametrize("size", ["small", "base", "large"])
def test_relative_positions_of_shipped_recognizers_are_those_of_the_kept_times(size):
    """MViT, whose own rule stretches its tables to the length of the clip; a clip of random weights
    under a policy, against the original with its tables indexed by the differences of the times."""
    torch.set_num_threads(os.cpu_count() or 1)
    for shipped in distinct("mvit", "backbone"):
        if size not in shipped.name:
            continue
        shape = clip_shape_of(shipped.config)
        model = build(shipped)
        for module in model.modules():
            if hasattr(module, "rel_pos_t"):
                nn.init.normal_(module.rel_pos_t, 0, 0.1)
        large = sum(p.numel() for p in model.parameters()) > 100e6
        model = model.float() if large else model.double()
        adaptive = ada3d_fx.convert(model, clip_shape=shape, positions="kept")
        assert adaptive.plan.frame_unit == 2
        policy = Policy.random(adaptive.plan, 1, 0.4, 0.6)
        kept = policy.frames[0].nonzero().flatten().tolist()
        clip = torch.randn(1, *shape, dtype=torch.float32 if large else torch.float64)
        with torch.no_grad():
            got = adaptive(clip, policy)
            part = oracle.sliced(
                model, adaptive.plan, policy.stages[0].tolist(), copy_weights=False
            )
            with oracle.relative_at_times(part, kept, shape[1]):
                wanted = dense(part, clip[:, :, kept])
        assert (got - wanted).abs().max() <= (1e-4 if large else 1e-9) * wanted.abs().max()
        print(shipped.name, "float32" if large else "float64", len(kept))
        del model, adaptive, part
        gc.collect()
