"""Models that move the time axis to run a 2D network on all frames."""

import pytest
import torch
from models import clips
from torch import nn

import ada3d_fx
from ada3d_fx import Policy

EXACT = dict(rtol=1e-9, atol=1e-9)
SHAPE = (3, 6, 5, 6)


class Frames(nn.Module):
    """BatchNorm over time around a 2D network, and something that runs densely before them."""

    def __init__(self, dense):
        super().__init__()
        self.conv = nn.Conv3d(3, 4, (3, 1, 1), padding=(1, 0, 0))
        self.norm, self.norm2 = nn.BatchNorm3d(4), nn.BatchNorm3d(4)
        self.flat = nn.Conv2d(4, 4, 3, padding=1)
        self.last, self.fc = nn.AdaptiveAvgPool3d(1), nn.Linear(4, 5)
        self.dense = dense

    def forward(self, x):
        x = self.conv(x)
        x = self.norm(x + x.cumsum(2) if self.dense else x)
        n, c, t, h, w = x.shape
        x = self.flat(x.transpose(1, 2).reshape(n * t, c, h, w))
        x = self.norm2(x.view(n, t, c, h, w).permute(0, 2, 1, 3, 4)).relu()
        x = x + x.cumsum(2) if self.dense else x
        return self.fc(self.last(x).flatten(1))


@pytest.mark.parametrize("dense", [False, True])
def test_gradients_through_moved_axes(dense):
    torch.manual_seed(0)
    model = Frames(dense).double().eval()
    for norm in (model.norm, model.norm2):
        norm.running_var.uniform_(0.5, 2)
    adaptive, x = ada3d_fx.convert(model, clip_shape=SHAPE), clips(4, SHAPE)
    frames = torch.zeros(4, 6, dtype=torch.bool)
    for clip, length in enumerate((1, 3, 3, 6)):
        frames[clip, :length] = True
    policy = Policy(frames, torch.ones(4, 1, dtype=torch.bool))
    weights = clips(4, (5, 1, 1, 1)).flatten(1)
    # one frame twice, which torch itself would take for a clip of another memory format
    wanted = torch.cat([model(x[i : i + 1, :, frames[i]]) for i in range(4)])
    got = adaptive(x, policy)
    torch.testing.assert_close(got, wanted, **EXACT)
    (got * weights).sum().backward()
    (wanted * weights).sum().backward()
    theirs = dict(model.named_parameters())
    for path, parameter in adaptive.named_parameters():
        torch.testing.assert_close(
            parameter.grad, theirs[path].grad, msg=lambda m, path=path: f"{path}: {m}", **EXACT
        )


class CheckpointedFrames(Frames):
    """The 2D network and what moves the time axis are computed anew in backward."""

    def forward(self, x):
        x = torch.utils.checkpoint.checkpoint(self.inner, self.conv(x), use_reentrant=False)
        return self.fc(self.last(x).flatten(1))

    def inner(self, x):
        n, t = x.shape[0], x.shape[2]
        x = self.flat(x.transpose(1, 2).flatten(0, 1)).relu()
        return x.unflatten(0, (n, t)).transpose(1, 2)


def test_moved_axes_stay_in_their_checkpoint():
    adaptive = ada3d_fx.convert(CheckpointedFrames(False).double(), clip_shape=SHAPE)
    program = adaptive.training_module
    assert [name for name in program._modules if name.startswith("checkpoint")] == ["checkpoint_0"]
    assert "transpose" not in program.code


class Instance(Frames):
    """InstanceNorm with statistics, which has no packed form."""

    def __init__(self):
        super().__init__(False)
        self.instance = nn.InstanceNorm3d(4, affine=True, track_running_stats=True)

    def forward(self, x):
        return self.fc(self.last(self.instance(self.conv(x)).sigmoid_()).flatten(1))


@pytest.mark.parametrize("length", [1, 6])
def test_gradients_of_what_runs_densely(length):
    torch.manual_seed(0)
    model = Instance().double().eval()
    adaptive, x = ada3d_fx.convert(model, clip_shape=SHAPE), clips(1, SHAPE)
    policy = Policy(torch.arange(6)[None] < length, torch.ones(1, 1, dtype=torch.bool))
    adaptive(x, policy).square().sum().backward()
    model(x[:, :, :length]).square().sum().backward()
    torch.testing.assert_close(adaptive.instance.weight.grad, model.instance.weight.grad, **EXACT)
