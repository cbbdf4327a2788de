"""The generated clips are repeatable, MMAction2 reads them, and one frame does not tell motion."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import ada3d_fx.mm  # noqa: F401  registers the in-memory transform
from ada3d_fx import Ada3DError
from ada3d_fx.experiments.generated_clips import SPLITS, generate
from ada3d_fx.experiments.rendering import CLASSES, render_clip, render_video

MOTION = [label for label, c in enumerate(CLASSES) if c.kind == "motion"]
STATIC = [label for label, c in enumerate(CLASSES) if c.kind == "static"]
PAIRS = list(zip(MOTION[::2], MOTION[1::2], strict=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return generate(
        tmp_path_factory.mktemp("clips"), num_train=10, num_val=20, seed=5, size=(32, 32)
    )


# Repeatable files


def test_the_same_seed_gives_the_same_frames_and_lists_in_one_or_two_processes(tmp_path):
    arguments = dict(num_train=40, num_val=20, seed=3, size=(32, 48), num_frames=8)
    one = generate(tmp_path / "one", workers=1, **arguments)
    two = generate(tmp_path / "two", workers=2, **arguments)
    for name in ("train.txt", "val.txt", "classes.txt"):
        assert (one / name).read_text() == (two / name).read_text()
    relative = (one / "train.txt").read_text().split()[0]
    assert (one / "videos" / relative).read_bytes() == (two / "videos" / relative).read_bytes()


def test_a_finished_folder_is_left_alone_and_another_seed_is_written_over_it(tmp_path):
    first = generate(tmp_path, num_train=10, num_val=10, seed=1)
    video = first / "videos" / (first / "val.txt").read_text().split()[0]
    content, written = video.read_bytes(), video.stat().st_mtime_ns
    generate(tmp_path, num_train=10, num_val=10, seed=1)
    assert video.stat().st_mtime_ns == written
    generate(tmp_path, num_train=10, num_val=10, seed=2)
    assert video.read_bytes() != content


@pytest.mark.parametrize("size", [(63, 64), (16, 16), (48, 48)])
def test_sizes_that_cannot_be_encoded_or_decoded_are_refused(size, tmp_path):
    with pytest.raises(Ada3DError, match="--size"):
        generate(tmp_path, 10, 10, size=size)


@pytest.mark.parametrize(
    "wrong", [{"num_train": 9}, {"num_val": 9}, {"num_frames": 7}, {"segments": 0}]
)
def test_too_little_is_refused(wrong, tmp_path):
    with pytest.raises(Ada3DError, match="at least"):
        generate(tmp_path, **{"num_train": 10, "num_val": 10, **wrong})


def test_classes_file_names_the_kind_of_every_label(folder):
    lines = (folder / "classes.txt").read_text().splitlines()
    assert [tuple(line.split()) for line in lines] == [(c.name, c.kind) for c in CLASSES]


# The cue, and nothing but the cue


@pytest.mark.parametrize("forwards, backwards", PAIRS)
def test_a_pair_differs_only_in_the_direction_of_one_change(forwards, backwards):
    for seed in range(5):
        one, other = (
            render_clip(CLASSES[label], np.random.default_rng(seed), (32, 32)).astype(int)
            for label in (forwards, backwards)
        )
        same = [bool((a == b).all()) for a, b in zip(one, other, strict=True)]
        assert same[0], "the state at time 0 is drawn alike, only its change differs"
        assert not all(same)


def test_the_object_of_a_motion_class_hides_outside_one_window():
    for seed in range(20):
        clips = [render_clip(CLASSES[k], np.random.default_rng(seed), (32, 32)) for k in MOTION]
        spread = np.stack(clips).astype(float).std(axis=0).mean(axis=(1, 2, 3))
        assert 1 <= (spread > 0).sum() <= 12  # of 16 frames


class FrameNet(nn.Sequential):
    """A small classifier of stacked frames [N, 3 * frames + 1, H, W] (the last plane: time)."""

    def __init__(self, frames: int, classes: int):
        channels = (3 * frames + 1, 24, 48, 64)
        blocks = [
            [nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(), nn.MaxPool2d(2)]
            for i, o in itertools.pairwise(channels)
        ]
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], classes)]
        super().__init__(*(layer for block in blocks for layer in block), *head)


def windows(clips, frames: int, starts):
    """Stack `frames` frames (every second one) from `starts` [N], and the start as a plane."""
    rows = torch.arange(len(clips))
    stacked = [clips[rows, starts + 2 * k] for k in range(frames)]
    time = (starts / 16.0)[:, None, None, None].expand(-1, 1, *clips.shape[-2:])
    return torch.cat([*stacked, time], dim=1)


def any_starts(clips, frames: int, generator):
    """A random start for each clip. It must not look at the clip: frames chosen by what they show
    (by the difference from the clip's median, say) tell the class by the choice alone."""
    return torch.randint(0, 16 - 2 * (frames - 1), (len(clips),), generator=generator)


def rendered(labels: list[int], split: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`count` clips [N, T, 3, H, W] of `labels` in turn, and their labels. Not encoded: every frame
    is coded on its own, so the coding of a frame knows nothing of the others."""
    targets = torch.tensor([labels[i % len(labels)] for i in range(count)])
    clips = [
        render_clip(CLASSES[label], np.random.default_rng([9, split, i]), (32, 32))
        for i, label in enumerate(targets.tolist())
    ]
    return torch.from_numpy(np.stack(clips)).permute(0, 1, 4, 2, 3).float() / 64 - 2, targets


def accuracy(data, frames: int, epochs: int) -> float:
    """Held-out accuracy of a classifier that gets `frames` frames of each clip."""
    (clips, targets), (val_clips, val_targets) = data
    generator = torch.Generator().manual_seed(0)
    net = FrameNet(frames, len(CLASSES))
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.02)
    steps = epochs * math.ceil(len(clips) / 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(epochs):
        order = torch.randperm(len(clips), generator=generator)
        inputs = windows(clips, frames, any_starts(clips, frames, generator))
        for rows in order.split(64):
            loss = nn.functional.cross_entropy(net(inputs[rows]), targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    net.eval()
    with torch.no_grad():
        starts = any_starts(val_clips, frames, generator)
        predicted = net(windows(val_clips, frames, starts)).argmax(dim=1)
    return (predicted == val_targets).double().mean().item()


@pytest.mark.slow
def test_one_frame_tells_static_classes_but_not_motion_classes_and_two_frames_tell_both():
    motion = [rendered(MOTION, split, 2400) for split in (0, 1)]
    chance = 1 / len(MOTION)
    margin = 4 * math.sqrt(chance * (1 - chance) / 2400)  # one in 30,000 for independent clips
    assert accuracy(motion, frames=1, epochs=5) < chance + margin
    # The same classifier has the power to see a cue where there is one.
    assert accuracy(motion, frames=2, epochs=5) > chance + 2 * margin
    static = [rendered(STATIC, split, 600) for split in (0, 1)]
    assert accuracy(static, frames=1, epochs=8) > 0.7


# Long videos


def test_long_videos_show_their_class_in_some_segments():
    counts = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        video = render_video(CLASSES[0], rng, (56, 48), 8, 5)
        assert video.shape == (40, 48, 56, 3)
        bright = (video.max(3) > 135).mean((1, 2)).reshape(5, 8)
        assert ((bright > 0.01).all(1) | (bright < 0.01).all(1)).all()  # a segment or none of it
        counts.append(int((bright > 0.01).all(1).sum()))
    assert min(counts) >= 1 and 1.5 < np.mean(counts) < 3.5


def test_one_segment_is_the_clip_as_ever():
    a, b = (
        make(CLASSES[4], np.random.default_rng(3), (56, 48), 8)
        for make in (render_clip, render_video)
    )
    assert np.array_equal(a, b)


# MMAction2 reads them, and so does the in-memory transform


def test_mmaction2_reads_both_lists_and_decodes_what_was_rendered(folder):
    from mmaction.datasets import VideoDataset

    for split, count in (("train", 10), ("val", 20)):
        dataset = VideoDataset(
            ann_file=str(folder / f"{split}.txt"),
            data_prefix=dict(video=str(folder / "videos")),
            pipeline=[
                dict(type="DecordInit"),
                dict(type="SampleFrames", clip_len=16, frame_interval=1, num_clips=1),
                dict(type="DecordDecode"),
                dict(type="FormatShape", input_format="NCTHW"),
                dict(type="PackActionInputs"),
            ],
        )
        assert len(dataset) == count
        for index in range(count):
            item, label = dataset[index], index % len(CLASSES)
            assert item["data_samples"].gt_label.tolist() == [label]
            rng = np.random.default_rng([5, SPLITS.index(split), index])
            wanted = render_clip(CLASSES[label], rng, (32, 32))
            decoded = item["inputs"][0].permute(1, 2, 3, 0).numpy()
            assert np.abs(decoded.astype(int) - wanted).mean() < 10  # of 255: the coding is lossy


def test_frames_from_memory_equal_decoded_ones(folder):
    from mmaction.registry import TRANSFORMS

    path = folder / "videos" / (folder / "val.txt").read_text().split()[0]
    taken = []
    for name in ("DecordInit", "InMemoryDecordInit", "InMemoryDecordInit"):
        results = dict(filename=str(path), start_index=0, modality="RGB")
        for step in (
            dict(type=name),
            dict(type="SampleFrames", clip_len=8, frame_interval=2, num_clips=1, test_mode=True),
            dict(type="DecordDecode"),
        ):
            results = TRANSFORMS.build(step)(results)
        taken.append(np.stack(results["imgs"]))
        results["imgs"][0][:] = 0  # what a later transform does in place stays out of the store
    assert (taken[0] == taken[1]).all() and (taken[0] == taken[2]).all()


def test_a_video_that_does_not_decode_is_named(tmp_path):
    from mmaction.registry import TRANSFORMS

    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    for path in (broken, tmp_path / "absent.mp4"):
        with pytest.raises(Ada3DError, match=path.name):
            TRANSFORMS.build(dict(type="InMemoryDecordInit"))(dict(filename=str(path)))


def test_transposition_swaps_height_and_width_of_all_frames():
    from mmaction.registry import TRANSFORMS

    frames = [np.arange(24).reshape(2, 4, 3) + k for k in range(3)]
    swap = TRANSFORMS.build(dict(type="RandomTranspose", prob=1.0))
    results = swap(dict(imgs=frames, img_shape=(2, 4)))
    assert results["img_shape"] == (4, 2)
    assert all((a == b.swapaxes(0, 1)).all() for a, b in zip(results["imgs"], frames, strict=True))
