"""export: an adaptive network, or one fixed policy of it, as a file for an engine."""

from __future__ import annotations

import copy
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import files, requirements
from .convert import AdaptiveNetwork
from .cost.price import price_table
from .cost.selector import selector_price
from .errors import Ada3DError, require_number
from .exporting.decider import Decider
from .exporting.graph import GraphWriter, fixed_graph
from .exporting.parity import Parity, check_adaptive, check_fixed
from .exporting.writers import OnnxFile, OpenVinoFile
from .learn.selector import SelectionNetwork
from .runtime.contract import FORMAT, KEY, Description
from .runtime.session import Session
from .specialize import specialize

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}


def export(
    adaptive: AdaptiveNetwork,
    path: str | Path,
    selector: SelectionNetwork | None = None,
    *,
    fixed: tuple[int, Sequence[int | bool]] | None = None,
    greedy: str = "threshold",
    threshold: float = 0.5,
    predict_with: str = "recognizer",
    exit: float | None = None,
    classes: Sequence[str] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
) -> Description:
    """Write a network to a file that `Session` runs, after checking that it computes the same.

    The file is written when the check has passed; else none is there, or the old one still is.

    Args:
        adaptive: the network; it is not changed.
        path: ends with .onnx (ONNX Runtime, OpenVINO and others), .xml (OpenVINO, with a .bin
            beside it), or for a fixed policy .pt2 (`torch.export.load`).
        selector: its selection network, which then is inside.
        fixed: one policy, as number of frames and K stages: a plain network for such clips.
        greedy: how the selection network keeps frames, see `PolicyDistribution.mode`.
        threshold: its probabilities must exceed it, where a call gives no other.
        predict_with: 'recognizer', or 'both': the class scores of the selection network are added.
        exit: with 'both', the confidence that a clip must exceed to exit, see `exits`; None: none
            does, unless a call gives one.
        classes: names of the classes, by label.
        preprocessing: what is done to pixels before, as the file shall tell it; JSON values.

    Returns:
        What the file says of itself, with what the check found.

    Raises:
        Ada3DError: an unknown ending, options that do not fit, an operation that the format has not,
            a package that is missing, or results that differ.
        OSError: the file cannot be written.
    """
    path = Path(path)
    kind = next((k for k, suffix in SUFFIXES.items() if path.suffix == suffix), None)
    if kind is None:
        raise Ada3DError(f"export: {path}: a file ends with {', '.join(SUFFIXES.values())}")
    _check_options(kind, selector, fixed, predict_with, threshold, exit)
    files.check(path)
    for package in {"onnx": ("onnx", "onnxruntime"), "openvino": ("onnx", "openvino")}.get(
        kind, ()
    ):
        requirements.module(package, f"export to {path.suffix}")
    adaptive = _plain_floats(adaptive)
    description = _describe(adaptive, selector, greedy, threshold, predict_with)
    description = replace(
        description,
        exit=exit,
        classes=None if classes is None else tuple(classes),
        preprocessing=dict(preprocessing or {}),
        versions=_versions(kind),
    )
    if fixed is not None:
        return _export_fixed(adaptive, path, kind, fixed, description)
    classifies = predict_with == "both"
    decider = None
    if selector is not None:
        selector = copy.deepcopy(selector).cpu().float().eval()
        decider = Decider(selector, adaptive.plan, greedy, classifies)
    model = GraphWriter(adaptive, decider, classifies).write()

    def check(session: Session) -> Parity:
        return check_adaptive(session, adaptive, selector)

    return _write(model, path, kind, description, check)


def _check_options(
    kind: str,
    selector: Any,
    fixed: Any,
    predict_with: str,
    threshold: float,
    exit: float | None,
) -> None:
    require_number("export: threshold", threshold, 0.0, 1.0, above=True)
    if predict_with not in ("recognizer", "both"):
        raise Ada3DError(f"export: predict_with={predict_with!r}; there are recognizer and both")
    if predict_with == "both" and selector is None:
        raise Ada3DError("export: predict_with='both' needs selector=")
    if exit is not None:
        require_number("export: exit", exit, 0.0, 1.0, above=True)
        if predict_with != "both":
            raise Ada3DError("export: exit= needs predict_with='both'")
    if fixed is not None and selector is not None:
        raise Ada3DError("export: a fixed policy and a selection network exclude each other")
    if kind == "torch" and fixed is None:
        raise Ada3DError(
            "export: .pt2 is for a fixed policy (fixed=); torch.export holds no branches by clip"
        )


def _plain_floats(adaptive: AdaptiveNetwork) -> AdaptiveNetwork:
    """The network on the CPU, in float32 and in evaluation mode."""
    tensors = [*adaptive.parameters(), *adaptive.buffers()]
    floating = [t for t in tensors if t.is_floating_point()]
    if adaptive.training or any(
        t.device.type != "cpu" or t.dtype != torch.float32 for t in floating
    ):
        return copy.deepcopy(adaptive).cpu().float().eval()
    return adaptive


def _describe(
    adaptive: AdaptiveNetwork,
    selector: SelectionNetwork | None,
    greedy: str,
    threshold: float,
    predict_with: str,
) -> Description:
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


def _versions(kind: str) -> dict[str, str]:
    names = ["ada3d_fx", "torch", *{"onnx": ["onnx", "onnxruntime"],
                                    "openvino": ["onnx", "openvino"]}.get(kind, [])]  # fmt: skip
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # a checkout that was not installed
            found[name] = "unknown"
    return found


def _export_fixed(
    adaptive: AdaptiveNetwork,
    path: Path,
    kind: str,
    fixed: tuple[int, Sequence[int | bool]],
    description: Description,
) -> Description:
    length, stages = fixed
    module = specialize(adaptive, length, stages).eval()
    channels, _, height, width = adaptive.plan.clip_shape
    shape = (channels, length, height, width)
    policy = (length, tuple(bool(on) for on in stages))
    description = replace(description, fixed=policy)
    if kind == "torch":
        return _write_torch(module, path, shape, description)
    model = fixed_graph(module, torch.zeros(1, *shape))
    return _write(model, path, kind, description, lambda s: check_fixed(s, module, shape))


def _write_torch(
    module: nn.Module, path: Path, shape: tuple[int, ...], description: Description
) -> Description:
    """Write a torch.export program; its description is an extra file inside."""
    clips = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    batch = torch.export.Dim("batch")
    try:
        program = torch.export.export(module, (clips,), dynamic_shapes=({0: batch},))
    except (torch._dynamo.exc.TorchDynamoException, RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise Ada3DError(f"export: torch.export cannot take the network: {first}") from error
    with files.whole(path) as unfinished, torch.no_grad():
        torch.export.save(program, unfinished, extra_files={KEY: description.to_json()})
        loaded = torch.export.load(unfinished).module()
        off = (loaded(clips) - module(clips)).abs().max() / module(clips).abs().max()
        if not off <= 1e-4:
            raise Ada3DError(
                f"export: scores are {off:.3g} of the largest off; nothing was written"
            )
    return replace(description, parity=asdict(Parity(len(clips), float(off))))


def _write(
    model: Any, path: Path, kind: str, description: Description, check: Callable[[Session], Parity]
) -> Description:
    """Check the graph in the engine, and write it with what was found."""
    with files.folder_beside(path) as folder:
        file = Path(folder, path.name)
        writer = (OnnxFile if kind == "onnx" else OpenVinoFile)(model, file)
        writer.write(description)
        description = replace(description, parity=asdict(check(Session(file))))
        writer.write(description)
        if (
            kind == "openvino"
        ):  # at no moment are there an .xml and a .bin that do not belong together
            path.unlink(missing_ok=True)
            os.replace(file.with_suffix(".bin"), path.with_suffix(".bin"))
        os.replace(file, path)
    return description
