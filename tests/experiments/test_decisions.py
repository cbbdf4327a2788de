"""What was decided for videos, as a picture, an animation and rows."""

import json

import experiment_parts
import pytest

import ada3d_fx.mm  # noqa: F401
from ada3d_fx import Ada3DError
from ada3d_fx.experiments.decisions import show_decisions
from ada3d_fx.report import policy_pictures


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("decisions")
    experiment_parts.write(folder, experiment_parts.config_of(folder, count=3))
    return folder


def shown(folder, videos, *cfg_options, **options):
    files = str(folder / "config.py"), cfg_options, str(folder / "model.pth")
    return show_decisions(*files, [str(video) for video in videos], **options)


def test_the_threshold_is_set_first(work, tmp_path):
    videos = [work / "videos" / f"{i}.mp4" for i in range(3)]
    dear, cheap = tmp_path / "dear.json", tmp_path / "cheap.json"
    for path, gmacs in ((dear, 1.0), (cheap, 0.0009)):
        options = {"out": str(tmp_path / "p.png"), "json_file": str(path), "gmacs": gmacs}
        shown(work, videos, "model.testing.greedy=count", **options)
    cost = [sum(r["gmacs"] for r in json.loads(p.read_text())) for p in (dear, cheap)]
    assert cost[1] < cost[0]


def test_clips_that_exit_are_shown_with_no_frame(work, tmp_path):
    videos, rows = [work / "videos" / f"{i}.mp4" for i in range(3)], tmp_path / "rows.json"
    options = ("model.exit=1e-6", "model.training.classify=1", "model.testing.predict_with=both")
    files = {"out": str(tmp_path / "p.svg"), "gif": str(tmp_path / "p.gif"), "json_file": str(rows)}
    text = shown(work, videos, *options, **files)
    for row in json.loads(rows.read_text()):
        assert (row["frames"], row["stages"], row["num_frames"]) == ("0000", "00000", 0)
    assert "0000" in text and (tmp_path / "p.gif").read_bytes()[:3] == b"GIF"
    assert (tmp_path / "p.svg").read_text().count(policy_pictures.EXIT) == 3


def test_a_missing_video_is_named(work):
    with pytest.raises(Ada3DError, match=r"no video at nowhere\.mp4"):
        shown(work, ["nowhere.mp4"])


def test_what_is_no_video_or_no_picture_is_named_before_anything_is_decided(work, tmp_path):
    whole = work / "videos" / "0.mp4"
    for name, content in (
        ("cut.mp4", whole.read_bytes()[:900]),
        ("text.mp4", b"x"),
        ("no.mp4", b""),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(Ada3DError, match=rf"{name}: DecordInit fails"):
            shown(work, [whole, tmp_path / name], out=str(tmp_path / "p.png"))
    with pytest.raises(Ada3DError, match=r"p\.txt: pictures are written as \.png"):
        shown(work, [whole], out=str(tmp_path / "p.txt"))
    with pytest.raises(Ada3DError, match=r"p\.png: animations are written as \.gif"):
        shown(work, [whole], out=str(tmp_path / "o.png"), gif=str(tmp_path / "p.png"))
    assert not list(tmp_path.glob("*.png"))
