"""Why policies do not learn, and how learned ones have collapsed."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..policy import Policy

# A share of the clips, see `collapse`.
NEARLY_ALL = 0.9
# Of an epoch's mean log values, see `stalled`.
SATURATED, NO_ADVANTAGE = 0.98, 1e-3


def stalled(means: Mapping[str, float]) -> list[str]:
    """Say why policies will not learn, by an epoch's mean log values.

    Args:
        means: 'distinct_policies', 'correct' and 'advantage', those of them that were logged.

    Returns:
        A message for each reason.
    """
    messages = []
    if means.get("distinct_policies", 2) <= 1:
        messages.append(
            "all clips of each batch had one greedy policy throughout this epoch; a warm-up, a "
            "pre-trained selector or another learning rate may help"
        )
    if means.get("correct", 0) > SATURATED:
        messages.append(
            f"rewards saturate: {100 * means['correct']:.1f} % of the sampled policies are right, "
            "so little but the cost is left to learn from; does the recognizer know its training "
            "clips by heart? Stronger augmentation, or other clips than it was trained on, may help"
        )
    if means.get("advantage", 1) < NO_ADVANTAGE:
        messages.append(
            "the samples of each clip earn the same reward, so nothing is learned; more samples, "
            "bounded logits (max_logit) or an entropy bonus may help"
        )
    return messages


def collapse(frames: Tensor, stages: Tensor, unit: int | None = 1) -> list[str]:
    """Say what is wrong with greedy policies as a whole.

    Args:
        frames: bool [N, T].
        stages: bool [N, K].
        unit: as many frames are kept or dropped together; None where none can be dropped.

    Returns:
        A message for each way in which they have collapsed.
    """
    messages = []
    if len(frames) > 1 and Policy(frames, stages).num_distinct == 1:
        messages.append("collapsed to one pattern for all clips; nothing depends on the clip")
    full = (frames.all(1) & stages.all(1)).double().mean().item()
    if full >= NEARLY_ALL:
        messages.append(
            f"everything is kept of {100 * full:.0f} % of the clips; next to nothing is saved "
            "(is gamma too high?)"
        )
    if unit is not None and frames.shape[1] > unit:
        least = (frames.sum(1) == unit).double().mean().item()
        if least >= NEARLY_ALL:
            kept = "one frame" if unit == 1 else f"one unit of {unit} frames"
            messages.append(
                f"{kept} is kept of {100 * least:.0f} % of the clips (is gamma too low?)"
            )
    return messages
