"""Copies of an adaptive network: what torch.nn modules keep in a copy, it keeps."""

import copy
import functools
import io
import pickle

import pytest
import torch
from torch import nn

import ada3d_fx
from ada3d_fx import Policy
from ada3d_fx.packed.module_tree import constants_of, place_constants

CLIP = (3, 4, 8, 8)


class Net(nn.Module):
    """With buffers of both kinds, a frozen part, and modes that differ."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv3d(3, 4, 3, padding=1, bias=False), nn.BatchNorm3d(4))
        self.pool, self.fc = nn.AdaptiveAvgPool3d(1), nn.Linear(4, 5)
        self.register_buffer("scale", torch.tensor([1.0, 2.0, 3.0, 4.0]).view(4, 1, 1, 1))
        self.register_buffer("shift", torch.ones(4, 1, 1, 1), persistent=False)
        self.body[1].eval().requires_grad_(False)

    def forward(self, x):
        x = self.body(x) * self.scale + self.shift
        return self.fc(self.pool(x).flatten(1))


class Noted(ada3d_fx.AdaptiveNetwork):
    """A user's own kind of network."""

    def note(self, module, inputs, output):
        self.calls = getattr(self, "calls", 0) + 1


def add(outputs, value, module, inputs, output):
    return output + value


def double(module, inputs):
    return inputs[0] * 2, *inputs[1:]


def rename(module, state, prefix, local):
    state["extra"] = torch.zeros(1)


def drop(module, state, prefix, *_):
    state.pop("extra", None)


def through_torch_save(network):
    file = io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


WAYS = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda n: pickle.loads(pickle.dumps(n)),
    "torch.save": through_torch_save,
    "copy": copy.copy,
}


@pytest.fixture
def network():
    torch.manual_seed(0)
    made = ada3d_fx.convert(Net().double(), CLIP)
    noted = Noted(made.conversion)
    noted.class_names = ["a", "b"]
    noted.parts = [noted.body, noted.body[0]]
    return noted


def score(network, x):
    with torch.no_grad():
        return network(x, Policy.full(network.plan, len(x)))


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_copy_keeps_what_the_network_has(network, way):
    x = torch.randn(2, *CLIP, dtype=torch.float64)
    network.register_forward_hook(functools.partial(add, [], 1.0))
    network.register_forward_pre_hook(double)
    network.register_forward_hook(network.note)
    network.body[0].register_forward_hook(network.note)
    network.register_state_dict_post_hook(rename)
    network.register_load_state_dict_pre_hook(drop)
    network.extra = nn.Linear(2, 2)  # users add modules, parameters and buffers
    network.alpha = nn.Parameter(torch.zeros(3), requires_grad=False)
    network.register_buffer("seen", torch.zeros(2), persistent=False)
    wanted = score(network, x)
    copied = way(network)
    assert type(copied) is Noted and copied.class_names == ["a", "b"]
    assert torch.equal(score(copied, x), wanted)
    assert copied.state_dict().keys() == network.state_dict().keys()
    assert "extra" in copied.state_dict() and "seen" not in copied.state_dict()
    copied.load_state_dict(network.state_dict())
    assert dict(copied.named_buffers()).keys() == dict(network.named_buffers()).keys()
    flags = [[(n, p.requires_grad) for n, p in net.named_parameters()] for net in (copied, network)]
    assert flags[0] == flags[1]
    modes = [[(n, m.training) for n, m in net.named_modules()] for net in (copied, network)]
    assert modes[0] == modes[1] and copied.training and not copied.body[1].training


@pytest.mark.parametrize("way", [name for name in WAYS if name != "copy"])
def test_a_deep_copy_refers_to_its_own_modules(network, way):
    network.body[0].register_forward_hook(network.note)
    network.me = [network]
    copied = WAYS[way](network)
    assert copied.me[0] is copied
    assert copied.parts[0] is copied.body and copied.parts[1] is copied.body[0]
    assert not set(copied.parameters()) & set(network.parameters())
    score(copied, torch.randn(1, *CLIP, dtype=torch.float64))
    assert copied.calls == 1 and not hasattr(network, "calls")


def test_a_shallow_copy_has_the_same_modules_and_a_mode_of_its_own(network):
    copied = copy.copy(network)
    assert copied.body is network.body and copied.conversion is network.conversion
    copied.other = 1
    assert not hasattr(network, "other")


def test_a_deep_copy_of_all_shares_what_is_shared(network):
    """As in a training loop that is copied with its optimizer's parameters."""
    both = copy.deepcopy({"network": network, "weights": list(network.parameters())})
    assert [id(p) for p in both["network"].parameters()] == [id(p) for p in both["weights"]]


def test_a_specialized_network_keeps_flags_and_leaves_the_networks_own_hooks(network):
    network.register_forward_pre_hook(double)
    seen = []
    network.body[0].register_forward_hook(lambda *_: seen.append(1))
    static = ada3d_fx.specialize(network, 4, [1])
    x = torch.randn(2, *CLIP, dtype=torch.float64)
    static(x)
    assert seen == [1] and not static._forward_pre_hooks
    own = {n: p.requires_grad for n, p in network.named_parameters()}
    assert {n: p.requires_grad for n, p in static.named_parameters()} == own
    assert static.state_dict().keys() == network.state_dict().keys()
    assert static.training and not static.get_submodule("body.1").training
    assert copy.deepcopy(static).state_dict().keys() == network.state_dict().keys()


class Literals(Net):
    """Its code makes tensors, which are neither parameters nor buffers."""

    def forward(self, x):
        x = self.body(x) * torch.tensor([0.1, 0.2, 0.3, 0.4]).view(1, -1, 1, 1, 1)
        return self.fc(self.pool(x * torch.tensor(0.1)).flatten(1))


def test_tensor_literals_are_those_of_the_original():
    model = Literals().eval()
    network = ada3d_fx.convert(model, CLIP)
    x = torch.randn(2, *CLIP)
    torch.testing.assert_close(score(network, x), model(x).detach())
    assert network.state_dict().keys() == model.state_dict().keys()
    static = ada3d_fx.specialize(network, 2, [0])
    assert static.state_dict().keys() == model.state_dict().keys() - {"scale"}  # not used
    policy = Policy(torch.tensor([[1, 1, 0, 0]] * 2).bool(), torch.zeros(2, 1).bool())
    torch.testing.assert_close(network(x, policy), static(x[:, :, :2]))
    for way in WAYS.values():
        torch.testing.assert_close(score(way(network), x), model(x).detach())
    # the type of a literal is that which the code gives it: halving a network does not round it
    network.half().float()
    model.half().float()
    torch.testing.assert_close(score(network, x), model(x).detach())
    model.double(), network.double()
    torch.testing.assert_close(
        score(network, x.double()), model(x.double()).detach(), rtol=1e-9, atol=1e-9
    )


def test_tensor_literals_follow_the_device():
    """But for single numbers, which mix with any device."""
    network = ada3d_fx.convert(Literals(), CLIP)
    made = network.conversion
    for module in (made.root, made.graph_module, made.training_module, made.folded.graph_module):
        place_constants(module, torch.device("meta"))
        devices = [value.device.type for value in constants_of(module).values()]
        assert sorted(devices) == ["cpu", "meta"]
    network = ada3d_fx.convert(Literals(), CLIP).to("meta")  # from where no value comes back
    assert {v.device.type for v in constants_of(network.graph_module).values()} == {"cpu"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tensor_literals_follow_to_a_gpu():
    network, x = ada3d_fx.convert(Literals(), CLIP).cuda(), torch.randn(2, *CLIP, device="cuda")
    for net in (network, copy.deepcopy(network), ada3d_fx.specialize(network, 4, [1])):
        assert net(x).isfinite().all()
