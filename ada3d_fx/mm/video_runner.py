"""MMEngine's Runner with loaders and evaluators that deal with broken videos.

A test says of how many videos it speaks.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from mmengine.dist import all_gather_object, get_rank, get_world_size, is_main_process
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from ..errors import Ada3DError
from ..videos.broken import SHOWN, BrokenVideo
from ..videos.loader import VideoLoader
from .optim import unwrap
from .processes import of_all_processes


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
