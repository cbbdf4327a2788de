"""What an exported file says of its network, and of the packages that made it."""

from __future__ import annotations

import platform
from dataclasses import replace
from importlib import metadata

import torch

from ..convert import AdaptiveNetwork
from ..cost.price import price_table
from ..cost.selector import selector_price
from ..learn.selector import SelectionNetwork
from ..runtime.contract import FORMAT, Description


def describe(
    adaptive: AdaptiveNetwork,
    selector: SelectionNetwork | None,
    greedy: str,
    threshold: float,
    predict_with: str,
) -> Description:
    """Describe a network, without what was found of its file.

    Args:
        adaptive: float32 on the CPU.
        selector: its selection network, inside the file.
        greedy: how it keeps frames.
        threshold: of its probabilities.
        predict_with: 'recognizer' or 'both'.
    """
    plan = adaptive.plan
    table = price_table(adaptive).complete()
    with torch.no_grad():
        classes = adaptive(torch.zeros(1, *plan.clip_shape)).shape[1]
    described = Description(
        format=FORMAT,
        clip_shape=plan.clip_shape,
        stages=tuple(stage.name for stage in plan.stages),
        frame_unit=plan.frame_unit,
        num_classes=classes,
        base_macs=tuple(table.base.tolist()),
        stage_macs=tuple(map(tuple, table.stages.tolist())),
    )
    if selector is None:
        return described
    macs = selector_price(selector, plan.clip_shape, classify=predict_with == "both")
    return replace(
        described, selects=True, greedy=greedy, threshold=threshold,
        predict_with=predict_with, selector_macs=macs,
    )  # fmt: skip


def versions(kind: str, int8: bool) -> dict[str, str]:
    """Return the versions of what takes part in writing a file: package -> version.

    Args:
        kind: of the file: 'onnx', 'openvino' or 'torch'.
        int8: whether it is quantised.
    """
    names = ["ada3d_fx", "torch", *{"onnx": ["onnx", "onnxruntime"],
                                    "openvino": ["onnx", "openvino"]}.get(kind, []),
             *(["nncf"] if int8 else [])]  # fmt: skip
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # a checkout that was not installed
            found[name] = "unknown"
    return found
