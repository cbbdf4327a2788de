"""The folded program of inference is the program, however weights and modules have changed."""

import copy

import pytest
import torch
from models import CALLS, DEVICES, clips, resnet3d
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import ada3d_fx

EXACT = dict(rtol=1e-9, atol=1e-9)
SHAPE = (3, 4, 16, 16)


class Net(nn.Module):
    """A convolution with BatchNorm over time, one without, a residual sum, and a classifier."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(3, 4, (3, 3, 3), padding=1)
        self.norm = nn.BatchNorm3d(4)
        self.conv2 = nn.Conv3d(4, 4, (1, 3, 3), padding=(0, 1, 1), bias=False)
        self.norm2 = nn.BatchNorm3d(4)
        self.scale = nn.Parameter(torch.full((1, 4, 1, 1, 1), 1.5))
        self.register_buffer("shift", torch.full((1, 4, 1, 1, 1), 0.5))
        self.pool = nn.AdaptiveAvgPool3d(1)
        self.fc = nn.Linear(4, 5)

    def forward(self, x):
        x = torch.relu(self.norm(self.conv(x)))
        x = self.norm2(self.conv2(x)) + x
        return self.fc(self.pool(x * self.scale + self.shift).flatten(1))


def net(kind=Net):
    torch.manual_seed(0)
    model = kind().double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    return model


def same(adaptive, x):
    """Inference equals the model of now, and so does the program with gradients."""
    wanted = copy.deepcopy(adaptive).cpu().plain()(x.cpu()).detach()
    for context in (torch.no_grad, torch.inference_mode, torch.enable_grad):
        for _ in range(CALLS[x.device.type]):
            with context():
                torch.testing.assert_close(adaptive(x).cpu(), wanted, **EXACT)
    return wanted


def numpy_write(tensor):
    tensor.detach().numpy()[:] *= 1.5


EDITS = {
    "in place": lambda n: n.conv.weight.mul_(1.5),
    "through data": lambda n: n.conv.weight.data.mul_(1.5),
    "copied through data": lambda n: n.conv.weight.data.copy_(n.conv.weight.data * 1.5),
    "initialised through data": lambda n: nn.init.normal_(n.norm.weight.data),
    "statistics through data": lambda n: n.norm.running_mean.data.add_(0.5),
    "through numpy": lambda n: numpy_write(n.conv.weight),
    "statistics through numpy": lambda n: numpy_write(n.norm2.running_var),
    "eps": lambda n: setattr(n.norm, "eps", 0.3),
    "another parameter": lambda n: setattr(
        n.conv, "weight", nn.Parameter(n.conv.weight.detach() * 1.5)
    ),
    "another module": lambda n: setattr(n, "norm", copy.deepcopy(net().norm).requires_grad_(False)),
    "swapped data": lambda n: setattr(n.conv.weight, "data", n.conv.weight.data * 1.5),
    "a child at the top": lambda n: setattr(n, "fc", nn.Linear(4, 5).double()),
    "a parameter at the top": lambda n: setattr(n, "scale", nn.Parameter(2 * n.scale.detach())),
    "a buffer at the top": lambda n: setattr(n, "shift", 2 * n.shift),
    "loaded": lambda n: n.load_state_dict(
        {k: v * 1.25 if v.is_floating_point() else v for k, v in n.state_dict().items()}
    ),
    "loaded by assigning": lambda n: n.load_state_dict(
        {k: v * 1.25 if v.is_floating_point() else v for k, v in n.state_dict().items()},
        assign=True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("edit", EDITS)
def test_every_way_to_change_a_weight_is_seen(edit, device):
    if device == "cuda" and "numpy" in edit:
        pytest.skip("NumPy sees no memory of a GPU")
    adaptive, x = ada3d_fx.convert(net(), clip_shape=SHAPE).to(device), clips(2, SHAPE).to(device)
    before = same(adaptive, x)
    with torch.no_grad():
        EDITS[edit](adaptive)
    after = same(adaptive.to(device), x)
    changed = (after - before).abs().max() > 1e-6
    assert changed != (edit == "another module")  # which is a copy of what was there


def test_mmengines_averaged_weights_are_those_that_run():
    """EMAHook swaps the model's tensors with the averaged ones through ``data``."""
    adaptive, x = ada3d_fx.convert(net(), clip_shape=SHAPE), clips(2, SHAPE)
    averaged = copy.deepcopy(adaptive)
    with torch.no_grad():
        for p in averaged.parameters():
            p.mul_(1.1)
    plain, other = same(adaptive, x), same(averaged, x)
    for _ in range(2):
        for p, q in zip(adaptive.state_dict().values(), averaged.state_dict().values()):
            tmp = p.data.clone()
            p.data.copy_(q.data)
            q.data.copy_(tmp)
        plain, other = other, plain
        torch.testing.assert_close(same(adaptive, x), plain, **EXACT)


def test_inference_mode_and_no_grad_take_turns():
    adaptive, x = ada3d_fx.convert(net(), clip_shape=SHAPE), clips(1, SHAPE)
    with torch.inference_mode():
        first = adaptive(x)
    with torch.no_grad():
        adaptive.norm.running_mean.add_(1.0)
        second = adaptive(x)
    with torch.inference_mode():
        third = adaptive(x)
    assert not torch.equal(first, second) and torch.equal(second, third)


def test_a_model_made_in_inference_mode_runs():
    x = clips(1, SHAPE)
    with torch.inference_mode():
        model = net()
        adaptive = ada3d_fx.convert(model, clip_shape=SHAPE)
        torch.testing.assert_close(adaptive(x), model(x), **EXACT)
    with torch.no_grad():
        torch.testing.assert_close(adaptive(x), model(x), **EXACT)


def test_a_network_converted_in_inference_mode_trains():
    with torch.inference_mode():
        adaptive = ada3d_fx.convert(net(), clip_shape=SHAPE)
    ada3d_fx.convert(adaptive, clip_shape=SHAPE).train()(clips(2, SHAPE)).sum().backward()
    before = adaptive.norm.running_mean.clone()
    adaptive.train()(clips(2, SHAPE)).sum().backward()
    assert adaptive.conv.weight.grad.any()
    assert not torch.equal(adaptive.norm.running_mean, before)


class Twice(Net):
    """One convolution, called twice with a BatchNorm of its own each time."""

    def forward(self, x):
        x = torch.relu(self.norm(self.conv(x)))
        x = torch.relu(self.norm2(self.conv2(x)))
        x = self.norm(self.conv2(x))
        return self.fc(self.pool(x).flatten(1))


class Clash(Net):
    """Modules whose paths differ by a dot and an underscore only."""

    def __init__(self):
        super().__init__()
        self.a = nn.Sequential(nn.Conv3d(4, 4, (1, 3, 3), padding=(0, 1, 1)), nn.BatchNorm3d(4))
        self.a_0 = nn.Conv3d(4, 4, (1, 3, 3), padding=(0, 1, 1))
        self.a_1 = nn.BatchNorm3d(4)

    def forward(self, x):
        x = torch.relu(self.norm(self.conv(x)))
        return self.fc(self.pool(self.a_1(self.a_0(self.a(x)))).flatten(1))


class OddNorm(nn.BatchNorm3d):
    """A BatchNorm with a forward of its own."""

    def forward(self, x):
        return super().forward(x) ** 2


class WithOddNorm(Net):
    def __init__(self):
        super().__init__()
        self.norm = OddNorm(4)


class Broadcast(Net):
    """The sum is larger than its left side, a convolution's output."""

    def forward(self, x):
        x = torch.relu(self.norm(self.conv(x)))
        small = F.adaptive_avg_pool3d(x, (x.shape[2], 1, 1))
        return self.fc(self.pool(self.norm2(self.conv2(small)) + x).flatten(1))


class Normalised(Net):
    """A convolution whose weight is computed."""

    def __init__(self):
        super().__init__()
        nn.utils.parametrizations.weight_norm(self.conv2)


@pytest.mark.parametrize("kind", [Net, Twice, Clash, WithOddNorm, Broadcast, Normalised])
def test_what_is_folded_is_what_is_written(kind):
    model = net(kind)
    adaptive, x = ada3d_fx.convert(model, clip_shape=SHAPE), clips(3, SHAPE)
    torch.testing.assert_close(same(adaptive, x), model(x).detach(), **EXACT)
    policy = ada3d_fx.Policy.random(adaptive.plan, 3, 0.5, 0.5)
    with torch.no_grad():
        folded = adaptive(x, policy)
    torch.testing.assert_close(folded, adaptive(x, policy).detach(), **EXACT)


class Kinds(nn.Module):
    """Every kind of BatchNorm behind a convolution: with and without weights, of another ``eps``."""

    def __init__(self):
        super().__init__()
        norms = [dict(), dict(), dict(affine=False), dict(eps=0.1), dict(eps=0.1), dict()]
        self.blocks = nn.ModuleList()
        for i, options in enumerate(norms):
            channels = (3, 4, 6, 4, 4, 5, 4)[i : i + 2]
            conv = nn.Conv3d(*channels, (3, 1, 1), padding=(1, 0, 0), bias=i % 2 == 0)
            self.blocks.append(nn.Sequential(conv, nn.BatchNorm3d(channels[1], **options)))
        self.pool = nn.AdaptiveAvgPool3d(1)

    def forward(self, x):
        for block in self.blocks:
            x = block(x).relu()
        return self.pool(x).flatten(1)


def test_what_is_folded_at_once_is_each_convolutions_own():
    torch.manual_seed(0)
    model = Kinds().double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            if module.affine:
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
    model.blocks[5][1].bias = None  # a weight alone
    same(ada3d_fx.convert(model, SHAPE), clips(2, SHAPE))


class Operations(TorchDispatchMode):
    """Counts operations that compute something."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def test_folding_takes_one_operation_for_each_convolution_and_a_few():
    adaptive = ada3d_fx.convert(resnet3d("i3d_r18"), (3, 4, 16, 16))
    folded = adaptive.conversion.folded
    norms = sum(fold.norm is not None for fold in folded.folds)
    with torch.no_grad():
        folded.refresh()
        with Operations() as operations:
            assert folded.refresh()
    assert norms > 15 and operations.count <= norms + 24


def test_top_level_buffers_move_with_the_model():
    adaptive, x = ada3d_fx.convert(net(), clip_shape=SHAPE), clips(1, SHAPE)
    exact = adaptive(x)
    half = adaptive.float()
    assert half(x.float()).dtype == torch.float32
    torch.testing.assert_close(half(x.float()).double(), exact, rtol=1e-4, atol=1e-4)


def test_a_part_that_is_not_converted_is_refused():
    adaptive = ada3d_fx.convert(resnet3d("i3d_r18"), clip_shape=(3, 8, 32, 32))
    adaptive.backbone = resnet3d("i3d_r18").backbone
    with pytest.raises(
        ada3d_fx.Ada3DError, match="'backbone' was replaced by a module that is not"
    ):
        adaptive(clips(1))


def test_one_of_several_names_replaced_is_refused():
    model = net()
    model.norm2 = model.norm
    adaptive = ada3d_fx.convert(model, clip_shape=SHAPE)
    adaptive.norm2 = nn.BatchNorm3d(4).double().eval()
    with pytest.raises(ada3d_fx.Ada3DError, match="norm, norm2 were one module"):
        adaptive(clips(1, SHAPE))
    adaptive.norm = adaptive.norm2
    same(adaptive, clips(1, SHAPE))


def test_prices_follow_a_replaced_head():
    adaptive = ada3d_fx.convert(net(), clip_shape=SHAPE)
    before = ada3d_fx.price_table(adaptive).full
    with torch.no_grad():
        adaptive.conv.weight.mul_(2)
    assert ada3d_fx.price_table(adaptive) is ada3d_fx.price_table(adaptive)
    adaptive.fc = nn.Linear(4, 50).double()
    assert ada3d_fx.price_table(adaptive).full - before == 4 * 45
