"""A loader that names and counts broken videos, and leaves them out as far as the config allows."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mmaction.datasets import RepeatAugDataset
from mmengine.dataset import Compose
from mmengine.dist import get_world_size
from mmengine.logging import MMLogger
from torch.utils.data import DataLoader

from ..errors import Ada3DError
from .broken import SHOWN, BrokenVideo, CollateWhole, NamedPipeline, PartialBatch, limit_of
from .probe import first_line


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
