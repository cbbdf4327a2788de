"""What an exported file holds beside its graph, and the names of the graph's inputs and outputs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from ..errors import Ada3DError

FORMAT = 1  # raised when the graph's inputs, outputs or description change their meaning
KEY = "ada3d_fx"  # of the description in the file's metadata

# Inputs of the graph. A file of a fixed policy has the first only, one without a selection network
# the first three.
CLIPS = "clips"  # float32 [N, C, T, H, W], normalised as the recognizer wants them
FRAMES = "frames"  # bool [N, T], u of eq. 2; [0, T]: the selection network decides
STAGES = "stages"  # bool [N, K], v of eq. 3; [0, K]: the selection network decides
THRESHOLD = "threshold"  # float32 [], what the greedy policy's probabilities must exceed
SCORE = "score"  # bool [], False: decide only; the scores are not those of the recognizer then
EXIT = "exit"  # float32 [], in files that predict with both: the confidence that a clip must exceed
# to exit, 1: none does. A clip that exits has no frame; so has one of a given policy that shall exit.

# Outputs of the graph. A file of a fixed policy, or without a selection network, has the scores only.
SCORES = "scores"  # float32 [N, classes]
CHOSEN_FRAMES = "chosen_frames"  # bool [N, T], the policy that was executed
CHOSEN_STAGES = "chosen_stages"  # bool [N, K]


@dataclass(frozen=True)
class Description:
    """What a file says of its network."""

    format: int
    clip_shape: tuple[int, int, int, int]  # (C, T, H, W)
    stages: tuple[str, ...]  # names, in the order of the policy's stages
    frame_unit: int | None  # frames are kept in whole units of it; None: all are kept
    num_classes: int
    # the one policy of a specialised network, as (number of frames, stages); None: it is an input
    fixed: tuple[int, tuple[bool, ...]] | None = None
    selects: bool = False  # the selection network is inside
    greedy: str = "threshold"  # how it keeps frames, see `PolicyDistribution.mode`
    threshold: float = 0.5  # where none is given
    predict_with: str = "recognizer"  # or 'both'
    exit: float | None = None  # the confidence that a clip must exceed to exit, where none is given
    precision: str = "float32"  # of the recognizer; or 'int8'
    # multiply-adds of a clip by kept frames, all stages 2D [T + 1], what each stage adds
    # [T + 1][K], and those of the selection network
    base_macs: tuple[int, ...] = ()
    stage_macs: tuple[tuple[int, ...], ...] = ()
    selector_macs: int = 0
    classes: tuple[str, ...] | None = None  # names, by label
    preprocessing: Mapping[str, Any] = field(default_factory=dict)  # of the recognizer's clips
    versions: Mapping[str, str] = field(default_factory=dict)  # of what made the file
    parity: Mapping[str, Any] = field(default_factory=dict)  # what the check at export found

    @property
    def num_frames(self) -> int:
        """T, the frames of the clips that it takes."""
        return self.clip_shape[1] if self.fixed is None else self.fixed[0]

    @property
    def executed_shape(self) -> tuple[int, int, int, int]:
        """(C, T, H, W) of the clips that it takes."""
        return (self.clip_shape[0], self.num_frames, *self.clip_shape[2:])

    def to_json(self) -> str:
        """Write it as one line."""
        return json.dumps(asdict(self), sort_keys=True)

    def price(self, frames: np.ndarray, stages: np.ndarray) -> np.ndarray:
        """Look up the recognizer's multiply-adds under a policy, as `ada3d_fx.price` counts them.

        Args:
            frames: bool [N, T].
            stages: bool [N, K].

        Returns:
            int64 [N].
        """
        kept = frames.sum(1)
        each = np.array(self.stage_macs, dtype=np.int64).reshape(len(self.base_macs), -1)
        return np.array(self.base_macs, dtype=np.int64)[kept] + (each[kept] * stages).sum(1)


def read_description(text: str | None, where: str) -> Description:
    """Read what a file says of its network.

    Args:
        text: from the file's metadata; None where there is nothing.
        where: the file, for messages.

    Raises:
        Ada3DError: no description, a damaged one, or one of another format.
    """
    if not text:
        raise Ada3DError(
            f"{where}: it does not say what it is; Session reads what tools/export.py writes"
        )
    try:
        held = dict(json.loads(text))
        number = held["format"]
    except (ValueError, TypeError, KeyError) as error:
        raise Ada3DError(
            f"{where}: its description is damaged ({error}); export it again"
        ) from error
    if number != FORMAT:
        made_by = dict(held.get("versions") or {}).get("ada3d_fx", "of another version")
        raise Ada3DError(
            f"{where}: it is of format {number}, made by ada3d_fx {made_by}; this one reads format "
            f"{FORMAT}. Export it again with this version, or read it with that one"
        )
    known = {one.name for one in fields(Description)}
    try:
        return Description(**{key: _tuples(held[key]) for key in held if key in known})
    except TypeError as error:
        raise Ada3DError(
            f"{where}: its description is damaged ({error}); export it again"
        ) from error


def _tuples(value: Any) -> Any:
    return tuple(_tuples(one) for one in value) if isinstance(value, list) else value


def check_clips(clips: Any, description: Description) -> np.ndarray:
    """Return clips as float32 [N, C, T, H, W], contiguous.

    Raises:
        Ada3DError: no floating array, or another shape than the network's.
    """
    array = np.asarray(clips)
    wanted = description.executed_shape
    if array.ndim != 5 or array.shape[1:] != wanted or not len(array):
        hint = (
            "fold the views into the batch" if array.ndim == 6 else "export for the shape of yours"
        )
        raise Ada3DError(
            f"Session: clips have shape {list(array.shape)}, expected [N, {', '.join(map(str, wanted))}]"
            f"; {hint}"
        )
    if not np.issubdtype(array.dtype, np.floating):
        raise Ada3DError(
            f"Session: clips have dtype {array.dtype}, expected normalised floating values"
        )
    return np.ascontiguousarray(array, dtype=np.float32)


def check_policy(policy: Any, n: int, description: Description) -> tuple[np.ndarray, np.ndarray]:
    """Return a policy's frames, bool [N, T], and stages, bool [N, K].

    Args:
        policy: with ``frames`` and ``stages``, such as `ada3d_fx.Policy`, or a pair of them.
        n: N.
        description: of the network.

    Raises:
        Ada3DError: another shape or type, a clip without a frame, or frames not in whole units.
    """
    if description.fixed is not None:
        raise Ada3DError("Session: this file is of one fixed policy; it takes none")
    pair = (policy.frames, policy.stages) if hasattr(policy, "frames") else policy
    if not isinstance(pair, Sequence) or len(pair) != 2:
        raise Ada3DError(
            f"Session: policy is a {type(policy).__name__}; expected frames and stages, bool [N, T] "
            "and [N, K]"
        )
    frames, stages = (np.asarray(part) for part in pair)
    sizes = ((n, description.num_frames), (n, len(description.stages)))
    for name, part, size in zip(("frames", "stages"), (frames, stages), sizes):
        if part.dtype != np.bool_ or part.shape != size:
            raise Ada3DError(
                f"Session: policy's {name} are {part.dtype} {list(part.shape)}, expected bool {list(size)}"
            )
    empty = np.flatnonzero(~frames.any(1)).tolist()
    if empty and description.predict_with != "both":  # else these clips exit
        raise Ada3DError(f"Session: every clip must keep a frame; clips {empty[:8]} keep none")
    unit = description.frame_unit or description.num_frames
    units = frames.reshape(n, -1, unit)
    if not np.array_equal(units.any(2), units.all(2)):
        raise Ada3DError(f"Session: frames must be kept in whole units of {unit} frames")
    return frames, stages
