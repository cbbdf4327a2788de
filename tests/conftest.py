"""What every test needs: MMAction2 importable, its registry the default, the same random numbers."""

import warnings
from collections import Counter

import pytest
import torch

with warnings.catch_warnings():
    # mmcv-lite says at import that it has no compiled operators; none is needed
    warnings.simplefilter("ignore")
    import ada3d_fx.mm  # noqa: F401  and all models of MMAction2 with it
from mmengine.registry import init_default_scope


@pytest.fixture(autouse=True, scope="session")
def _from_the_start():
    """Before fixtures of modules too: with several threads on a busy machine, sums differ in their
    last bits from run to run; and these small networks' threads only wait for each other."""
    init_default_scope("mmaction")
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _reproducible():
    init_default_scope("mmaction")
    torch.manual_seed(0)
    torch.set_num_threads(1)


def pytest_terminal_summary(terminalreporter):
    """What the fuzz tests did, added up over all of them and all processes."""
    counts = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if name == "fuzz" and report.when == "call":
                    counts.update(value)
    if counts:
        terminalreporter.section("random sequences")
        for name, number in sorted(counts.items()):
            terminalreporter.write_line(f"{number:8}  {name}")
