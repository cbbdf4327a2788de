"""Parts of a model may have the names that programs use for parts of their own."""

import pytest
import torch
from models import clips
from torch import nn

import ada3d_fx

EXACT = dict(rtol=1e-9, atol=1e-9)
SHAPE = (3, 4, 6, 6)


class Named(nn.Module):
    """A convolution with BatchNorm, dense code and a checkpoint, under names of programs' parts."""

    def __init__(self, names):
        super().__init__()
        self.names = names
        kinds = [
            nn.Sequential(nn.Conv3d(3, 4, (3, 1, 1), padding=(1, 0, 0)), nn.BatchNorm3d(4)),
            nn.Conv3d(4, 4, 1),
            nn.BatchNorm3d(4),
        ]
        for name, module in zip(names, kinds):
            self.add_module(name, module)
        self.last, self.fc = nn.AdaptiveAvgPool3d(1), nn.Linear(4, 5)

    def forward(self, x):
        first, second, third = (getattr(self, name) for name in self.names)
        x = first(x)
        x = x + x.cumsum(2)
        x = torch.utils.checkpoint.checkpoint(second, x, use_reentrant=False)
        x = third(x) + x.cumsum(2)
        return self.fc(self.last(x).flatten(1))


NAMES = [
    ("dense_region_0", "checkpoint_0", "folded"),
    ("folded", "dense_region_1", "dense_region_0"),
    ("rows", "segments", "packing"),
    ("clips", "policy", "scores"),
    ("gate_rows", "0", "1_a"),
]


@pytest.mark.parametrize("names", NAMES, ids=" ".join)
def test_names_of_programs_are_free_for_models(names):
    torch.manual_seed(0)
    model, x = Named(names).double().eval(), clips(2, SHAPE)
    adaptive = ada3d_fx.convert(model, clip_shape=SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(adaptive(x), model(x), **EXACT)
    torch.testing.assert_close(adaptive(x), model(x), **EXACT)
    torch.testing.assert_close(adaptive.train()(x), model.train()(x), **EXACT)


@pytest.mark.parametrize("name", ["lambda", "class", "self"])
def test_names_that_no_program_can_have_are_refused(name):
    with pytest.raises(ada3d_fx.Ada3DError, match=f"'{name}' has a name that Python keeps"):
        ada3d_fx.convert(Named((name, "b", "c")), clip_shape=SHAPE)
