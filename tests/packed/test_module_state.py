"""Whatever users change of a module is told from what it was; values in the same memory are not."""

import copy
import gc
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from ada3d_fx.packed.module_state import ModuleState, is_watched_or_trains


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.kept, self.table, self.mask = [1, 2], np.zeros(3), torch.zeros(2)


def network():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Sequential(nn.Conv3d(3, 4, 3), nn.BatchNorm3d(4), nn.ReLU()), nn.Linear(4, 2)
    ).eval()
    model[0][0].sizes = [1, 2]
    return model


CHANGES = {
    "other memory": lambda n: setattr(n[1].weight, "data", n[1].weight.data.clone()),
    "another layout": lambda n: setattr(
        n[0][0].weight, "data", n[0][0].weight.data.contiguous(memory_format=torch.channels_last_3d)
    ),
    "another type": lambda n: n.half(),
    "another parameter": lambda n: setattr(n[1], "weight", nn.Parameter(n[1].weight.clone())),
    "no bias": lambda n: setattr(n[1], "bias", None),
    "another buffer": lambda n: setattr(n[0][1], "running_var", torch.ones(4)),
    "another module": lambda n: n.__setitem__(1, copy.deepcopy(n[1])),
    "a module of another name": lambda n: setattr(n, "1", nn.Identity()),
    "a module more": lambda n: n.append(nn.Sigmoid()),
    "a module less": lambda n: n.__delitem__(1),
    "modules in another order": lambda n: n.__init__(n[1], n[0]),
    "a setting": lambda n: setattr(n[0][1], "eps", 0.1),
    "a list": lambda n: n[0][0].sizes.append(3),
    "a setting of a container": lambda n: setattr(n[0], "option", 1),
    "a mode": lambda n: n[0][1].train(),
    "a class": lambda n: setattr(n[0][2], "__class__", nn.ReLU6),
    "a method": lambda n: setattr(n[1], "forward", lambda x: x),
    "moved": lambda n: n.to("meta"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_seen(name):
    model = network()
    state = ModuleState(model)
    assert state.holds(model) and state.is_plain
    CHANGES[name](model)
    assert not state.holds(model)


def test_values_are_no_change():
    model = network()
    state = ModuleState(model)
    with torch.no_grad():
        model[1].weight.mul_(2)
        model[0][1].running_var.data.add_(1)
        model.load_state_dict(network().state_dict())
    assert state.holds(model)
    assert not state.holds(copy.deepcopy(model))


def test_further_tensors_belong_to_it():
    model, constant = network(), torch.zeros(3)
    state = ModuleState(model, [constant])
    constant.add_(1)
    assert state.holds(model, [constant])
    assert not state.holds(model, [constant.clone()]) and not state.holds(model)


def test_what_could_change_unseen_is_not_plain():
    assert not ModuleState(nn.Sequential(Odd())).is_plain
    model = network()
    model[0][0].sizes = [[1], [2]]  # lists in lists
    assert not ModuleState(model).is_plain
    odd = Odd()
    state = ModuleState(odd)
    odd.table = np.ones(3)  # arrays do not compare to one truth
    assert not state.holds(odd)
    state = ModuleState(odd)
    odd.mask = torch.zeros(2)
    assert not state.holds(odd)


@pytest.mark.parametrize(
    "watch",
    [
        lambda n: n[1].register_forward_hook(print),
        lambda n: n.register_forward_pre_hook(print),
        lambda n: n[0][2].register_full_backward_hook(print),
        lambda n: nn.modules.module.register_module_forward_hook(lambda *args: None),
    ],
)
def test_hooks_are_seen(watch):
    model = network()
    assert not is_watched_or_trains(model)
    handle = watch(model)
    assert is_watched_or_trains(model)
    handle.remove()
    assert not is_watched_or_trains(model)
    model[0][2].train()
    assert is_watched_or_trains(model)


def test_a_state_does_not_hold_its_root():
    model = network()
    state, gone = ModuleState(model), weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None and not state.holds(network())
