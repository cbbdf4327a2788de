"""convert: a 3D recognizer -> AdaptiveNetwork."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from .errors import Ada3DError
from .packed import module_tree
from .packed.kept_times import check_size
from .packed.module_state import is_watched_or_trains
from .packed.packing import common_policy
from .packed.replay import Replays, is_replayable
from .packed.segments import numbers_on
from .packed.twins import plain_tree, turn_plain
from .passes.group import Grouping
from .passes.pipeline import Conversion, run_passes
from .passes.programs import POSITIONS
from .plan import StagePlan
from .policy import Policy, check_policy
from .tracing.model import channels_last, scoring_model


@torch.inference_mode(False)  # else its parameters could never be trained
def convert(
    model: nn.Module,
    clip_shape: Sequence[int] = (3, 8, 224, 224),
    stages: Grouping = "stage",
    checkpointing: bool = False,
    positions: str = "own",
) -> AdaptiveNetwork:
    """Rewrite a 3D recognizer so that each clip computes only what its policy keeps.

    Args:
        model: a built MMAction2 ``Recognizer3D`` (any module with ``backbone``, ``cls_head``,
            optionally ``neck``), or a plain module from clips [N, C, T, H, W] to scores [N,
            classes]. It is copied, not changed.
        clip_shape: (C, T, H, W) of the clips for which the plan and the prices are made.
        stages: what one decision governs: 'stage' (the paper's), 'block', 'layer', or {regex of
            module path: name}.
        checkpointing: in training, keep only what goes into each block of the model (each item of
            an ``nn.Sequential`` or ``nn.ModuleList`` that has parts of its own), and compute the
            block again in backward: about a quarter more time, for half of the memory or less.
            Gradients and statistics of BatchNorm are those without. What runs densely is not cut
            into blocks.
        positions: which positions in time kept frames have, where a model has any. 'own': those
            that the model gives a clip of so many frames, by a rule of its own such as
            interpolation; where it takes no other number of frames, those of their times. 'kept':
            those of their times.

    Raises:
        UnsupportedModel: nothing can be decided, or the model cannot run on such clips, or its
            positions cannot follow the kept frames where that is asked; with all reasons.
        Ada3DError: not a model, a part missing, a bad shape, grouping or ``positions``.
    """
    if len(clip_shape) != 4 or any(not isinstance(n, int) or n < 1 for n in clip_shape):
        raise Ada3DError(
            f"convert: clip_shape={tuple(clip_shape)!r}; expected four positive integers (C, T, H, W)"
        )
    if positions not in POSITIONS:
        raise Ada3DError(f"convert: positions={positions!r}; expected one of {POSITIONS}")
    channels, frames, height, width = clip_shape
    if isinstance(model, AdaptiveNetwork):
        model = model.plain()
    root = channels_last(scoring_model(model))
    return AdaptiveNetwork(
        run_passes(root, (channels, frames, height, width), stages, checkpointing, positions)
    )


class AdaptiveNetwork(nn.Module):
    """A recognizer that computes what a policy keeps; made by `convert`.

    Its children and its state_dict are those of the model it was made of.
    """

    conversion: Conversion  # what the passes made: all programs, and the model's tree
    replays: Replays  # passes that come again, on a GPU

    def __init__(self, conversion: Conversion):
        super().__init__()
        root = conversion.root
        for name in (*root._modules, *root._parameters, *root._buffers):
            if hasattr(self, name):
                raise Ada3DError(
                    f"convert: the model's {name!r} has the name of a part of AdaptiveNetwork; rename it"
                )
        self.training = root.training
        self._show(conversion)

    def _show(self, conversion: Conversion) -> None:
        module_tree.keep_unregistered(self, conversion=conversion, replays=Replays())
        module_tree.share_children(self, conversion.root)

    @property
    def plan(self) -> StagePlan:
        """What can be decided; ``print(network.plan)`` explains it."""
        return self.conversion.plan

    @property
    def graph_module(self) -> fx.GraphModule:
        """The rewritten program; ``print(network.graph_module.code)`` shows it."""
        return self.conversion.graph_module

    @property
    def training_module(self) -> fx.GraphModule:
        """The program in training; ``graph_module`` itself where the model has one for both."""
        return self.conversion.training_module

    def forward(
        self, clips: Tensor, policy: Policy | None = None, clip_index: Tensor | None = None
    ) -> Tensor:
        """Score clips under a policy.

        Args:
            clips: floating [N, C, T, H, W], normalised as the recognizer wants them.
            policy: of N clips, T frames, K stages; None is the full one, the original model.
            clip_index: int [M], where clips have several policies, or none: the clip of each of M.
                In inference, a frame that several policies of a clip keep is computed once, up to
                the first operation that mixes time.

        Returns:
            Scores [N, classes], rows in the order of ``clips``, or [M, classes] in that of
            ``clip_index``.

        Raises:
            Ada3DError: clips or policy of another shape than the plan's, parts of units, or numbers
                of clips that there are not.
        """
        return self.with_auxiliary(clips, policy, clip_index)[0]

    def with_auxiliary(
        self, clips: Tensor, policy: Policy | None = None, clip_index: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Score clips as ``forward`` does, with the neck's auxiliary heads (TPN) too.

        Returns:
            The scores, and module path of an auxiliary head -> its scores; there are some in
            training mode only.
        """
        self._check_clips(clips)
        self.conversion.see_replaced_parts()
        numbers = None if clip_index is None else _numbers(clip_index, len(clips))
        n = len(clips) if numbers is None else len(numbers)
        policy = Policy.full(self.plan, n) if policy is None else policy
        self.check(policy, n)
        plain = numbers is None and policy.gates is None
        if plain and self.conversion.is_traced and is_replayable(clips):
            return _with_heads(self._replayed(clips, policy))
        return _with_heads(self._scored(clips, policy, numbers))

    def _replayed(self, clips: Tensor, policy: Policy) -> Any:
        """Score clips that share one policy, by a replay where it came before."""
        policy = policy.to("cpu")  # once: it is read there
        common = common_policy(policy)
        if common is None or is_watched_or_trains(self):
            return self._scored(clips, policy)
        scored = partial(self._scored, policy=policy)
        return self.replays(scored, clips, self, self.conversion.folded.graph_module, common)

    def _scored(self, clips: Tensor, policy: Policy, numbers: Sequence[int] | None = None) -> Any:
        """Run the program that fits now: scores, or these and those of auxiliary heads."""
        program = self.graph_module
        if self.training and self.training_module is not self.graph_module:
            program = self.training_module
        elif not torch.is_grad_enabled() and self.conversion.folded.refresh():
            program = self.conversion.folded.graph_module
            if numbers is not None and self.conversion.folded.shares():
                return program(clips, policy, numbers)
        if numbers is not None:
            clips = clips[numbers_on(numbers, clips.device)]
        return program(clips, policy)

    def train(self, mode: bool = True) -> AdaptiveNetwork:
        """Set the mode as the model does: its modules' own ``train()`` keeps frozen stages."""
        self.conversion.root.train(mode)
        self.training = mode
        return self

    def _apply(self, fn: Callable, recurse: bool = True) -> AdaptiveNetwork:
        super()._apply(fn, recurse)
        self.conversion.place_constants()
        return self

    def plain(self) -> nn.Module:
        """Copy the model as it was before conversion, with the weights of now: clips -> scores."""
        return module_tree.without_constants(copy.deepcopy(plain_tree(self.conversion.root)))

    def check(self, policy: Policy, n: int) -> None:
        """Check that a policy is one for ``n`` clips of this plan; see `check_policy`."""
        check_policy(policy, self.plan, n)

    def _check_clips(self, clips: Tensor) -> None:
        channels, frames, height, width = self.plan.clip_shape
        wanted = f"[N, {channels}, {frames}, H, W] (such as [1, {channels}, {frames}, {height}, {width}])"
        if not isinstance(clips, Tensor):
            raise Ada3DError(
                f"AdaptiveNetwork: clips are a {type(clips).__name__}, expected a tensor {wanted}"
            )
        if clips.ndim != 5 or tuple(clips.shape[1:3]) != (channels, frames) or not len(clips):
            hint = "convert with the clip_shape of your clips, or sample them as the plan says"
            if clips.ndim == 6:
                hint = "fold the views into the batch"
            raise Ada3DError(
                f"AdaptiveNetwork: clips have shape {list(clips.shape)}, expected {wanted}; {hint}"
            )
        if not clips.is_floating_point():
            raise Ada3DError(
                f"AdaptiveNetwork: clips have dtype {clips.dtype}, expected normalised floating values"
            )
        if self.conversion.follows_times:
            check_size(clips, (height, width))

    def __copy__(self) -> AdaptiveNetwork:
        """Copy the network alone, as of any module: both have the same children and programs."""
        copied = type(self).__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    def __getstate__(self) -> dict[str, Any]:
        """Return what deep copies and pickles hold, all but the programs.

        A graph's own pickle would trace its code.
        """
        own = {name: value for name, value in vars(self).items() if name not in _MADE}
        if "conversion" not in vars(self):  # a hook of its children holds a network half unpickled
            return {"own": own}
        made = self.conversion
        how = (self.plan.clip_shape, made.grouping, made.checkpointing, made.positions)
        return dict(own=own, root=made.root, how=how)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Convert the model again."""
        super().__init__()
        vars(self).update(state["own"])
        if "root" in state:
            root = channels_last(turn_plain(state["root"]))
            self._show(run_passes(root, *state["how"]))


def _with_heads(scores: Any) -> tuple[Tensor, dict[str, Tensor]]:
    return scores if isinstance(scores, tuple) else (scores, {})


def _numbers(clip_index: Tensor, n: int) -> list[int]:
    """The clip of each policy.

    Raises:
        Ada3DError: no whole numbers, or of clips that there are not.
    """
    clip_index = torch.as_tensor(clip_index)
    numbers: list[int] = clip_index.tolist()
    whole = clip_index.ndim == 1 and not clip_index.is_floating_point()
    if not whole or not numbers or min(numbers) < 0 or max(numbers) >= n:
        raise Ada3DError(
            f"AdaptiveNetwork: clip_index is {numbers!r}; expected the clip of each policy, whole "
            f"numbers from 0 to {n - 1}"
        )
    return numbers


# What is made of the model, and is not the network's own.
_MADE = {
    *("conversion", "replays", "price_tables"),
    *("_modules", "_parameters", "_buffers", "_non_persistent_buffers_set"),
}
