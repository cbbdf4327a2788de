"""Int8: each branch of a graph is quantised after training, on values that calibration clips give.

NNCF sees neither into an If nor into a Loop, so it is given the branches before they are put there.
The selection network stays in float32: its policies are those of the network.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from .. import requirements
from ..errors import Ada3DError, require_number
from .pieces import OPSET, onnx


def nncf() -> Any:
    """Return the package nncf.

    It reports its use to its makers unless it is imported in what it takes for a test; so it is.

    Raises:
        MissingRequirement: it is not installed.
    """
    before = os.environ.get("NNCF_CI")
    os.environ["NNCF_CI"] = "1"
    try:
        with _silent():
            return requirements.module("nncf", "export in int8")
    finally:
        del os.environ["NNCF_CI"]
        if before is not None:
            os.environ["NNCF_CI"] = before


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep NNCF's log, its progress bars, and what torch says when it is imported, from the console."""
    loggers = [logging.getLogger(name) for name in ("nncf", "torch.utils.cpp_extension")]
    levels = [logger.level for logger in loggers]
    heard = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(heard),
        contextlib.redirect_stderr(heard),
    ):
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels):
                logger.setLevel(level)


def quantized(graph: Any, samples: Sequence[Sequence[Tensor]], where: str) -> Any:
    """Return a traced graph with quantised weights and activations, as QuantizeLinear and its inverse.

    Args:
        graph: what `Pieces.trace` gave.
        samples: values of its inputs, by which the ranges of the activations are chosen.
        where: what it is, for messages.

    Raises:
        Ada3DError: NNCF cannot take it.
    """
    package, helper = nncf(), onnx().helper
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    names = [value.name for value in graph.input]
    data = package.Dataset([dict(zip(names, (v.numpy() for v in sample))) for sample in samples])
    kinds = [kind for kind in vars(package.errors).values() if isinstance(kind, type)]
    own = [kind for kind in kinds if issubclass(kind, Exception)]
    errors: tuple[type[Exception], ...] = (*own, RuntimeError, ValueError, KeyError, IndexError)
    try:
        with _silent():
            chosen = _parameters(package)
            return package.quantize(
                model, data, subset_size=len(samples), advanced_parameters=chosen
            ).graph
    except errors as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise Ada3DError(f"export: NNCF cannot quantise {where}: {first}") from error


def _parameters(package: Any) -> Any:
    """Choose what NNCF does with ranges and biases; docs/int8.md has what other choices cost.

    By its defaults it averages the extremes of clips, so that half of them are cut off, and corrects
    biases by the mean of a layer's input alone, which is far off where a convolution pads.
    """
    extremes = package.quantization.range_estimator.RangeEstimatorParametersSet.MINMAX
    return package.AdvancedQuantizationParameters(
        activations_range_estimator_params=extremes, disable_bias_correction=True
    )


def check_calibration(
    clips: Any, clip_shape: tuple[int, int, int, int], agreement: float, kind: str
) -> Tensor:
    """Return calibration clips as float32 on the CPU.

    Args:
        clips: floating [N, C, T, H, W], normalised as the recognizer wants them.
        clip_shape: (C, T, H, W) of the network.
        agreement: see `ada3d_fx.export`.
        kind: of the file.

    Raises:
        Ada3DError: no such clips, or a file that holds no int8.
        MissingRequirement: NNCF is not installed.
    """
    require_number("export: agreement", agreement, 0.0, 1.0)
    if kind == "torch":
        raise Ada3DError("export: int8 is for .onnx and .xml; a .pt2 file is in float32")
    if not isinstance(clips, Tensor) or clips.ndim != 5 or clips.shape[1:] != clip_shape:
        told = list(clips.shape) if isinstance(clips, Tensor) else type(clips).__name__
        wanted = ", ".join(map(str, clip_shape))
        raise Ada3DError(f"export: int8 is {told}; expected clips [N, {wanted}]")
    if not len(clips) or not clips.is_floating_point() or not clips.isfinite().all():
        raise Ada3DError(
            "export: int8: expected one clip at least, normalised, floating and finite"
        )
    nncf()
    return clips.detach().cpu().float()
