"""Configs -> the parts of Ada3DRecognizer: the plain recognizer, its weights, its teacher, the
selector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from mmaction.models.recognizers import Recognizer2D
from mmaction.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope, init_default_scope
from torch import Tensor, nn
from torch.nn import functional as F

from ..convert import AdaptiveNetwork, convert
from ..errors import Ada3DError
from ..learn.backbones import UNREADABLE, SmallConvNet, load_backbone, mobilenet_v2
from ..learn.selector import SelectionNetwork
from ..packed.twins import PackedConv3d

MODELS.register_module(module=SelectionNetwork)
MODELS.register_module(module=SmallConvNet)


def recognizer_config(recognizer: Mapping | str) -> dict:
    """The model config of a plain recognizer, from itself or from the config file that holds it.

    Raises:
        Ada3DError: no such file, no model in it, or no backbone or type in the model.
    """
    source = "recognizer"
    if isinstance(recognizer, (str, Path)):
        source = str(recognizer)
        if not Path(recognizer).is_file():
            raise Ada3DError(f"recognizer: no config file at {recognizer}")
        recognizer = Config.fromfile(recognizer).get("model", {})
    config = Config(dict(recognizer)).to_dict()  # a copy: builders take entries out of it
    for key in ("type", "backbone"):
        if key not in config:
            raise Ada3DError(
                f"{source}: the model has no {key!r}; give the `model` of an MMAction2 recognizer "
                "config, such as dict(type='Recognizer3D', backbone=..., cls_head=...)"
            )
    return config


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


def load_checkpoint(path: str | Path) -> dict:
    """The state dict of a checkpoint file, on the CPU.

    Raises:
        Ada3DError: no such file, or not a checkpoint.
    """
    if not Path(path).is_file():
        raise Ada3DError(f"checkpoint: no file at {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise Ada3DError(f"checkpoint: {path} cannot be read: {error}") from error
    if not isinstance(checkpoint, dict):
        raise Ada3DError(f"checkpoint: {path} holds a {type(checkpoint).__name__}, no state dict")
    return checkpoint.get("state_dict", checkpoint)


def load_recognizer(model: nn.Module, path: str | Path) -> None:
    """Load a plain recognizer's checkpoint, or the recognizer out of one of Ada3DRecognizer's.

    Raises:
        Ada3DError: no such file, or tensors that do not fit; the message names them.
    """
    weights, own = load_checkpoint(path), model.state_dict()
    if any(key.startswith("recognizer.") for key in weights):
        weights = {
            key.removeprefix("recognizer."): value
            for key, value in weights.items()
            if key.startswith("recognizer.")
        }
    unlike = [
        f"{key} {list(weights[key].shape)} instead of {list(value.shape)}"
        for key, value in own.items()
        if key in weights and weights[key].shape != value.shape
    ]
    missing = [f"{key} is missing" for key in own if key not in weights]
    extra = [f"{key} has no place" for key in weights if key not in own]
    wrong = unlike + missing + extra
    if wrong:
        raise Ada3DError(
            f"checkpoint: {path} does not fit the recognizer in {len(wrong)} tensors: "
            + "; ".join(wrong[:4])
            + ". Is it for another backbone, or another number of classes?"
        )
    model.load_state_dict(weights)


def initial_weights(config: Mapping, checkpoint: str | Path | None) -> dict:
    """The state dict with which the recognizer starts: its checkpoint's, else its own init's."""
    model = build_recognizer(config)
    if checkpoint is None:
        model.init_weights()
    else:
        load_recognizer(model, checkpoint)
    return model.state_dict()


class Teacher:
    """The plain recognizer whose scores Ada3D's recognizer learns (Hinton et al., 2015). No module:
    it has no place among the weights of its pupil."""

    def __init__(
        self,
        config: Mapping,
        checkpoint: str | Path | None,
        clip_shape: Sequence[int],
        temperature: float,
    ):
        if temperature <= 0:
            raise Ada3DError(f"distill_temperature={temperature}; it must be positive")
        self.config, self.checkpoint = config, checkpoint
        self.clip_shape, self.temperature = tuple(clip_shape), temperature
        self._network: nn.Module | None = None

    @torch.no_grad()
    def scores(self, clips: Tensor) -> Tensor:
        """Clips [N, C, T, H, W] -> scores on all frames, float32 [N, num_classes].

        Raises:
            Ada3DError: there is no checkpoint to learn from.
        """
        if self._network is None:
            if self.checkpoint is None:
                raise Ada3DError(
                    "distill needs recognizer_checkpoint=, the recognizer to learn from"
                )
            with torch.random.fork_rng():  # a resumed run draws the numbers of an unbroken one
                plain = build_recognizer(self.config)
                plain.load_state_dict(initial_weights(self.config, self.checkpoint))
                self._network = convert(plain, clip_shape=self.clip_shape).eval()
        return self._network.to(clips.device)(clips).float()

    def loss(
        self, scores: Tensor, clips: Tensor, sets: bool = False, which: Tensor | None = None
    ) -> Tensor:
        """Divergence of ``scores`` [M, num_classes] from those of the clips ``which`` [M] (None:
        one row each), both softened; times the temperature's square, so that its gradient does not
        depend on it much. ``sets``: classes are independent (multi-label)."""
        theirs = self.scores(clips)[slice(None) if which is None else which] / self.temperature
        ours = scores / self.temperature
        if sets:
            loss = F.binary_cross_entropy_with_logits(ours, theirs.sigmoid())
        else:
            loss = F.kl_div(ours.log_softmax(1), theirs.softmax(1), reduction="batchmean")
        return self.temperature**2 * loss


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


def load_selector(selector: SelectionNetwork, path: str | Path) -> None:
    """Load the selection network of an Ada3D checkpoint, trained with another recognizer or on
    other classes (table 3); its classifier is left.

    Raises:
        Ada3DError: no such file, no selection network in it, or one of another backbone or plan.
    """
    weights = load_checkpoint(path)
    name = "selector."
    found = {k.removeprefix(name): v for k, v in weights.items() if k.startswith(name)}
    if not found:
        raise Ada3DError(
            f"selector_checkpoint: {path} holds no selection network; is it an Ada3D checkpoint?"
        )
    own = selector.state_dict()
    left = {key for key in (*own, *found) if key.startswith("classifier.")}
    unlike = [
        f"{key} {list(found[key].shape) if key in found else 'missing'} instead of "
        f"{list(own[key].shape) if key in own else 'nothing'}"
        for key in dict.fromkeys((*own, *found))
        if key not in left
        and (key not in own or key not in found or own[key].shape != found[key].shape)
    ]
    if unlike:
        raise Ada3DError(
            f"selector_checkpoint: {path} does not fit the selection network in {len(unlike)} "
            f"tensors: {'; '.join(unlike[:4])}. Its backbone, its aggregation, the number of stages "
            "and (for aggregation 'uniform') of frames must be the same"
        )
    selector.load_state_dict({k: v for k, v in found.items() if k not in left}, strict=False)


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
