"""Clip selection on long generated videos, from the command line."""

import json
import sys

import generate_clips
import mm_parts
import numpy as np
import pytest
import select_clips
import torch
from mmaction.registry import MODELS
from mmengine.config import Config

import ada3d_fx.mm  # noqa: F401
from ada3d_fx.mm.build import build_runner
from ada3d_fx.mm.checkpoint import load_weights


def test_long_videos_show_their_class_in_some_segments():
    counts = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        video = generate_clips.render_video(generate_clips.CLASSES[0], rng, (56, 48), 8, 5)
        assert video.shape == (40, 48, 56, 3)
        bright = (video.max(3) > 135).mean((1, 2)).reshape(5, 8)
        assert ((bright > 0.01).all(1) | (bright < 0.01).all(1)).all()  # a segment or none of it
        counts.append(int((bright > 0.01).all(1).sum()))
    assert min(counts) >= 1 and 1.5 < np.mean(counts) < 3.5


def test_one_segment_is_the_clip_as_ever():
    a, b = (
        make(generate_clips.CLASSES[4], np.random.default_rng(3), (56, 48), 8)
        for make in (generate_clips.render_clip, generate_clips.render_video)
    )
    assert np.array_equal(a, b)


@pytest.fixture
def work(tmp_path):
    mm_parts.write_clips(tmp_path)
    config = mm_parts.run_config(tmp_path, tmp_path / "work", testing={"greedy": "count"})
    for transform in config.test_dataloader.dataset.pipeline:
        if transform["type"] == "SampleFrames":
            transform.update(num_clips=3, test_mode=True)
    config.dump(str(tmp_path / "config.py"))
    model = MODELS.build(config.model)
    model.init_weights()
    torch.save(model.state_dict(), tmp_path / "model.pth")
    return tmp_path, model


def run(monkeypatch, folder, *options):
    arguments = ["x", folder / "config.py", folder / "model.pth", "--work-dir", folder / "out"]
    monkeypatch.setattr(sys, "argv", list(map(str, [*arguments, *options])))
    return select_clips.main()


def test_the_table_of_clips(work, monkeypatch, capsys):
    folder, model = work
    assert run(monkeypatch, folder, "--costs", "0.1,5", "--steps", "30") == 0
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
    assert (folder / "out" / "clips.png").is_file() and "#Clip" in capsys.readouterr().out
    assert (folder / "out" / "clip_selector_5.pth").is_file()


def test_one_clip_per_video_is_refused(work, monkeypatch, capsys):
    options = ["--cfg-options", "test_dataloader.dataset.pipeline.1.num_clips=1"]
    assert run(monkeypatch, work[0], *options) == 2
    assert "set num_clips of its SampleFrames" in capsys.readouterr().err


def test_predicting_with_both_networks(work, monkeypatch, capsys):
    """The sum of what each predicts alone, under the same policies; the selection network alone
    sees every clip anyway, so that is refused."""
    seen = {}
    for which in ("recognizer", "selector", "both"):
        config = Config.fromfile(work[0] / "config.py")
        config.work_dir = str(work[0] / "score_clips")
        config.model.update(training={"classify": 1.0}, testing={"predict_with": which})
        runner = build_runner(config)
        load_weights(runner.model, str(work[0] / "model.pth"))
        seen[which] = select_clips.preview_all(runner, config.test_dataloader)
    total = seen["recognizer"].scores + seen["selector"].scores
    torch.testing.assert_close(seen["both"].scores, total)
    assert torch.equal(seen["both"].gmacs, seen["recognizer"].gmacs)
    options = [
        "--cfg-options",
        "model.training.classify=1.0",
        "model.testing.predict_with=selector",
    ]
    assert run(monkeypatch, work[0], *options) == 2
    assert "looks at every clip" in capsys.readouterr().err
