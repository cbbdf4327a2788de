"""The passes in their order: what they make of a model, and that they leave the model alone."""

import torch
from torch import nn

from ada3d_fx import Policy
from ada3d_fx.packed.twins import PackedConv3d, Twin, plain_tree, turn_plain
from ada3d_fx.passes.pipeline import run_passes

CLIP = (3, 4, 8, 8)


class Shared(nn.Module):
    """One block under two names, BatchNorm after each convolution."""

    def __init__(self):
        super().__init__()
        conv = nn.Conv3d(3, 3, 3, padding=1)
        self.first = self.second = nn.Sequential(conv, nn.BatchNorm3d(3), nn.ReLU())
        self.pool, self.fc = nn.AdaptiveAvgPool3d(1), nn.Linear(3, 2)

    def forward(self, x):
        return self.fc(self.pool(self.second(self.first(x))).flatten(1))


def small_model():
    return Shared().double().eval()


def test_passes_turn_modules_into_twins_and_leave_all_else_as_it_was():
    model = small_model()
    names = [(name, id(m)) for name, m in model.named_modules(remove_duplicate=False)]
    attributes = [(type(m), dict(vars(m))) for m in model.modules()]
    keys, expected = list(model.state_dict()), [id(p) for p in model.parameters()]
    made = run_passes(model, CLIP, "stage")
    assert made.root is model
    assert names == [(name, id(m)) for name, m in model.named_modules(remove_duplicate=False)]
    twins = [name for name, m in model.named_modules() if isinstance(m, Twin)]
    assert twins == list(dict.fromkeys(p.replace("second", "first") for p in made.twin_paths))
    assert list(model.state_dict()) == keys
    assert [id(p) for p in model.parameters()] == expected
    assert [id(p) for p in made.graph_module.parameters()] == expected
    turn_plain(model)
    assert attributes == [(type(m), dict(vars(m))) for m in model.modules()]


def test_a_block_of_two_names_has_one_twin():
    made = run_passes(small_model(), CLIP, "stage")
    assert made.root.first is made.root.second
    assert type(made.root.first[0]) is PackedConv3d
    assert made.graph_module.first is made.root.first
    assert made.training_module is made.graph_module  # the model does the same in training


def test_the_folded_program_says_when_it_stands_for_the_other():
    made = run_passes(small_model(), CLIP, "stage")
    model = plain_tree(made.root)
    x, policy = torch.randn(2, *CLIP, dtype=torch.float64), Policy.full(made.plan, 2)
    norm = made.root.first[1]
    with torch.no_grad():
        for _ in range(2):
            assert made.folded.refresh()
            folded = made.folded.graph_module(x, policy)
            torch.testing.assert_close(folded, made.graph_module(x, policy), rtol=0, atol=1e-12)
            torch.testing.assert_close(folded, model(x), rtol=0, atol=1e-12)
            norm.running_mean.add_(1)  # folded anew
    norm.train()
    assert not made.folded.refresh()
    norm.eval()
    with_hook = norm.register_forward_hook(lambda *_: None)
    assert not made.folded.refresh()
    with_hook.remove()
    assert made.folded.refresh()
