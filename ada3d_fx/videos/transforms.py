"""Transforms that MMAction2 lacks: videos decoded once and kept in memory, and transposition."""

from __future__ import annotations

import mmcv
import numpy as np
from mmaction.datasets.transforms import DecordInit
from mmaction.registry import TRANSFORMS
from mmcv.transforms import BaseTransform

from ..errors import Ada3DError
from .decoding import in_turns
from .probe import decoding_errors, first_line


class _FramesInMemory:
    """What `SampleFrames` and `DecordDecode` use of decord's reader, over frames in memory.

    Args:
        frames: uint8 [T, H, W, 3], RGB.
        fps: frames per second.
    """

    def __init__(self, frames: np.ndarray, fps: float):
        self.frames, self.fps = frames, fps

    def __len__(self) -> int:
        return len(self.frames)

    def get_avg_fps(self) -> float:
        """Frames per second."""
        return self.fps

    def get_batch(self, indices: np.ndarray) -> _Batch:
        """Return the frames of these indices."""
        return _Batch(self.frames[np.asarray(indices)])  # a copy: later transforms write into it


class _ResizedOnDemand:
    """What `SampleFrames` and `DecordDecode` use of decord's reader, with each frame resized.

    Args:
        reader: decord's.
        scale: width and height of the frames; None: as they are.
    """

    def __init__(self, reader, scale: tuple[int, int] | None):
        self.reader, self.scale = reader, scale

    def __len__(self) -> int:
        return len(self.reader)

    def get_avg_fps(self) -> float:
        """Frames per second."""
        return self.reader.get_avg_fps()

    def get_batch(self, indices: np.ndarray) -> _Batch:
        """Return the frames of these indices."""
        return _Batch(np.stack(in_turns(list(indices), self._decode)))

    def _decode(self, indices: list[int]) -> tuple[list[np.ndarray], int]:
        frames = self.reader.get_batch(indices).asnumpy()
        size = frames[0].nbytes
        if self.scale:
            return [mmcv.imresize(frame, self.scale) for frame in frames], size
        return list(frames), size


class _Batch:
    """What decord returns for several frames."""

    def __init__(self, frames: np.ndarray):
        self.frames = frames

    def asnumpy(self) -> np.ndarray:
        """Return the frames."""
        return self.frames


# One store per process, shared by all pipelines: training, validation and later runs in the same
# process decode a video once between them.
_STORE: dict[tuple, _FramesInMemory] = {}


@TRANSFORMS.register_module()
class InMemoryDecordInit(DecordInit):
    """`DecordInit` that decodes each video once, as a whole, and keeps its frames as uint8.

    For small data sets of short clips on few cores, with `num_workers=0` (each worker process would
    fill a store of its own). The transforms that follow, `SampleFrames` and `DecordDecode` among
    them, are MMAction2's own.

    Args:
        scale: width and height to keep frames at; None: as they are.
        max_gib: where a video would make the store larger than this many GiB, the frames that are
            asked for are decoded each time.
        num_threads: threads of decord.

    Raises:
        Ada3DError: a video is missing or does not decode; the message names it.
    """

    def __init__(
        self, scale: tuple[int, int] | None = None, max_gib: float = 8.0, num_threads: int = 1
    ):
        super().__init__(num_threads=num_threads)
        self.scale = tuple(scale) if scale else None
        self.max_bytes = max_gib * 2**30

    def _get_video_reader(self, filename: str) -> _FramesInMemory | _ResizedOnDemand:
        key = (str(filename), self.scale)
        if key not in _STORE:
            video = self._decode(filename)
            if isinstance(video, _ResizedOnDemand):
                return video
            _STORE[key] = video
        return _STORE[key]

    def _decode(self, filename: str) -> _FramesInMemory | _ResizedOnDemand:
        try:
            reader = _ResizedOnDemand(super()._get_video_reader(filename), self.scale)
            frame = reader.get_batch([0]).asnumpy()
            held = sum(other.frames.nbytes for other in _STORE.values())
            if held + len(reader) * frame.nbytes > self.max_bytes:
                return reader
            frames = reader.get_batch(range(len(reader))).asnumpy()
            return _FramesInMemory(frames, reader.get_avg_fps())
        except decoding_errors() as error:
            raise Ada3DError(
                f"cannot decode the video {filename}: {first_line(error)}. Check that the file "
                "exists and is a whole video, or take its line out of the annotation file."
            ) from error


@TRANSFORMS.register_module()
class RandomTranspose(BaseTransform):
    """Swap height and width of all frames of a clip together, at random.

    With both flips it gives all views of a ceiling camera that right angles and mirrors give.
    `Resize` after it restores the frame size.

    Args:
        prob: probability of swapping.
    """

    def __init__(self, prob: float = 0.5):
        self.prob = prob

    def transform(self, results: dict) -> dict:
        """Swap the sides of a clip's frames, or leave them."""
        if np.random.rand() < self.prob:
            results["imgs"] = [np.ascontiguousarray(f.swapaxes(0, 1)) for f in results["imgs"]]
            results["img_shape"] = results["imgs"][0].shape[:2]
        return results


@TRANSFORMS.register_module()
class RandomShift(BaseTransform):
    """Shift all frames of a clip together by some pixels, at random; edges are repeated.

    Args:
        pixels: the farthest that they are shifted to each side, in width and height.

    Raises:
        Ada3DError: negative numbers.
    """

    def __init__(self, pixels: tuple[int, int] = (4, 4)):
        if len(pixels) != 2 or min(pixels) < 0:
            raise Ada3DError(f"RandomShift: pixels={pixels!r}; expected two numbers from 0 on")
        self.pixels = tuple(pixels)

    def transform(self, results: dict) -> dict:
        """Shift a clip's frames."""
        most_x, most_y = self.pixels
        x, y = np.random.randint(-most_x, most_x + 1), np.random.randint(-most_y, most_y + 1)
        height, width = results["imgs"][0].shape[:2]
        rows = np.clip(np.arange(height) + y, 0, height - 1)
        columns = np.clip(np.arange(width) + x, 0, width - 1)
        clip = np.stack(results["imgs"])
        results["imgs"] = list(clip.take(rows, 1).take(columns, 2))
        return results


@TRANSFORMS.register_module()
class NormalizeClip(BaseTransform):
    """Normalise each clip by the mean and deviation of all its pixels, whatever the light was.

    Frames become float32. The data preprocessor then has no ``mean`` and ``std``.
    """

    def transform(self, results: dict) -> dict:
        """Normalise a clip's frames."""
        clip = np.stack(results["imgs"]).astype(np.float32)
        clip -= clip.mean()
        clip /= clip.std() + 1e-3
        results["imgs"] = list(clip)
        return results
