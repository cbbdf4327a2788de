"""The selection network f_p: frames of a clip -> the distribution of its policy (sec. 3.2, eq.
1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..distribution import PolicyDistribution
from ..errors import Ada3DError
from ..plan import StagePlan
from .backbones import feature_size, mobilenet_v2, pooled
from .heads import FrameHeads, UniformHeads, since_before, start_at


class SelectionNetwork(nn.Module):
    """A 2D backbone on every frame, an aggregation over the frames, one head for frames and one for
    stages.

    Args:
        plan: gives T (``num_frames``), K (``num_stages``) and g (``frame_unit``, None where frames
            cannot be dropped).
        backbone: images [B, 3, h, w] -> features [B, D] or [B, D, h', w'] (the last of a tuple is
            taken). By default torchvision's MobileNetV2, as in the paper.
        aggregation: ``'uniform'`` is the paper's: the mean over frames, then linear to T/g and K
            logits; it serves clips of T frames only. ``'frame'`` judges each frame unit by its own
            features, the clip's mean, the differences to its neighbours and its relative time, and
            the stages by the clip's mean and how much it changes; it serves clips of any length.
            ``'context'`` is 'frame', and what the stages are judged by is also seen by the frames,
            in place of the mean.
        hidden: width of the ``'frame'`` and ``'context'`` heads.
        motion: the backbone is given images [B, 6, h, w], each frame and its difference to the one
            before it, so that movement shows where features of single frames are much alike.
        frame_prob, stage_prob: the probabilities of keeping a frame and a stage before any
            training.
        max_logit: logits stay within it (by a scaled tanh), so that no decision becomes so certain
            that it is never tried the other way again; 3 leaves probabilities in 5 to 95 %, None
            leaves logits free.
        input_size: side of the square to which frames are resized; None leaves them as they are.
        clip_mean, clip_std, input_mean, input_std: per channel; clips arrive as ``(pixels -
            clip_mean) / clip_std`` and the backbone is given ``(pixels - input_mean) / input_std``.
            Give all four or none.
        num_classes: adds a classifier (``classify``), for the pre-training, and for predictions.
        classify_by: ``'frame'``: it sees single frames and trains the backbone; ``'clip'``: it sees
            what the stages are judged by, and trains that too.

    Raises:
        Ada3DError: an unknown aggregation or classifier, probabilities outside (0, 1), a part of
            the normalisation missing, or a backbone that does not take the images.
    """

    def __init__(
        self,
        plan: StagePlan,
        backbone: nn.Module | None = None,
        *,
        aggregation: str = "frame",
        hidden: int = 64,
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
        if max_logit is not None and max_logit <= 0:
            raise Ada3DError(f"SelectionNetwork: max_logit={max_logit}; it must be positive")
        self._set_normalisation(clip_mean, clip_std, input_mean, input_std)
        self.backbone = mobilenet_v2() if backbone is None else backbone
        features = feature_size(self.backbone, self.in_channels, input_size or 112)
        self.norm = nn.BatchNorm1d(features, affine=False)
        if aggregation == "uniform":
            self.head: nn.Module = UniformHeads(
                features, plan.num_frames, plan.frame_unit, plan.num_stages
            )
        elif aggregation in ("frame", "context"):
            context = aggregation == "context"
            self.head = FrameHeads(features, plan.frame_unit, plan.num_stages, hidden, context)
        else:
            raise Ada3DError(
                f"SelectionNetwork: aggregation={aggregation!r}; try 'frame', 'context' or "
                "'uniform'"
            )
        start_at(self.head.frame_out, "frame_prob", frame_prob, max_logit)
        start_at(self.head.stage_out, "stage_prob", stage_prob, max_logit)
        if classify_by not in ("frame", "clip"):
            raise Ada3DError(f"SelectionNetwork: classify_by={classify_by!r}; try frame or clip")
        self.classify_by, self.classifier = classify_by, None
        if num_classes:
            seen = features if classify_by == "frame" else self.head.clip_size
            self.classifier = nn.Linear(seen, num_classes)

    @property
    def num_features(self) -> int:
        """D, the features that the backbone makes of a frame."""
        return self.norm.num_features

    @property
    def in_channels(self) -> int:
        """Channels of the backbone's images."""
        return 6 if self.motion else 3

    def forward(self, clips: Tensor) -> PolicyDistribution:
        """Clips [N, 3, T, H, W], normalised for the recognizer -> their policies' distribution;
        logits in float32.

        Raises:
            Ada3DError: clips of another rank, or of a length that the heads cannot serve.
        """
        return self.distribution(self.frame_features(clips))

    def frame_features(self, clips: Tensor) -> Tensor:
        """Clips [N, 3, T, H, W] -> features of every frame [N, T, D]; all frames go through the
        backbone at once."""
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
        frames = clips.transpose(1, 2).flatten(0, 1)
        size = self.input_size
        if size is not None and frames.shape[-2:] != (size, size):
            frames = F.interpolate(
                frames, (size, size), mode="bilinear", align_corners=False, antialias=True
            )
        if self.scale is not None:
            frames = frames * self.scale + self.shift
        if self.motion:
            frames = frames.unflatten(0, (n, t))
            frames = torch.cat([frames, since_before(frames)], 2).flatten(0, 1)
        # what all frames share is taken out: else policies first learn what suits the average clip
        return self.norm(pooled(self.backbone(frames))).unflatten(0, (n, t))

    def distribution(self, features: Tensor) -> PolicyDistribution:
        """Features [N, T, D] -> distribution over the policies of the clips."""
        frames, stages = (logits.float() for logits in self.head(features))
        if self.max_logit is not None:
            frames, stages = (
                self.max_logit * (logits / self.max_logit).tanh() for logits in (frames, stages)
            )
        return PolicyDistribution(frames, stages, self.frame_unit, num_frames=features.shape[1])

    def classify(self, features: Tensor) -> Tensor:
        """Features [N, T, D] -> class scores of every frame by itself [N, T, num_classes], or of
        the clip [N, 1, num_classes], see ``classify_by``.

        Pre-trains the backbone (sec. 4.1: "also pre-trained on these datasets ... to speed up
        convergence").
        """
        if self.classifier is None:
            raise Ada3DError("SelectionNetwork: classify needs num_classes=")
        if self.classify_by == "clip":
            features = self.head.clip(features)[:, None]
        return self.classifier(features)

    def _set_normalisation(self, clip_mean, clip_std, input_mean, input_std) -> None:
        given = [value is not None for value in (clip_mean, clip_std, input_mean, input_std)]
        if any(given) and not all(given):
            raise Ada3DError(
                "SelectionNetwork: give all of clip_mean, clip_std, input_mean, input_std, or none"
            )
        scale = shift = None
        if all(given):
            mean, std, own_mean, own_std = (
                torch.tensor(v, dtype=torch.float32)[:, None, None]
                for v in (clip_mean, clip_std, input_mean, input_std)
            )
            scale, shift = std / own_std, (mean - own_mean) / own_std
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)
