"""The exported selection network decides as `PolicyDistribution.mode` does."""

import pytest
import torch
from exports import clips, network, selector

from ada3d_fx.distribution import GREEDY, PolicyDistribution
from ada3d_fx.errors import Ada3DError
from ada3d_fx.exporting.decider import Decider, _Resize
from ada3d_fx.learn.heads import MeanHead
from ada3d_fx.packed.module_tree import keep_unregistered
from ada3d_fx.plan import Stage, StagePlan


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.83])
@pytest.mark.parametrize("greedy", GREEDY)
@pytest.mark.parametrize("head", [None, MeanHead])
def test_policies_are_those_of_mode(greedy, threshold, head):
    selection = selector() if head is None else selector(head=head)
    decider = Decider(selection, network().plan, greedy)
    with torch.no_grad():
        frames, stages = decider(clips(40), torch.tensor(threshold))
        policy = selection(clips(40)).mode(threshold, greedy)
    assert policy.num_distinct >= 8
    assert torch.equal(frames, policy.frames) and torch.equal(stages, policy.stages)


class Given(torch.nn.Module):
    """In place of a selection network: it has these logits."""

    classifier = None
    input_size = None

    def __init__(self, distribution):
        super().__init__()
        keep_unregistered(self, given=distribution)

    def frame_features(self, clips):
        return clips

    def distribution(self, features):
        return self.given


@pytest.mark.parametrize("unit", [1, 2, None])
@pytest.mark.parametrize("greedy", GREEDY)
def test_ties_and_clips_that_drop_everything(greedy, unit):
    units = {1: 8, 2: 4, None: 0}[unit]
    rows = torch.randint(-3, 3, (200, units + 3)).float()  # many are equal, many at the threshold
    rows[:20] = -9.0
    distribution = PolicyDistribution(rows[:, :units], rows[:, units:], unit, 8)
    plan = StagePlan((3, 8, 4, 4), tuple(Stage(str(k), ()) for k in range(3)), unit)
    frames, stages = Decider(Given(distribution), plan, greedy)(
        torch.zeros(200, 3, 8, 4, 4), torch.tensor(0.5)
    )
    policy = distribution.mode(0.5, greedy)
    assert torch.equal(frames, policy.frames) and torch.equal(stages, policy.stages)


@pytest.mark.parametrize("shape", [(32, 32), (20, 50), (16, 40), (9, 12)])
def test_resizing_is_two_products(shape):
    frames = torch.randn(3, 3, *shape)
    wanted = torch.nn.functional.interpolate(
        frames, (16, 16), mode="bilinear", align_corners=False, antialias=True
    )
    clips = frames.unflatten(0, (1, 3)).transpose(1, 2)
    assert (_Resize(*shape, 16)(clips) - wanted).abs().max() < 1e-5


def test_what_cannot_be_decided_is_told():
    with pytest.raises(Ada3DError, match=r"greedy='best'; there are threshold, count, systematic"):
        Decider(selector(), network().plan, "best")
    with pytest.raises(Ada3DError, match="no classifier"):
        Decider(selector(), network().plan, classifies=True)
