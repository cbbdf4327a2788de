"""Videos that are wrong in one way each, written with PyAV."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np


def write(
    path: Path, frames: int = 24, height: int = 32, width: int = 32, codec: str = "libx264",
    container: str | None = None, options: dict | None = None, noise: bool = True,
) -> Path:  # fmt: skip
    """A whole video of noise, or of even grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(frames)
    with av.open(str(path), "w", format=container, options=options or {}) as file:
        stream = file.add_stream(codec, rate=8)
        stream.height, stream.width = height, width
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.gop_size = 6
        for index in range(frames):
            image = (
                rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
                if noise
                else np.full((height, width, 3), 3 * index % 255, np.uint8)
            )
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)
    return path


def write_sound(path: Path) -> Path:
    """An mp4 file without pictures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4") as file:
        stream = file.add_stream("aac", rate=16000)
        samples = np.zeros((1, 1024), np.float32)
        for index in range(20):
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, 1024 * index
            for packet in stream.encode(frame):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)
    return path


def cut(source: Path, path: Path, share: float = 0.5) -> Path:
    """The beginning of a file."""
    whole = source.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    return path


def damage(source: Path, path: Path, start: float = 0.4, end: float = 0.7) -> Path:
    """A file whose bytes from ``start`` to ``end``, in shares of it, are noise."""
    whole = bytearray(source.read_bytes())
    first, last = int(start * len(whole)), int(end * len(whole))
    whole[first:last] = np.random.default_rng(0).bytes(last - first)
    path.write_bytes(whole)
    return path


FASTSTART = {"movflags": "+faststart"}
FRAGMENTED = {"movflags": "frag_keyframe+empty_moov"}


def odd_videos(folder: Path) -> dict[str, Path]:
    """One of each kind, by what is wrong with it."""
    good = write(folder / "good.mp4")
    front = write(folder / "front.mp4", options=FASTSTART)
    avi = write(folder / "whole.avi", codec="mpeg4")
    mkv = write(folder / "whole.mkv")
    found = {
        "good": good,
        "front": front,
        "avi": avi,
        "mkv": mkv,
        "truncated": cut(good, folder / "truncated.mp4"),
        "truncated_front": cut(front, folder / "truncated_front.mp4"),
        "truncated_avi": cut(avi, folder / "truncated.avi"),
        "truncated_mkv": cut(mkv, folder / "truncated.mkv"),
        "truncated_fragments": cut(
            write(folder / "fragments.mp4", options=FRAGMENTED),
            folder / "truncated_fragments.mp4",
        ),
        "damaged": damage(front, folder / "damaged.mp4"),
        "damaged_avi": damage(avi, folder / "damaged.avi"),
        "empty": folder / "empty.mp4",
        "text": folder / "text.mp4",
        "wrong_ending": write(folder / "matroska.mp4", container="matroska"),
        "one_frame": write(folder / "one.mp4", frames=1),
        "short": write(folder / "short.mp4", frames=3),
        "sound": write_sound(folder / "sound.mp4"),
        "webm": write(folder / "vp9.webm", codec="libvpx-vp9"),
        "mjpeg": write(folder / "mjpeg.avi", codec="mjpeg"),
        "folder": folder / "folder.mp4",
    }  # fmt: skip
    found["empty"].write_bytes(b"")
    found["text"].write_text("no video at all\n" * 20)
    found["folder"].mkdir(exist_ok=True)
    return found
