"""Hooks: which training phase runs when, and a log that says how the policies fare."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_reduce, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor

from ..errors import Ada3DError
from ..learn.diagnose import collapse, stalled
from ..policy import Policy
from .optim import unwrap
from .options import PhaseOptions, read_group
from .processes import of_all_processes
from .recognizer import Ada3DRecognizer
from .steps import FROZEN


@HOOKS.register_module()
class TrainingPhaseHook(Hook):
    """Run Ada3D's training phases one after the other (Algorithm 1) with their learning rates.

    Everything follows from the iteration number, so a resumed run continues in the phase, and at
    the learning rate, where the other stopped. With ``reseed`` each epoch starts from random states
    of its own, so that a run resumed between epochs draws the very numbers of an unbroken one.

    Args:
        phases: in order, see `PhaseOptions`.
        reseed: as above, from the runner's seed and the epoch.

    Raises:
        Ada3DError: an unknown phase or option, or lengths that do not add up to the run's.
    """

    priority = "VERY_HIGH"

    def __init__(self, phases: Sequence[PhaseOptions | Mapping], reseed: bool = True):
        self.phases = [
            read_group(PhaseOptions, f"TrainingPhaseHook: phases.{index}", phase)
            for index, phase in enumerate(phases)
        ]
        if not self.phases:
            raise Ada3DError("TrainingPhaseHook: phases=[]: there must be one phase or more")
        self.reseed = reseed
        self.current: int | None = None

    def before_train(self, runner: Runner) -> None:
        """Enter the first phase, or the one in which a resumed run stopped."""
        per_epoch = len(runner.train_dataloader)
        self.lengths = [per_epoch * p.epochs if p.iters is None else p.iters for p in self.phases]
        if sum(self.lengths) != runner.max_iters:
            raise Ada3DError(
                f"TrainingPhaseHook: the phases take {sum(self.lengths)} iterations "
                f"({per_epoch} an epoch) but train_cfg makes {runner.max_iters}; make "
                "train_cfg.max_epochs (or max_iters) their sum"
            )
        self.rate_factor = _batch_factor(runner)
        _check_wrapper(runner)
        if not self.reseed and get_world_size() > 1:
            self._seed(runner, 0)  # else all processes would draw the same
        self._enter(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Note the phases in the checkpoint, so that another training does not go on with it."""
        checkpoint["meta"]["phases"] = [vars(phase).copy() for phase in self.phases]

    def before_train_epoch(self, runner: Runner) -> None:
        """Start from random states of the epoch's own."""
        if self.reseed:
            self._seed(runner, 1000 * (runner.epoch + 1))

    @staticmethod
    def _seed(runner: Runner, offset: int) -> None:
        """Set random states from the runner's seed, for each process its own."""
        if runner.seed is not None:
            seed = runner.seed + offset + get_rank()
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.manual_seed(seed)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Set the iteration's phase and learning rates."""
        self._enter(runner)

    def _enter(self, runner: Runner) -> None:
        index, start = self._locate(runner.iter)
        phase, model = self.phases[index], unwrap(runner.model)
        if model.training_phase != phase.name:
            model.set_training_phase(phase.name)
        if self.current != index:
            self.current = index
            for key in [k for k in runner.message_hub.log_scalars if k.startswith("train/")]:
                del runner.message_hub.log_scalars[key]  # what this phase may no longer update
            runner.logger.info(
                f"training phase {index + 1} of {len(self.phases)}: {phase.name}, "
                f"{self.lengths[index]} iterations"
            )
        factor = self.rate_factor * _rate_factor(phase, (runner.iter - start) / self.lengths[index])
        for group in runner.optim_wrapper.optimizer.param_groups:
            frozen = FROZEN.get(phase.name) == group["name"]  # no weight decay either
            group["lr"] = 0.0 if frozen else factor * getattr(phase, f"{group['name']}_lr", 0.0)
            runner.message_hub.update_scalar(f"train/{group['name']}_lr", group["lr"])

    def _locate(self, iteration: int) -> tuple[int, int]:
        """Return the place of an iteration's phase, and the iteration with which that begins."""
        start = 0
        for index, length in enumerate(self.lengths):
            if iteration < start + length or index == len(self.lengths) - 1:
                return index, start
            start += length
        raise AssertionError("there is always a last phase")


def _batch_factor(runner: Runner) -> float:
    """Return by what MMEngine's ``auto_scale_lr`` multiplies learning rates: clips over clips."""
    options = runner.auto_scale_lr or {}
    if not options.get("enable"):
        return 1.0
    batch = runner.train_dataloader.batch_sampler.batch_size * get_world_size()
    return batch / options["base_batch_size"]


def _check_wrapper(runner: Runner) -> None:
    """Refuse a distributed wrapper that waits for gradients of what a phase does not train."""
    waits = not getattr(runner.model, "find_unused_parameters", True)
    if waits and isinstance(unwrap(runner.model), Ada3DRecognizer):
        raise Ada3DError(
            "TrainingPhaseHook: which parameters learn depends on the phase; set "
            "find_unused_parameters=True in the config (or in its model_wrapper_cfg)"
        )


def _rate_factor(phase: PhaseOptions, done: float) -> float:
    """Return the factor of the learning rates after a share ``done`` of a phase."""
    if done < phase.rise:
        return done / phase.rise + 1e-3
    if phase.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (done - phase.rise) / (1 - phase.rise)))


@HOOKS.register_module()
class InvalidLossHook(Hook):
    """Stop a training whose loss is no longer a finite number, before a checkpoint is made of it.

    The tools add it to each training; name it in a config's ``custom_hooks`` to change what it does.
    In several processes all stop where one's loss is wrong.

    Args:
        stop: end the training with an error; False only warns, once.
        interval: iterations between two looks, where looking means to wait for a GPU.
    """

    priority = "VERY_HIGH"

    def __init__(self, stop: bool = True, interval: int = 10):
        self.stop, self.interval = stop, interval
        self._losses: list[Tensor] = []
        self._warned = False

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Note the iteration's loss, and look at it where that costs nothing, or now and then."""
        if not outputs or "loss" not in outputs:
            return
        self._losses.append(torch.as_tensor(outputs["loss"]).detach())
        if not self._losses[-1].is_cuda or len(self._losses) >= self.interval:
            self._look(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Look at the losses before the epoch's checkpoint is saved."""
        self._look(runner)

    def _look(self, runner: Runner) -> None:
        losses, self._losses = self._losses, []
        if not losses:
            return
        wrong = (~torch.stack(losses).isfinite()).any().float()
        all_reduce(wrong, "max")
        if not wrong:
            return
        message = (
            f"the loss is not a finite number in iteration {runner.iter + 1} or just before; try a "
            "lower learning rate, clip_grad, or training without --amp. Earlier checkpoints are in "
            f"{runner.work_dir}"
        )
        if self.stop:
            raise Ada3DError(
                f"{message}. To go on all the same: dict(type='InvalidLossHook', stop=False) among "
                "the config's custom_hooks"
            )
        if not self._warned:
            self._warned = True
            runner.logger.warning(message)


@HOOKS.register_module()
class PolicyLogHook(Hook):
    """Show what the policies do while a long evaluation runs, and warn when they collapse.

    Args:
        interval: iterations between two lines in evaluation.
    """

    priority = "LOW"

    def __init__(self, interval: int = 50):
        self.interval = interval

    def before_val_epoch(self, runner: Runner) -> None:
        """Forget the policies of the evaluation before."""
        self._frames: list[Tensor] = []
        self._stages: list[Tensor] = []

    before_test_epoch = before_val_epoch

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Collect the batch's policies, and log them now and then."""
        self._watch(runner, batch_idx, outputs, len(runner.val_dataloader))

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Collect the batch's policies, and log them now and then."""
        self._watch(runner, batch_idx, outputs, len(runner.test_dataloader))

    def after_val_epoch(self, runner: Runner, metrics: Any = None) -> None:
        """Log the policies of the whole list."""
        self._report(runner, len(runner.val_dataloader.dataset))

    def after_test_epoch(self, runner: Runner, metrics: Any = None) -> None:
        """Log the policies of the whole list."""
        self._report(runner, len(runner.test_dataloader.dataset))

    def after_train_epoch(self, runner: Runner) -> None:
        """Warn where the epoch's log values say that nothing is learned."""
        if unwrap(runner.model).training_phase not in ("selection", "joint"):
            return
        scalars, iterations = runner.message_hub.log_scalars, len(runner.train_dataloader)
        means = {
            name: scalars[f"train/{name}"].mean(iterations)
            for name in ("distinct_policies", "correct", "advantage")
            if f"train/{name}" in scalars
        }
        for message in stalled(means):
            runner.logger.warning(f"policies: {message}")

    def _watch(self, runner: Runner, batch_idx: int, outputs: Any, batches: int) -> None:
        for sample in outputs or ():
            if "policy_frames" in sample:
                self._frames.append(sample.policy_frames)
                self._stages.append(sample.policy_stages)
        if self._frames and (batch_idx + 1) % self.interval == 0 and (summary := self._summary()):
            runner.logger.info(f"policies after {batch_idx + 1} of {batches}: {summary}")

    def _executed(self) -> tuple[Tensor, Tensor]:
        """Return the frames and the stages of the clips that the recognizer computed."""
        frames, stages = torch.cat(self._frames), torch.cat(self._stages)
        executed = frames.any(1)
        return frames[executed], stages[executed]

    def _summary(self) -> str:
        """Tell of the policies; nothing where no clip has one, since the recognizer never ran."""
        frames, stages = self._executed()
        if not len(frames):
            return ""
        kept, active = frames.float().sum(1).mean(), stages.float().sum(1).mean()
        patterns = Policy(frames, stages).num_distinct
        exited = sum(map(len, self._frames)) - len(frames)
        more = f"; {exited} more exit" if exited else ""
        return (
            f"{kept:.2f} of {frames.shape[1]} frames, {active:.2f} of {stages.shape[1]} stages, "
            f"{patterns} distinct policies of {len(frames)} clips{more}"
        )

    def _report(self, runner: Runner, size: int) -> None:
        model = unwrap(runner.model)
        if not isinstance(model, Ada3DRecognizer):
            return
        self._frames = of_all_processes(self._frames, size)
        self._stages = of_all_processes(self._stages, size)
        if not (self._frames and (summary := self._summary())):
            return
        runner.logger.info(f"policies: {summary}")
        untrained = model.training_phase in ("warmup", "pretrain")  # no policy is learned yet
        if model.testing_options.policy == "learned" and not untrained:
            for message in collapse(*self._executed(), model.plan.frame_unit):
                runner.logger.warning(f"policies: {message}")
