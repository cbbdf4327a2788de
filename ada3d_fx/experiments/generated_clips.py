"""Generated clips as H.264 videos with the lists that MMAction2 reads."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import av
import decord
import numpy as np

from ..errors import Ada3DError
from ..progress import Console
from .rendering import CLASSES, render_video

SPLITS = ("train", "val")
FORMAT_VERSION = 2
LEAST_SIDE, LEAST_FRAMES = 32, 8
Item = tuple[str, int]  # a split, and the number of a video in it


def generate(
    out: str | Path,
    num_train: int = 2400,
    num_val: int = 800,
    seed: int = 0,
    size: tuple[int, int] = (56, 48),
    num_frames: int = 16,
    workers: int | None = None,
    segments: int = 1,
    console: Console | None = None,
) -> Path:
    """Write both splits; classes take turns, so they are balanced.

    The same arguments give the same frames, whatever the number of ``workers``. A folder that holds
    the result of the same arguments already is left as it is.

    Args:
        out: the folder to write.
        num_train: videos of the training list.
        num_val: videos of the validation list.
        seed: random seed.
        size: width and height in pixels, even.
        num_frames: frames of a clip.
        workers: processes; None: one for each core, where that is quicker.
        segments: clips of a video, of which some show nothing.
        console: where progress is shown.

    Returns:
        ``out`` as a path.

    Raises:
        Ada3DError: too few videos or frames, or a size that cannot be encoded or decoded.
    """
    check(num_train, num_val, num_frames, segments, size)
    out = Path(out)
    wanted = {
        "version": FORMAT_VERSION,
        "num_train": num_train,
        "num_val": num_val,
        "seed": seed,
        "size": list(size),
        "num_frames": num_frames,
    } | ({} if segments == 1 else {"segments": segments})
    done = out / "generated.json"
    if done.exists() and json.loads(done.read_text()) == wanted:
        return out
    done.unlink(missing_ok=True)
    items = [("train", i) for i in range(num_train)] + [("val", i) for i in range(num_val)]
    write = partial(
        _write_clip, out=out, seed=seed, size=size, num_frames=num_frames, segments=segments
    )
    check_decodes(out / "videos" / write(items[0]).split()[0])
    if workers is None:  # starting processes takes longer than writing so few videos
        workers = 1 if len(items) < 400 else os.cpu_count() or 1
    written = map(write, items) if workers == 1 else _in_processes(write, items, workers)
    lines = list((console or Console()).track(written, "generating clips", len(items)))
    for split in SPLITS:
        own = [line for line in lines if line.startswith(f"{split}/")]
        (out / f"{split}.txt").write_text("".join(f"{line}\n" for line in own))
    (out / "classes.txt").write_text("".join(f"{c.name} {c.kind}\n" for c in CLASSES))
    done.write_text(json.dumps(wanted))
    return out


def check(
    num_train: int, num_val: int, num_frames: int, segments: int, size: tuple[int, int]
) -> None:
    """Check the arguments of `generate`.

    Raises:
        Ada3DError: too few videos, frames or clips, or sides that H.264 does not take.
    """
    if min(num_train, num_val) < len(CLASSES):
        raise Ada3DError(f"--num-train, --num-val: at least {len(CLASSES)}, one for each class")
    if num_frames < LEAST_FRAMES:
        raise Ada3DError(f"--num-frames {num_frames}: at least {LEAST_FRAMES}")
    if segments < 1:
        raise Ada3DError(f"--segments {segments}: at least 1")
    if any(side % 2 or side < LEAST_SIDE for side in size):
        raise Ada3DError(
            f"--size {size[0]}x{size[1]}: H.264 needs even sides; {LEAST_SIDE} is the least here"
        )


def check_decodes(video: Path) -> None:
    """Read a video, as decord cannot read some widths (48 and 72 of those tried).

    Raises:
        Ada3DError: it cannot be read.
    """
    try:
        decord.VideoReader(str(video), num_threads=1).get_batch([0])
    except decord.DECORDError as error:
        raise Ada3DError("--size: decord cannot read videos of this width; try another") from error


def write_video(path: Path, frames: np.ndarray, fps: int = 8) -> None:
    """Encode frames as H.264, every one a key frame, so that compression carries no motion.

    Args:
        path: the .mp4 file; its folder is made.
        frames: uint8 [T, H, W, 3], RGB.
        fps: frames per second.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {
            "crf": "18",
            "preset": "ultrafast",
            "g": "1",
            "threads": "1",
            "x264-params": "keyint=1:scenecut=0",
        }
        for array in frames:
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _write_clip(
    item: Item,
    *,
    out: Path,
    seed: int,
    size: tuple[int, int],
    num_frames: int,
    segments: int,
) -> str:
    """Write one video and return its line in the list."""
    split, index = item
    label = index % len(CLASSES)
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    relative = f"{split}/{CLASSES[label].name}/{index:06d}.mp4"
    frames = render_video(CLASSES[label], rng, size, num_frames, segments)
    write_video(out / "videos" / relative, frames)
    return f"{relative} {label}"


def _in_processes(
    write: Callable[[Item], str], items: Sequence[Item], workers: int
) -> Iterator[str]:
    """Call ``write`` on each item in several processes; return what it gives in their order."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        yield from pool.map(write, items, chunksize=20)
