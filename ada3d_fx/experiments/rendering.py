"""Frames of clips for which it is known what each class needs.

`static` classes show in any single frame. `motion` classes come in pairs that differ only in the
direction of one change; a single frame, at whatever time index, tells nothing about any of them:

- the object of every motion class has a place, an angle and a pupil size. All three live on circles
  (what passes the end comes back at the start) and start uniformly at random, so at any time
  they are uniform whatever the class does to them;
- the class moves one of the three, forwards or backwards: moving right / left, turning clockwise /
  anticlockwise, a disc in its middle that grows / shrinks (approaching / receding);
- the object shows only in a window at a random place of the clip, drawn alike for all motion
  classes. Before and after there is only background: which frames are kept decides what is seen;
- frames far apart in the window are ambiguous: much of a circle may have passed between them;
- background, colours, size, speed, noise and brightness vary alike in all classes.

Static objects differ in shape, show in all frames, and drift and turn a little.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class ClipClass(NamedTuple):
    """A class of clips."""

    name: str
    kind: str  # 'static' or 'motion'
    cue: str  # a shape (static), or the attribute that moves (motion)
    sign: int = 0  # of the motion


CLASSES = (
    ClipClass("square", "static", "square"),
    ClipClass("frame", "static", "frame"),
    ClipClass("cross", "static", "cross"),
    ClipClass("bar", "static", "bar"),
    ClipClass("move_right", "motion", "place", +1),
    ClipClass("move_left", "motion", "place", -1),
    ClipClass("turn_clockwise", "motion", "angle", +1),
    ClipClass("turn_anticlockwise", "motion", "angle", -1),
    ClipClass("approach", "motion", "pupil", +1),
    ClipClass("recede", "motion", "pupil", -1),
)

# Window of a motion clip as fractions of its frames, and change per frame in cycles at 16 frames.
# Of every second frame, 4 to 6 of 8 show the object, 0.05 to 0.24 cycles apart.
WINDOW = (0.5, 0.75)
SPEED = {"place": (0.025, 0.05), "angle": (0.028, 0.056), "pupil": (0.07, 0.12)}
SHOWN = 0.4  # share of a long video's segments that show its class


def render_clip(
    clip_class: ClipClass,
    rng: np.random.Generator,
    size: tuple[int, int],
    num_frames: int = 16,
    empty: bool = False,
) -> np.ndarray:
    """Render one clip.

    Args:
        clip_class: one of `CLASSES`.
        rng: the only source of randomness.
        size: width and height in pixels.
        num_frames: frames of the clip.
        empty: only its background.

    Returns:
        uint8 array [num_frames, height, width, 3], RGB.
    """
    width, height = size
    steps = np.arange(num_frames, dtype=np.float32)
    place, place_y, angle, pupil = rng.random(4)
    moving = {"place": 0.0, "angle": 0.0, "pupil": 0.0}
    shown = np.ones(num_frames, dtype=bool)
    drift_y = 0.0
    if clip_class.kind == "motion":
        speed = rng.uniform(*SPEED[clip_class.cue]) * 16 / num_frames
        moving[clip_class.cue] = clip_class.sign * speed
        shown = _window(rng, num_frames)
    else:
        direction, turn = rng.uniform(0, 2 * np.pi), rng.uniform(-0.01, 0.01)
        moving = {"place": 0.02 * np.cos(direction), "angle": turn, "pupil": 0.0}
        drift_y = 0.02 * np.sin(direction)

    short = min(width, height)
    radius = short * rng.uniform(0.38, 0.45)
    dx, dy = _offsets(place + moving["place"] * steps, place_y + drift_y * steps, size)
    angles = angle + moving["angle"] * steps
    if clip_class.kind == "motion":
        cover = _sweep(dx, dy, angles, radius)
        cover += _pupil(dx, dy, (pupil + moving["pupil"] * steps) % 1, radius)
    else:
        turned = 2 * np.pi * angles[:, None, None]
        cover = _shape(clip_class.cue, dx, dy, turned, 0.55 * radius)

    frames = _background(rng, size)[None].repeat(num_frames, axis=0)
    colour = rng.uniform(150, 250, 3)
    alpha = (cover * (shown & (not empty))[:, None, None])[..., None]
    frames = frames * (1 - alpha) + colour * alpha
    frames *= rng.uniform(0.9, 1.1, (num_frames, 1, 1, 1))
    frames += rng.normal(0, rng.uniform(2, 6), frames.shape)
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8)


def render_video(
    clip_class: ClipClass,
    rng: np.random.Generator,
    size: tuple[int, int],
    num_frames: int = 16,
    segments: int = 1,
) -> np.ndarray:
    """Render a video of ``segments`` clips with cuts between them.

    Each of several segments shows the class with probability 0.4, and at least one does; the others
    are empty.

    Returns:
        uint8 array [segments * num_frames, height, width, 3], RGB.
    """
    if segments == 1:
        return render_clip(clip_class, rng, size, num_frames)
    shows = rng.random(segments) < SHOWN
    shows[rng.integers(segments)] = True
    parts = [render_clip(clip_class, rng, size, num_frames, not show) for show in shows]
    return np.concatenate(parts)


def _window(rng: np.random.Generator, num_frames: int) -> np.ndarray:
    shortest, longest = (round(fraction * num_frames) for fraction in WINDOW)
    length = rng.integers(shortest, longest + 1)
    start = rng.integers(0, num_frames - length + 1)
    shown = np.zeros(num_frames, dtype=bool)
    shown[start : start + length] = True
    return shown


def _offsets(
    place_x: np.ndarray, place_y: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Distance of every pixel to the nearest copy of the object, [T, H, W] each, y downwards."""
    width, height = size
    dx = np.arange(width, dtype=np.float32)[None, None] - (place_x * width)[:, None, None]
    dy = np.arange(height, dtype=np.float32)[None, :, None] - (place_y * height)[:, None, None]
    dx = (dx + width / 2) % width - width / 2
    dy = (dy + height / 2) % height - height / 2
    shape = (len(place_x), height, width)
    return (
        np.broadcast_to(dx, shape).astype(np.float32),
        np.broadcast_to(dy, shape).astype(np.float32),
    )


def _inside(distance: np.ndarray) -> np.ndarray:
    """Coverage of a pixel by the region of negative `distance`: an edge one pixel wide."""
    return np.clip(0.5 - distance, 0, 1)


def _rotated(dx: np.ndarray, dy: np.ndarray, turned: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cos, sin = np.cos(turned), np.sin(turned)
    return dx * cos + dy * sin, dy * cos - dx * sin


def _sweep(dx: np.ndarray, dy: np.ndarray, phase: np.ndarray, radius: float) -> np.ndarray:
    """Draw a wide ring that fades clockwise twice around, like a radar screen.

    Two sharp edges half a turn apart show the angle. Half a turn is one cycle of `phase`.
    """
    turns = np.arctan2(dy, dx) / np.pi - phase[:, None, None]
    distance = np.hypot(dx, dy)
    ring = np.maximum(distance - radius, 0.6 * radius - distance)
    return _inside(ring) * (turns % 1)


def _pupil(dx: np.ndarray, dy: np.ndarray, phase: np.ndarray, radius: float) -> np.ndarray:
    """Draw a disc in the middle that grows from phase 0 to phase 1, and starts again."""
    return _inside(np.hypot(dx, dy) - (0.05 + 0.52 * phase[:, None, None]) * radius)


def _shape(
    name: str, dx: np.ndarray, dy: np.ndarray, turned: np.ndarray, radius: float
) -> np.ndarray:
    along, across = (np.abs(side) for side in _rotated(dx, dy, turned))
    square = np.maximum(along, across) - radius
    if name == "square":
        return _inside(square)
    if name == "frame":
        return _inside(np.maximum(square, -square - 0.4 * radius))
    bar = np.maximum(along - 1.5 * radius, across - 0.35 * radius)
    if name == "bar":
        return _inside(bar)
    other_bar = np.maximum(across - 1.5 * radius, along - 0.35 * radius)
    return _inside(np.minimum(bar, other_bar))


def _background(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Two colours mixed by a slow random pattern, [H, W, 3] float."""
    width, height = size
    x = np.linspace(0, 1, width, dtype=np.float32)[None, :]
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    mix = np.zeros((height, width), dtype=np.float32)
    for _ in range(3):
        fx, fy, phase = rng.uniform(-2, 2), rng.uniform(-2, 2), rng.uniform(0, 2 * np.pi)
        mix += np.sin(2 * np.pi * (fx * x + fy * y) + phase)
    first, second = rng.uniform(10, 110, (2, 3))
    share = (mix / 6 + 0.5)[..., None]
    return (first * share + second * (1 - share)).astype(np.float32)
