"""Decode a video and tell what is in it; also a program that does so for whoever asks.

As a program it reads requests from standard input, a JSON object a line, and answers each with a
line. It imports nothing of this package, so that it starts at once, and a video that crashes a
decoder ends this process only.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

READERS = ("decord", "pyav", "opencv")  # MMAction2's DecordInit, PyAVInit, OpenCVInit
SECONDS_BETWEEN_SIGNS = 2.0  # of life, while a long video is decoded
# Endings of files, and a word in FFmpeg's name of the container that they promise.
CONTAINERS = {
    **dict.fromkeys((".mp4", ".m4v", ".mov", ".3gp"), "mp4"),
    **dict.fromkeys((".mkv", ".webm"), "matroska"),
    **dict.fromkeys((".mpg", ".mpeg", ".ts", ".m2ts", ".vob"), "mpeg"),
    **dict.fromkeys((".wmv", ".asf"), "asf"),
    **{".avi": "avi", ".flv": "flv", ".ogv": "ogg", ".gif": "gif"},
}


def probe(
    path: str, reader: str = "decord", whole: bool = True, alive: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Decode a video as training would.

    Args:
        path: the file.
        reader: what decodes it, one of `READERS`.
        whole: all frames; otherwise the first and the last one.
        alive: called now and then meanwhile.

    Returns:
        ``frames``, ``width`` and ``height`` as they were decoded; ``told``, the frames that the
        file's header tells of (0: of none); ``codec`` and ``container``, FFmpeg's names; ``error``,
        what is wrong with it, or None.
    """
    found: dict[str, Any] = {"frames": 0, "width": 0, "height": 0, "told": 0}
    found |= {"codec": None, "container": None, "error": None}
    try:
        found["error"] = _unreadable(path)
        if found["error"] is None:
            found |= _header(path)
        if found["error"] is None:
            for height, width in FRAMES[reader](path, whole):
                found |= {"frames": found["frames"] + 1, "height": height, "width": width}
                alive()
            if not found["frames"]:
                found["error"] = "has no frame"
    except decoding_errors() as error:
        after = f" after {found['frames']} frames" if found["frames"] else ""
        found["error"] = f"does not decode{after}: {first_line(error)}"
    return found


def decoding_errors() -> tuple[type[BaseException], ...]:
    """Return what decoders raise about files that are none of theirs, or damaged."""
    import av
    import cv2
    import decord

    return (
        OSError, RuntimeError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError,
        AssertionError, MemoryError, EOFError, decord.DECORDError, cv2.error, av.FFmpegError,
    )  # fmt: skip


def first_line(error: BaseException) -> str:
    """Return an error's message without its stack trace and the places in a decoder's source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = lines[0] if lines else type(error).__name__
    words = [word for word in message.split() if ".cc:" not in word and not _is_time(word)]
    return " ".join(words)[:300]


def _is_time(word: str) -> bool:
    return word.startswith("[") and word.endswith("]") and word.count(":") == 2


def _unreadable(path: str) -> str | None:
    if "\0" in path:
        return "has a NUL character in its name"
    try:
        os.fsencode(path)
    except UnicodeEncodeError as error:
        return (
            f"cannot be a file's name in this locale, whose encoding is {error.encoding}; set "
            "LC_ALL=C.UTF-8 or PYTHONUTF8=1"
        )
    if os.path.isdir(path):
        return "is a folder"
    if not os.path.isfile(path):
        return "is not there; check data_prefix"
    if not os.access(path, os.R_OK):
        return "may not be read: no permission"
    return None if os.path.getsize(path) else "is an empty file"


def _header(path: str) -> dict[str, Any]:
    """Return what the file's header says."""
    import av

    with av.open(path) as container:
        found: dict[str, Any] = {"container": container.format.name}
        videos = [s for s in container.streams.video if not _is_cover(s)]
        if not videos:
            kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
            return {**found, "error": f"has no video in it, only: {kinds}"}
        stream = videos[0]
        found["codec"] = stream.codec_context.name if stream.codec_context else None
        found["told"] = stream.frames
        if not stream.frames and container.duration and stream.average_rate:
            found["told"] = round(container.duration / av.time_base * float(stream.average_rate))
    return found


def _is_cover(stream: Any) -> bool:
    """Whether it is the picture on the cover of a sound file."""
    disposition = getattr(stream, "disposition", None)
    return "attached_pic" in str(disposition).lower() if disposition else False


def _decord(path: str, whole: bool) -> Iterator[tuple[int, int]]:
    import decord

    reader = decord.VideoReader(path, num_threads=1)
    count = len(reader)
    for index in range(count) if whole else sorted({0, count - 1}):
        yield reader[index].shape[:2]


def _pyav(path: str, whole: bool) -> Iterator[tuple[int, int]]:
    import av

    with av.open(path) as container:
        for frame in container.decode(video=0):
            yield frame.height, frame.width
            if not whole:
                return


def _opencv(path: str, whole: bool) -> Iterator[tuple[int, int]]:
    import cv2

    capture = cv2.VideoCapture(path)
    try:
        while True:
            there, frame = capture.read()
            if not there:
                return
            yield frame.shape[:2]
            if not whole:
                return
    finally:
        capture.release()


FRAMES = {"decord": _decord, "pyav": _pyav, "opencv": _opencv}


def main() -> None:
    """Answer requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a decoder prints is no answer
    last = 0.0

    def alive() -> None:
        nonlocal last
        if time.monotonic() - last > SECONDS_BETWEEN_SIGNS:
            last = time.monotonic()
            print("", file=answers, flush=True)

    decoding_errors()  # imports the decoders
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        last = time.monotonic()
        request = json.loads(line)
        print(json.dumps(probe(alive=alive, **request)), file=answers, flush=True)


if __name__ == "__main__":
    main()
