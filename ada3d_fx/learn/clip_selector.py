"""Which clips of a long video to score, and when to stop (table 2).

Ada3D decides inside a clip; this decides among the clips of a video, in the spirit of AdaFrame
(Wu et al., CVPR 2019): recurrent, one clip at a time, until sure. Any other way to choose clips
composes with Ada3D as well: it needs a function that scores clips only.

Shapes: V videos of M clips, in the order of time; D numbers of a clip's preview; S steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import Ada3DError
from .losses import leave_one_out
from .reward import correctness

# (videos [B], clips [B]) -> scores [B, num_classes] of these clips, all computed as one batch
ScoreClips = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Rollout:
    """The clips that were scored, and what came of them."""

    # int [V, S]: the clip of each step, -1 after the stop.
    order: Tensor
    # [V, num_classes]: the prediction.
    probs: Tensor
    # [V]: log-probability of the choices.
    log_prob: Tensor

    @property
    def num_clips(self) -> Tensor:
        """How many clips of each video were scored, int64 [V]."""
        return (self.order >= 0).sum(1)


class ClipSelector(nn.Module):
    """Choose the next clip from a preview of all, read its scores, and stop when sure.

    A preview is what the selection network saw of a clip anyway, see `previews`. The first clip is
    always scored. The prediction is a mean of the clips' class probabilities, weighted by the
    confidence that the recurrent state gives to each.

    Args:
        preview_size: D.
        num_classes: classes of the recognizer.
        hidden: width of the recurrent state.
    """

    def __init__(self, preview_size: int, num_classes: int, hidden: int = 64):
        super().__init__()
        self.embed = nn.Sequential(nn.LayerNorm(preview_size), nn.Linear(preview_size, hidden))
        self.start = nn.Linear(hidden, hidden)
        self.cell = nn.GRUCell(hidden + 2 * num_classes + 2, hidden)
        self.query, self.key = nn.Linear(hidden, hidden), nn.Linear(hidden + 2, hidden)
        self.confidence, self.stop = nn.Linear(hidden, 1), nn.Linear(hidden, 1)

    def forward(
        self,
        preview: Tensor,
        score_clips: ScoreClips,
        max_clips: int | None = None,
        threshold: float = 0.5,
        generator: torch.Generator | None = None,
    ) -> Rollout:
        """Go through videos; at each step the clips of all that go on are one batch.

        In training mode clips and stops are sampled, else they are the most probable ones.

        Args:
            preview: [V, M, D].
            score_clips: scores the chosen clips.
            max_clips: at most so many of each video.
            threshold: stop where that is more probable than this; lower is cheaper.
            generator: of the samples.
        """
        videos, clips, _ = preview.shape
        seen = self.embed(preview)
        time = torch.linspace(0, 1, clips).to(seen)[None, :, None].expand(videos, -1, -1)
        keys = self.key(torch.cat([seen, time, (2 * torch.pi * time).sin()], 2))
        state = self.start(seen.mean(1)).tanh()
        free = torch.ones(videos, clips, dtype=torch.bool, device=seen.device)
        going = torch.ones(videos, dtype=torch.bool, device=seen.device)
        log_prob, weights = state.new_zeros(videos), state.new_zeros(videos)
        total: Tensor | None = None
        order = []
        steps = min(max_clips or clips, clips)
        for step in range(steps):
            logits = (keys @ self.query(state)[:, :, None])[:, :, 0] / keys.shape[2] ** 0.5
            place = F.log_softmax(logits.masked_fill(~free, -torch.inf), 1)
            chosen = self._choose(place, generator)
            rows = going.nonzero().flatten()
            scores = score_clips(rows, chosen[rows])
            probs = scores.new_zeros(videos, scores.shape[1])
            probs = probs.index_copy(0, rows, scores.softmax(1))
            if total is None:
                total = so_far = torch.zeros_like(probs)
            else:
                so_far = total / weights[:, None].clamp(min=1e-6)
            progress = state.new_full((videos, 2), step / clips)
            progress[:, 1] = probs.amax(1)
            read = [seen[torch.arange(videos), chosen], probs, so_far, progress]
            state = torch.where(going[:, None], self.cell(torch.cat(read, 1), state), state)
            weight = torch.where(going, self.confidence(state)[:, 0].exp(), 0.0)
            total, weights = total + weight[:, None] * probs, weights + weight
            log_prob = log_prob + going * place.gather(1, chosen[:, None])[:, 0]
            order.append(torch.where(going, chosen, -1))
            free = free.scatter(1, chosen[:, None], False)
            if step + 1 == steps:
                break
            stop = self.stop(state)[:, 0]
            stops = self._stops(stop, threshold, generator)
            log_prob = log_prob + going * torch.where(
                stops, F.logsigmoid(stop), F.logsigmoid(-stop)
            )
            going = going & ~stops
            if not going.any():
                break
        assert total is not None
        return Rollout(torch.stack(order, 1), total / weights[:, None], log_prob)

    def _choose(self, place: Tensor, generator: torch.Generator | None) -> Tensor:
        if self.training:
            return torch.multinomial(place.exp(), 1, generator=generator)[:, 0]
        return place.argmax(1)

    def _stops(self, stop: Tensor, threshold: float, generator: torch.Generator | None) -> Tensor:
        if self.training:
            return torch.rand(stop.shape, generator=generator, device=stop.device) < stop.sigmoid()
        return stop.sigmoid() > threshold


def previews(features: Tensor) -> Tensor:
    """Return what is known of each clip from the selection network's features of its frames.

    Args:
        features: [N, T, D].

    Returns:
        [N, 2 D]: their mean, and how much they change.
    """
    change = features.diff(dim=1).abs().mean(1) if features.shape[1] > 1 else 0 * features[:, 0]
    return torch.cat([features.mean(1), change], 1)


def clip_loss(
    selector: ClipSelector,
    preview: Tensor,
    scores: Tensor,
    labels: Tensor,
    cost: float,
    samples: int = 4,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """Return the loss of one batch whose clips' scores are known, and values to log.

    Cross-entropy of the predictions, and REINFORCE with a leave-one-out baseline for the choices:
    the reward is 1 where the prediction is right, less ``cost`` times the share of clips scored.

    Args:
        selector: what learns.
        preview: [V, M, D].
        scores: [V, M, num_classes].
        labels: int [V].
        cost: of scoring all clips.
        samples: rollouts of each video.
        generator: of the samples.

    Raises:
        Ada3DError: fewer than 2 samples.
    """
    if samples < 2:
        raise Ada3DError(f"clip_loss: samples={samples}; the leave-one-out baseline needs 2")
    video_index = torch.arange(len(preview), device=preview.device).repeat_interleave(samples)
    rollout = selector(
        preview[video_index],
        lambda rows, clips: scores[video_index[rows], clips],
        generator=generator,
    )
    sample_labels = labels[video_index]
    right = correctness(rollout.probs.detach(), sample_labels)
    used = rollout.num_clips / preview.shape[1]
    rewards = (right - cost * used).unflatten(0, (-1, samples))
    loss = F.nll_loss(rollout.probs.clamp(min=1e-8).log(), sample_labels)
    loss = loss - (leave_one_out(rewards).flatten() * rollout.log_prob).mean()
    return loss, {"correct": right.mean().item(), "clips": rollout.num_clips.float().mean().item()}
