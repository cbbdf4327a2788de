"""The selection network as an exported graph holds it: clips and a threshold -> policies."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..distribution import GREEDY
from ..errors import Ada3DError
from ..learn.selector import SelectionNetwork
from ..packed.module_tree import keep_unregistered
from ..plan import StagePlan


class Decider(nn.Module):
    """Chooses policies with operations that ONNX has; equal to `PolicyDistribution.mode`.

    Args:
        selector: it is copied.
        plan: the network's, whose clip size it then needs: the resizing is two matrix products.
        greedy: how frames are kept, see `PolicyDistribution.mode`.
        classifies: it gives class scores too.

    Raises:
        Ada3DError: an unknown ``greedy``, or class scores without a classifier.
    """

    def __init__(
        self,
        selector: SelectionNetwork,
        plan: StagePlan,
        greedy: str = "threshold",
        classifies: bool = False,
    ):
        super().__init__()
        if greedy not in GREEDY:
            raise Ada3DError(f"export: greedy={greedy!r}; there are {', '.join(GREEDY)}")
        if classifies and selector.classifier is None:
            raise Ada3DError("export: the selection network has no classifier to predict with")
        self.selector = copy.deepcopy(selector).cpu().float().eval()
        height, width = plan.clip_shape[2:]
        size = self.selector.input_size
        if size is not None and (height, width) != (size, size):
            resize = _Resize(height, width, size, self.selector.scale, self.selector.shift)
            keep_unregistered(self.selector, small_frames=resize)
            self.selector.scale = self.selector.shift = None
        self.greedy, self.classifies = greedy, classifies
        self.unit, self.num_frames = plan.frame_unit, plan.num_frames

    def forward(
        self, clips: Tensor, threshold: Tensor, exit: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Choose policies.

        Args:
            clips: [N, 3, T, H, W].
            threshold: [], between 0 and 1.
            exit: [], above 0 and at most 1; needed where it classifies.

        Returns:
            Frames, bool [N, T]; stages, bool [N, K]; if it classifies, scores [N, classes], and
            clips that exit have no frame and no stage.
        """
        features = self.selector.frame_features(clips)
        logits = self.selector.distribution(features)
        shift = _log_odds(threshold).to(logits.stage_logits.dtype)
        stages = logits.stage_logits - shift > 0
        if self.unit is None:
            frames = torch.ones_like(clips[:, 0, :, 0, 0]) > 0
        else:
            units = self._units(logits.frame_logits - shift)
            units = units | (
                (units.float().amax(1, keepdim=True) == 0) & _best(logits.frame_logits)
            )
            frames = units[:, :, None].expand(-1, -1, self.unit).flatten(1)
        if not self.classifies:
            return frames, stages
        assert exit is not None
        scores = self.selector.classify(features).float().mean(1)
        stays = _certainty(scores)[:, None] <= _log_odds(exit)
        return frames & stays, stages & stays, scores

    def _units(self, logits: Tensor) -> Tensor:
        """Which frame units are kept, bool [N, T / g], before one is kept in any case."""
        if self.greedy == "threshold":
            return logits > 0
        passed = logits.double().sigmoid().cumsum(1)
        total = passed[:, -1:]
        kept = total.round().clamp(min=1)
        if self.greedy == "count":
            return _rank(logits) < kept
        points = (passed - (total - kept + 1) / 2).floor() + 1
        points = torch.minimum(points.clamp(min=0), kept)
        return points - torch.cat([torch.zeros_like(total), points[:, :-1]], 1) > 0


def _log_odds(p: Tensor) -> Tensor:
    """The log-odds of a probability, in float64; infinite at 1."""
    p = p.double()
    return (p / (1 - p)).log()


def _certainty(scores: Tensor) -> Tensor:
    """What `exits.certainty` gives, [N], by operations that both engines have."""
    scores = scores.double()
    others = torch.where(_best(scores), torch.full_like(scores, -1e30), scores)
    largest = others.amax(1, keepdim=True)
    rest = largest + (others - largest).exp().sum(1, keepdim=True).log()
    return (scores.amax(1, keepdim=True) - rest)[:, 0]


def _rank(logits: Tensor) -> Tensor:
    """The place of each in the descending order, the first of equal ones first; [N, U]."""
    number = torch.arange(logits.shape[1])
    left, right = logits[:, None, :], logits[:, :, None]  # is the left one before the right one
    before = (left > right) | ((left == right) & (number[None, :] < number[:, None]))
    return before.double().sum(2)


def _best(logits: Tensor) -> Tensor:
    """The most probable unit of each clip, as bool [N, U]."""
    return torch.arange(logits.shape[1]) == logits.argmax(1, keepdim=True)


class _Resize(nn.Module):
    """Antialiased bilinear resizing to one size, which is linear along each axis.

    Pixels are normalised before, which is the same as after it: what each row and column weighs adds up
    to 1. OpenVINO 2026.4 cannot compile a scale of channels behind a matrix product.
    """

    rows: Tensor
    columns: Tensor
    scale: Tensor | None
    shift: Tensor | None

    def __init__(
        self, height: int, width: int, size: int,
        scale: Tensor | None = None, shift: Tensor | None = None,
    ):  # fmt: skip
        super().__init__()
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)
        self.register_buffer("rows", _matrix(height, size), persistent=False)
        self.register_buffer("columns", _matrix(width, size).T.contiguous(), persistent=False)

    def forward(self, clips: Tensor) -> Tensor:
        """Normalise and resize the frames of clips [N, 3, T, H, W]: [N * T, 3, h, w]."""
        frames = clips.transpose(1, 2).flatten(0, 1)
        if self.scale is not None and self.shift is not None:
            frames = frames * self.scale + self.shift
        return self.rows @ (frames @ self.columns)


def _matrix(length: int, size: int) -> Tensor:
    """What resizing does to a column of ``length`` pixels, [size, length]."""
    identity = torch.eye(length, dtype=torch.float64)[None, None]
    resized = F.interpolate(
        identity, (size, length), mode="bilinear", align_corners=False, antialias=True
    )
    return resized[0, 0].float()
