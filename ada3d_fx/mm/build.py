"""Configs -> the parts of Ada3DRecognizer, and runners."""

from __future__ import annotations

from collections.abc import Mapping

from mmaction.models.recognizers import Recognizer2D
from mmaction.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope, init_default_scope
from mmengine.runner import Runner
from torch import nn

from ..convert import AdaptiveNetwork
from ..errors import Ada3DError
from ..learn.backbones import SmallConvNet, load_backbone, mobilenet_v2
from ..learn.selector import SelectionNetwork
from ..packed.twins import PackedConv3d

MODELS.register_module(module=SelectionNetwork)


MODELS.register_module(module=SmallConvNet)


def build_recognizer(config: Mapping) -> nn.Module:
    """A plain 3D recognizer, its weights not initialised.

    Raises:
        Ada3DError: a 2D recognizer, an unknown type, or no classification head.
    """
    if DefaultScope.get_current_instance() is None:  # outside a Runner, which sets it
        init_default_scope("mmaction")
    try:
        model = MODELS.build(Config(dict(config)).to_dict())
    except KeyError as error:
        raise Ada3DError(f"recognizer: cannot be built: {error.args[0]}") from error
    if isinstance(model, Recognizer2D):
        raise Ada3DError(
            f"recognizer: {type(model).__name__} sees single frames; it has no temporal "
            "convolution to select. Try a Recognizer3D (I3D, SlowOnly, C2D ...)."
        )
    if not model.with_cls_head:
        raise Ada3DError("recognizer: it has no cls_head, so no scores to be right about")
    return model


def check_gates(recognizer: AdaptiveNetwork) -> None:
    """Whether the gates of all stages have gradients, for the straight-through estimator.

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
            "objective: estimator='straight_through' needs gates with gradients, which the model's "
            f"own code has not: {', '.join(stuck[:4])}; try estimator='reinforce'"
        )


def build_selector(
    config: Mapping, plan, preprocessor: Mapping | None = None, num_classes: int | None = None
) -> SelectionNetwork:
    """A SelectionNetwork for this plan.

    ``config``: its options; ``backbone`` is a config (see `build_backbone`), ``weights`` a file of
    pretrained weights for it, ``pretrain`` adds the classifier of the warm-up: ``'frame'`` (or
    True) or ``'clip'``, see SelectionNetwork's ``classify_by``. ``preprocessor``: the recognizer's
    data_preprocessor config, whose mean and std turn into ``input_mean, input_std`` where these are
    given.
    """
    options = Config(dict(config)).to_dict()
    options.setdefault("type", "SelectionNetwork")
    weights, pretrain = options.pop("weights", None), options.pop("pretrain", False)
    backbone = build_backbone(options.pop("backbone", {"type": "torchvision.mobilenet_v2"}))
    if weights:
        load_backbone(backbone, weights)
    if "input_mean" in options:
        options.setdefault("clip_mean", (preprocessor or {}).get("mean") or [0.0, 0.0, 0.0])
        options.setdefault("clip_std", (preprocessor or {}).get("std") or [1.0, 1.0, 1.0])
    if pretrain:
        options.setdefault("num_classes", num_classes)
        options.setdefault("classify_by", "frame" if pretrain is True else pretrain)
    return MODELS.build({**options, "plan": plan, "backbone": backbone})


def build_backbone(config: Mapping) -> nn.Module:
    """A 2D backbone: ``torchvision.NAME``, SmallConvNet, or any 2D backbone of MMAction2."""
    options = Config(dict(config)).to_dict()
    name = options.get("type", "")
    if name in ("torchvision.mobilenet_v2", "mobilenet_v2"):
        return mobilenet_v2(options.get("width_mult", 1.0))
    try:
        if not name.startswith("torchvision."):
            return MODELS.build(options)
        import torchvision

        net = torchvision.models.get_model(
            name.removeprefix("torchvision."),
            weights=None,
            **{key: value for key, value in options.items() if key != "type"},
        )
    except (KeyError, ValueError) as error:
        raise Ada3DError(f"selector: backbone {name!r} cannot be built: {error}") from error
    for last in ("classifier", "fc", "head"):
        if hasattr(net, last):
            setattr(net, last, nn.Identity())
    return net


def build_runner(config: Config) -> Runner:
    """MMEngine's Runner of this config."""
    return Runner.from_cfg(config)
