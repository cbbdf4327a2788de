"""Rows are made comparable: equal costs, equal steps."""

import mm_parts
import pytest
from mmaction.registry import MODELS

import ada3d_fx.mm  # noqa: F401
from ada3d_fx import Policy
from ada3d_fx.comparison.matching import match_usage, random_phases


@pytest.fixture(scope="module")
def model():
    return MODELS.build(mm_parts.model(selector=None, training={"phase": "random"}))


def test_random_policies_are_matched_to_the_budget(model):
    target = 0.4 * model.full_macs / 1e9
    usage = match_usage(model, 0.6, 0.2, target)
    assert usage["frames"] / usage["stages"] == pytest.approx(3)
    cost = model.price(Policy.random(model.plan, 20_000, **usage)).double().mean().item() / 1e9
    assert cost == pytest.approx(target, rel=0.02)


def test_usage_stops_at_everything(model):
    usage = match_usage(model, 1.0, 0.9, 10 * model.full_macs / 1e9)
    assert usage == pytest.approx({"frames": 1.0, "stages": 1.0})


def test_random_ft_takes_as_many_steps():
    phases = [
        {"name": "warmup", "epochs": 3, "recognizer_lr": 0.1},
        {"name": "pretrain", "epochs": 7, "selector_lr": 0.2},
        {"name": "selection", "epochs": 4, "selector_lr": 0.2},
        {"name": "joint", "epochs": 5, "recognizer_lr": 0.3, "schedule": "cosine"},
    ]
    random = random_phases(phases)
    assert [(s["name"], s["epochs"], s["recognizer_lr"]) for s in random] == [
        ("warmup", 3, 0.1),
        ("random", 9, 0.3),
    ]
