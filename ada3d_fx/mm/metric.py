"""PolicyCostMetric: what the policies of an evaluation cost, in the paper's columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmaction.registry import METRICS
from mmengine.evaluator import BaseMetric, DumpResults
from mmengine.fileio import dump

from .. import files
from ..errors import Ada3DError
from ..report import records


@METRICS.register_module()
class PolicyCostMetric(BaseMetric):
    """GMACs per clip, #3D and #Frame (tables 1-4), of what Ada3DRecognizer recorded.

    Every view of a video is a clip. It gives ``gmacs`` (recognizer and selection network), its
    percentiles ``gmacs_p10``, ``gmacs_p50``, ``gmacs_p90`` and ``gmacs_max``, the two parts
    ``gmacs_recognizer`` and ``gmacs_selector``, ``stages`` (#3D), ``frames`` (#Frame), ``exited``
    (the share of clips that the recognizer did not compute; they count with no frame and no stage),
    ``distinct_policies``, ``reward`` (mean of R(u) + R(v), eq. 4-5, under the tested policy; where
    there are labels) and, for each of ``kinds``, ``frames_KIND``, ``stages_KIND`` and
    ``accuracy_KIND``.

    Args:
        kinds: {name: labels}, classes to be reported apart; a video is of the kind of its label.
        out_file: write each clip's policy and price to this .json or .csv file, see
            `records.write_policies`.
        collect_device: MMEngine's.
        prefix: of the metrics' names; by default 'policy'.

    Raises:
        Ada3DError: samples without policies, or an out_file of another kind.
    """

    default_prefix = "policy"

    def __init__(
        self,
        kinds: Mapping[str, Sequence[int]] | None = None,
        out_file: str | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ):
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.kinds = {name: set(labels) for name, labels in (kinds or {}).items()}
        self.out_file = out_file
        if out_file is not None:
            records.policy_file_kind(out_file)

    def process(self, data_batch: Any, data_samples: Sequence[Mapping]) -> None:
        """Keep what was recorded of a batch's samples."""
        for sample in data_samples:
            if "policy_frames" not in sample:
                raise Ada3DError(
                    "PolicyCostMetric: the samples bear no policies; it is for models of type "
                    "Ada3DRecognizer"
                )
            label = sample.get("gt_label")
            self.results.append(
                {
                    "frames": sample["policy_frames"],
                    "stages": sample["policy_stages"],
                    "macs": sample["recognizer_macs"],
                    "selector": sample["selector_macs"],
                    "reward": sample.get("reward"),
                    "label": int(label) if label is not None and label.numel() == 1 else None,
                    "predicted": int(sample["pred_score"].argmax()),
                    "video": sample.get("filename") or sample.get("frame_dir"),
                }
            )

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Return the metrics of the whole list, and write ``out_file``."""
        if self.out_file is not None:
            records.write_policies(self.out_file, clip_records(results))
        frames = torch.cat([r["frames"] for r in results])
        stages = torch.cat([r["stages"] for r in results])
        recognizer = torch.cat([r["macs"] for r in results]).double() / 1e9
        selector = results[0]["selector"] / 1e9
        metrics = {"gmacs": recognizer.mean().item() + selector}
        for percent in (10, 50, 90, 100):
            value = torch.quantile(recognizer, percent / 100).item() + selector
            metrics["gmacs_max" if percent == 100 else f"gmacs_p{percent}"] = value
        metrics["gmacs_recognizer"] = recognizer.mean().item()
        metrics["gmacs_selector"] = selector
        metrics["stages"] = stages.sum(1).double().mean().item()
        metrics["frames"] = frames.sum(1).double().mean().item()
        metrics["exited"] = (~frames.any(1)).double().mean().item()
        both = torch.cat([frames, stages], dim=1)
        metrics["distinct_policies"] = float(len(both.unique(dim=0)))
        if all(r["reward"] is not None for r in results):
            metrics["reward"] = sum(r["reward"] for r in results) / len(results)
        for kind, labels in self.kinds.items():
            mine = [r for r in results if r["label"] in labels]
            if mine:
                right = [r["predicted"] == r["label"] for r in mine]
                metrics[f"accuracy_{kind}"] = sum(right) / len(right)
                for name in ("frames", "stages"):
                    used = torch.cat([r[name] for r in mine]).sum(1)
                    metrics[f"{name}_{kind}"] = used.double().mean().item()
        return metrics


@METRICS.register_module()
class DumpPredictions(DumpResults):
    """MMEngine's DumpResults, whose file is whole or not there.

    Args:
        out_file_path: the .pkl file.
    """

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Write the predictions."""
        with files.whole(self.out_file_path) as unfinished:
            dump(results, str(unfinished))
        return {}


def clip_records(results: Sequence[Mapping]) -> list[dict]:
    """Return a row for each clip (each view of each video), in the order of the test list."""
    return [
        {
            "video": result["video"] if result["video"] is not None else str(index),
            "view": view,
            "label": result["label"],
            "predicted": result["predicted"],
            **records.policy_words(frames, stages),
            "macs": int(macs),
            "selector_macs": int(result["selector"]),
        }
        for index, result in enumerate(results)
        for view, (frames, stages, macs) in enumerate(
            zip(result["frames"], result["stages"], result["macs"])
        )
    ]


def row_of(name: str, metrics: Mapping[str, float]) -> dict:
    """Return a row of a table out of an evaluation's metrics.

    Accuracy is in percent, and None if nothing measured it. ``tested`` and ``left_out`` count videos,
    where some do not decode.
    """
    row: dict = {"name": name, "accuracy": None}
    for key in ("acc/top1", "acc/mean_average_precision"):
        if key in metrics:
            row["accuracy"] = 100 * float(metrics[key])
    if "acc/mean1" in metrics:
        row["mean_class_accuracy"] = 100 * float(metrics["acc/mean1"])
    for key in ("tested", "left_out"):
        if f"videos/{key}" in metrics:
            row[key] = int(metrics[f"videos/{key}"])
    for key, value in metrics.items():
        if key.startswith("policy/"):
            key, value = key.removeprefix("policy/"), float(value)
            row[key] = 100 * value if key.startswith("accuracy_") else value
    return row
