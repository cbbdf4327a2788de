"""Where a pipeline's time goes: each transform has its part, and the parts are what the pipeline took."""

import mm_parts
import pytest
from mmengine.registry import init_default_scope

from ada3d_fx.videos.broken import BrokenVideo
from ada3d_fx.videos.inputs import Video, Videos
from ada3d_fx.videos.streaming import VideoDataset, decoded, video_pipeline
from ada3d_fx.videos.timed_pipeline import DECODE, FORMAT, OPEN, PARTS, RESIZE

STEPS = [
    {"type": "DecordInit"},
    {"type": "SampleFrames", "clip_len": 4, "frame_interval": 1, "num_clips": 1},
    {"type": "DecordDecode"},
    {"type": "Resize", "scale": (-1, 24)},
    {"type": "CenterCrop", "crop_size": 16},
    {"type": "FormatShape", "input_format": "NCTHW"},
    {"type": "PackActionInputs"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    mm_parts.write_clips(folder, 4)
    (folder / "videos" / "2.mp4").write_bytes(b"no video")
    return folder


def dataset_of(folder, steps=STEPS):
    init_default_scope("mmaction")
    paths = [f"{folder}/videos/{i}.mp4" for i in range(4)]
    return VideoDataset(Videos(map(Video, paths)), video_pipeline(steps))


@pytest.mark.parametrize("workers", [0, 1])
def test_parts_of_each_video_are_within_its_time(folder, workers):
    videos = list(decoded(dataset_of(folder), range(4), workers))
    assert [video.broken is not None for video in videos] == [False, False, True, False]
    for video in videos:
        assert set(video.parts) == set(PARTS) and min(video.parts.values()) >= 0
        assert sum(video.parts.values()) <= video.decode
        assert video.waited >= (video.decode if workers == 0 else 0)
        done = [part for part in PARTS if video.parts[part]]
        assert done == ([OPEN] if video.broken else list(PARTS))


def test_resizing_is_told_from_decoding(folder, monkeypatch):
    """By a clock that only moves in a transform: by 1 in resizing, 10 in decoding, 100 in formatting."""
    pipeline = dataset_of(folder).pipeline
    ticks = [0.0]
    for transform in pipeline.transforms:
        inner = transform.transform
        for part, seconds in (("resize", 1), ("decode", 10)):
            if hasattr(inner, part):
                setattr(inner, part, slow(getattr(inner, part), ticks, seconds))
        if "FormatShape" in repr(inner):
            transform.transform = FormatSlowly(inner, ticks)
    monkeypatch.setattr("time.perf_counter", lambda: ticks[0])
    assert not isinstance(
        pipeline({"filename": f"{folder}/videos/0.mp4", "start_index": 0, "modality": "RGB"}),
        BrokenVideo,
    )
    turns_taken = pipeline.seconds[RESIZE]  # the first frame alone, then the others
    assert pipeline.seconds == {OPEN: 0, DECODE: 10 * turns_taken, RESIZE: turns_taken, FORMAT: 100}
    assert turns_taken == 2


def slow(function, ticks, seconds):
    def run(*args):
        ticks[0] += seconds
        return function(*args)

    return run


class FormatSlowly:
    def __init__(self, transform, ticks):
        self.transform, self.ticks = transform, ticks

    def __call__(self, results):
        self.ticks[0] += 100
        return self.transform(results)
