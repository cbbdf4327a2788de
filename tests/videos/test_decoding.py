"""Decoding in turns: the same frames, a bound on what is held at full size."""

import tracemalloc
from pathlib import Path

import numpy as np
import odd_videos
import pytest
from mmaction.datasets.transforms import (
    DecordDecode,
    DecordInit,
    OpenCVDecode,
    OpenCVInit,
    RandomResizedCrop,
    Resize,
    SampleFrames,
)

from ada3d_fx.videos import decoding, transforms
from ada3d_fx.videos.transforms import InMemoryDecordInit

SAMPLES = Path(__file__).parents[3] / "shared" / "data" / "sample_videos"


def decoded(path, steps):
    results = {"filename": str(path), "start_index": 0, "modality": "RGB", "label": 0}
    for step in steps:
        results = step(results)
    return results


def steps(init=DecordInit, decode=DecordDecode, clips=3):
    sample = SampleFrames(clip_len=4, frame_interval=2, num_clips=clips, test_mode=True)
    return [init(), sample, decode(), Resize(scale=(-1, 24))]


def same(one, other):
    assert one.keys() == other.keys()
    for key in set(one) - {"imgs", "video_reader"}:
        assert np.array_equal(one[key], other[key]), key
    assert len(one["imgs"]) == len(other["imgs"])
    assert all(np.array_equal(a, b) for a, b in zip(one["imgs"], other["imgs"]))


@pytest.mark.parametrize("init, decode", [(DecordInit, DecordDecode), (OpenCVInit, OpenCVDecode)])
def test_frames_are_the_same_whatever_is_held(tmp_path, monkeypatch, init, decode):
    path = odd_videos.write(tmp_path / "video.mp4", frames=30, height=48, width=64)
    plain = steps(init, decode)
    want = decoded(path, plain)
    for held in (1, 3 * 48 * 64 * 3, 2**28):
        monkeypatch.setattr(decoding, "HELD_BYTES", held)
        merged = decoding.bounded(steps(init, decode))
        assert len(merged) == 3
        same(decoded(path, merged), want)


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="no ../shared/data/sample_videos here")
def test_frames_of_real_videos_are_the_same(monkeypatch):
    monkeypatch.setattr(decoding, "HELD_BYTES", 5 * 340 * 256 * 3)
    for path in sorted(SAMPLES.iterdir()):
        same(decoded(path, decoding.bounded(steps())), decoded(path, steps()))


def test_what_is_random_or_of_ones_own_is_left_alone():
    class OwnResize(Resize):
        pass

    for last in (RandomResizedCrop(), Resize(scale=(8, 8), lazy=True), OwnResize(scale=(8, 8))):
        given = [DecordInit(), DecordDecode(), last]
        assert decoding.bounded(given) == given
    given = [DecordDecode(mode="efficient"), Resize(scale=(8, 8))]
    assert decoding.bounded(given) == given


def peak(call):
    tracemalloc.start()
    call()
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return held


def test_large_frames_are_not_held_all_at_once(tmp_path, monkeypatch):
    path = odd_videos.write(
        tmp_path / "large.mp4", frames=24, height=720, width=1280, noise=False
    )  # fmt: skip
    frame = 720 * 1280 * 3
    monkeypatch.setattr(decoding, "HELD_BYTES", 2 * frame)
    assert peak(lambda: decoded(path, steps(clips=6))) > 20 * frame
    assert peak(lambda: decoded(path, decoding.bounded(steps(clips=6)))) < 4 * frame


def in_memory(path, **options):
    transforms._STORE.clear()
    init = InMemoryDecordInit(**options)
    sample = SampleFrames(clip_len=4, frame_interval=2, num_clips=3, test_mode=True)
    return decoded(path, [init, sample, DecordDecode()])


def test_videos_kept_in_memory_are_the_same_and_bounded(tmp_path, monkeypatch):
    path = odd_videos.write(tmp_path / "large.mp4", frames=24, height=720, width=1280, noise=False)
    frame = 720 * 1280 * 3
    want = in_memory(path, scale=(64, 48))
    monkeypatch.setattr(decoding, "HELD_BYTES", 2 * frame)
    assert peak(lambda: same(in_memory(path, scale=(64, 48)), want)) < 4 * frame
    assert len(transforms._STORE) == 1


def test_a_video_that_the_store_has_no_room_for_is_decoded_by_the_frame(tmp_path, monkeypatch):
    path = odd_videos.write(tmp_path / "long.mp4", frames=60)
    want = in_memory(path, scale=(16, 16))
    same(in_memory(path, scale=(16, 16), max_gib=1e-6), want)
    assert not transforms._STORE
    monkeypatch.setattr(decoding, "HELD_BYTES", 1)
    same(in_memory(path, max_gib=1e-6), in_memory(path))
