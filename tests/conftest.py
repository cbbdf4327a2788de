"""What every test file needs: MMAction2 importable, its registry as the default, and the same random numbers each time."""

import warnings

import pytest
import torch

from ada3d_fx.mm import compat

compat.apply()
with warnings.catch_warnings():
    warnings.simplefilter(
        "ignore"
    )  # mmcv-lite says at import that it has no compiled ops; none is needed
from mmengine.registry import init_default_scope


@pytest.fixture(autouse=True)
def _reproducible():
    init_default_scope("mmaction")
    torch.manual_seed(0)
    torch.set_num_threads(1)  # small float64 networks: threads only wait for each other
