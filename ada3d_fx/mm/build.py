"""Configs -> the parts of Ada3DRecognizer, and runners."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mmaction.models.recognizers import BaseRecognizer, Recognizer2D
from mmaction.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope, init_default_scope
from torch import nn

from ..convert import AdaptiveNetwork
from ..errors import Ada3DError
from ..learn.backbones import SmallConvNet, load_backbone, mobilenet_v2
from ..learn.estimators import Estimator, Reinforce, StraightThrough
from ..learn.heads import FrameHead, MeanHead
from ..learn.selector import SelectionNetwork
from ..packed.twins import PackedConv3d
from ..plan import StagePlan
from .video_runner import VideoRunner

for _part in (SelectionNetwork, SmallConvNet, FrameHead, MeanHead, Reinforce, StraightThrough):
    MODELS.register_module(module=_part)

MOBILENETS = ("torchvision.mobilenet_v2", "mobilenet_v2")  # for which `mobilenet_v2` is called
# What a part is where its config does not say it.
DEFAULT_TYPES = {"selector": "SelectionNetwork", "head": "FrameHead", "objective": "Reinforce"}


def build_recognizer(config: Mapping) -> nn.Module:
    """Build a plain 3D recognizer, its weights not initialised.

    Raises:
        Ada3DError: a 2D recognizer, an unknown type, or no classification head.
    """
    if DefaultScope.get_current_instance() is None:  # outside a Runner, which sets it
        init_default_scope("mmaction")
    kind = MODELS.get(config["type"]) if isinstance(config["type"], str) else config["type"]
    if inspect.isclass(kind) and not issubclass(kind, BaseRecognizer):
        raise Ada3DError(
            f"recognizer: {kind.__name__} is no recognizer; try a Recognizer3D with a backbone and a "
            "cls_head"
        )
    try:
        model = MODELS.build(Config(dict(config)).to_dict())
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        line = traceback.extract_tb(error.__traceback__)[-1].line  # of an assertion without words
        reason = str(error.args[0] if error.args else error).strip() or line
        raise Ada3DError(f"recognizer: cannot be built: {reason}") from error
    if isinstance(model, Recognizer2D):
        raise Ada3DError(
            f"recognizer: {type(model).__name__} sees single frames; it has no temporal "
            "convolution to select. Try a Recognizer3D (I3D, SlowOnly, C2D ...)."
        )
    if not model.with_cls_head:
        raise Ada3DError("recognizer: it has no cls_head, so no scores to be right about")
    return model


def check_gates(recognizer: AdaptiveNetwork) -> None:
    """Check that the gates of all stages have gradients, which the straight-through estimator needs.

    Raises:
        Ada3DError: gates in the model's own code, which have none.
    """
    stuck = [
        site
        for stage in recognizer.plan.stages
        for site in stage.sites
        if not isinstance(recognizer.get_submodule(site), PackedConv3d)
    ]
    if stuck:
        raise Ada3DError(
            "objective: StraightThrough needs gates with gradients, which the model's own code has "
            f"not: {', '.join(stuck[:4])}; try type='Reinforce'"
        )


@dataclass
class SelectorParts:
    """What `build_selector` makes of a config by itself; the rest are `SelectionNetwork`'s options."""

    # A 2D backbone, see `build_backbone`; by default torchvision's MobileNetV2.
    backbone: Mapping | None = None
    # A registered head: FrameHead by default; MeanHead is the paper's; see `SelectionHead` for one of
    # your own.
    head: Mapping | None = None
    # A file of pretrained weights for the backbone.
    weights: str | None = None
    # Adds the classifier of the warm-up: 'frame' (or True) or 'clip', see ``classify_by``.
    pretrain: bool | Literal["frame", "clip"] | None = False


def build_selector(
    config: Mapping,
    plan: StagePlan,
    preprocessor: Mapping | None = None,
    num_classes: int | None = None,
) -> SelectionNetwork:
    """Build the selection network for a plan.

    Args:
        config: see `SelectorParts` and `SelectionNetwork`.
        plan: the recognizer's.
        preprocessor: the recognizer's data_preprocessor config, whose mean and std become
            ``clip_mean`` and ``clip_std`` where ``input_mean`` and ``input_std`` are given.
        num_classes: of the classifier.

    Raises:
        Ada3DError: an unknown part, or an option that it does not have or refuses.
    """
    options = Config(dict(config)).to_dict()
    options.setdefault("type", DEFAULT_TYPES["selector"])
    own = {name: options.pop(name) for name in vars(SelectorParts()) if name in options}
    parts = SelectorParts(**own)
    backbone = build_backbone(parts.backbone or {"type": "torchvision.mobilenet_v2"})
    if parts.weights:
        load_backbone(backbone, parts.weights)
    head, pretrain = {"type": DEFAULT_TYPES["head"], **(parts.head or {})}, parts.pretrain
    if "input_mean" in options:
        options.setdefault("clip_mean", (preprocessor or {}).get("mean") or [0.0, 0.0, 0.0])
        options.setdefault("clip_std", (preprocessor or {}).get("std") or [1.0, 1.0, 1.0])
    if pretrain:
        options.setdefault("num_classes", num_classes)
        options.setdefault("classify_by", "frame" if pretrain is True else pretrain)

    def make_head(features: int, plan: StagePlan) -> nn.Module:
        return build_part("selector: head", {**head, "features": features, "plan": plan})

    options.update(plan=plan, backbone=backbone, head=make_head)
    return build_part("selector", options)


def build_estimator(config: Mapping | None) -> Estimator:
    """Build the estimator of the policy gradient, with the options of the reward.

    Args:
        config: ``type`` of a registered `Estimator` (Reinforce by default, or StraightThrough), its
            options, and those of `Objective`.

    Raises:
        Ada3DError: an unknown type, or an option that it does not have or refuses.
    """
    return build_part("objective", {"type": DEFAULT_TYPES["objective"], **dict(config or {})})


def build_part(name: str, config: Mapping) -> Any:
    """Build a registered part of the model.

    Args:
        name: what the part is, for messages.
        config: its ``type`` and options.

    Raises:
        Ada3DError: an unknown type, or an option that it does not have.
    """
    kind = config.get("type")
    if MODELS.get(kind) is None:
        raise Ada3DError(
            f"{name}: there is no {kind!r} in MMAction2's registry of models; is the module that "
            "registers it among the config's custom_imports?"
        )
    try:
        return MODELS.build(dict(config))
    except TypeError as error:
        raise Ada3DError(f"{name}: {kind}: {error}") from error


def build_backbone(config: Mapping) -> nn.Module:
    """Build a 2D backbone: ``torchvision.NAME``, SmallConvNet, or any 2D backbone of MMAction2.

    Raises:
        Ada3DError: an unknown name, or options that it does not have.
    """
    options = Config(dict(config)).to_dict()
    name = options.get("type", "")
    if not isinstance(name, str):
        raise Ada3DError(f"selector: backbone type={name!r}; try 'torchvision.mobilenet_v2'")
    try:
        if name in MOBILENETS:
            return mobilenet_v2(**{key: value for key, value in options.items() if key != "type"})
        if not name.startswith("torchvision."):
            return MODELS.build(options)
        import torchvision

        net = torchvision.models.get_model(
            name.removeprefix("torchvision."),
            weights=None,
            **{key: value for key, value in options.items() if key != "type"},
        )
    except (KeyError, ValueError, TypeError) as error:
        raise Ada3DError(f"selector: backbone {name!r} cannot be built: {error}") from error
    for last in ("classifier", "fc", "head"):
        if hasattr(net, last):
            setattr(net, last, nn.Identity())
    return net


def build_runner(config: Config) -> VideoRunner:
    """Build the runner of a config."""
    return VideoRunner.from_cfg(config)
