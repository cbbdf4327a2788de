"""Generated clips as H.264 videos with the lists that MMAction2 reads."""

from __future__ import annotations

import io
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .. import files, requirements
from ..errors import Ada3DError
from ..progress import Console
from .clip_record import ClipRecord, alone
from .rendering import CLASSES, render_video

av = requirements.module("av", "writing videos")
decord = requirements.module("decord", "reading videos")
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

    The same arguments give the same files, whatever the number of ``workers``. In a folder that holds
    the result of the same arguments already, clips that are missing or not as they were written are
    made again, and a run that was stopped goes on. Clips of other arguments are replaced.

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
        Ada3DError: too few videos or frames, a size that cannot be encoded or decoded, or a list
            that was edited, which would be lost.
        OSError: a file cannot be written.
    """
    check(num_train, num_val, num_frames, segments, size, seed)
    out, console = Path(out), console or Console()
    options = {
        "version": FORMAT_VERSION,
        "num_train": num_train,
        "num_val": num_val,
        "seed": seed,
        "size": list(size),
        "num_frames": num_frames,
    } | ({} if segments == 1 else {"segments": segments})
    items = [("train", i) for i in range(num_train)] + [("val", i) for i in range(num_val)]
    encoded = partial(_encoded, seed=seed, size=size, num_frames=num_frames, segments=segments)
    if out.exists() and not out.is_dir():
        raise Ada3DError(f"--out {out}: a file is there, no folder")
    out.mkdir(parents=True, exist_ok=True)
    with alone(out, console):
        record = ClipRecord.read(out, options, console)
        record.check_texts(texts)
        missing = [item for item in items if not record.is_whole(_path(item))]
        if missing:
            check_decodes(encoded(items[0])[1])
        if record.stopped:
            there = f"{len(items) - len(missing)} of {len(items)} clips"
            console.say(f"{out}: going on with {there} of a run that was stopped")
        if record.done and record.digests and missing:
            named = ", ".join(_path(item) for item in missing[:4])
            more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
            console.say(f"{out}: {named}{more} made again: missing or damaged")
        if missing or not record.done:
            _make(record, items, missing, encoded, workers, console)
        for name, text in texts(options).items():
            if not (out / name).exists():
                if record.done:
                    console.say(f"{out}: {name} was missing and is written again")
                files.write_text(out / name, text)
        if missing or not record.done:
            record.finish()
    return out


def _make(
    record: ClipRecord, items: Sequence[Item], missing: Sequence[Item],
    encoded: Callable[[Item], tuple[str, bytes]], workers: int | None, console: Console,
) -> None:  # fmt: skip
    """Make the missing clips of a folder."""
    gone = set(missing)
    record.begin([_path(item) for item in items if item not in gone])
    if record.replaced is not None:
        for name in texts(record.replaced):
            (record.folder / name).unlink(missing_ok=True)
    if workers is None:  # starting processes takes longer than writing so few videos
        workers = 1 if len(missing) < 400 else os.cpu_count() or 1
    made = map(encoded, missing) if workers == 1 else _in_processes(encoded, missing, workers)
    for path, data in console.track(made, "generating clips", len(missing)):
        record.add(path, data)


def texts(options: Mapping[str, Any]) -> dict[str, str]:
    """Return the lists and the classes of a folder with these options, by the files' names."""
    lists = {
        f"{split}.txt": "".join(
            f"{_path((split, i)).removeprefix('videos/')} {i % len(CLASSES)}\n"
            for i in range(options[f"num_{split}"])
        )
        for split in SPLITS
    }
    return lists | {"classes.txt": "".join(f"{c.name} {c.kind}\n" for c in CLASSES)}


def check(
    num_train: int, num_val: int, num_frames: int, segments: int, size: tuple[int, int],
    seed: int = 0,
) -> None:  # fmt: skip
    """Check the arguments of `generate`.

    Raises:
        Ada3DError: too few videos, frames or clips, sides that H.264 does not take, or a negative
            seed.
    """
    if seed < 0:
        raise Ada3DError(f"--seed {seed}: at least 0")
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


def check_decodes(video: bytes) -> None:
    """Read a video, as decord cannot read some widths (48 and 72 of those tried).

    Raises:
        Ada3DError: it cannot be read.
    """
    try:
        decord.VideoReader(io.BytesIO(video), num_threads=1).get_batch([0])
    except decord.DECORDError as error:
        raise Ada3DError("--size: decord cannot read videos of this width; try another") from error


def write_video(path: Path, frames: np.ndarray, fps: int = 8) -> None:
    """Write frames as a video, the whole of it or nothing; see `encode`.

    Raises:
        OSError: the file cannot be written.
    """
    files.write_bytes(path, encode(frames, fps))


def encode(frames: np.ndarray, fps: int = 8) -> bytes:
    """Encode frames as H.264, every one a key frame, so that compression carries no motion.

    Args:
        frames: uint8 [T, H, W, 3], RGB.
        fps: frames per second.

    Returns:
        The bytes of an .mp4 file.
    """
    video = io.BytesIO()
    with av.open(video, "w", format="mp4") as container:
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
    return video.getvalue()


def _path(item: Item) -> str:
    """Return the path of a video in the folder."""
    split, index = item
    return f"videos/{split}/{CLASSES[index % len(CLASSES)].name}/{index:06d}.mp4"


def _encoded(
    item: Item, *, seed: int, size: tuple[int, int], num_frames: int, segments: int
) -> tuple[str, bytes]:
    """Render one video; return its path in the folder, and its bytes."""
    split, index = item
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    frames = render_video(CLASSES[index % len(CLASSES)], rng, size, num_frames, segments)
    return _path(item), encode(frames)


def _in_processes(
    encoded: Callable[[Item], tuple[str, bytes]], items: Sequence[Item], workers: int
) -> Iterator[tuple[str, bytes]]:
    """Encode each item in several processes; return them in their order."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        yield from pool.map(encoded, items, chunksize=20)
