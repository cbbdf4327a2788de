"""What exports: one recognizer with random weights, to both engines, adaptively or specialised."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from ..convert import AdaptiveNetwork, convert
from ..errors import Ada3DError
from ..export import export
from ..exporting.parity import check_adaptive
from ..plan import StagePlan
from ..provenance.command import versions
from ..runtime.session import Session

ENDINGS = {"onnxruntime": ".onnx", "openvino": ".xml"}
# what is tried before the config's own clips
SIDES = (32, 64, 112, 160)  # pixels
FRAMES = (8, 16)  # where each length is a program of its own
Shape = tuple[int, int, int, int]


def exports(recognizer: nn.Module, plan: StagePlan) -> dict:
    """Export a recognizer for both engines, and tell what came of it.

    What exports does not depend on the size of the frames, but how long the check takes does: the
    smallest size is taken for which the recognizer converts to the same plan; and the fewest frames
    where it runs densely, as it is exported for each number of frames there.

    Args:
        recognizer: its weights become random ones.
        plan: what it converts to, at its own clips.

    Returns:
        For each engine 'adaptive', 'specialised' or 'no', its ``parity`` (largest difference of
        scores) and ``why_not`` adaptive; besides ``clip_shape``, ``seconds``, ``bytes`` of the file
        relative to those of the weights, and the ``commit`` that made it.
    """
    start = time.monotonic()
    adaptive = _smallest(_with_random_weights(recognizer), plan)
    weights = sum(p.numel() * p.element_size() for p in adaptive.parameters())
    found: dict = {"clip_shape": list(adaptive.plan.clip_shape), "commit": versions()["commit"]}
    with TemporaryDirectory() as folder:
        path = Path(folder, "network.onnx")
        for engine, ending in ENDINGS.items():
            found[engine] = _adaptively(adaptive, path, engine)
            if found[engine]["exports"] == "no":
                found[engine].update(_specialised(adaptive, path.with_suffix(ending)))
        if path.exists():
            found["bytes"] = path.stat().st_size / weights
    return {**found, "seconds": time.monotonic() - start}


def _adaptively(adaptive: AdaptiveNetwork, path: Path, engine: str) -> dict:
    """Export the adaptive network; OpenVINO reads the file that was written for ONNX Runtime."""
    try:
        if engine == "openvino" and path.exists():
            session = Session(path, engine)
            parity = check_adaptive(session, adaptive, None)
            return {"exports": "adaptive", "parity": parity.scores}
        described = export(adaptive, path.with_suffix(ENDINGS[engine]))
    except Ada3DError as error:
        return {"exports": "no", "why_not": str(error)}
    return {"exports": "adaptive", "parity": described.parity["scores"]}


def _specialised(adaptive: AdaptiveNetwork, path: Path) -> dict:
    """Export one policy: half of the frames, every other stage on."""
    plan = adaptive.plan
    length = max(plan.num_units // 2, 1) * (plan.frame_unit or plan.num_frames)
    try:
        with TemporaryDirectory() as folder:
            fixed = (length, [k % 2 == 0 for k in range(plan.num_stages)])
            described = export(adaptive, Path(folder, path.name), fixed=fixed)
    except Ada3DError as error:
        return {"exports": "no", "why_not_specialised": str(error)}
    return {"exports": "specialised", "parity": described.parity["scores"]}


def _smallest(recognizer: nn.Module, plan: StagePlan) -> AdaptiveNetwork:
    """Convert for the smallest clips that give the same plan."""
    channels, own, *size = plan.clip_shape
    lengths = [n for n in FRAMES if n < own] if plan.execution != "packed" else []
    sides = [side for side in SIDES if side < min(size)]
    for frames, side in itertools.product((*lengths, own), sides):
        try:
            adaptive = convert(recognizer, (channels, frames, side, side))
        except Ada3DError:
            continue
        if _alike(adaptive.plan, plan) and _runs(adaptive):
            return adaptive
    return convert(recognizer, plan.clip_shape)


def _alike(plan: StagePlan, other: StagePlan) -> bool:
    return (plan.stages, plan.frame_unit, plan.execution) == (
        other.stages, other.frame_unit, other.execution,
    )  # fmt: skip


def _runs(adaptive: AdaptiveNetwork) -> bool:
    """Whether it computes at all on its clips, and not only by their shapes."""
    try:
        with torch.no_grad():
            scores = adaptive(torch.randn(1, *adaptive.plan.clip_shape))
    except (RuntimeError, ValueError):
        return False
    return bool(torch.isfinite(scores).all())


def _with_random_weights(recognizer: nn.Module) -> nn.Module:
    """Draw what starts as zero or one, which would hide what it multiplies; float32, evaluation."""
    with _drawn_alike():
        for module in recognizer.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)
        for parameter in recognizer.parameters():
            if parameter.numel() > 1 and (parameter == parameter.flatten()[0]).all():
                level = float(parameter.detach().flatten()[0])
                nn.init.normal_(parameter, level, 0.1)
    return recognizer.float().eval()


@contextmanager
def _drawn_alike() -> Iterator[None]:
    """The same random numbers in each run; the process's own are left as they are."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        yield
