"""From a checkpoint to a file for an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from .. import files
from ..convert import AdaptiveNetwork, convert
from ..errors import Ada3DError
from ..export import SUFFIXES, export
from ..mm import differences
from ..mm.config import clip_shape_of, load_config
from ..mm.console import only_warnings
from ..mm.inferencer import Ada3DInferencer
from ..progress import Console
from ..report import records
from ..runtime.contract import Description
from .calibration_clips import calibration_clips

# Pipelines' transforms that a service must do too, in the words of its clips' preparation.
TOLD = ("SampleFrames", "UniformSample", "DenseSampleFrames", "Resize", "CenterCrop", "ThreeCrop",
        "TenCrop", "Normalize", "FormatShape")  # fmt: skip


@dataclass(frozen=True)
class ExportOptions:
    """What of a checkpoint becomes a file, and for which engine."""

    to: str | None = None  # 'onnx', 'openvino' or 'torch'; None: by the file's ending, or onnx
    out: str | None = None  # None: beside the checkpoint
    policy: str | None = None  # FRAMES/STAGES: one fixed policy; None: adaptive
    selection: bool = True  # the selection network inside; False: policies are given
    threshold: float | None = None  # None: the config's
    gmacs: float | None = None  # GMACs per clip for which the threshold is set
    calibrate_on: str = "val"  # the list on which it is set, and int8's ranges are measured
    clip_shape: tuple[int, int, int, int] | None = None  # None: the config's
    int8: bool = False
    calibration_clips: int = 128  # on which int8's ranges are measured
    agreement: float = 0.9  # the least share of them whose label must be that of float32


def export_checkpoint(
    path: str,
    cfg_options: Sequence[str],
    checkpoint: str,
    options: ExportOptions,
    console: Console | None = None,
) -> str:
    """Export a checkpoint, and return what the file says of itself as text.

    Args:
        path: an Ada3D config or a plain recognizer's.
        cfg_options: KEY=VALUE entries of it.
        checkpoint: its checkpoint.
        options: what of it, and for which engine.
        console: where progress is shown.

    Raises:
        Ada3DError: bad input, an operation that the format has not, or results that differ.
        OSError: the file cannot be written.
    """
    console = console or Console()
    out = _out(checkpoint, options)
    files.check(out)
    only_warnings(console)
    config = load_config(path, cfg_options)
    adaptive = config.model.get("type") == "Ada3DRecognizer"
    if options.clip_shape and adaptive:
        config.model.clip_shape = options.clip_shape
    inferencer = Ada3DInferencer(
        config, checkpoint, "cpu", num_workers=0, threshold=options.threshold, gmacs=options.gmacs,
        calibrate_on=options.calibrate_on, console=console,
    )  # fmt: skip
    model = inferencer.model
    named: dict[str, Any] = {
        "classes": _classes(inferencer.names),
        "preprocessing": preprocessing_of(config),
    }
    if not adaptive:
        shape = options.clip_shape or clip_shape_of(config)
        network, selector = convert(model, shape), None
    else:
        network, selector = model.recognizer, model.selector if options.selection else None
    if options.int8:
        named["int8"] = calibration_clips(
            config, model, options.calibrate_on, options.calibration_clips, console
        )
        named["agreement"] = options.agreement
    if options.policy is not None:
        console.say("exporting one fixed policy, and checking it")
        named["fixed"], selector = _fixed(options.policy, network), None
    elif selector is not None:
        console.say("exporting with the selection network, and checking it")
        testing = model.testing_options
        if model.random_part != "none":
            raise Ada3DError(
                f"export: random_part={model.random_part!r}, but a file's decisions are not random; try "
                "--no-selection"
            )
        if testing.predict_with == "selector":
            raise Ada3DError("export: with testing.predict_with='selector' no recognizer runs")
        named.update(
            greedy=testing.greedy,
            threshold=testing.threshold,
            predict_with=testing.predict_with,
            exit=model.exit,
        )
    else:
        console.say("exporting without a selection network, and checking it")
    return text(out, export(network, out, selector, **named))


def _out(checkpoint: str, options: ExportOptions) -> Path:
    """The file to write; its ending fits the engine."""
    if options.to is not None and options.to not in SUFFIXES:
        raise Ada3DError(f"--to {options.to}: there are {', '.join(SUFFIXES)}")
    suffix = SUFFIXES[options.to or "onnx"]
    out = Path(options.out) if options.out else Path(checkpoint).with_suffix(suffix)
    if options.to and out.suffix != suffix:
        raise Ada3DError(f"--out {out}: a file for {options.to} ends with {suffix}")
    if out.suffix not in SUFFIXES.values():
        raise Ada3DError(f"--out {out}: a file ends with {', '.join(SUFFIXES.values())}")
    if out.suffix == SUFFIXES["torch"] and options.policy is None:
        raise Ada3DError(
            f"{out}: torch.export holds no branches by clip; give one policy, --policy FRAMES/STAGES"
        )
    for name in ("threshold", "gmacs"):
        given = getattr(options, name) is not None
        if given and (options.policy is not None or not options.selection):
            other = "--no-selection" if options.policy is None else f"--policy {options.policy}"
            raise Ada3DError(
                f"--{name} is for a selection network inside, which {other} leaves out"
            )
    return out


def _classes(names: Mapping[int, str]) -> list[str] | None:
    return [names[label] for label in sorted(names)] or None


def _fixed(policy: str, network: AdaptiveNetwork) -> tuple[int, list[bool]]:
    """The number of frames and the stages of --policy FRAMES/STAGES."""
    choice = records.parse_policy(policy, ("literal", "full"))
    plan = network.plan
    if choice.kind == "full":
        return plan.num_frames, [True] * plan.num_stages
    if len(choice.frames) == plan.num_frames and set(choice.frames) <= {"0", "1"}:
        raise Ada3DError(
            f"--policy {policy}: give the number of frames, such as {choice.frames.count('1')}/"
            f"{choice.stages}; which ones they are is decided where the clips are made"
        )
    if len(choice.stages) != plan.num_stages:
        raise Ada3DError(f"--policy {policy}: expected {plan.num_stages} bits for the stages")
    return int(choice.frames), [bit == "1" for bit in choice.stages]


def preprocessing_of(config: Config) -> dict[str, Any]:
    """Tell what is done to a video's pixels before the network: JSON values."""
    inner = config.model.get("recognizer") or config.model
    inner = inner if isinstance(inner, Mapping) else {}
    own = config.model.get("data_preprocessor") or inner.get("data_preprocessor") or {}
    told = {key: own[key] for key in ("mean", "std", "to_rgb", "format_shape") if key in own}
    if own.get("type") == differences.TYPE:  # channels 3 to 5: each frame minus the one before it
        told["differences"] = True
    loader = config.get("test_dataloader") or config.get("val_dataloader") or {}
    steps = (loader.get("dataset") or {}).get("pipeline") or []
    told["pipeline"] = [dict(step) for step in steps if step.get("type") in TOLD]
    return Config(told).to_dict()


def text(out: Path, description: Description) -> str:
    """Tell what a file holds, and what its check found."""
    shape = " x ".join(map(str, description.clip_shape))
    lines = [f"{out}: clips {shape}, {description.num_classes} classes"]
    if description.fixed is not None:
        frames, stages = description.fixed
        bits = "".join("1" if on else "0" for on in stages)
        lines = [f"{out}: clips of {frames} frames, stages {bits or 'none'}"]
    elif description.selects:
        lines.append(
            f"policies: inside, at threshold {description.threshold:.4g}, or given; "
            f"predicts with {description.predict_with}"
        )
    else:
        lines.append("policies: given")
    found = description.parity
    if description.precision == "int8":
        lines.append(
            f"int8: {found['agreement']:.1%} of {found['clips']} calibration clips get the label of "
            f"float32 (the selection network is in float32)"
        )
    lines.append(
        f"checked on {found['clips']} clips: scores differ by {found['scores']:.1e} of the largest"
        + (
            f", {found['differing']} of {found['decisions']} decisions differ"
            if found.get("decisions")
            else ""
        )
    )
    return "\n".join(lines)
