"""Several policies of one clip: frames are computed once, and scores are those of clips repeated."""

import pytest
import torch
from families import FAMILIES, shared_family
from models import CLIP, shared_conversion
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import ada3d_fx
from ada3d_fx import Ada3DError, Policy

EXACT = dict(rtol=1e-9, atol=1e-9)
SHARING = ("slowonly", "c2d", "tpn", "r2plus1d", "posec3d", "x3d")  # some come before time is mixed


def case(shape, plan, seed=0):
    """Three clips, and ten policies of them in any order; one is alone, one has the same twice."""
    generator = torch.Generator().manual_seed(seed)
    clips = torch.randn(3, *shape, dtype=torch.float64, generator=generator)
    index = torch.tensor([2, 0, 0, 1, 2, 2, 0, 2, 0, 2])
    policy = Policy.random(plan, 9, torch.rand(9), torch.rand(9), generator)
    return clips, Policy.cat([policy, policy[slice(7, 8)]]), index


def check(adaptive, shape):
    clips, policy, index = case(shape, adaptive.plan)
    with torch.no_grad():
        torch.testing.assert_close(
            adaptive(clips, policy, index), adaptive(clips[index], policy), **EXACT
        )
        torch.testing.assert_close(
            adaptive(clips, None, index[:4]), adaptive(clips[index[:4]]), **EXACT
        )


@pytest.mark.parametrize("name", FAMILIES)
def test_scores_of_each_family_are_those_of_repeated_clips(name):
    _, adaptive = shared_family(name)
    check(adaptive.eval(), FAMILIES[name][2])
    if name in SHARING:
        assert adaptive.conversion.folded.shares()


class Rows(TorchDispatchMode):
    """How many frames each convolution of pictures of three channels gets."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.convolution.default and args[0].shape[1] == 3:
            self.seen.append(len(args[0]))
        return function(*args, **(kwargs or {}))


def test_a_frame_is_convolved_once_whatever_policies_keep_it():
    _, adaptive = shared_conversion("slowonly")
    adaptive.eval()
    clips, policy, index = case(CLIP, adaptive.plan)
    with torch.no_grad(), Rows() as rows:
        adaptive(clips, policy, index)
        adaptive(clips[index], policy)
    kept = [int(policy.frames[index == clip].any(0).sum()) for clip in range(3)]
    assert rows.seen == [sum(kept), int(policy.frames.sum())] and rows.seen[0] < rows.seen[1]


def test_gradients_are_those_of_repeated_clips():
    _, adaptive = shared_conversion("slowonly")
    clips, policy, index = case(CLIP, adaptive.plan)
    found = []
    for arguments in ((clips, policy, index), (clips[index], policy)):
        scores = adaptive(*arguments)
        found.append(torch.autograd.grad(scores.square().sum(), list(adaptive.parameters())))
    for mine, wanted in zip(*found):
        torch.testing.assert_close(mine, wanted, **EXACT)


@pytest.mark.parametrize("change", ["training", "hook", "replaced", "weights", "whole"])
def test_what_a_user_changes_is_seen(change):
    _, adaptive = shared_conversion("slowonly")
    adaptive = ada3d_fx.convert(adaptive.plain(), CLIP)
    pool = adaptive.get_submodule("backbone.maxpool")
    norm = adaptive.get_submodule("backbone.conv1.bn")
    calls = []
    if (
        change == "training"
    ):  # statistics of a batch, in which frames count as often as they are kept
        norm.train()
    elif change == "hook":
        pool.register_forward_hook(lambda module, inputs, output: calls.append(len(output)))
    elif change == "replaced":
        adaptive.backbone.maxpool = nn.AvgPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
    elif change == "weights":
        norm.weight.data.mul_(-2)
    else:
        adaptive.train()
        for module in adaptive.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    clips, policy, index = case(CLIP, adaptive.plan)
    state = {k: v.clone() for k, v in adaptive.state_dict().items()}
    found = []
    for arguments in ((clips, policy, index), (clips[index], policy)):
        adaptive.load_state_dict(state)
        with torch.no_grad():
            found.append(adaptive(*arguments))
    torch.testing.assert_close(*found, **EXACT)
    if change == "hook":
        assert calls == [int(policy.frames.sum())] * 2


class Normalised(nn.Module):
    """Statistics of the batch, also in evaluation, before time is mixed."""

    def __init__(self, norm):
        super().__init__()
        self.first, self.second = (
            nn.Conv3d(3, 4, (1, 3, 3)),
            nn.Conv3d(4, 5, (3, 1, 1), padding=(1, 0, 0)),
        )
        self.norm = norm

    def forward(self, clips):
        return self.second(self.norm(self.first(clips))).mean((2, 3, 4))


class Functional(nn.Module):
    def forward(self, values):
        return nn.functional.batch_norm(values, None, None, training=True)


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm3d(4, track_running_stats=False), Functional()], ids=["module", "function"]
)
def test_frames_are_not_shared_where_they_are_normalised_together(norm):
    adaptive = ada3d_fx.convert(Normalised(norm).double().eval(), (3, 4, 6, 6))
    check(adaptive, (3, 4, 6, 6))
    if isinstance(norm, nn.BatchNorm3d):
        adaptive.norm = nn.Identity().eval()
        check(adaptive, (3, 4, 6, 6))
        assert adaptive.conversion.folded.shares()


@pytest.mark.parametrize("index", [[0, 3], [-1, 0], [[0, 1]], [0.0, 1.0], []])
def test_numbers_that_name_no_clips_are_told(index):
    _, adaptive = shared_conversion("slowonly")
    with pytest.raises(Ada3DError, match="whole numbers from 0 to 2"):
        adaptive(torch.randn(3, *CLIP, dtype=torch.float64), None, torch.tensor(index))
    with pytest.raises(Ada3DError, match="policy"):
        adaptive(
            torch.randn(3, *CLIP, dtype=torch.float64),
            Policy.full(adaptive.plan, 3),
            torch.tensor([0, 1]),
        )
