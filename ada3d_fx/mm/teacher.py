"""The plain recognizer whose scores Ada3D's recognizer learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..convert import convert
from ..errors import Ada3DError
from .build import build_recognizer
from .checkpoint import initial_weights


class Teacher:
    """The plain recognizer whose scores Ada3D's recognizer learns (Hinton et al., 2015).

    It is no module: it has no place among the weights of its pupil.

    Args:
        config: the plain recognizer's `model`.
        checkpoint: its weights.
        clip_shape: (C, T, H, W).
        temperature: by which scores are divided first; `TrainingOptions` checks it.
    """

    def __init__(
        self,
        config: Mapping,
        checkpoint: str | Path | None,
        clip_shape: Sequence[int],
        temperature: float,
    ):
        self.config, self.checkpoint = config, checkpoint
        self.clip_shape, self.temperature = tuple(clip_shape), temperature
        self._network: nn.Module | None = None

    @torch.no_grad()
    def scores(self, clips: Tensor) -> Tensor:
        """Return the scores on all frames of clips [N, C, T, H, W], float32 [N, num_classes].

        Raises:
            Ada3DError: there is no checkpoint to learn from.
        """
        if self._network is None:
            if self.checkpoint is None:
                raise Ada3DError(
                    "training: distill needs recognizer_checkpoint=, the recognizer to learn from"
                )
            with torch.random.fork_rng():  # a resumed run draws the numbers of an unbroken one
                plain = build_recognizer(self.config)
                plain.load_state_dict(initial_weights(self.config, self.checkpoint))
                self._network = convert(plain, clip_shape=self.clip_shape).eval()
        return self._network.to(clips.device)(clips).float()

    def loss(
        self,
        scores: Tensor,
        clips: Tensor,
        multi_label: bool = False,
        clip_index: Tensor | None = None,
    ) -> Tensor:
        """Return the divergence of scores from the plain recognizer's, both softened.

        It is multiplied by the temperature's square, so that its gradient does not depend on it much.

        Args:
            scores: [M, num_classes].
            clips: [N, C, T, H, W].
            multi_label: classes are independent.
            clip_index: the clip of each row, int [M]; None: one row each.

        Returns:
            A scalar.
        """
        rows = slice(None) if clip_index is None else clip_index
        theirs, ours = self.scores(clips)[rows] / self.temperature, scores / self.temperature
        if multi_label:
            loss = F.binary_cross_entropy_with_logits(ours, theirs.sigmoid())
        else:
            loss = F.kl_div(ours.log_softmax(1), theirs.softmax(1), reduction="batchmean")
        return self.temperature**2 * loss
