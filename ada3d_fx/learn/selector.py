"""The selection network f_p: frames of a clip -> the distribution of its policy (sec. 3.2, eq. 1)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..distribution import PolicyDistribution
from ..errors import Ada3DError, require_number
from ..inference import infer
from ..plan import StagePlan
from .backbones import feature_size, mobilenet_v2, pooled
from .heads import FrameHead, SelectionHead, since_before


class SelectionNetwork(nn.Module):
    """A 2D backbone on every frame, and a head that turns a clip's features into its policy's logits.

    Args:
        plan: gives T (``num_frames``), K (``num_stages``) and g (``frame_unit``, None where frames
            cannot be dropped).
        backbone: images [B, 3, h, w] -> features [B, D] or [B, D, h', w'] (the last of a tuple is
            taken). By default torchvision's MobileNetV2, as in the paper.
        head: makes the head of D and the plan: a class such as `FrameHead` or `MeanHead` (the
            paper's), or ``functools.partial`` of one with its options.
        motion: the backbone is given images [B, 6, h, w], each frame and its difference to the one
            before it, so that movement shows where features of single frames are much alike.
        frame_prob: the probability of keeping a frame before any training.
        stage_prob: the probability of keeping a stage before any training.
        max_logit: logits stay within it (by a scaled tanh), so that no decision becomes so certain
            that it is never tried the other way again; 3 keeps probabilities in 5 to 95 %, None
            does not bound them.
        input_size: side of the square to which frames are resized; None keeps their size.
        clip_mean: per channel. Clips arrive as ``(pixels - clip_mean) / clip_std``, and the backbone
            is given ``(pixels - input_mean) / input_std``. Give all four or none.
        clip_std: see ``clip_mean``.
        input_mean: see ``clip_mean``.
        input_std: see ``clip_mean``.
        num_classes: adds a classifier (``classify``), for the pre-training, and for predictions.
        classify_by: 'frame': it sees single frames and trains the backbone; 'clip': it sees what the
            stages are judged by, and trains that too.

    Raises:
        Ada3DError: an unknown way to classify, probabilities outside (0, 1), a part of the
            normalisation missing, or a backbone that does not take the images.
    """

    scale: Tensor | None
    shift: Tensor | None

    def __init__(
        self,
        plan: StagePlan,
        backbone: nn.Module | None = None,
        head: Callable[[int, StagePlan], SelectionHead] = FrameHead,
        *,
        motion: bool = False,
        frame_prob: float = 0.9,
        stage_prob: float = 0.9,
        max_logit: float | None = None,
        input_size: int | None = 112,
        clip_mean: Sequence[float] | None = None,
        clip_std: Sequence[float] | None = None,
        input_mean: Sequence[float] | None = None,
        input_std: Sequence[float] | None = None,
        num_classes: int | None = None,
        classify_by: str = "frame",
    ):
        super().__init__()
        self.num_frames, self.frame_unit = plan.num_frames, plan.frame_unit
        self.input_size, self.max_logit, self.motion = input_size, max_logit, motion
        if max_logit is not None:
            require_number("SelectionNetwork: max_logit", max_logit, 0.0, above=True)
        if input_size is not None:
            require_number("SelectionNetwork: input_size", input_size, 1, whole=True)
        self._set_normalisation(clip_mean, clip_std, input_mean, input_std)
        self.backbone = mobilenet_v2() if backbone is None else backbone
        self.num_features = feature_size(self.backbone, self.in_channels, input_size or 112)
        self.norm = nn.BatchNorm1d(self.num_features, affine=False)
        self.head = head(self.num_features, plan)
        self.head.start_at(
            _logit("frame_prob", frame_prob, max_logit), _logit("stage_prob", stage_prob, max_logit)
        )
        if classify_by not in ("frame", "clip"):
            raise Ada3DError(f"SelectionNetwork: classify_by={classify_by!r}; try frame or clip")
        self.classify_by = classify_by
        self.classifier: nn.Linear | None = None
        if num_classes:
            seen = self.num_features if classify_by == "frame" else self.head.clip_size
            self.classifier = nn.Linear(seen, num_classes)

    @property
    def in_channels(self) -> int:
        """Channels of the backbone's images."""
        return 6 if self.motion else 3

    def forward(self, clips: Tensor) -> PolicyDistribution:
        """Return the distribution of the clips' policies; its logits are float32.

        Args:
            clips: [N, 3, T, H, W], normalised for the recognizer.

        Raises:
            Ada3DError: clips of another rank, or of a length that the head cannot serve.
        """
        return self.distribution(self.frame_features(clips))

    def frame_features(self, clips: Tensor) -> Tensor:
        """Return the features of every frame; all frames go through the backbone at once.

        Args:
            clips: [N, 3, T, H, W], or [N, 6, T, H, W] with differences of frames for the
                recognizer, which are left out here.

        Returns:
            [N, T, D].

        Raises:
            Ada3DError: clips of another rank, or not of whole frame units.
        """
        if clips.ndim != 5:
            raise Ada3DError(
                f"SelectionNetwork: clips have shape {list(clips.shape)}, expected [N, C, T, H, W]"
            )
        n, _, t = clips.shape[:3]
        if t % (self.frame_unit or 1):
            raise Ada3DError(
                f"SelectionNetwork: clips of {t} frames, but frames are kept in units of "
                f"{self.frame_unit}"
            )
        if clips.shape[1] == 6:
            clips = clips[:, :3]
        frames = self.small_frames(clips)
        if self.scale is not None and self.shift is not None:
            frames = frames * self.scale + self.shift
        if self.motion:
            frames = frames.unflatten(0, (n, t))
            frames = torch.cat([frames, since_before(frames)], 2).flatten(0, 1)
        # what all frames share is taken out: else policies first learn what suits the average clip
        return self.norm(pooled(infer(self.backbone, frames))).unflatten(0, (n, t))

    def small_frames(self, clips: Tensor) -> Tensor:
        """Resize the frames of clips [N, 3, T, H, W] to the backbone's ``input_size``.

        Returns:
            [N * T, 3, h, w].
        """
        size = self.input_size
        if size is not None and clips.shape[-2:] != (size, size):
            # before frames are put one after the other, which copies what is small then
            channels = F.interpolate(
                clips.flatten(0, 1), (size, size), mode="bilinear", align_corners=False,
                antialias=True,
            )  # fmt: skip
            clips = channels.unflatten(0, clips.shape[:2])
        return clips.transpose(1, 2).flatten(0, 1)

    def distribution(self, features: Tensor) -> PolicyDistribution:
        """Return the distribution of the policies of clips with features [N, T, D]."""
        frames, stages = (logits.float() for logits in self.head(features))
        if self.max_logit is not None:
            frames, stages = (bounded(logits, self.max_logit) for logits in (frames, stages))
        return PolicyDistribution(frames, stages, self.frame_unit, num_frames=features.shape[1])

    def classify(self, features: Tensor) -> Tensor:
        """Return class scores, of every frame by itself or of the clip, see ``classify_by``.

        Pre-trains the backbone (sec. 4.1: "also pre-trained on these datasets ... to speed up
        convergence").

        Args:
            features: [N, T, D].

        Returns:
            [N, T, num_classes], or of the clip [N, 1, num_classes].

        Raises:
            Ada3DError: there is no classifier.
        """
        if self.classifier is None:
            raise Ada3DError("SelectionNetwork: classify needs num_classes=")
        if self.classify_by == "clip":
            features = self.head.clip(features)[:, None]
        return self.classifier(features)

    def _set_normalisation(self, *given: Sequence[float] | None) -> None:
        """Turn clip_mean, clip_std, input_mean, input_std into one scale and one shift."""
        values = [v for v in given if v is not None]
        if len(values) not in (0, 4):
            raise Ada3DError(
                "SelectionNetwork: give all of clip_mean, clip_std, input_mean, input_std, or none"
            )
        scale = shift = None
        if values:
            mean, std, own_mean, own_std = (
                torch.tensor(v, dtype=torch.float32)[:, None, None] for v in values
            )
            scale, shift = std / own_std, (mean - own_mean) / own_std
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)


LEAST_SLOPE = 0.1


def bounded(logits: Tensor, most: float) -> Tensor:
    """Bound logits by a scaled tanh, from whose ends they find back.

    The slope of tanh is next to nothing there, so that what was decided for certain could never be
    unlearned: on clips that the recognizer knew well, policies that kept everything stayed so whatever
    a budget made their cost weigh. Gradients that lead back from an end meet a slope of 0.1 at least.

    Args:
        logits: of any shape.
        most: the bound.
    """
    if torch.is_grad_enabled() and logits.requires_grad:
        return _Bounded.apply(logits, most)
    return most * (logits / most).tanh()


class _Bounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, most: float) -> Tensor:
        made = most * (logits / most).tanh()
        ctx.most = most
        ctx.save_for_backward(made)
        return made

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (made,) = ctx.saved_tensors
        slope = 1 - (made / ctx.most).square()
        leads_back = gradient * made > 0  # as steps go against the gradient
        return gradient * torch.where(leads_back, slope.clamp(min=LEAST_SLOPE), slope), None


def _logit(name: str, probability: float, max_logit: float | None) -> float:
    """Return the logit of a probability, before it is bounded by ``max_logit``."""
    if not 0 < probability < 1:
        raise Ada3DError(f"SelectionNetwork: {name}={probability} is not between 0 and 1")
    logit = math.log(probability / (1 - probability))
    if max_logit is None:
        return logit
    if abs(logit) >= max_logit:
        raise Ada3DError(
            f"SelectionNetwork: {name}={probability} is a logit of {logit:.2f}, beyond "
            f"max_logit={max_logit}"
        )
    return max_logit * math.atanh(logit / max_logit)
