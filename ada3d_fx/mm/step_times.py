"""Where the seconds of a training go: a hook that times the parts of its steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from .optim import unwrap
from .recognizer import Ada3DRecognizer
from .steps import CLASSIFY, RECOGNISE, SELECT, TEACH
from .stopwatch import Stopwatch

WAIT, NORMALISE, BACKWARD, STEP = "wait for data", "normalise", "backward", "optimizer step"
REST = "the rest"
PARTS = (WAIT, NORMALISE, SELECT, CLASSIFY, RECOGNISE, TEACH, BACKWARD, STEP, REST)


@HOOKS.register_module()
class StepTimesHook(Hook):
    """Log after each epoch where the seconds of its training steps went; the shares add up to all.

    The whole and what is waited for data are MMEngine's own ``time`` and ``data_time``; hooks that
    run after a step are in the latter. *backward* is from the losses to the optimizer's step, with
    the clipping of gradients; *the rest* are drawn policies, losses, and what other hooks do. On a
    GPU each part ends when the GPU is done, which takes time of its own. In several processes the
    first one tells of itself.

    Attributes:
        epochs: of each epoch, its number from 1, the training phase in which it ended, its steps and
            the seconds by part.
    """

    priority = "LOW"  # behind MMEngine's IterTimerHook

    def __init__(self) -> None:
        self.epochs: list[dict[str, Any]] = []
        self._watch, self._handles, self._steps, self._whole = Stopwatch(), [], 0, 0.0

    def before_train(self, runner: Runner) -> None:
        """Watch the parts of the model and its optimizer."""
        model, watch = unwrap(runner.model), self._watch
        adaptive = isinstance(model, Ada3DRecognizer)
        if adaptive:
            model.stopwatch = watch
        forward = REST if adaptive else RECOGNISE

        def after_forward(*_: Any) -> None:
            watch.end(forward)
            watch.begin(BACKWARD)

        def before_step(*_: Any) -> None:
            watch.end(BACKWARD)
            watch.begin(STEP)

        optimizer = runner.optim_wrapper.optimizer
        self._handles = [
            *_around(model.data_preprocessor, watch, NORMALISE),
            model.register_forward_pre_hook(_call(watch.begin, forward)),
            model.register_forward_hook(after_forward),
            optimizer.register_step_pre_hook(before_step),
            optimizer.register_step_post_hook(_call(watch.end, STEP)),
        ]

    def before_train_epoch(self, runner: Runner) -> None:
        """Begin to count."""
        self._watch.seconds, self._steps, self._whole = {}, 0, 0.0

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Begin a step."""
        self._watch.start(next(unwrap(runner.model).parameters()).device)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """End a step."""
        self._watch.stop()
        hub, seconds = runner.message_hub, self._watch.seconds
        waited = hub.get_scalar("train/data_time").current()
        seconds[WAIT] = seconds.get(WAIT, 0.0) + waited
        self._whole += hub.get_scalar("train/time").current()
        self._steps += 1

    def after_train_epoch(self, runner: Runner) -> None:
        """Log the epoch's shares."""
        if not self._steps:
            return
        seconds = {name: self._watch.seconds.get(name, 0.0) for name in PARTS}
        seconds[REST] += self._whole - sum(seconds.values())
        phase = getattr(unwrap(runner.model), "training_phase", "training")
        self.epochs.append(
            {"epoch": runner.epoch + 1, "phase": phase, "steps": self._steps, "seconds": seconds}
        )
        told = ", ".join(
            f"{name} {value / self._whole:.1%}" for name, value in seconds.items() if value
        )
        runner.logger.info(
            f"epoch {runner.epoch + 1}, {phase}: {self._steps} steps of "
            f"{self._whole / self._steps:.3g} s: {told}"
        )

    def after_train(self, runner: Runner) -> None:
        """Watch no longer."""
        for handle in self._handles:
            handle.remove()
        self._handles = []


def _around(module: nn.Module, watch: Stopwatch, part: str) -> list[Any]:
    """Measure the calls of a module."""
    return [
        module.register_forward_pre_hook(_call(watch.begin, part)),
        module.register_forward_hook(_call(watch.end, part)),
    ]


def _call(method: Callable[[str], None], part: str) -> Callable[..., None]:
    def hook(*_: Any) -> None:
        method(part)

    return hook
