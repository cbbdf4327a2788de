"""export: an adaptive network, or one fixed policy of it, as a file for an engine."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import files, requirements
from .convert import AdaptiveNetwork
from .errors import Ada3DError, require_number
from .exporting.calibration import calibration_policy, kept_evenly
from .exporting.decider import Decider
from .exporting.description import describe, versions
from .exporting.graph import GraphWriter, fixed_graph
from .exporting.int8 import check_calibration
from .exporting.parity import FLOAT32, Parity, Tolerance, check_adaptive, check_fixed
from .exporting.writers import OnnxFile, OpenVinoFile
from .learn.selector import SelectionNetwork
from .runtime.contract import KEY, Description
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
    int8: Tensor | None = None,
    agreement: float = 0.9,
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
        int8: clips [N, C, T, H, W] on whose values the recognizer's convolutions are quantised to
            eight bits, a hundred or so of the training list; None: float32. The selection network
            stays in float32, and decides what it does in the network.
        agreement: with ``int8``, the least share of these clips that must get the label of float32.

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
    if int8 is not None:
        int8 = check_calibration(int8, adaptive.plan.clip_shape, agreement, kind)
    files.check(path)
    for package in {"onnx": ("onnx", "onnxruntime"), "openvino": ("onnx", "openvino")}.get(
        kind, ()
    ):
        requirements.module(package, f"export to {path.suffix}")
    adaptive = _plain_floats(adaptive)
    description = describe(adaptive, selector, greedy, threshold, predict_with)
    description = replace(
        description,
        exit=exit,
        classes=None if classes is None else tuple(classes),
        preprocessing=dict(preprocessing or {}),
        versions=versions(kind, int8 is not None),
        precision="float32" if int8 is None else "int8",
    )
    if fixed is not None:
        return _export_fixed(adaptive, path, kind, fixed, description, int8, agreement)
    classifies = predict_with == "both"
    decider = None
    if selector is not None:
        selector = copy.deepcopy(selector).cpu().float().eval()
        decider = Decider(selector, adaptive.plan, greedy, classifies)

    def check(session: Session, *compared: Any) -> Parity:
        return check_adaptive(session, adaptive, selector, *compared)

    graphs = [_Graph(GraphWriter(adaptive, decider, classifies).write, check)]
    if int8 is not None:
        policy = calibration_policy(adaptive.plan, int8, selector, threshold, greedy)
        writer = GraphWriter(adaptive, decider, classifies, (int8, policy))
        tolerance = Tolerance(math.inf, agreement)
        graphs.append(_Graph(writer.write, lambda s: check(s, int8, policy, tolerance)))
    return _write(graphs, path, kind, description)


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


def _export_fixed(
    adaptive: AdaptiveNetwork,
    path: Path,
    kind: str,
    fixed: tuple[int, Sequence[int | bool]],
    description: Description,
    int8: Tensor | None,
    agreement: float,
) -> Description:
    length, stages = fixed
    module = specialize(adaptive, length, stages).eval()
    channels, _, height, width = adaptive.plan.clip_shape
    shape = (channels, length, height, width)
    policy = (length, tuple(bool(on) for on in stages))
    description = replace(description, fixed=policy)
    if kind == "torch":
        return _write_torch(module, path, shape, description)
    clip = torch.zeros(1, *shape)
    graphs = [_Graph(lambda: fixed_graph(module, clip), lambda s: check_fixed(s, module, shape))]
    if int8 is not None:
        clips = kept_evenly(int8, length, adaptive.plan)
        tolerance = Tolerance(math.inf, agreement)
        graphs.append(_Graph(
            lambda: fixed_graph(module, clip, clips),
            lambda s: check_fixed(s, module, shape, clips, tolerance),
        ))  # fmt: skip
    return _write(graphs, path, kind, description)


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
        if not off <= FLOAT32.scores:
            raise Ada3DError(
                f"export: scores are {off:.3g} of the largest off; nothing was written"
            )
    return replace(description, parity=asdict(Parity(len(clips), float(off))))


@dataclass(frozen=True)
class _Graph:
    """A graph to write, and its check in the engine."""

    make: Callable[[], Any]
    check: Callable[[Session], Parity]


def _write(
    graphs: Sequence[_Graph], path: Path, kind: str, description: Description
) -> Description:
    """Check each graph in the engine, and write the last one with what was found."""
    with files.folder_beside(path) as folder:
        file = Path(folder, path.name)
        for graph in graphs:
            writer = (OnnxFile if kind == "onnx" else OpenVinoFile)(graph.make(), file)
            writer.write(description)
            description = replace(description, parity=asdict(graph.check(Session(file))))
        writer.write(description)
        if (
            kind == "openvino"
        ):  # at no moment are there an .xml and a .bin that do not belong together
            path.unlink(missing_ok=True)
            os.replace(file.with_suffix(".bin"), path.with_suffix(".bin"))
        os.replace(file, path)
    return description
