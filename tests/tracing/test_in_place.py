"""Values that a model writes into: whoever reads them afterwards, and nobody before, sees that."""

import pytest
import torch
from models import clips
from torch import nn

import ada3d_fx
from ada3d_fx import Ada3DError, Policy, UnsupportedModel

EXACT = dict(rtol=1e-9, atol=1e-9)
SHAPE = (3, 4, 6, 6)


class Net(nn.Module):
    """A temporal convolution, code that writes in place, and a classifier."""

    def __init__(self, write):
        super().__init__()
        self.conv = nn.Conv3d(3, 4, (3, 1, 1), padding=(1, 0, 0))
        self.relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.0)
        self.last, self.fc = nn.AdaptiveAvgPool3d(1), nn.Linear(4, 5)
        self.steps = nn.Parameter(torch.rand(1, 1, 4, 1, 1))
        self.mix = nn.Parameter(torch.randn(4, 4, 3, 1, 1))
        self.write = write

    def forward(self, x):
        return self.fc(self.last(self.write(self, self.conv(x))).flatten(1))


def augmented(net, x):
    identity = x
    x += 1
    x *= 0.5
    return x + identity


def method(net, x):
    y = x.tanh_()
    return y + x


def module(net, x):
    y = net.relu(x)
    return y + 2 * x


def read_before(net, x):
    y = x * 3
    net.relu(x)
    return x + y


def read_before_in_a_dense_region(net, x):
    y = x.softmax(2)
    x.add_(1)
    z = x.cumsum(2)
    return z + y + x


def in_a_dense_region(net, x):
    y = x.clamp_min_(0.1).cumsum(2)
    return y + x


def alone_in_a_dense_region(net, x):
    return x.tanh_()


def of_a_fixed_length(net, x):
    y = nn.functional.conv3d(x * net.steps, net.mix - net.mix.mean(), padding=(1, 0, 0))
    y += x
    return y


def view_read(net, x):
    """As SlowFast's paths, of which one begins with an activation in place."""
    slow, fast = x[:, :, ::2], net.relu(x)
    return slow.mean(2, keepdim=True) + fast


def chunk_read(net, x):
    a, b = x.chunk(2, 1)
    x.mul_(2)
    return torch.cat([b, a], 1)


def halves_read(net, x):
    a, b = x[:, :2], x[:, 2:]
    x.mul_(2)
    return torch.cat([b, a], 1)


def other_half(net, x):
    a, b = x[:, :2], x[:, 2:]
    a = a.relu_()
    return torch.cat([a, b], 1)


def part_of_what_is_read(net, x):
    x[:, 1:3].relu_()
    return x


def views_of_what_is_read(net, x):
    """Through several views, as MViT writes positions into its map of attention."""
    y = x * 2
    part = y[:, :2].transpose(1, 2).view(*x.shape[:1], -1, 2, *x.shape[3:])
    other = y.unsqueeze(0)
    part += 1
    return y + part.amax((1, 2, 3, 4), keepdim=True) + other.squeeze(0)


def written_twice(net, x):
    y = x.permute(0, 2, 3, 4, 1)
    rest = y[..., 1:]
    rest += y[..., :-1] * 2
    y[..., :2].relu_()
    return y.permute(0, -1, 1, 2, 3) + x


def dropped(net, x):
    """Dropout gives what it takes in evaluation, and another tensor in training."""
    y = net.relu(net.drop(x))
    return x + y


def clips_themselves(net, x):
    return net.relu(x.contiguous()) + x


@pytest.mark.parametrize(
    "write",
    [
        augmented, method, module, read_before, read_before_in_a_dense_region, in_a_dense_region,
        alone_in_a_dense_region, of_a_fixed_length, view_read, chunk_read, halves_read, other_half,
        part_of_what_is_read, views_of_what_is_read, written_twice, dropped, clips_themselves,
    ],
)  # fmt: skip
def test_reads_after_a_write_see_it(write):
    torch.manual_seed(0)
    model = Net(write).double().eval()
    adaptive = ada3d_fx.convert(model, clip_shape=SHAPE)
    policy = Policy.random(adaptive.plan, 3, torch.rand(3), 1.0)
    x = clips(3, SHAPE)
    with torch.set_grad_enabled(write is not chunk_read):  # where torch itself refuses
        wanted = torch.cat([model(x[i : i + 1, :, policy.frames[i]]) for i in range(3)])
        got = adaptive(x, policy)
    torch.testing.assert_close(got, wanted, **EXACT)
    if wanted.requires_grad:
        (got.square().sum() + wanted.square().sum()).backward()
        torch.testing.assert_close(adaptive.conv.weight.grad, model.conv.weight.grad, **EXACT)
    with torch.no_grad():
        torch.testing.assert_close(adaptive(x, policy), wanted.detach(), **EXACT)
        torch.testing.assert_close(adaptive(x), model(x), **EXACT)
        torch.testing.assert_close(adaptive.train()(x), model.train()(x), **EXACT)
        static = ada3d_fx.specialize(adaptive.eval(), 4, [1])
        torch.testing.assert_close(static(x), model.eval()(x), **EXACT)


class WritesIntoClips(Net):
    def forward(self, x):
        x += 1
        return super().forward(x.relu_() + x)


def test_the_users_clips_are_not_written_into():
    torch.manual_seed(0)
    model = WritesIntoClips(lambda net, x: x).double().eval()
    adaptive = ada3d_fx.convert(model, clip_shape=SHAPE)
    x = clips(2, SHAPE).contiguous(memory_format=torch.channels_last_3d)
    before = x.clone()
    with torch.no_grad():
        got = adaptive(x)
        assert torch.equal(x, before)
        torch.testing.assert_close(got, model(before), **EXACT)


def test_what_is_written_through_a_view_and_read_is_refused():
    def write(net, x):
        x.flatten(3).relu_()
        return x

    with pytest.raises(UnsupportedModel, match="writes into it through a view") as error:
        ada3d_fx.convert(Net(write).double(), clip_shape=SHAPE)
    assert [reason.where for reason in error.value.reasons] == ["conv"]


def test_writes_that_nobody_reads_elsewhere_copy_nothing():
    """Activations in place and residual sums, as ResNets have them."""

    def write(net, x):
        y = net.relu(x * 2)
        y += x
        return net.relu(y)

    adaptive = ada3d_fx.convert(Net(write).double(), clip_shape=SHAPE)
    assert "clone" not in adaptive.graph_module.code


@pytest.mark.parametrize("inplace", [True, False])
def test_a_module_that_writes_otherwise_than_when_it_was_traced_is_refused(inplace):
    net = Net(module).double().eval()
    net.relu = nn.ReLU(inplace)
    adaptive, x = ada3d_fx.convert(net, SHAPE), clips(2, SHAPE)
    for root in (net, adaptive):
        root.relu = nn.SiLU(inplace)
    torch.testing.assert_close(adaptive(x), net(x), **EXACT)
    adaptive.relu = nn.SiLU(not inplace)
    for call in (lambda: adaptive(x), lambda: ada3d_fx.specialize(adaptive, 4, [True])):
        with pytest.raises(Ada3DError, match=r"relu .* into its input .* keep its 'inplace'"):
            call()
    adaptive.relu.inplace = inplace
    torch.testing.assert_close(adaptive(x), net(x), **EXACT)
