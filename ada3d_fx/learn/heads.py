"""Heads of the selection network: features of a clip's frames -> logits of its policy (eq. 1).

Shapes: N clips, T frames in T/g units of g, K stages, D features of a frame.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..errors import Ada3DError
from ..plan import StagePlan


class SelectionHead(nn.Module):
    """What the heads share; one of your own implements ``clip`` and ``forward``.

    It ends in ``frame_out`` and ``stage_out``, the layers that give the logits; `output_layer` makes
    them. MMEngine builds a registered head with ``features`` and ``plan`` beside its own options.

    Args:
        features: D.
        plan: gives T, g and K.
        clip_size: numbers that ``clip`` gives of a clip.
    """

    frame_out: nn.Module
    stage_out: nn.Module

    def __init__(self, features: int, plan: StagePlan, clip_size: int):
        super().__init__()
        self.features, self.clip_size = features, clip_size
        self.frame_unit, self.num_units = plan.frame_unit, plan.num_units
        self.num_frames, self.num_stages = plan.num_frames, plan.num_stages

    def clip(self, features: Tensor) -> Tensor:
        """Return what decides about a clip as a whole: [N, T, D] -> [N, clip_size]."""
        raise NotImplementedError

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of frame units and stages: [N, T, D] -> [N, T/g] and [N, K].

        The first is [N, 0] where frames cannot be dropped.
        """
        raise NotImplementedError

    def start_at(self, frame_logit: float, stage_logit: float) -> None:
        """Make every clip start with nearly the same policy: small weights, and these biases."""
        for layer, logit in ((self.frame_out, frame_logit), (self.stage_out, stage_logit)):
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.constant_(layer.bias, logit)


class MeanHead(SelectionHead):
    """The paper's head: the mean over all frames decides everything; clips of T frames only.

    Args:
        features: D.
        plan: gives T, g and K.
    """

    def __init__(self, features: int, plan: StagePlan):
        super().__init__(features, plan, clip_size=features)
        self.frame_out = output_layer(features, self.num_units)
        self.stage_out = output_layer(features, self.num_stages)

    def clip(self, features: Tensor) -> Tensor:
        """Return the mean over the frames: [N, T, D] -> [N, D]."""
        return features.mean(1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of frame units and stages: [N, T, D] -> [N, T/g] and [N, K].

        Raises:
            Ada3DError: clips of another length than T.
        """
        mean = self.clip(features)
        if features.shape[1] != self.num_frames:
            raise Ada3DError(
                f"MeanHead was built for clips of {self.num_frames} frames, not of "
                f"{features.shape[1]}; try head=dict(type='FrameHead'), which serves any length"
            )
        return self.frame_out(mean), self.stage_out(mean)


class FrameHead(SelectionHead):
    """One logit for each frame unit from the unit in its clip's context; clips of any length.

    A unit is judged by its own features, the clip's mean, the differences to its neighbours and its
    relative time; the stages by the clip's mean and how much it changes.

    Args:
        features: D.
        plan: gives T, g and K.
        hidden: width of the hidden layers.
        context: the units see what the stages are judged by, in place of the mean.
    """

    TIME = 8  # numbers of the sinusoidal time position

    def __init__(self, features: int, plan: StagePlan, hidden: int = 64, context: bool = False):
        super().__init__(features, plan, clip_size=hidden)
        self.context = context
        self.embed = nn.Sequential(nn.Linear(features, hidden), nn.ReLU())
        self.frame_hidden = nn.Sequential(nn.Linear(4 * hidden + self.TIME, hidden), nn.ReLU())
        self.frame_out = output_layer(hidden, 0 if self.frame_unit is None else 1)
        self.stage_hidden = nn.Sequential(nn.Linear(3 * hidden, hidden), nn.ReLU())
        self.stage_out = output_layer(hidden, self.num_stages)

    def clip(self, features: Tensor) -> Tensor:
        """Return what the clip's mean and its changes give: [N, T, D] -> [N, hidden]."""
        return self._clip(self.embed(features))

    def _clip(self, x: Tensor) -> Tensor:
        steps = (x[:, 1:] - x[:, :-1]).abs() if x.shape[1] > 1 else torch.zeros_like(x)
        return self.stage_hidden(torch.cat([x.mean(1), steps.mean(1), steps.amax(1)], 1))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of frame units and stages: [N, T, D] -> [N, T/g] and [N, K]."""
        x = self.embed(features)
        clip = self._clip(x)
        stages = self.stage_out(clip)
        if self.frame_unit is None:
            return stages.new_zeros(x.shape[0], 0), stages
        units = x.unflatten(1, (-1, self.frame_unit)).mean(2)
        before = since_before(units)
        after = torch.cat([units[:, 1:], units[:, -1:]], 1) - units
        time = _time_position(units.shape[1], self.TIME).to(units).expand(units.shape[0], -1, -1)
        shared = (clip if self.context else x.mean(1))[:, None].expand_as(units)
        context = torch.cat([units, shared, before, after, time], 2)
        return self.frame_out(self.frame_hidden(context)).squeeze(2), stages


def since_before(x: Tensor) -> Tensor:
    """Subtract from each frame the one before it, [N, T, ...]; the first has none and gives 0."""
    return x - torch.cat([x[:, :1], x[:, :-1]], 1)


def output_layer(features: int, decisions: int) -> nn.Module:
    """Return a linear layer, or where there is nothing to decide a layer without outputs."""
    return nn.Linear(features, decisions) if decisions else _NoDecisions()


class _NoDecisions(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[..., :0]


def _time_position(length: int, size: int) -> Tensor:
    """Return sines and cosines of the relative time (0 to 1) of each frame unit, [length, size]."""
    time = (torch.arange(length, dtype=torch.float32) + 0.5) / length
    angles = time[:, None] * math.pi * 2.0 ** torch.arange(size // 2)
    return torch.cat([angles.sin(), angles.cos()], 1)
