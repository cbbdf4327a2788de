"""The passes in their order: what they make of a model, and that they leave the model alone."""

import torch
from torch import nn

from ada3d_fx import Policy
from ada3d_fx.packed.twins import PackedConv3d, Twin
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


def test_passes_leave_the_model_alone_and_share_its_parameters():
    model = small_model()
    names = [(name, id(m)) for name, m in model.named_modules(remove_duplicate=False)]
    made = run_passes(model, CLIP, "stage")
    assert names == [(name, id(m)) for name, m in model.named_modules(remove_duplicate=False)]
    assert not any(isinstance(module, Twin) for module in model.modules())
    assert list(made.root.state_dict()) == list(model.state_dict())
    expected = [id(p) for p in model.parameters()]
    assert [id(p) for p in made.root.parameters()] == expected
    assert [id(p) for p in made.graph_module.parameters()] == expected


def test_a_block_of_two_names_has_one_twin():
    made = run_passes(small_model(), CLIP, "stage")
    assert made.root.first is made.root.second
    assert type(made.root.first[0]) is PackedConv3d
    assert made.graph_module.first is made.root.first
    assert made.training_module is made.graph_module  # the model does the same in training


def test_the_folded_program_says_when_it_stands_for_the_other():
    model = small_model()
    made = run_passes(model, CLIP, "stage")
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
