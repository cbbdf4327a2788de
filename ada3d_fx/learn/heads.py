"""Heads of the selection network: features of a clip's frames -> logits of its policy."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..errors import Ada3DError


class UniformHeads(nn.Module):
    """The paper's aggregation: the mean over all frames decides everything; features [N, T, D] ->
    [N, T/g], [N, K]."""

    def __init__(self, features: int, num_frames: int, unit: int | None, stages: int):
        super().__init__()
        self.num_frames, self.clip_size = num_frames, features
        self.frame_out = _linear(features, 0 if unit is None else num_frames // unit)
        self.stage_out = _linear(features, stages)

    def clip(self, features: Tensor) -> Tensor:
        """Features [N, T, D] -> what decides about the clip [N, clip_size]."""
        return features.mean(1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.clip(features)
        if features.shape[1] != self.num_frames:
            raise Ada3DError(
                f"aggregation 'uniform' was built for clips of {self.num_frames} frames, not of "
                f"{features.shape[1]}; try aggregation='frame', which serves any length"
            )
        return self.frame_out(mean), self.stage_out(mean)


class FrameHeads(nn.Module):
    """One logit per frame unit from the unit in its clip's context; features [N, T, D] -> [N, T/g],
    [N, K]. ``context``: the units see what the stages are judged by, instead of the mean."""

    TIME = 8  # numbers of the sinusoidal time position

    def __init__(
        self, features: int, unit: int | None, stages: int, hidden: int, context: bool = False
    ):
        super().__init__()
        self.unit, self.context, self.clip_size = unit, context, hidden
        self.embed = nn.Sequential(nn.Linear(features, hidden), nn.ReLU())
        self.frame_hidden = nn.Sequential(nn.Linear(4 * hidden + self.TIME, hidden), nn.ReLU())
        self.frame_out = _linear(hidden, 0 if unit is None else 1)
        self.stage_hidden = nn.Sequential(nn.Linear(3 * hidden, hidden), nn.ReLU())
        self.stage_out = _linear(hidden, stages)

    def clip(self, features: Tensor) -> Tensor:
        """Features [N, T, D] -> what decides about the clip [N, clip_size]: from its mean and how
        much it changes."""
        return self._clip(self.embed(features))

    def _clip(self, x: Tensor) -> Tensor:
        steps = x.diff(dim=1).abs() if x.shape[1] > 1 else torch.zeros_like(x)
        return self.stage_hidden(torch.cat([x.mean(1), steps.mean(1), steps.amax(1)], 1))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        x = self.embed(features)
        clip = self._clip(x)
        stages = self.stage_out(clip)
        if self.unit is None:
            return stages.new_zeros(len(x), 0), stages
        units = x.unflatten(1, (-1, self.unit)).mean(2)
        before = since_before(units)
        after = torch.cat([units[:, 1:], units[:, -1:]], 1) - units
        time = _time_position(units.shape[1], self.TIME).to(units).expand(len(units), -1, -1)
        shared = (clip if self.context else x.mean(1))[:, None].expand_as(units)
        context = torch.cat([units, shared, before, after, time], 2)
        return self.frame_out(self.frame_hidden(context)).squeeze(2), stages


def since_before(x: Tensor) -> Tensor:
    """[N, T, ...]: each of T less the one before; the first has none and is 0."""
    return x - torch.cat([x[:, :1], x[:, :-1]], 1)


def _linear(before: int, after: int) -> nn.Module:
    """Linear, and nothing at all where there is nothing to decide."""
    return nn.Linear(before, after) if after else _NoDecisions()


class _NoDecisions(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[..., :0]


def start_at(layer: nn.Module, name: str, probability: float, max_logit: float | None) -> None:
    """Small weights and the bias that gives this probability: every clip starts with nearly the
    same policy."""
    if not 0 < probability < 1:
        raise Ada3DError(f"SelectionNetwork: {name}={probability} is not between 0 and 1")
    logit = math.log(probability / (1 - probability))
    if max_logit is not None:
        if abs(logit) >= max_logit:
            raise Ada3DError(
                f"SelectionNetwork: {name}={probability} is a logit of {logit:.2f}, beyond "
                f"max_logit={max_logit}"
            )
        logit = max_logit * math.atanh(logit / max_logit)
    if isinstance(layer, nn.Linear):
        nn.init.normal_(layer.weight, std=0.01)
        nn.init.constant_(layer.bias, logit)


def _time_position(length: int, size: int) -> Tensor:
    """[length, size]: sines and cosines of the relative time (0 to 1) of each frame unit."""
    time = (torch.arange(length, dtype=torch.float32) + 0.5) / length
    angles = time[:, None] * math.pi * 2.0 ** torch.arange(size // 2)
    return torch.cat([angles.sin(), angles.cos()], 1)
