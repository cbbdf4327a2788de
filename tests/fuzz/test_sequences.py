"""Random networks, and random sequences of what users do to them: packed = oracle, price = fvcore.

``ADA3D_FUZZ=5000 pytest -m fuzz tests/fuzz/test_sequences.py`` runs so many sequences; ``ADA3D_FUZZ_SEED``
starts others. What hypothesis prints of a failure is Python: paste it into ``sequences.run``.
"""

import os
import tempfile
from collections import Counter

import hypothesis
import pytest
import sequences
import torch
from hypothesis import HealthCheck, Phase

from ada3d_fx.packed.time_forms import time_form

hypothesis.configuration.set_hypothesis_home_dir(tempfile.gettempdir())

NUMBER = int(os.environ.get("ADA3D_FUZZ", "1000"))
SEED = int(os.environ.get("ADA3D_FUZZ_SEED", "0"))
PART = 50  # sequences of one test


def fuzz(number, seed, note):
    counts = Counter()

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=number,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @hypothesis.given(sequences.sequences())
    def run(sequence):
        sequences.run(sequence, counts)

    try:
        run()
    finally:
        note("fuzz", dict(counts))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.fuzz
@pytest.mark.parametrize("part", range(-(-NUMBER // PART)))
def test_random_sequences(part, record_property):
    fuzz(min(PART, NUMBER - part * PART), SEED + part, record_property)


@pytest.mark.filterwarnings("ignore")
def test_some_random_sequences(record_property):
    fuzz(25, 1, record_property)
    assert torch.is_grad_enabled()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["gathered", "separated"])
def test_some_random_sequences_in_the_forms_for_a_gpu(form, record_property):
    with time_form(form):
        fuzz(12, 2, record_property)
