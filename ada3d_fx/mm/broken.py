"""Videos that do not decode: named, counted, and left out as far as the config allows.

A worker process hands a broken video on as a value, as an exception would come out of it as text.
Nothing is put in its place: a batch is smaller by it, and a test says of how many videos it speaks.
"""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmaction.datasets import RepeatAugDataset
from mmengine.dataset import Compose
from mmengine.dist import all_gather_object, get_rank, get_world_size, is_main_process
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from ..errors import Ada3DError, require_number
from .decoding import bounded
from .optim import unwrap
from .processes import of_all_processes
from .video_probe import decoding_errors, first_line

SHOWN = 10  # broken videos that are named on the console; the log names all


@dataclass(frozen=True)
class BrokenVideo:
    """A video that does not decode, or that a pipeline gives nothing for."""

    video: str
    why: str
    where: str = ""  # list and line
    trace: str = ""  # for the log

    def __str__(self) -> str:
        return f"{self.where + ': ' if self.where else ''}the video {self.video}: {self.why}"


def limit_of(config: Mapping, videos: int | None = None) -> float:
    """Return how many broken videos a config allows a list to have: ``broken_videos.limit``.

    Args:
        config: ``broken_videos=dict(limit=...)`` in it is a number of videos or, below 1, a share
            of the list; 0 by default.
        videos: entries of the list, of which a share becomes a number.

    Raises:
        Ada3DError: an unknown entry, or no such number.
    """
    options = config.get("broken_videos") or {}
    if not isinstance(options, Mapping) or set(options) - {"limit"}:
        raise Ada3DError(f"broken_videos={options!r}; expected dict(limit=NUMBER or SHARE)")
    limit = options.get("limit", 0)
    require_number("broken_videos.limit", limit, low=0)
    if limit >= 1 and limit != int(limit):
        raise Ada3DError(
            f"broken_videos.limit={limit}; expected a whole number, or a share below 1"
        )
    return math.floor(limit * videos) if videos is not None and limit < 1 else limit


# ---------------------------------------------------------------------------- in worker processes


class NamedTransform:
    """A transform whose errors name the video.

    Args:
        transform: the transform.
        source: the list that names the videos.
    """

    def __init__(self, transform: Callable, source: str = ""):
        self.transform, self.source = transform, source

    def run(self, results: dict) -> dict | BrokenVideo:
        """Apply the transform; until there are frames, its errors are the video's."""
        decoded = "imgs" in results
        video = str(results.get("filename") or results.get("frame_dir") or "without a name")
        where = (
            f"{self.source}, entry {results['sample_idx'] + 1}" if "sample_idx" in results else ""
        )
        name = type(self.transform).__name__
        try:
            done = self.transform(results)
        except Ada3DError as error:
            return BrokenVideo(video, str(error), where)
        except decoding_errors() as error:
            if decoded:
                raise RuntimeError(f"{name} fails on the frames of {video} ({where})") from error
            why = f"{name} fails: {first_line(error)}"
            return BrokenVideo(video, why, where, traceback.format_exc())
        return BrokenVideo(video, f"{name} gives nothing", where) if done is None else done

    def __call__(self, results: dict) -> dict:
        """Apply the transform.

        Raises:
            Ada3DError: the video is broken.
        """
        done = self.run(results)
        if isinstance(done, BrokenVideo):
            raise Ada3DError(str(done))
        return done

    def __repr__(self) -> str:
        return repr(self.transform)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "transform":
            raise AttributeError(name)
        return getattr(self.transform, name)


class NamedPipeline(Compose):
    """A pipeline that gives a `BrokenVideo` where another raises, and holds few frames at full size.

    Args:
        transforms: those of the pipeline, built.
        source: the list that names the videos.
        merge: decode and resize in turns, see `DecodeAndResize`.
    """

    def __init__(self, transforms: Sequence[Callable], source: str = "", merge: bool = True):
        super().__init__(None)
        steps = bounded(transforms) if merge else transforms
        self.transforms = [NamedTransform(step, source) for step in steps]

    def __call__(self, data: dict) -> dict | BrokenVideo:
        """Apply the transforms one after the other."""
        for transform in self.transforms:
            data = transform.run(data)
            if isinstance(data, BrokenVideo):
                break
        return data


@dataclass(frozen=True)
class PartialBatch:
    """A batch without its broken videos."""

    data: Any  # the other ones, collated; None: there are none
    broken: tuple[tuple[int, BrokenVideo], ...]  # with their places in the batch


class CollateWhole:
    """Collates what is not broken.

    Args:
        collate: the loader's own function.
    """

    def __init__(self, collate: Callable):
        self.collate = collate

    def __call__(self, samples: Sequence) -> Any:
        """Return the batch, or a `PartialBatch`."""
        broken = tuple((i, s) for i, s in enumerate(samples) if isinstance(s, BrokenVideo))
        if not broken:
            return self.collate(samples)
        whole = [sample for sample in samples if not isinstance(sample, BrokenVideo)]
        return PartialBatch(self.collate(whole) if whole else None, broken)


# ------------------------------------------------------------------------------ in the main process


@dataclass
class LeftOut:
    """What a loader left out."""

    limit: float = 0  # how many different videos may be
    size: int = 0  # entries of the list
    videos: dict[str, BrokenVideo] = field(default_factory=dict)  # of all passes
    places: list[int] = field(default_factory=list)  # of this pass, among this process's clips

    def note(self, broken: Iterable[tuple[int, BrokenVideo]], start: int) -> None:
        """Name and count the broken videos of a batch.

        Args:
            broken: with their places in the batch.
            start: place of the batch's first clip.

        Raises:
            Ada3DError: there are more than may be.
        """
        for place, video in broken:
            self.places.append(start + place)
            if video.video in self.videos:
                continue
            self.videos[video.video] = video
            logger = MMLogger.get_current_instance()
            logger.info(f"{video}\n{video.trace}")
            self.require(self.videos.values())
            shown = len(self.videos) <= SHOWN
            logger.log(
                logging.WARNING if shown else logging.INFO,
                f"left out: {video}",
                extra={"each": True},
            )

    def require(self, videos: Iterable[BrokenVideo]) -> None:
        """Check that there are not too many.

        Raises:
            Ada3DError: there are.
        """
        videos = list(videos)
        if len(videos) <= self.limit:
            return
        names = "\n".join(f"  {video}" for video in videos[:SHOWN])
        count = "a video" if len(videos) == 1 else f"{len(videos)} videos"
        raise Ada3DError(
            f"{count} cannot be decoded, of {self.size}; broken_videos.limit allows {self.limit:g}:\n"
            f"{names}\nTake the lines out of the list (tools/check_data.py finds all broken videos "
            "of a list), or leave them out: broken_videos=dict(limit=...) in the config, a number of "
            "videos or a share of the list"
        )


class VideoLoader(DataLoader):
    """A loader of MMEngine's that leaves broken videos out."""

    left_out: LeftOut
    training = False  # of a training loop

    @staticmethod
    def of(loader: DataLoader, config: Mapping) -> VideoLoader:
        """Make a built loader one of this class; its data set's pipelines name their videos.

        The class is assigned because a loader's parts cannot be given to another.

        Args:
            loader: the loader.
            config: says how many videos may be left out, see `limit_of`.
        """
        if isinstance(loader, VideoLoader):
            return loader
        for dataset in _with_pipelines(loader.dataset):
            if not isinstance(dataset.pipeline, NamedPipeline):
                steps = dataset.pipeline.transforms
                merge = not isinstance(dataset, RepeatAugDataset)  # which calls single transforms
                dataset.pipeline = NamedPipeline(steps, str(dataset.ann_file), merge)
        loader.__class__ = VideoLoader
        size = len(loader.dataset)
        loader.left_out = LeftOut(limit_of(config, size), size)
        loader.collate_fn = CollateWhole(loader.collate_fn)
        return loader

    def __iter__(self) -> Iterator:
        """Begin a pass over the list."""
        return self._whole_batches(super().__iter__())

    def _whole_batches(self, batches: Iterator) -> Iterator:
        try:
            yield from self._without_broken(batches)
        finally:
            if not self.persistent_workers:
                _end_workers(batches)

    def _without_broken(self, batches: Iterator) -> Iterator:
        self.left_out.places, used = [], 0
        for index, batch in enumerate(_without_dead_workers(batches)):
            if isinstance(batch, PartialBatch):
                self.left_out.note(batch.broken, index * (self.batch_size or 0))
                batch = batch.data
            if batch is not None:
                used += 1
                yield batch
            elif self.training and get_world_size() > 1:
                raise Ada3DError(  # the other processes would wait for its gradients
                    "no video of a batch can be decoded; in several processes each needs one: take "
                    f"the broken ones out of the list, or use larger batches. {self._names()}"
                )
        if not used and self.left_out.places:
            raise Ada3DError(f"no video of the list can be decoded. {self._names()}")

    def _names(self) -> str:
        return "; ".join(str(video) for video in list(self.left_out.videos.values())[:SHOWN])


def _with_pipelines(dataset: Any) -> Iterator[Any]:
    """Yield the data sets with pipelines of their own, within MMEngine's wrappers."""
    if isinstance(getattr(dataset, "pipeline", None), Compose):
        yield dataset
        return
    inner = getattr(dataset, "datasets", None)
    for name in ("dataset", "_dataset"):
        if inner is None and getattr(dataset, name, None) is not None:
            inner = [getattr(dataset, name)]
    for one in inner or ():
        yield from _with_pipelines(one)


def _without_dead_workers(batches: Iterator) -> Iterator:
    """Yield batches; that a worker process died is a message.

    Raises:
        Ada3DError: it did.
    """
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except RuntimeError as error:
            if "DataLoader worker" not in str(error) or "exited unexpectedly" not in str(error):
                raise
            raise Ada3DError(
                f"a process that decodes videos died: {first_line(error)}. There was not enough "
                "memory (try fewer num_workers), or a video crashes its decoder: tools/check_data.py "
                "finds it"
            ) from error
        yield batch


def _end_workers(batches: Iterator) -> None:
    """End the worker processes of a pass that is given up, by an error for instance.

    Left to the garbage collector, torch cannot tell them to end any more, as their queues are
    closed before: each is waited for in vain, five seconds long, and then killed.
    """
    end = getattr(batches, "_shutdown_workers", None)
    if end is not None:
        end()


class VideoEvaluator:
    """An evaluator whose metrics are those of the videos that decode, and say of how many.

    Args:
        evaluator: MMEngine's.
        loader: of the clips that are evaluated.
    """

    def __init__(self, evaluator: Evaluator, loader: VideoLoader):
        self.evaluator, self.loader = evaluator, loader
        self.left_out: list[BrokenVideo] = []

    def __getattr__(self, name: str) -> Any:
        if name == "evaluator":
            raise AttributeError(name)
        return getattr(self.evaluator, name)

    def evaluate(self, size: int) -> dict:
        """Return the metrics; ``videos/tested`` and ``videos/left_out`` where some are left out.

        Args:
            size: entries of the list.

        Raises:
            Ada3DError: in several processes, a metric that does not keep one result for each video.
        """
        places, broken = self._of_all_processes()
        world = get_world_size()
        missing = {p * world + rank for rank, own in enumerate(places) for p in own}
        count = len([place for place in missing if place < size])
        self.left_out = broken
        if not count:
            return self.evaluator.evaluate(size)
        if world > 1:
            for metric in self.evaluator.metrics:
                self._keep_places(metric, places[get_rank()])
        metrics = self.evaluator.evaluate(size - count)
        return {**metrics, "videos/tested": size - count, "videos/left_out": count}

    def _of_all_processes(self) -> tuple[list[list[int]], list[BrokenVideo]]:
        left = self.loader.left_out
        shares = all_gather_object((left.places, left.videos))
        videos = {name: video for _, share in shares for name, video in share.items()}
        return [places for places, _ in shares], list(videos.values())

    def _keep_places(self, metric: Any, places: Sequence[int]) -> None:
        """Mark where results are missing, as MMEngine orders those of all processes by their places."""
        if (
            len(metric.results) + len(places) != len(self.loader.sampler)
            or metric.collect_device != "cpu"
            or self.loader.batch_size is None
        ):
            raise Ada3DError(
                f"{type(metric).__name__}: with broken videos in several processes a metric needs "
                "one result for each video, collect_device='cpu' and no batch_sampler of one's own; "
                "take the broken videos out of the list"
            )
        for place in places:
            metric.results.insert(place, None)


def in_list_order(items: Sequence, loader: DataLoader) -> list:
    """Gather what each process has of its share of a list, in the order of the list.

    MMEngine's sampler deals videos out in turn, and some twice where they do not come out even.

    Args:
        items: one for each video of this process that decodes.
        loader: gave those videos.
    """
    items = list(items)
    if get_world_size() == 1:
        return items
    for place in loader.left_out.places if isinstance(loader, VideoLoader) else ():
        items.insert(place, None)
    return [item for item in of_all_processes(items, len(loader.dataset)) if item is not None]


class LeftOutHook(Hook):
    """Says after each epoch what was left out of it, and counts over all processes.

    `VideoRunner` has it always.
    """

    priority = "VERY_LOW"

    def after_train_epoch(self, runner: Runner) -> None:
        """Tell of the epoch.

        Raises:
            Ada3DError: all processes together left out too many.
        """
        left = runner.train_dataloader.left_out
        shares = all_gather_object((left.videos, len(left.places)))
        videos = {name: video for share, _ in shares for name, video in share.items()}
        clips = sum(count for _, count in shares)
        left.require(videos.values())
        if clips and is_main_process():
            runner.logger.warning(
                f"epoch {runner.epoch + 1}: {clips} of {left.size} clips left out, as "
                f"{len(videos)} videos do not decode: {', '.join(list(videos)[:SHOWN])}"
            )

    def after_train(self, runner: Runner) -> None:
        """Tell of a training that does not go by epochs."""
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            self.after_train_epoch(runner)

    def before_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Check that recorded policies meet the clips that they were recorded of.

        Raises:
            Ada3DError: a video is left out.
        """
        options = getattr(unwrap(runner.model), "testing_options", None)
        left = runner.test_dataloader.left_out
        if options is not None and options.policy == "recorded" and left.places:
            raise Ada3DError(
                "testing.policy='recorded' goes by the test list, and a video of it does not "
                f"decode: {', '.join(left.videos)}; take it out of the list"
            )


class VideoRunner(Runner):
    """MMEngine's Runner, whose loaders and evaluators deal with broken videos.

    The config's ``broken_videos=dict(limit=...)`` says how many, see `limit_of`.
    """

    def build_logger(self, *args, **kwargs) -> MMLogger:
        """Build the logger, whose files take names that the locale has no bytes for."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if isinstance(handler, logging.FileHandler) and handler.stream is not None:
                handler.stream.reconfigure(errors="backslashreplace")
        return logger

    def build_dataloader(  # a static method of MMEngine's
        self, dataloader: DataLoader | dict, seed: int | None = None, diff_rank_seed: bool = False
    ) -> VideoLoader:
        """Build a loader."""
        built = Runner.build_dataloader(dataloader, seed, diff_rank_seed)
        return VideoLoader.of(built, self.cfg)

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build the training loop."""
        built = super().build_train_loop(loop)
        built.dataloader.training = True
        return built

    def build_val_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build the validation loop."""
        return _counting(super().build_val_loop(loop))

    def build_test_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build the test loop."""
        return _counting(super().build_test_loop(loop))

    def register_hooks(self, default_hooks: Any = None, custom_hooks: Any = None) -> None:
        """Register the config's hooks, and `LeftOutHook`."""
        super().register_hooks(default_hooks, custom_hooks)
        self.register_hook(LeftOutHook())


def _counting(loop: BaseLoop) -> BaseLoop:
    if not isinstance(loop.evaluator, VideoEvaluator):
        loop.evaluator = VideoEvaluator(loop.evaluator, loop.dataloader)
    return loop
