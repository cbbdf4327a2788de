"""Small modules of every kind that people write, each made of options that print as Python.

A block maps [N, C, T, H, W] to [N, C', T', H', W']. It is a module with a forward of its own, so that
``convert`` sees code as users write it: modules, functions, methods, in place or not.
"""

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils import checkpoint

# ------------------------------------------------------------------------- convolutions and norms


class RenamedConv3d(nn.Conv3d):
    """A subclass that adds nothing."""


class StandardisedConv3d(nn.Conv3d):
    """A convolution whose weights are standardised first."""

    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3, 4), keepdim=True)
        return self._conv_forward(x, weight, self.bias)


class SquaringNorm(nn.BatchNorm3d):
    """A BatchNorm with a forward of its own."""

    def forward(self, x):
        return super().forward(x) ** 2


class CheckingNorm(nn.BatchNorm3d):
    """A BatchNorm that only checks its input."""

    def _check_input_dim(self, x):
        assert x.ndim == 5


class ChannelsLastNorm(nn.LayerNorm):
    """A LayerNorm over the channels."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)


CONVOLUTIONS = {
    "plain": nn.Conv3d,
    "renamed": RenamedConv3d,
    "standardised": StandardisedConv3d,
    "weight_norm": lambda *a, **k: nn.utils.parametrizations.weight_norm(nn.Conv3d(*a, **k)),
}
NORMS = {
    "batch": nn.BatchNorm3d,
    "batch_bare": lambda c: nn.BatchNorm3d(c, affine=False),
    "batch_untracked": lambda c: nn.BatchNorm3d(c, track_running_stats=False),
    "batch_cumulative": lambda c: nn.BatchNorm3d(c, momentum=None),
    "squaring": SquaringNorm,
    "checking": CheckingNorm,
    "group": lambda c: nn.GroupNorm(1, c),
    "instance": nn.InstanceNorm3d,
    "instance_tracked": lambda c: nn.InstanceNorm3d(c, affine=True, track_running_stats=True),
    "layer": ChannelsLastNorm,
}


def conv(channels, *, kt=3, kh=1, st=1, sh=1, dt=1, pad="centre", out=4, groups=False, bias=True,
         mode="zeros", kind="plain"):  # fmt: skip
    """A convolution; ``pad`` over time is 'centre', a number, 'same' or 'valid'."""
    out = channels if groups else out
    padding = pad
    if not isinstance(pad, str) or pad == "centre":
        padding = (dt * (kt - 1) // 2 if pad == "centre" else pad, kh // 2, kh // 2)
    made = CONVOLUTIONS[kind](
        channels, out, (kt, kh, kh), (st, sh, sh), padding, (dt, 1, 1),
        groups=channels if groups else 1, bias=bias, padding_mode=mode,
    )  # fmt: skip
    return made


def norm(channels, *, kind="batch"):
    return NORMS[kind](channels)


class Activation(nn.Module):
    """One activation, as a function or a method, in place or not."""

    def __init__(self, kind, form):
        super().__init__()
        self.kind, self.form = kind, form

    def forward(self, x):
        if self.form == "function":
            return getattr(F, self.kind, getattr(torch, self.kind, None))(x)
        return getattr(x, self.kind + "_" * (self.form == "in place"))()


MODULES = {
    "relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "gelu": nn.GELU, "silu": nn.SiLU,
    "hardswish": nn.Hardswish, "softplus": nn.Softplus, "leaky_relu": nn.LeakyReLU,
}  # fmt: skip


def act(channels, *, kind="relu", form="module"):
    if form == "module":
        return MODULES[kind]()
    if form == "module in place":
        return (
            MODULES[kind](inplace=True)
            if kind in ("relu", "silu", "leaky_relu")
            else MODULES[kind]()
        )
    if kind not in ("relu", "sigmoid", "tanh"):
        form = "function"
    return Activation(kind, form)


# ------------------------------------------------------------------------------- pools and sizes


class FunctionPool(nn.Module):
    def __init__(self, kind, kernel, stride, padding):
        super().__init__()
        self.kind, self.options = kind, (kernel, stride, padding)

    def forward(self, x):
        return getattr(F, f"{self.kind}_pool3d")(x, *self.options)


class IndexedPool(nn.Module):
    """A pool that gives indices too, which are used."""

    def __init__(self, kernel, stride, padding):
        super().__init__()
        self.pool = nn.MaxPool3d(kernel, stride, padding, return_indices=True)

    def forward(self, x):
        x, where = self.pool(x)
        return x + 0.1 * (where % 2)


def pool(channels, *, kind="max", kt=2, kh=1, st=2, sh=1, pt=0, form="module", ceil=False):
    kernel, stride, padding = (kt, kh, kh), (st, sh, sh), (min(pt, kt // 2), 0, 0)
    if kt == kh and st == sh and not padding[0]:
        kernel, stride, padding = kt, st, 0  # plain numbers
    if form == "function":
        return FunctionPool(kind, kernel, stride, padding)
    if form == "indices":
        return IndexedPool(kernel, stride, padding)
    kinds = {"max": nn.MaxPool3d, "avg": nn.AvgPool3d}
    return kinds[kind](kernel, stride, padding, ceil_mode=ceil)


def adaptive_pool(channels, *, kind="avg", size=(None, 2, 2)):
    return {"avg": nn.AdaptiveAvgPool3d, "max": nn.AdaptiveMaxPool3d}[kind](size)


class Interpolate(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return F.interpolate(x, scale_factor=self.scale, mode="nearest")


def resize(channels, *, scale=(1, 2, 2), form="module", mode="nearest"):
    return nn.Upsample(scale_factor=scale, mode=mode) if form == "module" else Interpolate(scale)


# ----------------------------------------------------------------------------- gates and attention


class Gate(nn.Module):
    """The value times something between 0 and 1 that is made of its means over some axes."""

    def __init__(self, channels, axes, form):
        super().__init__()
        self.axes, self.form = tuple(axes), form
        self.fc = nn.Conv3d(1 if 1 in self.axes else channels, 1 if 1 in self.axes else channels, 1)
        self.pool = nn.AdaptiveAvgPool3d(1)

    def forward(self, x):
        if self.form == "module":  # squeeze and excitation
            gate = self.pool(x)
        elif self.form == "function":
            gate = F.adaptive_avg_pool3d(x, 1)
        else:
            gate = x.mean(self.axes, keepdim=True)
        gate = self.fc(gate).sigmoid()
        return gate * x if self.form == "left" else x * gate


def gate(channels, *, axes=(2, 3, 4), form="module"):
    return Gate(channels, (2, 3, 4) if form in ("module", "function") else axes, form)


class Excite(nn.Module):
    """Squeeze and excitation with linear layers and a view back."""

    def __init__(self, channels):
        super().__init__()
        self.fc = nn.Linear(channels, channels)

    def forward(self, x):
        n, c = x.shape[:2]
        y = self.fc(x.mean((2, 3, 4))).sigmoid()
        return x * y.view(n, c, 1, 1, 1)


class Attention(nn.Module):
    """Attention over all positions, or over time at each position."""

    def __init__(self, channels, over):
        super().__init__()
        self.qkv, self.over = nn.Linear(channels, 3 * channels), over

    def forward(self, x):
        n, c, t, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2) if self.over == "all" else x.permute(0, 3, 4, 2, 1)
        q, k, v = self.qkv(tokens).chunk(3, dim=-1)
        y = (q @ k.transpose(-1, -2)).softmax(-1) @ v
        if self.over == "all":
            return x + y.transpose(1, 2).reshape(n, c, t, h, w)
        return x + y.permute(0, 4, 3, 1, 2)


class Tokens(nn.Module):
    """A transformer's layers for tokens alone, around one that mixes them."""

    def __init__(self, channels, axes, linear, act, mixed):
        super().__init__()
        self.axes, self.act, self.mixed = axes, act, mixed
        self.norm, self.fc1 = nn.LayerNorm(channels), LINEARS[linear](channels, 2 * channels)
        self.fc2, self.gelu = nn.Linear(2 * channels, channels), nn.GELU()
        self.scale = nn.Parameter(torch.rand(channels) + 0.5)
        if mixed == "module":
            self.attention = nn.MultiheadAttention(channels, 1, batch_first=True)

    def forward(self, x):
        n, c, t, h, w = x.shape
        y = x.permute(0, 2, 3, 4, 1)
        if self.axes == "joint":
            y = y.reshape(n, t * h * w, c)
        elif self.axes == "clips second":
            y = y.reshape(n, t * h * w, c).transpose(0, 1)
        elif self.axes == "frames":
            y = y.reshape(n * t, h * w, c)
        y = self.mlp(y) + y
        tokens_axis = 0 if self.axes == "clips second" else 1
        if self.mixed == "mean":
            y = y - y.mean(tokens_axis, keepdim=True)
        elif self.mixed == "written":
            y += 1.0
        elif self.mixed == "attention":
            y = y.transpose(1, tokens_axis)
            y = (y @ y.transpose(-1, -2)).softmax(-1) @ y
            y = y.transpose(1, tokens_axis)
        elif self.mixed == "function" or (self.mixed == "module" and y.ndim > 3):
            y = y.transpose(1, tokens_axis)
            y = F.scaled_dot_product_attention(y, y, y).transpose(1, tokens_axis)
        elif self.mixed == "module":
            y = y.transpose(1, tokens_axis)
            y = self.attention(y, y, y)[0].transpose(1, tokens_axis)
            y += 0.5
        y = y + self.scale * self.mlp(y)
        y = y.transpose(0, 1) if self.axes == "clips second" else y
        return y.reshape(n, t, h, w, c).permute(0, 4, 1, 2, 3)

    def mlp(self, y):
        y = self.fc1(self.norm(y))
        if self.act == "in place":
            y = F.relu(y, inplace=True)
        elif self.act == "read before":
            y = y + y.sigmoid_()
        else:
            y = self.gelu(y) if self.act == "module" else y * torch.sigmoid(1.7 * y)
        return F.linear(y, self.fc2.weight, bias=self.fc2.bias)


LINEARS = {
    "plain": nn.Linear,
    "no bias": lambda *sizes: nn.Linear(*sizes, bias=False),
    "weight_norm": lambda *sizes: nn.utils.parametrizations.weight_norm(nn.Linear(*sizes)),
}


# ------------------------------------------------------------------------------ layouts, constants


class Frames2d(nn.Module):
    """A 2D network on all frames, the time axis folded into the clips' and back."""

    def __init__(self, channels, form, kernel):
        super().__init__()
        self.form = form
        self.conv = nn.Conv2d(channels, channels, kernel, padding=kernel // 2)
        self.bn, self.act = nn.BatchNorm2d(channels), nn.ReLU()

    def forward(self, x):
        n, c, t, h, w = x.shape
        if self.form == "reshape":
            y = x.permute(0, 2, 1, 3, 4).reshape(n * t, c, h, w)
        elif self.form == "flatten":
            y = x.transpose(1, 2).flatten(0, 1)
        else:
            y = x.transpose(1, 2).contiguous().view(-1, c, h, w)
        y = self.act(self.bn(self.conv(y)))
        if self.form == "flatten":
            return y.unflatten(0, (n, t)).transpose(1, 2)
        return y.reshape(n, t, c, h, w).permute(0, 2, 1, 3, 4)


class Constant(nn.Module):
    """A parameter or buffer joined to the value.

    ``kept``: of which units of how many the clip's frames are, where positions follow them."""

    kept = None

    def __init__(self, shape, kind, operation):
        super().__init__()
        value = torch.rand(shape) + 0.5
        if kind == "parameter":
            self.value = nn.Parameter(value)
        else:
            self.register_buffer("value", value, persistent=kind == "buffer")
        self.operation = operation

    def forward(self, x):
        value = self.value
        if self.kept is not None:
            units, num_units = self.kept
            if value.shape[-3] > 1 and x.shape[2] * num_units == value.shape[-3] * len(units):
                value = value.unflatten(-3, (num_units, -1))[..., units, :, :, :].flatten(-4, -3)
        if self.operation == "mul":
            return x * value
        return x + value if self.operation == "add" else torch.sub(x, value, alpha=0.5)


def constant(channels, *, shape="c", kind="parameter", operation="mul", size=(1, 1, 1)):
    """``shape``: the axes along which it differs."""
    t, h, w = (n if axis in shape else 1 for axis, n in zip("thw", size))
    channels = channels if "c" in shape else 1
    lead = () if shape == "c" and operation == "add" else (1,)
    return Constant((*lead, channels, t, h, w), kind, operation)


class Relative(nn.Module):
    """Attention over time at each place, with a bias from the difference of two frames' times.

    ``kept`` as in `Constant`."""

    kept = None

    def __init__(self, channels, form, frames):
        super().__init__()
        self.form, self.frames = form, frames
        self.table = nn.Parameter(torch.rand(2 * frames - 1, channels))

    def forward(self, x):
        times = torch.arange(self.frames)
        if self.kept is not None:
            units, num_units = self.kept
            if x.shape[2] * num_units == self.frames * len(units):
                times = times.view(num_units, -1)[units].flatten()
        distance = times[:, None] - times + self.frames - 1
        w = x.shape[4]
        y = x.permute(0, 3, 4, 2, 1)  # [N, H, W, T, C]
        if self.form == "padded":
            y = F.pad(y, (0, 0, 0, 0, 1, 0)).roll((1, -1), (1, 2))
        bias = self.table[distance]
        scores = y @ y.transpose(-1, -2)
        if self.form == "written":
            scores[:, :, :1] += torch.einsum("nhwqc,qkc->nhwqk", y[:, :, :1], bias)
        elif self.form == "view":
            part = scores.unsqueeze(1).transpose(1, 2)
            part += torch.einsum("nhwqc,qkc->nhwqk", y, bias).unsqueeze(2)
        elif self.form == "summed":
            scores = scores + torch.einsum("kqc,nhwqc->nhwqk", bias, y)
        else:
            scores = scores + bias.mean(-1)
        y = scores.softmax(-1) @ y
        if self.form == "padded":
            y = y.roll((-1, 1), (1, 2))[:, :, 1:]
        return x + y[:, :, :w].permute(0, 4, 3, 1, 2)


class Scaled(nn.Module):
    """Arithmetic with numbers; other in training."""

    def __init__(self, form):
        super().__init__()
        self.form = form

    def forward(self, x):
        if self.form == "mode":
            return x * 1.25 if self.training else x
        if self.form == "dropout":
            return F.dropout(x, 0.0, self.training)
        if self.form == "clamp":
            return x.clamp(-1.0, 2.0)
        if self.form == "power":
            return x**2 / 2 - 1
        if self.form == "reverse":
            return 1.0 - x
        if self.form == "flip":
            return x.flip(2)
        if self.form == "roll":
            return x.roll(1, 2)
        if self.form == "difference":
            return torch.cat([x[:, :, :1], x[:, :, 1:] - x[:, :, :-1]], 2)
        if self.form == "centred":
            return x - x.mean(2, keepdim=True)
        if self.form == "channels":
            return x - x.mean(1, keepdim=True)
        if self.form == "cumulative":
            return x.cumsum(2) / 4
        if self.form == "softmax":
            return x + x.softmax(2)
        if self.form == "stride":
            return x[:, :, ::2]
        if self.form == "crop":
            return x[:, :, :, : x.shape[3] // 2 + 1]
        if self.form == "swap":
            a, b = x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]
            return torch.cat([b, a], dim=1)
        if self.form == "where":
            return torch.where(x > 0, x, 0.5 * x)
        if self.form == "stack":
            return torch.stack([x, 2 * x], 0).sum(0)
        if self.form == "pad":
            return F.pad(x, (0, 0, 1, 1))
        if self.form == "roll height":
            return x.roll(-1, 3)
        if self.form == "pad time":
            return F.pad(x, (0, 0, 0, 0, 1, 1))
        if self.form == "contiguous":
            return x.contiguous().clone()
        if self.form == "squeeze":
            return x.unsqueeze(1).squeeze(1)
        raise AssertionError(self.form)


FORMS = (
    "mode", "dropout", "clamp", "power", "reverse", "flip", "roll", "difference", "centred", "channels",
    "cumulative", "softmax", "stride", "crop", "swap", "where", "stack", "pad", "pad time", "contiguous",
    "squeeze", "roll height",
)  # fmt: skip


class Untraceable(nn.Module):
    """Code that torch.fx cannot follow, around a temporal convolution; it runs per length.

    ``kept`` as in `Constant`: where positions follow the frames, branches are those of all T."""

    kept = None

    def __init__(self, channels, form):
        super().__init__()
        self.conv = nn.Conv3d(channels, channels, (3, 1, 1), padding=(1, 0, 0), groups=channels)
        self.form = form

    def forward(self, x):
        units, num_units = self.kept or ((0,), 1)
        if self.form == "branch" and x.shape[2] * num_units > 2 * len(units):
            x = x - x.mean(2, keepdim=True)
        if self.form == "loop":
            x = torch.stack([x[:, :, t] * (1 + t % 2) for t in range(x.shape[2])], 2)
        return self.conv(x)


class DataDependent(nn.Module):
    """Code that asks for a value: no shapes can be known beforehand, so it is refused."""

    def __init__(self, form):
        super().__init__()
        self.form = form

    def forward(self, x):
        if self.form == "branch":
            return x * 2 if float(x.sum()) > 0 else x
        if self.form == "item":
            return x * x.abs().max().item()
        return x[:, :, : int(x.abs().sum() > 0) + 1]


# --------------------------------------------------------------------------------------- branches


class Residual(nn.Module):
    def __init__(self, body, operation):
        super().__init__()
        self.body, self.operation = body, operation

    def forward(self, x):
        identity, y = x, self.body(x)
        if self.operation == "x + y":
            return x + y
        if self.operation == "y + x":
            return y + x
        if self.operation == "+=":
            y += x
            return y
        if self.operation == "x +=":
            x = x * 1.0
            identity = x
            x += y
            return x + identity
        if self.operation == "add":
            return torch.add(y, x, alpha=0.5)
        if self.operation == "method":
            return y.add(x)
        if self.operation == "add_":
            return y.add_(identity)
        if self.operation == "mul":
            return y * x
        return torch.relu(y) + 0.5 * x


SUMS = ("y + x", "x + y", "+=", "x +=", "add", "method", "add_", "mul", "relu")


class Branches(nn.Module):
    """Several branches of one value, joined along the channels."""

    def __init__(self, branches, form):
        super().__init__()
        self.branches, self.form = nn.ModuleList(branches), form

    def forward(self, x):
        made = [branch(x) for branch in self.branches]
        if self.form == "dim":
            return torch.cat(made, dim=1)
        return torch.cat(tuple(made), -4 if self.form == "negative" else 1)


class TwoPaths(nn.Module):
    """Paths of two frame rates, joined as in SlowFast: the fast one strides to meet the slow one."""

    def __init__(self, channels, rate, slow, fast, form):
        super().__init__()
        self.rate, self.form = rate, form
        self.slow, self.fast = slow, fast
        self.lateral = nn.Conv3d(
            channels, channels, (3, 1, 1), (rate, 1, 1), padding=(1, 0, 0), bias=False
        )

    def forward(self, x):
        if self.form == "slice":
            slow = x[:, :, :: self.rate]
        else:
            slow = F.interpolate(x, scale_factor=(1 / self.rate, 1.0, 1.0), mode="nearest")
        fast = self.fast(x)
        slow = self.slow(torch.cat([slow, self.lateral(fast)], 1))
        return slow + F.adaptive_avg_pool3d(fast, 1).sum(1, keepdim=True)


class Checkpointed(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        if self.training and x.requires_grad:
            return checkpoint.checkpoint(self.body, x, use_reentrant=False)
        return self.body(x)


class Chain(nn.Module):
    """Children under names of their own, called in an order that may repeat them."""

    def __init__(self, children, order, form="attributes", frozen=False):
        super().__init__()
        self.order, self.form, self.frozen = tuple(order), form, frozen
        owner = self
        if form == "dict":
            owner = self.parts = nn.ModuleDict()
        for name, child in children.items():
            owner.add_module(name, child)

    def forward(self, x):
        for name in self.order:
            x = (self.parts[name] if self.form == "dict" else getattr(self, name))(x)
        return x

    def train(self, mode=True):
        """As MMAction2's frozen stages: these stay in evaluation."""
        return super().train(mode and not self.frozen)


class ListChain(nn.Module):
    """Children in a ModuleList."""

    def __init__(self, children, order):
        super().__init__()
        self.parts, self.order = nn.ModuleList(children), tuple(order)

    def forward(self, x):
        for place in self.order:
            x = self.parts[place](x)
        return x


# ------------------------------------------------------------------------------------------ heads


class Head(nn.Module):
    """From features to scores, without a time axis."""

    def __init__(self, channels, form, size=(1, 1, 1), classes=3):
        super().__init__()
        self.form = form
        self.pool = nn.AdaptiveMaxPool3d(1) if form == "max" else nn.AdaptiveAvgPool3d(1)
        self.dropout = nn.Dropout(0.5)
        flat = channels * size[0] * size[1] * size[2] if form == "flat" else channels
        self.fc = nn.Linear(flat, classes)
        if form == "norm":
            self.bn = nn.BatchNorm1d(channels)

    def forward(self, x):
        if self.form in ("module", "max"):
            x = self.pool(x).flatten(1)
        elif self.form == "view":
            x = self.pool(x)
            x = x.view(x.shape[0], -1)
        elif self.form == "mean":
            x = x.mean((2, 3, 4))
        elif self.form == "two means":
            x = x.mean([3, 4]).mean(-1)
        elif self.form == "amax":
            x = x.amax(dim=(2, 3, 4))
        elif self.form == "function":
            x = torch.flatten(F.adaptive_avg_pool3d(x, (1, 1, 1)), 1)
        elif self.form == "norm":
            x = self.bn(self.pool(x).flatten(1))
        elif self.form == "flat":
            x = x.flatten(1)
        elif self.form == "frames":  # scores of each frame, then their mean
            return self.fc(self.dropout(x.mean((3, 4)).transpose(1, 2))).mean(1)
        elif self.form == "1x1x1":
            x = F.conv3d(self.pool(x), self.fc.weight[:, :, None, None, None], self.fc.bias)
            return x.flatten(1)
        return self.fc(self.dropout(x))


HEADS = (
    "module", "max", "view", "mean", "two means", "amax", "function", "norm", "flat", "frames", "1x1x1",
)  # fmt: skip
