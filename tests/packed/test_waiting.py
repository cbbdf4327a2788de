"""Once a policy is on the host, a forward pass reads nothing back, and waits for no copy.

The device here is torch's 'meta', whose tensors have no values that could be read: what would wait for
a GPU raises there. Copies to it are watched: on a GPU, one that is not asked not to wait does.
"""

import pytest
import torch
from families import FAMILIES, shared_family
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import ada3d_fx
from ada3d_fx import Policy
from ada3d_fx.packed.time_forms import FORMS, time_form

META = torch.device("meta")


class Copies(TorchDispatchMode):
    """Notes copies from the host to the device that wait, those of indices included."""

    def __init__(self):
        super().__init__()
        self.waiting = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        inputs = [value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
        host = [value for value in inputs if value.device.type == "cpu" and value.ndim]
        there = isinstance(made, torch.Tensor) and made.device == META
        if host and there and not kwargs.get("non_blocking"):
            self.waiting.append(f"{func} of {list(host[0].shape)}")
        return made


class Literals(TorchFunctionMode):
    """Notes values of the host that are made on the device, which waits; lists of indices are."""

    def __init__(self):
        super().__init__()
        self.waiting = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor) and str(kwargs.get("device", "cpu")) != "cpu":
            self.waiting.append(f"{func.__name__}({args[0]})")
        if func is torch.Tensor.__getitem__ and args[0].device == META:
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            self.waiting += [f"index {part}" for part in index if isinstance(part, (list, tuple))]
        return func(*args, **kwargs)


def waits(adaptive, shape, policy, clip_index=None, grad=False):
    """What a forward pass waits for: a value that it reads, or copies to the device."""
    x = torch.empty(4, *shape, device=META, dtype=torch.float64)
    with Literals() as literals, Copies() as copies, torch.set_grad_enabled(grad):
        try:
            adaptive(x, policy, clip_index)
        except RuntimeError as error:
            return [str(error)]
    return literals.waiting + copies.waiting


def ragged(plan):
    torch.manual_seed(0)
    return Policy.random(plan, 4, torch.rand(4), torch.rand(4))


def on_meta(name):
    return ada3d_fx.convert(shared_family(name)[0], clip_shape=FAMILIES[name][2]).to(META)


@pytest.mark.parametrize("name", ["slowfast", "r2plus1d", "csn_ir", "x3d", "c3d", "tpn", "custom"])
def test_a_forward_pass_waits_for_the_policy_only(name):
    adaptive, shape = on_meta(name), FAMILIES[name][2]
    policy = ragged(adaptive.plan)
    gates = [bits.double().to(META).requires_grad_() for bits in (policy.frames, policy.stages)]
    clip_index = torch.tensor([0, 0, 3, 1])
    for form in FORMS:
        with time_form(form):
            for grad in (False, True):
                assert waits(adaptive, shape, policy, None, grad) == []
                assert waits(adaptive, shape, policy, clip_index, grad) == []
            gated = Policy(policy.frames, policy.stages, tuple(gates))
            assert waits(adaptive, shape, gated, None, True) == []


def reads(x):
    return x * x.mean().item()


def selects(x):
    return x * x[x > 0].mean()


def compares(x):
    return -x if torch.equal(x, x.abs()) else x


def looks_up(x):
    return x[:, [1, 0, 2, 3]]


def indexes(x):
    return x[:, torch.tensor([1, 0, 2, 3])]


def makes(x):
    return x * torch.tensor([2.0], device=x.device)


def copies(x):
    return x * torch.ones(4, 1, 1, 1).to(x.device)


def quiet(x):
    return x * torch.ones(4, 1, 1, 1).to(x.device, non_blocking=True) + x[:, :1]


@pytest.mark.parametrize(
    "function", [reads, selects, compares, looks_up, indexes, makes, copies, quiet]
)
def test_a_network_that_waits_is_seen(function):
    """As a hook, since a model whose own code reads values is refused."""
    model = nn.Sequential(
        nn.Conv3d(3, 4, 3, padding=1), nn.GELU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 2)
    ).double()  # fmt: skip
    adaptive = ada3d_fx.convert(model, clip_shape=(3, 4, 8, 8)).to(META)
    adaptive.get_submodule("1").register_forward_hook(lambda module, args, made: function(made))
    assert bool(waits(adaptive, (3, 4, 8, 8), ragged(adaptive.plan))) == (function is not quiet)
