"""A head and an estimator of one's own, as docs/training.md shows them, train like ours."""

import re
from pathlib import Path

import mm_parts
import pytest
import torch
from mmaction.registry import MODELS
from mmengine.runner import Runner

import ada3d_fx.mm  # noqa: F401
from ada3d_fx import Ada3DError
from ada3d_fx.learn.estimators import Estimator
from ada3d_fx.learn.heads import SelectionHead
from ada3d_fx.mm.checkpoint import load_checkpoint

DOCUMENT = Path(__file__).parents[2] / "docs" / "training.md"


@pytest.fixture(scope="module")
def own_parts():
    """The classes of the document's blocks, registered as they stand there."""
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.S)
    own = [b for b in blocks if "(SelectionHead)" in b or "(Estimator)" in b]
    names = {}
    for block in own:
        body = block.split("@MODELS.register_module")[1]
        assert len(body.splitlines()) <= 22  # as short as promised
        if re.search(r"class (\w+)", block)[1] not in MODELS.module_dict:
            exec(block, names)
        else:  # another test ran the document in this process
            names[re.search(r"class (\w+)", block)[1]] = MODELS.get(
                re.search(r"class (\w+)", block)[1]
            )
    made = [v for v in names.values() if isinstance(v, type)]
    head = next(v for v in made if issubclass(v, SelectionHead) and v is not SelectionHead)
    estimator = next(v for v in made if issubclass(v, Estimator) and v is not Estimator)
    return head, estimator


def test_they_train_through_all_phases(own_parts, tmp_path):
    head, estimator = own_parts
    mm_parts.write_clips(tmp_path)
    config = mm_parts.run_config(
        tmp_path,
        tmp_path / "work",
        selector=mm_parts.selector(pretrain="frame", head={"type": head.__name__}),
        objective={"type": estimator.__name__, "samples": 3, "gamma": 2.0, "entropy": 0.1},
    )
    runner = Runner.from_cfg(config)
    assert type(runner.model.selector.head) is head
    assert type(runner.model.estimator) is estimator
    runner.train()
    before, after = (load_checkpoint(tmp_path / "work" / f"epoch_{i}.pth") for i in (1, 3))
    for layer in ("frame_out", "stage_out"):
        key = f"selector.head.{layer}.weight"
        assert torch.isfinite(after[key]).all() and not torch.equal(before[key], after[key])
    log = next((tmp_path / "work").rglob("*.log")).read_text()
    assert "loss_policy" in log and "advantage" in log


@pytest.mark.parametrize("unit", ["slowfast", "c3d_long"])
def test_an_own_head_serves_units_of_frames_and_frames_that_stay(own_parts, unit):
    from families import FAMILIES, config_of

    head, estimator = own_parts
    model = MODELS.build(
        dict(
            type="Ada3DRecognizer",
            recognizer=config_of(unit),
            clip_shape=FAMILIES[unit][2],
            selector=mm_parts.selector(head={"type": head.__name__}),
            objective={"type": estimator.__name__, "samples": 2},
        )
    ).eval()
    clips = torch.randn(2, *FAMILIES[unit][2])
    policy = model.choose_policy(clips)
    assert policy.frames.shape == (2, FAMILIES[unit][2][1])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"selector": mm_parts.selector(head={"type": "NoSuchHead"})}, "head.*'NoSuchHead'.*custom_imports"),
        ({"selector": mm_parts.selector(head={"type": "MeanHead", "hidden": 4})}, "head.*hidden"),
        ({"objective": {"type": "NoSuchEstimator"}}, "objective.*'NoSuchEstimator'.*custom_imports"),
        ({"objective": {"gama": 2.0}}, "objective.*gama"),
    ],
)  # fmt: skip
def test_what_is_not_registered_or_not_an_option_is_named(options, message):
    with pytest.raises(Ada3DError, match=message):
        MODELS.build(mm_parts.model(**options))
