"""What is converted: the part of a model that turns clips into scores."""

from __future__ import annotations

import copy
from keyword import iskeyword
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import Ada3DError


class ScoringModel(nn.Module):
    """The part of a recognizer that turns clips into scores, under the recognizer's own names."""

    def __init__(self, backbone: nn.Module, cls_head: nn.Module, neck: nn.Module | None = None):
        super().__init__()
        self.backbone = backbone
        if neck is not None:
            self.neck = neck
        self.cls_head = cls_head

    def forward(self, clips: Tensor) -> Tensor:
        """Score clips [N, C, T, H, W] as [N, classes]."""
        features = self.backbone(clips)
        if hasattr(self, "neck"):
            features, _ = self.neck(features)
        return self.cls_head(features)

    def forward_in_training(self, clips: Tensor) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Score clips, and with the neck's auxiliary heads too where it has any.

        Returns:
            The scores [N, classes], or these and path of an auxiliary head -> its scores.
        """
        features = self.backbone(clips)
        auxiliary: dict[str, Tensor] = {}
        if hasattr(self, "neck"):
            heads: dict[str, Any] = {
                f"neck.{path}": part
                for path, part in self.neck.named_modules()
                if path and callable(getattr(type(part), "loss", None))
            }
            for path, head in heads.items():
                head.loss = _Recorder(auxiliary, path, head)
            samples = {"data_samples": _Recorder} if heads else {}  # anything but None
            features, _ = self.neck(features, **samples)
        scores = self.cls_head(features)
        return (scores, auxiliary) if auxiliary else scores


class _Recorder:
    """Stands in for an auxiliary head's ``loss(features, data_samples)``: notes its scores."""

    def __init__(self, into: dict[str, Tensor], path: str, head: nn.Module):
        self.into, self.path, self.head = into, path, head

    def __call__(self, features: Any, data_samples: Any) -> dict:
        self.into[self.path] = self.head(features)
        return {}


def model_name(root: nn.Module) -> str:
    """Return what messages call a model: its backbone's class where it has one, else its own."""
    return type(root.backbone if isinstance(root, ScoringModel) else root).__name__


def scoring_model(model: nn.Module) -> nn.Module:
    """Copy ``model`` as a module from clips [N, C, T, H, W] to scores [N, classes].

    A recognizer is told by its ``backbone`` and ``cls_head``; any other module is taken to be one
    already.

    Raises:
        Ada3DError: not a module, or a recognizer with a part missing.
    """
    if not isinstance(model, nn.Module):
        raise Ada3DError(
            f"convert: expected a built model (nn.Module), got {type(model).__name__}; "
            "build a config with mmaction.registry.MODELS.build(cfg.model) first"
        )
    for path, part in model.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            raise Ada3DError(
                f"convert: {path or type(model).__name__} is compiled by torch.jit, which hides its "
                "operations; convert the model as it was before torch.jit.script or torch.jit.trace"
            )
    backbone, head, neck = (getattr(model, name, None) for name in ("backbone", "cls_head", "neck"))
    if backbone is None and head is None and not hasattr(model, "extract_feat"):
        return copy.deepcopy(model)
    scores = ScoringModel(_part(model, "backbone"), _part(model, "cls_head"), neck)
    scores.training = model.training  # the flags of the parts are their own
    return copy.deepcopy(scores)


def check_names(root: nn.Module) -> None:
    """Check that the names of a model's parts can be written in a program.

    Raises:
        Ada3DError: one is a word of Python's.
    """
    tensors = (*root.named_parameters(), *root.named_buffers())
    for path, _ in (*root.named_modules(), *tensors):
        word = next((part for part in path.split(".") if iskeyword(part)), None)
        if word is not None or path == "self":
            raise Ada3DError(
                f"convert: the model's part {path!r} has a name that Python keeps for itself "
                f"({word or path}), so no program can be written that uses it; rename it"
            )


def _part(model: nn.Module, name: str) -> nn.Module:
    part = getattr(model, name, None)
    if not isinstance(part, nn.Module):
        raise Ada3DError(
            f"convert: {type(model).__name__} has no `{name}`: a recognizer needs `backbone` and `cls_head`; "
            "a plain nn.Module from clips to scores converts too, if it has none of them"
        )
    return part


def channels_last(module: nn.Module) -> nn.Module:
    """Lay the weights of convolutions out as the pack is, in place.

    I3D-R50 on 2 cores, all stages 2D: 1.93 s instead of 2.85 s.
    """
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in module.parameters():
        if parameter.ndim in formats:
            parameter.data = parameter.data.contiguous(memory_format=formats[parameter.ndim])
    return module
