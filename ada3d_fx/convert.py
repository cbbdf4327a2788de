"""convert: a 3D recognizer -> AdaptiveNetwork; specialize: one fixed policy as a plain network."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import fx, nn

from .errors import Ada3DError
from .network import AdaptiveNetwork
from .packed.module_tree import with_modules
from .packed.twins import centre_slice, plain_tree
from .packed.windows import fit_window
from .passes.group import Grouping
from .passes.model import channels_last, scoring_model
from .passes.pipeline import run_passes


def convert(
    model: nn.Module,
    clip_shape: Sequence[int] = (3, 8, 224, 224),
    stages: Grouping = "stage",
) -> AdaptiveNetwork:
    """Rewrite a 3D recognizer so that each clip computes only what its policy keeps.

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
    channels, frames, height, width = clip_shape
    if isinstance(model, AdaptiveNetwork):
        model = model.plain()
    root = channels_last(scoring_model(model))
    return AdaptiveNetwork(run_passes(root, (channels, frames, height, width), stages))


def specialize(
    adaptive: AdaptiveNetwork,
    num_frames: int,
    stages: Sequence[int | bool],
    copy_weights: bool = True,
) -> nn.Module:
    """Make one fixed policy a plain network: off stages have sliced weights, no gate is left.

    Args:
        adaptive: the network; it is not changed.
        num_frames: how many frames its clips have.
        stages: K decisions.
        copy_weights: False leaves the weights shared with ``adaptive``; sliced ones are views.

    Returns:
        A module from clips [N, C, num_frames, H, W] to scores [N, classes].

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
    made = adaptive.conversion
    root = adaptive.plain() if copy_weights else plain_tree(made.root)
    off = [site for stage, on in zip(plan.stages, stages) if not on for site in stage.sites]
    fitted = {
        path: fit_window(root.get_submodule(path), lengths[num_frames] or 1)
        for path, lengths in made.windows.items()
    }
    sliced = {site: _static_slice(root.get_submodule(site), copy_weights) for site in off}
    root = with_modules(root, {**fitted, **sliced})
    return fx.GraphModule(root, copy.deepcopy(made.source), class_name="Specialized")


def _static_slice(conv: nn.Module, copy_weights: bool) -> nn.Module:
    """A convolution's centre slice with a parameter of its own."""
    assert isinstance(conv, nn.Conv3d)
    flat = centre_slice(conv)
    weight = flat.__dict__.pop("weight").detach()
    weight = weight.clone() if copy_weights else weight
    flat.weight = nn.Parameter(weight, requires_grad=conv.weight.requires_grad)
    return flat
