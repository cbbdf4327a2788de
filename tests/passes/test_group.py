"""The plan: the paper's stages, other groupings, and what a reader of print(plan) sees."""

import pytest
import torch
from models import CLIP, resnet3d, slowonly
from torch import nn

import ada3d_fx

I3D_SITES = {"stem": 1, "res2": 3, "res3": 2, "res4": 3, "res5": 1}


def test_the_papers_stages():
    plan = ada3d_fx.convert(resnet3d("i3d"), CLIP).plan
    assert {stage.name: len(stage.sites) for stage in plan.stages} == I3D_SITES
    assert (plan.num_frames, plan.num_stages, plan.frame_unit, plan.num_units) == (8, 5, 1, 8)
    only = ada3d_fx.convert(slowonly(), CLIP).plan
    assert [stage.name for stage in only.stages] == ["res4", "res5"]


def test_sites_are_paths_of_temporal_convolutions():
    model = resnet3d("i3d")
    plan = ada3d_fx.convert(model, CLIP).plan
    modules = dict(model.named_modules())
    found = {site for stage in plan.stages for site in stage.sites}
    assert found == {
        n for n, m in modules.items() if isinstance(m, nn.Conv3d) and m.kernel_size[0] > 1
    }


@pytest.mark.parametrize(
    "grouping, names",
    [
        (
            "block",
            [
                "stem",
                "res2.0",
                "res2.1",
                "res2.2",
                "res3.0",
                "res3.2",
                "res4.0",
                "res4.2",
                "res4.4",
                "res5.1",
            ],
        ),
        ({r"conv1\.conv$": "first"}, ["first"]),
        ({"layer[12]": "early"}, ["stem", "early", "res4", "res5"]),
    ],
)
def test_other_groupings(grouping, names):
    plan = ada3d_fx.convert(resnet3d("i3d"), CLIP, stages=grouping).plan
    assert [stage.name for stage in plan.stages] == names


def test_by_layer_every_convolution_is_its_own():
    plan = ada3d_fx.convert(resnet3d("i3d"), CLIP, stages="layer").plan
    assert [(s.name,) for s in plan.stages] == [s.sites for s in plan.stages]
    assert plan.num_stages == sum(I3D_SITES.values())


def test_a_model_without_temporal_convolutions_still_drops_frames():
    plan = ada3d_fx.convert(resnet3d("c2d"), CLIP).plan
    assert plan.num_stages == 0 and plan.frame_unit == 1


def test_the_plan_explains_itself():
    text = str(ada3d_fx.convert(resnet3d("i3d"), CLIP).plan)
    assert "clip 3 x 8 x 32 x 32" in text and "each may be dropped" in text
    assert "2 res3  2 temporal convolutions: backbone.layer2.0.conv1.conv ..." in text


class Joined(nn.Module):
    """Two pathways of different speed that meet: frames must come in pairs."""

    def __init__(self, padding=1):
        super().__init__()
        self.slow = nn.Conv3d(3, 4, 3, stride=(2, 1, 1), padding=(padding, 1, 1))
        self.fast = nn.Conv3d(3, 4, (2, 3, 3), stride=(2, 1, 1), padding=(0, 1, 1))
        self.pool = nn.AdaptiveAvgPool3d(1)

    def forward(self, x):
        return self.pool(self.slow(x) + self.fast(x)).flatten(1)


def test_where_strides_meet_frames_are_kept_in_units():
    plan = ada3d_fx.convert(Joined(), CLIP).plan
    assert plan.frame_unit == 2
    assert any("1 frames" in str(r) or "[N, 3, 1," in str(r) for r in plan.reasons), plan
    assert "units of 2" in str(plan)
    with pytest.raises(ada3d_fx.Ada3DError, match="whole units of 2"):
        frames = torch.arange(8)[None] != 0
        adaptive = ada3d_fx.convert(Joined(), CLIP)
        adaptive(
            torch.zeros(1, *CLIP), ada3d_fx.Policy(frames, torch.ones(1, plan.num_stages).bool())
        )


def test_convolutions_whose_centre_changes_the_length_stay_on_with_the_reason():
    plan = ada3d_fx.convert(Joined(), CLIP).plan
    assert [stage.sites for stage in plan.stages] == [("slow",)]
    assert any(r.where == "fast" and "stays on" in r.why for r in plan.reasons)
