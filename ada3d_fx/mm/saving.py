"""Checkpoints that no killed process leaves half-written, lost or forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import EpochBasedTrainLoop, Runner

from .. import files
from .video_runner import VideoRunner

NOTE = "last_validation"  # a file beside last_checkpoint


class WholeRunner(VideoRunner):
    """A runner whose checkpoints are written whole or not at all."""

    def save_checkpoint(self, out_dir: str, filename: str, *args, **kwargs) -> None:
        """Save a checkpoint; that of the same name is there until this one is whole."""
        if not is_main_process() or "://" in str(out_dir):  # another process's, or no folder
            super().save_checkpoint(out_dir, filename, *args, **kwargs)
            return
        with files.whole(Path(out_dir, filename)) as unfinished:
            super().save_checkpoint(str(out_dir), unfinished.name, *args, **kwargs)


class WholeCheckpointHook(CheckpointHook):
    """MMEngine's CheckpointHook, which removes a checkpoint only when the next one is there.

    Where a resumed run stopped between the checkpoint of an epoch and its validation, that is made
    up for, so that the best checkpoint is that of an unbroken run. In a copied folder the best
    checkpoint is the copy's, and the other folder's is left alone.
    """

    @classmethod
    def take_over(cls, runner: Runner) -> None:
        """Make MMEngine's own hooks of a runner hooks of this class; the config is as it was."""
        for hook in runner.hooks:
            if type(hook) is CheckpointHook:
                hook.__class__ = cls

    def before_train(self, runner: Runner) -> None:
        """Begin where a resumed run stopped."""
        super().before_train(runner)
        self.file_backend = _RemovedLater(self.file_backend)
        if not self.save_best:
            return
        self.best_ckpt_path = self._here(getattr(self, "best_ckpt_path", None))
        paths: Mapping[str, str | None] = getattr(self, "best_ckpt_path_dict", {})
        self.best_ckpt_path_dict = {key: self._here(path) for key, path in paths.items()}
        done = _validated_when(runner)
        missing = [bool(done) and self._note() != str(done)]
        broadcast_object_list(missing)  # where processes share no folder, the first one knows
        if missing[0]:  # a best one is noted in the checkpoint too, as after any validation
            name = self.filename_tmpl.format(_progress(runner)[0])
            self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
            runner.val_loop.run()

    def after_val_epoch(self, runner: Runner, metrics: Mapping[str, Any] | None = None) -> None:
        """Save the best checkpoint, then note that this validation is done."""
        super().after_val_epoch(runner, metrics)
        if self.save_best and is_main_process() and self._is_local():
            files.write_text(Path(self.out_dir, NOTE), str(_progress(runner)[0]))

    def _note(self) -> str | None:
        """Return after which epoch, or iteration, the last validation was."""
        path = Path(self.out_dir, NOTE)
        return path.read_text(encoding="utf-8") if self._is_local() and path.is_file() else None

    def _is_local(self) -> bool:
        return self.out_dir is not None and "://" not in str(self.out_dir)

    def _here(self, path: str | None) -> str | None:
        """Return the checkpoint of this name in this run's folder."""
        return path and self.file_backend.join_path(self.out_dir, Path(path).name)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        self._remove_outdated()  # the best one, whose successor is there
        super()._save_checkpoint_with_step(runner, step, meta)
        self._remove_outdated()

    def _save_best_checkpoint(self, runner: Runner, metrics: Mapping[str, Any]) -> None:
        super()._save_best_checkpoint(runner, metrics)
        self._remove_outdated()

    def _remove_outdated(self) -> None:
        kept = [self.last_ckpt, getattr(self, "best_ckpt_path", None)]
        self.file_backend.remove_now([*kept, *getattr(self, "best_ckpt_path_dict", {}).values()])


class _RemovedLater:
    """A file backend that only notes what is to be removed.

    Args:
        backend: does everything else.
    """

    def __init__(self, backend: Any):
        self._backend = backend
        self._outdated: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        """Note it."""
        self._outdated.append(str(path))

    def remove_now(self, kept: Sequence[str | None]) -> None:
        """Remove what was noted, but for these paths, which were written again."""
        outdated, self._outdated = self._outdated, []
        for path in outdated:
            if path not in kept and self._backend.isfile(path):
                self._backend.remove(path)


def _progress(runner: Runner) -> tuple[int, int]:
    """Return how many epochs of a training are done, and how many there are; or iterations."""
    loop = runner.train_loop
    by_epoch = isinstance(loop, EpochBasedTrainLoop)
    return (loop.epoch, loop.max_epochs) if by_epoch else (loop.iter, loop.max_iters)


def _validated_when(runner: Runner) -> int | None:
    """Return after which epoch, or iteration, a resumed run stopped if a validation follows it."""
    loop, (done, most) = runner.train_loop, _progress(runner)
    if not done or runner.val_loop is None or done < loop.val_begin:
        return None
    loop._decide_current_val_interval()
    return done if done % loop.val_interval == 0 or done == most else None
