"""convert: a 3D recognizer -> AdaptiveNetwork, which computes what a policy keeps; specialize: one
fixed policy."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from .errors import Ada3DError
from .packed.module_tree import replace_module
from .packed.twins import centre_slice, plain_module
from .packed.windows import fit_window
from .passes.fold import FoldedGraph
from .passes.group import Grouping, make_plan
from .passes.layouts import analyse
from .passes.model import model_name, scoring_model
from .passes.rewrite import rewrite, swap_twins
from .passes.shadow import shadow_of
from .passes.trace import trace
from .plan import StagePlan
from .policy import Policy


def convert(
    model: nn.Module,
    clip_shape: Sequence[int] = (3, 8, 224, 224),
    stages: Grouping = "stage",
) -> AdaptiveNetwork:
    """Rewrite a 3D recognizer so that each clip computes only the frames and stages that its policy
    keeps.

    Args:
        model: a built MMAction2 ``Recognizer3D`` (any module with ``backbone``, ``cls_head``,
            optionally ``neck``), or a plain module from clips [N, C, T, H, W] to scores [N,
            classes]. It is copied, not changed.
        clip_shape: (C, T, H, W) of the clips for which the plan and the prices are made.
        stages: what one decision governs: 'stage' (the paper's), 'block', 'layer', or {regex of
            module path: name}.

    Raises:
        UnsupportedModel: nothing can be decided, or the model cannot run on such clips; with all
            reasons.
        Ada3DError: not a model, a part missing, a bad shape or grouping.
    """
    if len(clip_shape) != 4 or any(not isinstance(n, int) or n < 1 for n in clip_shape):
        raise Ada3DError(
            f"convert: clip_shape={tuple(clip_shape)!r}; expected four positive integers (C, T, H, W)"
        )
    if isinstance(model, AdaptiveNetwork):
        model = model.plain()
    return AdaptiveNetwork(scoring_model(model), tuple(clip_shape), stages)


class AdaptiveNetwork(nn.Module):
    """A recognizer under policy control. Its children and its state_dict are those of the model it
    was made of.

    plan: what can be decided; graph_module: the rewritten program,
        ``print(net.graph_module.code)``.
    Made by ``convert``.
    """

    plan: StagePlan
    graph_module: fx.GraphModule

    def __init__(self, root: nn.Module, clip_shape: tuple[int, ...], stages: Grouping):
        super().__init__()
        channels_last(root)
        shadow = shadow_of(root)
        programs = list(dict.fromkeys(trace(root, shadow, clip_shape)))
        holders = [
            fx.GraphModule(root, copy.copy(p.graph), class_name=model_name(root)) for p in programs
        ]
        known: dict = {}
        found = [analyse(holder, shadow, clip_shape, known) for holder in holders]
        found[0].invalid_lengths.update(found[-1].invalid_lengths)
        plan = make_plan(holders[0], found[0], clip_shape, stages, programs[0].untraceable)
        swap_twins(
            root, {str(node.target) for analysis in found for node in analysis.time_mixing_nodes}
        )
        graphs = [rewrite(root, h.graph, f, plan) for h, f in zip(holders, found)]
        self.training = root.training
        self._keep(options=(clip_shape, stages), plan=plan, root=root, source=programs[0].graph)
        self._keep(graph_module=graphs[0], training_module=graphs[-1], windows=found[0].windows)
        self._keep(folded=FoldedGraph(self.graph_module))
        for name in (*root._modules, *root._parameters, *root._buffers):
            if hasattr(self, name):
                raise Ada3DError(
                    f"convert: the model's {name!r} has the name of a part of AdaptiveNetwork; rename it"
                )
        self._modules, self._parameters, self._buffers = (
            root._modules,
            root._parameters,
            root._buffers,
        )
        self._non_persistent_buffers_set = root._non_persistent_buffers_set

    def _keep(self, **values: Any) -> None:
        """Hold what is no child of this module: the same modules must not appear under two
        names."""
        self.__dict__.update(values)

    def forward(self, clips: Tensor, policy: Policy | None = None) -> Tensor:
        """ScoringModel of ``clips`` under ``policy`` (None: the full one, which is the original model).

        clips: floating [N, C, T, H, W], normalised as the recognizer wants them; policy: of N
            clips, T frames, K stages.
        Returns [N, classes], rows in the order of ``clips``.

        Raises:
            Ada3DError: clips or policy of another shape than the plan's, or frames not in whole
                units.
        """
        return self.with_auxiliary(clips, policy)[0]

    def with_auxiliary(
        self, clips: Tensor, policy: Policy | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """As ``forward``, with the scores of the neck's auxiliary heads (TPN) by module path; there
        are some in training mode only."""
        self._check_clips(clips)
        policy = Policy.full(self.plan, len(clips)) if policy is None else policy
        self.check(policy, len(clips))
        if self.training and self.training_module is not self.graph_module:
            scores = self.training_module(clips, policy)
        elif torch.is_grad_enabled() or not self.folded.ready():
            scores = self.graph_module(clips, policy)
        else:
            scores = self.folded.graph_module(clips, policy)
        return scores if isinstance(scores, tuple) else (scores, {})

    def train(self, mode: bool = True) -> AdaptiveNetwork:
        self.root.train(
            mode
        )  # norm_eval and frozen stages live in the train() of the model's own modules
        self.training = mode
        return self

    def plain(self) -> nn.Module:
        """A copy of the model as it was before conversion, with the weights of now: clips ->
        scores."""
        return copy.deepcopy(_without_twins(self.root))

    def _check_clips(self, clips: Tensor) -> None:
        channels, frames, height, width = self.plan.clip_shape
        wanted = f"[N, {channels}, {frames}, H, W] (such as [1, {channels}, {frames}, {height}, {width}])"
        if not isinstance(clips, Tensor):
            raise Ada3DError(
                f"AdaptiveNetwork: clips are a {type(clips).__name__}, expected a tensor {wanted}"
            )
        hint = "; fold the views into the batch" if clips.ndim == 6 else ""
        if clips.ndim != 5 or tuple(clips.shape[1:3]) != (channels, frames) or not len(clips):
            hint = (
                hint
                or "; convert with the clip_shape of your clips, or sample them as the plan says"
            )
            raise Ada3DError(
                f"AdaptiveNetwork: clips have shape {list(clips.shape)}, expected {wanted}{hint}"
            )
        if not clips.is_floating_point():
            raise Ada3DError(
                f"AdaptiveNetwork: clips have dtype {clips.dtype}, expected normalised floating values"
            )

    def check(self, policy: Policy, n: int) -> None:
        if not isinstance(policy, Policy):
            raise Ada3DError(
                f"AdaptiveNetwork: policy is a {type(policy).__name__}, expected ada3d_fx.Policy"
            )
        plan = self.plan
        for name, value, size in (
            ("frames", policy.frames, (n, plan.num_frames)),
            ("stages", policy.stages, (n, plan.num_stages)),
        ):
            if tuple(value.shape) != size:
                raise Ada3DError(
                    f"AdaptiveNetwork: policy.{name} has shape {list(value.shape)}, expected {list(size)}"
                )
        if plan.frame_unit == 1:
            return
        unit = plan.frame_unit or plan.num_frames
        units = policy.frames.unflatten(1, (-1, unit))
        if not torch.equal(units.any(2), units.all(2)):
            why = plan.reasons[0] if plan.reasons else "the plan"
            raise Ada3DError(
                f"AdaptiveNetwork: frames must be kept in whole units of {unit} frames ({why})"
            )

    def __reduce_ex__(self, protocol):
        """Copies and pickles are made by converting the plain model again: a graph's own pickle
        would trace its code."""
        return _rebuild, (_without_twins(self.root), *self.options)


def specialize(
    adaptive: AdaptiveNetwork,
    num_frames: int,
    stages: Sequence[int | bool],
    copy_weights: bool = True,
) -> nn.Module:
    """One fixed policy as a plain network: stages that are off have sliced weights, and no gate is
    left.

    num_frames: kept frames; stages: K decisions; copy_weights: False leaves the weights shared with
        ``adaptive`` (its sliced ones are views). Returns a module from clips [N, C, num_frames, H,
        W] to scores.

    Raises:
        Ada3DError: a number of frames that the plan does not allow, or not K decisions.
    """
    plan = adaptive.plan
    unit = plan.frame_unit or plan.num_frames
    if not 1 <= num_frames <= plan.num_frames or num_frames % unit:
        allowed = f"a multiple of {unit} up to {plan.num_frames}"
        raise Ada3DError(f"specialize: num_frames={num_frames}, expected {allowed}")
    if len(stages) != plan.num_stages:
        raise Ada3DError(f"specialize: {len(stages)} stage decisions, expected {plan.num_stages}")
    root = adaptive.plain() if copy_weights else _without_twins(adaptive.root)
    for path, lengths in adaptive.windows.items():
        replace_module(root, path, fit_window(root.get_submodule(path), lengths[num_frames] or 1))
    for stage, on in zip(plan.stages, stages):
        for site in stage.sites if not on else ():
            conv = root.get_submodule(site)
            flat = centre_slice(conv)
            weight = flat.__dict__.pop("weight").detach()
            weight = weight.clone() if copy_weights else weight
            flat.weight = nn.Parameter(weight, requires_grad=conv.weight.requires_grad)
            replace_module(root, site, flat)
    return fx.GraphModule(root, copy.deepcopy(adaptive.source), class_name="Specialized")


def channels_last(module: nn.Module) -> nn.Module:
    """Lay the weights of convolutions out as the pack is, in place (I3D-R50, 2 cores, all stages
    2D: 1.93 s instead of 2.85 s)."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in module.parameters():
        if parameter.ndim in formats:
            parameter.data = parameter.data.contiguous(memory_format=formats[parameter.ndim])
    return module


def _without_twins(module: nn.Module) -> nn.Module:
    """A shallow copy of a module tree with twins turned back; parameters are shared."""
    copied = copy.copy(plain_module(module))
    copied._modules = {
        name: child if child is None else _without_twins(child)
        for name, child in module._modules.items()
    }
    return copied


def _rebuild(root: nn.Module, clip_shape: tuple[int, ...], stages: Grouping) -> AdaptiveNetwork:
    return AdaptiveNetwork(root, clip_shape, stages)
