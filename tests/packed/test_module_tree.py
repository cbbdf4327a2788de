"""Other roots over the same modules: one of each parameter, whatever the view."""

import copy

import pytest
import torch
from torch import fx, nn

from ada3d_fx.packed.module_tree import (
    graph_over,
    keep_unregistered,
    share_children,
    with_modules,
)
from ada3d_fx.packed.twins import TWINS, become_twin, plain, plain_tree


class Frozen(nn.Module):
    """A container whose own train() keeps it in evaluation."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)

    def train(self, mode=True):
        return super().train(False)

    def forward(self, x):
        return self.second(self.first(x))


class Model(nn.Module):
    """Two containers, one module under two names, and a parameter at the top."""

    def __init__(self):
        super().__init__()
        self.frozen, self.open = Frozen(), nn.Sequential(nn.Linear(3, 3), nn.Tanh())
        self.alias = self.open
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return self.alias(self.open(self.frozen(x))) * self.scale


def snapshot(model):
    names = [(name, id(module)) for name, module in model.named_modules(remove_duplicate=False)]
    return names, {key: value.clone() for key, value in model.state_dict().items()}


def check_unchanged(model, before):
    names, values = snapshot(model)
    assert names == before[0] and list(values) == list(before[1])
    assert all(torch.equal(value, before[1][key]) for key, value in values.items())


def test_what_is_kept_unregistered_is_in_no_list():
    owner, module = nn.Linear(2, 2), nn.Linear(3, 3)
    keep_unregistered(owner, module=module, number=3)
    assert owner.module is module and owner.number == 3
    assert list(owner.state_dict()) == ["weight", "bias"]
    assert list(owner.modules()) == [owner]


def test_shared_children_are_listed_once_and_seen_by_both():
    root, owner = Model(), nn.Module()
    share_children(owner, root)
    assert list(owner.state_dict()) == list(root.state_dict())
    keep_unregistered(owner, root=root)  # the owner's own list still has each of them once
    assert [id(p) for p in owner.parameters()] == [id(p) for p in root.parameters()]
    owner.open = nn.Identity()
    assert root.open is owner.open


def test_other_modules_at_some_paths():
    root = Model()
    before, other = snapshot(root), nn.Linear(3, 3)
    changed = with_modules(root, {"frozen.second": other})
    check_unchanged(root, before)
    assert changed.frozen.second is other
    assert changed.frozen.first is root.frozen.first and changed.open is root.open
    assert type(changed.frozen) is Frozen and not changed.train().frozen.training
    assert changed.scale is root.scale
    assert list(changed.state_dict()) == list(root.state_dict())
    x = torch.randn(2, 3)
    expected = root.alias(root.open(other(root.frozen.first(x)))) * root.scale
    assert torch.equal(changed(x), expected) and not torch.equal(root(x), expected)


def test_nothing_or_the_root_itself_replaced():
    root, other = Model(), nn.Identity()
    assert with_modules(root, {}) is root
    assert with_modules(root, {"": other}) is other
    assert with_modules(root, {"new": other}).new is other and not hasattr(root, "new")


def test_a_module_of_two_names_keeps_both():
    root, other = Model(), nn.Linear(3, 3)
    changed = with_modules(root, {"open.0": other, "alias.0": other})
    assert changed.alias is changed.open and changed.open[0] is other
    assert len(list(changed.modules())) == len(list(root.modules()))


def test_a_graph_over_a_root_has_its_very_own_children():
    root, extra = Model(), nn.Linear(3, 3)
    before = snapshot(root)
    graph = fx.symbolic_trace(root).graph
    module = graph_over(root, graph, "Program", {"extra": extra})
    check_unchanged(root, before)
    assert type(module).__name__ == "Program"
    assert module.frozen is root.frozen and module.open is root.open and module.extra is extra
    assert sum(p is root.scale for p in module.parameters()) == 1
    module.train()
    assert not module.frozen.training  # containers are the model's own
    x = torch.randn(2, 3)
    assert torch.equal(module(x), root(x))
    root.frozen.second = nn.Linear(3, 3)  # a module that is replaced later is seen
    assert torch.equal(module(x), root(x))


ORIGINALS = [
    nn.Conv3d(2, 3, 3, padding=1),
    nn.MaxPool3d(3, padding=1),
    nn.AvgPool3d(2),
    nn.AdaptiveAvgPool3d(1),
    nn.AdaptiveMaxPool3d(1),
]


@pytest.mark.parametrize("module", ORIGINALS, ids=lambda module: type(module).__name__)
def test_a_twin_is_the_original_under_another_class(module):
    module = copy.deepcopy(module)
    module.note = "a user's"
    module.register_forward_hook(lambda *_: None)
    twin = copy.copy(module)
    become_twin(twin)
    assert type(twin) is TWINS[type(module)] and twin.note == "a user's"
    assert [id(p) for p in twin.parameters()] == [id(p) for p in module.parameters()]
    assert twin._forward_hooks is module._forward_hooks
    back = plain(twin)
    assert type(back) is type(module) and plain(module) is module
    assert back.__dict__.keys() == module.__dict__.keys()
    assert [id(p) for p in back.parameters()] == [id(p) for p in module.parameters()]


def test_a_plain_tree_shares_parameters_and_no_module():
    conv = nn.Conv3d(2, 2, 3, padding=1)
    root = nn.Sequential(conv, nn.Sequential(nn.BatchNorm3d(2), nn.ReLU()))
    become_twin(conv)
    before = snapshot(root)
    tree = plain_tree(root)
    check_unchanged(root, before)
    assert type(tree[0]) is nn.Conv3d
    assert [id(p) for p in tree.parameters()] == [id(p) for p in root.parameters()]
    assert not set(tree.modules()) & set(root.modules())
    tree.eval()
    assert root[1][0].training
