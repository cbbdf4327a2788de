"""Clip selection on long videos."""

import json

import experiment_parts
import pytest
import torch
from mmengine.config import Config

import ada3d_fx.mm  # noqa: F401
from ada3d_fx import Ada3DError
from ada3d_fx.experiments.clip_selection import select_clips
from ada3d_fx.experiments.clip_videos import score_clips
from ada3d_fx.mm.build import build_runner
from ada3d_fx.mm.checkpoint import load_weights


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("long")
    config = experiment_parts.config_of(folder, testing={"greedy": "count"})
    for transform in config.test_dataloader.dataset.pipeline:
        if transform["type"] == "SampleFrames":
            transform.update(num_clips=3, test_mode=True)
    return folder, experiment_parts.write(folder, config)


def selected(folder, *options, **others):
    return select_clips(
        str(folder / "config.py"), options, str(folder / "model.pth"), costs=[0.1, 5], steps=30,
        work_dir=str(folder / "out"), **others,
    )  # fmt: skip


def test_the_table_of_clips(work):
    folder, model = work
    text = selected(folder)
    found = json.loads((folder / "out" / "clips.json").read_text())
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows) == ["1, even", "2, even", "all (vanilla)", "chosen, cost 0.1",
                          "chosen, cost 5"]  # fmt: skip
    assert [rows[name]["clips"] for name in list(rows)[:3]] == [1, 2, 3]
    preview = 3 * model.selector_macs / 1e9
    for row in found["rows"][3:]:
        assert 1 <= row["clips"] <= 3
        assert preview < row["gmacs"] <= rows["all (vanilla)"]["gmacs"] + 1e-12
    assert rows["chosen, cost 5"]["clips"] <= rows["chosen, cost 0.1"]["clips"] + 0.5
    assert (folder / "out" / "clips.png").is_file() and "#Clip" in text
    assert (folder / "out" / "clip_selector_5.pth").is_file()


def test_one_clip_per_video_is_refused(work):
    with pytest.raises(Ada3DError, match="set num_clips of its SampleFrames"):
        selected(work[0], "test_dataloader.dataset.pipeline.1.num_clips=1")


def test_predicting_with_both_networks(work):
    """The sum of what each predicts alone, under the same policies; the selection network alone
    sees every clip anyway, so that is refused."""
    seen = {}
    for predict_with in ("recognizer", "selector", "both"):
        config = Config.fromfile(work[0] / "config.py")
        config.work_dir = str(work[0] / "score_clips")
        config.model.update(training={"classify": 1.0}, testing={"predict_with": predict_with})
        runner = build_runner(config)
        load_weights(runner.model, str(work[0] / "model.pth"))
        seen[predict_with] = score_clips(runner, runner.build_dataloader(config.test_dataloader))
    total = seen["recognizer"].scores + seen["selector"].scores
    torch.testing.assert_close(seen["both"].scores, total)
    assert torch.equal(seen["both"].gmacs, seen["recognizer"].gmacs)
    with pytest.raises(Ada3DError, match="looks at every clip"):
        selected(work[0], "model.training.classify=1.0", "model.testing.predict_with=selector")


def test_clips_that_exit_cost_nothing_but_their_preview(work):
    seen = {}
    for exit in (None, 1e-6):
        config = Config.fromfile(work[0] / "config.py")
        config.work_dir = str(work[0] / "score_clips_exit")
        config.model.update(training={"classify": 1.0}, testing={"predict_with": "both"}, exit=exit)
        runner = build_runner(config)
        load_weights(runner.model, str(work[0] / "model.pth"))
        seen[exit] = score_clips(runner, runner.build_dataloader(config.test_dataloader))
    assert not seen[1e-6].gmacs.any() and seen[None].gmacs.all()
    assert seen[1e-6].scores.shape == seen[None].scores.shape
    assert torch.equal(seen[1e-6].preview, seen[None].preview)
