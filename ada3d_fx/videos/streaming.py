"""Videos decoded ahead of the network by other processes, in the order of their list."""

from __future__ import annotations

import copy
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from mmengine.dataset import Compose
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..errors import Ada3DError
from .broken import BrokenVideo
from .inputs import Video, Videos
from .probe import decoding_errors, first_line
from .timed_pipeline import TimedPipeline

AHEAD = 2  # videos that each process decodes before they are asked for


@dataclass
class DecodedVideo:
    """A video as the test pipeline gives it."""

    index: int  # in the list
    video: Video
    clips: Tensor | None  # [views, C, T, H, W], pixels; None: it does not decode
    broken: BrokenVideo | None
    decode: float  # seconds
    parts: dict[str, float] = field(default_factory=dict)  # of these seconds, see `TimedPipeline`
    waited: float = 0.0  # seconds that who asked for it waited


class VideoDataset(Dataset):
    """Decodes the videos of a list.

    Args:
        videos: the list.
        pipeline: a config's test pipeline, see `video_pipeline`.
        clip_shape: (C, T, H, W) of clips, where the model takes no others; None: it does.
    """

    def __init__(
        self, videos: Videos, pipeline: Callable[[dict], dict | BrokenVideo],
        clip_shape: tuple[int, int, int, int] | None = None,
    ):  # fmt: skip
        self.videos, self.pipeline, self.clip_shape = videos, pipeline, clip_shape

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> DecodedVideo:
        begin = time.perf_counter()
        decoded_video = self._decoded(index)
        decoded_video.decode = time.perf_counter() - begin
        decoded_video.parts = dict(getattr(self.pipeline, "seconds", {}))
        return decoded_video

    def _decoded(self, index: int) -> DecodedVideo:
        video = self.videos[index]
        try:
            data: Any = self.pipeline(_entry(video))
        except decoding_errors() as error:  # of a transform behind the decoder
            data = BrokenVideo(video.path, first_line(error), video.source)
        if isinstance(data, BrokenVideo):
            return DecodedVideo(index, video, None, data, 0.0)
        clips = data["inputs"]
        if why := self._unfit(clips):
            broken = BrokenVideo(video.path, why, video.source)
            return DecodedVideo(index, video, None, broken, 0.0)
        return DecodedVideo(index, video, clips, None, 0.0)

    def _unfit(self, clips: Any) -> str | None:
        """Tell why the model cannot take what a pipeline gives; None: it can."""
        if not isinstance(clips, Tensor) or clips.ndim != 5:
            shape = list(clips.shape) if isinstance(clips, Tensor) else type(clips).__name__
            return f"the pipeline gives {shape} instead of clips [views, C, T, H, W]"
        given = tuple(clips.shape[1:])
        if self.clip_shape is None or given == self.clip_shape:
            return None
        told = [" x ".join(map(str, shape)) for shape in (given, self.clip_shape)]
        return f"its clips are of {told[0]}, but the exported file takes {told[1]} (C x T x H x W)"


def _entry(video: Video) -> dict:
    """A video as MMAction2's datasets give it to pipelines."""
    label = list(video.labels) if len(video.labels) > 1 else next(iter(video.labels), -1)
    entry: dict[str, Any] = {"label": label, "modality": "RGB"}
    if video.frames is None:
        return {**entry, "filename": video.path, "start_index": 0}
    return {
        **entry, "frame_dir": video.path, "total_frames": video.frames, "offset": 0,
        "start_index": 1, "filename_tmpl": "img_{:05}.jpg",
    }  # fmt: skip


def video_pipeline(steps: Sequence[Mapping], frames: bool = False) -> TimedPipeline:
    """Build a test pipeline for files of videos, or for folders of frames.

    As in MMAction2's inferencers, a pipeline for the one is changed for the other. No video is kept
    in memory (`InMemoryDecordInit`).

    Args:
        steps: the pipeline's config.
        frames: whether it is for folders of frames.
    """
    steps = copy.deepcopy(list(steps))
    opens = [step for step in steps if _kind(step).endswith("Init")]
    for step in opens:
        if _kind(step) == "InMemoryDecordInit":
            step["max_gib"] = 0.0
    if frames and opens:
        steps = [step for step in steps if step not in opens]
    if not frames and not opens:
        steps.insert(0, {"type": "DecordInit"})
    if frames != (not opens):
        wanted = "RawFrameDecode" if frames else "DecordDecode"
        steps = [{"type": wanted} if _kind(step).endswith("Decode") else step for step in steps]
    return TimedPipeline(Compose(steps).transforms)


def _kind(step: Mapping) -> str:
    kind = step["type"]
    return (kind if isinstance(kind, str) else kind.__name__).split(".")[-1]


def default_workers() -> int:
    """How many processes decode: a core for each process that infers here, the others to decode."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return max(1, min(8, (cores or 1) // max(here, 1) - 1))


# ------------------------------------------------------------------------------ the processes


def decoded(dataset: Dataset, order: Iterable[int], workers: int) -> Iterator[DecodedVideo]:
    """Decode videos one after the other, `AHEAD` for each worker process ahead of who asks.

    A video that crashes its decoder, and with it the process, becomes a broken one: those that the
    dead process may have had in hand are decoded again, each in a process of its own.

    Args:
        dataset: the list.
        order: indices in it.
        workers: processes; 0: in this one, which a crash of a decoder ends.
    """
    with closing(_decoded(dataset, order, workers)) as videos:
        begin = time.perf_counter()
        for video in videos:
            video.waited = time.perf_counter() - begin
            yield video
            begin = time.perf_counter()


def _decoded(
    dataset: Dataset, order: Iterable[int], workers: int
) -> Generator[DecodedVideo, None, None]:
    if not workers:
        yield from (dataset[index] for index in order)
        return
    queue = _HandedOut(order)
    while True:
        try:
            for video in _batches(dataset, queue, workers):
                queue.out.popleft()
                yield video
            return
        except RuntimeError as error:
            if not _worker_died(error):
                raise
        while queue.out:
            yield _alone(dataset, queue.out.popleft())


class _HandedOut:
    """The indices of an order, of which it is noted what has been handed to worker processes.

    Args:
        order: the indices.
    """

    def __init__(self, order: Iterable[int]):
        self.order, self.out = iter(order), deque[int]()

    def __iter__(self) -> Iterator[int]:
        for index in self.order:
            self.out.append(index)
            yield index


def _batches(dataset: Dataset, order: Iterable[int], workers: int) -> Iterator[DecodedVideo]:
    loader = DataLoader(
        dataset, batch_size=None, sampler=order, num_workers=workers, prefetch_factor=AHEAD,
        collate_fn=_as_it_is, worker_init_fn=_begin_worker,
    )  # fmt: skip
    videos = iter(loader)
    if threading.current_thread() is threading.main_thread():
        # torch would raise the death of a worker wherever this process happens to be then, within
        # a network for instance; without that, it is raised where a video is waited for
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return videos


def _alone(dataset: Any, index: int) -> DecodedVideo:
    """Decode one video in a process of its own."""
    try:
        return next(_batches(dataset, [index], 1))
    except RuntimeError as error:
        if not _worker_died(error):
            raise
    video = dataset.videos[index]
    why = "the process that decodes it dies: it crashes its decoder, or there is too little memory"
    return DecodedVideo(index, video, None, BrokenVideo(video.path, why, video.source), 0.0)


def _worker_died(error: RuntimeError) -> bool:
    text = str(error)
    return "DataLoader worker" in text and ("exited unexpectedly" in text or "killed" in text)


def _as_it_is(video: DecodedVideo) -> DecodedVideo:
    return video


def _begin_worker(_: int) -> None:
    import cv2

    cv2.setNumThreads(0)  # its threads would have stayed behind in the process that forked this one
    # what decoders print of broken videos, and multiprocessing of a killed process's others
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def check_pipeline(steps: Sequence[Mapping]) -> None:
    """Check that a pipeline decodes videos.

    Raises:
        Ada3DError: it is for poses, audio or features.
    """
    if not any(_kind(step).endswith(("VideoDecode", "DecordDecode", "PyAVDecode", "OpenCVDecode",
                                     "RawFrameDecode", "PIMSDecode")) for step in steps):  # fmt: skip
        kinds = ", ".join(_kind(step) for step in steps)
        raise Ada3DError(
            f"the config's test pipeline decodes no video ({kinds}): it is for poses or features, "
            "which tools/test.py tests"
        )
