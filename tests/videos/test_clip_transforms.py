"""Transforms of whole clips: shifts and normalisation."""

import numpy as np
import pytest
from mmaction.registry import TRANSFORMS

from ada3d_fx import Ada3DError


def clip(frames=3, height=6, width=8):
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(frames)]


def test_all_frames_of_a_clip_are_shifted_alike():
    frames = clip()
    shift = TRANSFORMS.build(dict(type="RandomShift", pixels=(2, 1)))
    seen = set()
    for seed in range(200):
        np.random.seed(seed)
        made = shift.transform(dict(imgs=list(frames)))["imgs"]
        ways = [
            (x, y)
            for x in range(-2, 3)
            for y in range(-1, 2)
            if all(
                np.array_equal(m[1:-1, 2:-2], f[1 + y : 5 + y, 2 + x : 6 + x])
                for m, f in zip(made, frames)
            )
        ]
        assert len(ways) == 1
        assert all(m.shape == f.shape and m.flags.c_contiguous for m, f in zip(made, frames))
        seen.update(ways)
    assert len(seen) == 15


def test_edges_are_repeated():
    frame = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    shift = TRANSFORMS.build(dict(type="RandomShift", pixels=(3, 0)))
    made = []
    for seed in range(20):
        np.random.seed(seed)
        made.append(shift.transform(dict(imgs=[frame]))["imgs"][0][0, :, 0].tolist())
    assert [3, 3, 3, 3] in made and [0, 0, 0, 0] in made


@pytest.mark.parametrize("pixels", [(1,), (-1, 2), (1, 2, 3)])
def test_bad_shifts_are_refused(pixels):
    with pytest.raises(Ada3DError, match="RandomShift: pixels="):
        TRANSFORMS.build(dict(type="RandomShift", pixels=pixels))


def test_a_clip_is_normalised_by_its_own_pixels():
    normalize = TRANSFORMS.build(dict(type="NormalizeClip"))
    frames = clip()
    made = np.stack(normalize.transform(dict(imgs=frames))["imgs"])
    assert made.dtype == np.float32
    assert abs(made.mean()) < 1e-5 and abs(made.std() - 1) < 1e-3
    # brighter, with more contrast: the same clip
    again = [frame.astype(np.float32) * 1.5 + 20 for frame in frames]
    assert np.abs(np.stack(normalize.transform(dict(imgs=again))["imgs"]) - made).max() < 1e-3


def test_a_clip_without_contrast_stays_finite():
    normalize = TRANSFORMS.build(dict(type="NormalizeClip"))
    grey = [np.full((4, 4, 3), 7, dtype=np.uint8)] * 2
    assert not np.stack(normalize.transform(dict(imgs=grey))["imgs"]).any()
