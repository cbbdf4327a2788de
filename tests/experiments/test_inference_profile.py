"""Where an inference's seconds went: parts that add up to the whole, of each model and all processes."""

import json

import inference_parts
import pytest

from ada3d_fx.experiments.inference import RunOptions, infer
from ada3d_fx.experiments.inference_profile import MAIN, REST, Profile, merged
from ada3d_fx.mm.results import VideoResult
from ada3d_fx.progress import Console
from ada3d_fx.videos.inputs import Video
from ada3d_fx.videos.streaming import DecodedVideo
from ada3d_fx.videos.timed_pipeline import PARTS

COUNT = 6


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    inference_parts.write(folder, views=2, count=COUNT)
    (folder / "videos" / "5.mp4").write_bytes(b"no video")
    return folder


def run(folder, **options):
    options = {"workers": 0, "device": "cpu", "json": str(folder / "s.json"), **options}
    files = str(folder / "config.py"), (), str(folder / "model.pth")
    told = infer(*files, [str(folder / "list.txt")], RunOptions(**options), Console())
    return told, json.loads((folder / "s.json").read_text())["profiles"]


def check(profile, videos):
    assert profile["videos"] == videos
    for parts, whole in (("parts", "seconds"), ("decoding_parts", "decoding_seconds")):
        rows = profile[parts]
        assert sum(row["seconds"] for row in rows) == pytest.approx(profile[whole], abs=1e-9)
        assert sum(row["share"] for row in rows) == pytest.approx(1)
        assert min(row["seconds"] for row in rows) >= 0
        assert [row["ms"] for row in rows] == [
            pytest.approx(1000 * row["seconds"] / videos) for row in rows
        ]
    assert [row["part"] for row in profile["parts"]] == [*MAIN, REST]
    assert [row["part"] for row in profile["decoding_parts"]] == [*PARTS, REST]


@pytest.mark.parametrize("workers", [0, 1])
def test_parts_add_up_to_the_whole(work, workers):
    told, (profile,) = run(work, workers=workers, profile=True)
    check(profile, COUNT)
    assert profile["processes"] == 1 and profile["start_seconds"] > 0
    assert all(row["seconds"] for row in profile["parts"])
    for word in ("seconds of config: 6 videos in", *MAIN, *PARTS, REST, "share"):
        assert word in told


def test_each_model_has_its_own_and_only_what_was_made_now(work, tmp_path):
    options = {"out": str(tmp_path / "r.jsonl"), "profile": True}
    options["also"] = str(work / "plain.py"), str(work / "plain.pth")
    told, profiles = run(work, **options)
    assert [profile["model"] for profile in profiles] == ["config", "plain"]
    for profile in profiles:
        check(profile, COUNT)
    assert profiles[1]["parts"][MAIN.index("select")]["seconds"] == 0
    told, profiles = run(work, **options)
    assert "all were there" in told and not profiles


def test_without_the_option_it_is_in_the_file_only(work):
    told, (profile,) = run(work)
    check(profile, COUNT)
    assert "wait for videos" not in told


def profile_of(seconds, model="a"):
    profile = Profile(model, start=1.0)
    video = DecodedVideo(0, Video("v.mp4"), None, None, 4 * seconds)
    video.parts, video.waited = dict.fromkeys(PARTS, seconds), seconds
    result = VideoResult(video, 0, prepare=seconds, select=seconds, recognise=seconds)
    profile.add(result, writing=seconds)
    profile.wall = 6 * seconds
    return profile


def test_processes_are_added():
    (one, other) = merged([profile_of(1.0), profile_of(5.0, "b"), profile_of(2.0)])
    found = one.found()
    check(found, 2)
    check(other.found(), 1)
    assert (found["processes"], found["seconds"], found["start_seconds"]) == (2, 18.0, 2.0)
    assert [row["seconds"] for row in found["parts"]] == [3.0] * 6
    assert [row["seconds"] for row in found["decoding_parts"]] == [3.0] * 4 + [0.0]
    assert "2 processes together" in one.text()
