"""Rows of several seeds and folds, and paired differences."""

import oracle
import pytest
import torch

from ada3d_fx.report.statistics import bootstrap, differences


def test_paired_differences():
    def result(seed, fold, hits):
        clips = [{"view": 0, "label": 1, "predicted": int(hit)} for hit in hits]
        return {"seed": seed, "fold": fold, "clips": clips}

    found = differences({
        "ada3d": [result(0, 0, [1, 1, 1, 0]), result(1, 0, [1, 1, 0, 0]), result(0, 1, [1, 1])],
        "upper": [result(0, 0, [1, 0, 1, 0]), result(1, 0, [1, 1, 0, 0])],
        "random": [result(0, 0, [1, 1, 1, 0])],
    })  # fmt: skip
    assert [gap["name"] for gap in found] == ["ada3d - upper", "ada3d - random"]
    # over the seeds one of four videos is right half a time more often
    assert found[0]["points"] == pytest.approx(12.5) and found[0]["runs"] == 2
    assert found[0]["low"] == 0 and 25 <= found[0]["high"] <= 50
    assert found[1]["points"] == found[1]["low"] == found[1]["high"] == 0


def test_a_rare_class_counts_as_much_in_the_mean_over_classes():
    gaps, classes = torch.tensor([0.0, 0, 0, 1]).double(), torch.tensor([5, 5, 5, 2])
    found = bootstrap(gaps, classes)
    assert found["points"] == 25 and found["class_points"] == 50
    assert found["class_low"] == 0  # where the rare video is not drawn
    again = bootstrap(gaps.repeat(200), classes.repeat(200))
    half = 1.96 * 100 * (0.25 * 0.75 / 800) ** 0.5  # the normal interval of a share of 25 %
    assert again["low"] == pytest.approx(25 - half, abs=0.3)
    assert again["high"] == pytest.approx(25 + half, abs=0.3)
    assert again["class_low"] == again["class_high"] == pytest.approx(50)


def test_bootstrap_is_the_quantiles_of_resampled_videos():
    generator = torch.Generator().manual_seed(5)
    gaps = torch.randint(-2, 3, (23,), generator=generator).double() / 2
    classes = torch.randint(4, (23,), generator=generator)
    expected = oracle.bootstrap(gaps.tolist(), classes.tolist())
    assert bootstrap(gaps, classes) == pytest.approx(expected, abs=1e-9)
