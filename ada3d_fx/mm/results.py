"""What came of videos: clips gathered to batches, scores to videos, and these to rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmaction.structures import ActionDataSample
from torch import Tensor

from ..report import policy_pictures, records
from ..videos.streaming import DecodedVideo


@dataclass
class VideoResult:
    """What came of one video, clip by clip."""

    video: DecodedVideo
    missing: int  # clips that have not been scored
    scores: list[Tensor] = field(default_factory=list)  # of each clip, [classes]
    frames: list[Tensor] = field(default_factory=list)  # of each clip, bool [T]
    stages: list[Tensor] = field(default_factory=list)  # of each clip, bool [K]
    macs: list[int] = field(default_factory=list)  # of each clip, the recognizer's
    selector_macs: int = 0  # of each clip
    prepare: float = 0.0  # seconds, of a batch the share of this video's clips; so the next ones
    select: float = 0.0
    recognise: float = 0.0

    @property
    def score(self) -> Tensor:
        """Class scores [classes]: the mean over the clips."""
        return torch.stack(self.scores).mean(0)


# ----------------------------------------------------------------------------------- clips


def batches(
    videos: Iterable[DecodedVideo], size: int
) -> Iterator[list[tuple[VideoResult, Tensor | None]]]:
    """Fill batches with the clips of videos, of one video and the next, as long as they have one shape.

    Args:
        videos: as they come.
        size: clips of a batch.

    Yields:
        Clips [C, T, H, W] in the order of the videos, each with its video's result; a video that does
        not decode stands among them once, without a clip.
    """
    batch: list[tuple[VideoResult, Tensor | None]] = []
    count, shape = 0, None
    for video in videos:
        clips = [None] if video.clips is None else list(video.clips)
        result = VideoResult(video, 0 if video.clips is None else len(clips))
        for clip in clips:
            if clip is not None and count and clip.shape != shape:
                yield batch
                batch, count = [], 0
            batch.append((result, clip))
            if clip is not None:
                count, shape = count + 1, clip.shape
            if count == size or len(batch) == 2 * size:  # of which many are broken
                yield batch
                batch, count = [], 0
    if batch:
        yield batch


# ------------------------------------------------------------------------------------ rows

# The columns of a row, and what they say.
COLUMNS = {
    "index": "place in the input, from 0",
    "video": "its path",
    "label": "what the list says, where it does",
    "predicted": "the class with the highest score",
    "class": "its name, where the config has a class_file",
    "score": "its score, averaged over the clips as the head's average_clips says",
    "frames": "each clip's frames, 1 is kept",
    "stages": "each clip's stages, 1 is 3D",
    "num_frames": "kept frames per clip",
    "num_stages": "3D stages per clip",
    "clips": "clips of the video",
    "gmacs": "GMACs of the video: all clips, recognizer and selection network",
    "gmacs_selector": "those of the selection network",
    "decode_ms": "milliseconds to read, decode, resize and normalise the video's clips",
    "select_ms": "milliseconds to decide, of a batch the clips' share",
    "recognise_ms": "milliseconds of the recognizer, likewise",
    "error": "why the video does not decode",
}
TEXTS = ("video", "class", "frames", "stages", "error")


def row_of(result: VideoResult, names: Mapping[int, str]) -> dict[str, Any]:
    """Return the row of a video: a value, or None, for each of `COLUMNS`.

    Args:
        result: complete.
        names: of the classes.
    """
    decoded_, listed = result.video, result.video.video
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {"index": decoded_.index, "video": listed.path}
    row["decode_ms"] = _ms(decoded_.decode + result.prepare)
    if listed.labels:
        row["label"] = listed.labels[0] if len(listed.labels) == 1 else list(listed.labels)
    if decoded_.broken is not None:
        return {**row, "error": decoded_.broken.why}
    score, clips = result.score, len(result.scores)
    if not score.isfinite().all():
        return {**row, "error": "the model's scores are not finite numbers"}
    best = int(score.argmax())
    row |= {"predicted": best, "class": names.get(best), "score": float(score[best])}
    if result.frames:
        words = [records.policy_words(*both) for both in zip(result.frames, result.stages)]
        row |= {name: " ".join(word[name] for word in words) for name in ("frames", "stages")}
        row |= {
            name: sum(word[name] for word in words) / clips for name in ("num_frames", "num_stages")
        }
    selector = clips * result.selector_macs
    row |= {"clips": clips, "gmacs": (sum(result.macs) + selector) / 1e9}
    row |= {"gmacs_selector": selector / 1e9}
    return row | {"select_ms": _ms(result.select), "recognise_ms": _ms(result.recognise)}


def scores_of(result: VideoResult) -> dict[str, list]:
    """Return label and scores of all classes as MMAction2's inferencer does."""
    if not result.scores:
        return {"rec_labels": [], "rec_scores": []}
    score = result.score
    return {"rec_labels": [[int(score.argmax())]], "rec_scores": [score.tolist()]}


def data_sample(result: VideoResult) -> ActionDataSample:
    """Return the sample of a video, with the fields that Ada3DRecognizer gives it."""
    sample = ActionDataSample(metainfo={"filename": result.video.video.path})
    if result.video.broken is not None:
        sample.set_metainfo({"error": result.video.broken.why})
        return sample
    sample.set_pred_score(result.score)
    sample.set_pred_label(int(result.score.argmax()))
    if result.frames:
        sample.set_field(torch.stack(result.frames), "policy_frames")
        sample.set_field(torch.stack(result.stages), "policy_stages")
    sample.set_field(torch.tensor(result.macs), "recognizer_macs")
    sample.set_field(result.selector_macs, "selector_macs")
    return sample


def examples_of(
    result: VideoResult, stage_names: Sequence[str], names: Mapping[int, str]
) -> list[policy_pictures.Example]:
    """Return the lines of a video's picture, one for each clip; none where it does not decode."""
    clips = result.video.clips
    if clips is None:
        return []
    best = int(result.score.argmax())
    full = torch.ones(clips.shape[2], dtype=torch.bool), torch.ones(0, dtype=torch.bool)
    policies = zip(result.frames, result.stages) if result.frames else [full] * len(clips)
    return [
        policy_pictures.Example(
            policy_pictures.pixels(clip), frames, stages, stage_names,
            Path(result.video.video.path).name, names.get(best, str(best)),
            (macs + result.selector_macs) / 1e9,
        )
        for clip, (frames, stages), macs in zip(clips, policies, result.macs)
    ]  # fmt: skip


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 3)
