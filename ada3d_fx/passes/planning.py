"""What a policy can decide about a model: its stages, its frame unit, and what stays out."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from torch import fx, nn

from ..errors import Reason, UnsupportedModel
from ..packed.windows import ungateable
from ..plan import Stage, StagePlan
from ..tracing.model import model_name
from ..tracing.program import module_path
from .analysis import PACKED, TimeAnalysis
from .group import Grouping, group

# Functions and methods that multiply and add.
_PRODUCTS = {
    *("matmul", "mm", "bmm", "addmm", "baddbmm", "einsum", "linear", "tensordot"),
    *("scaled_dot_product_attention", "conv1d", "conv2d", "conv3d"),
}


def make_plan(
    root: nn.Module,
    analyses: Sequence[TimeAnalysis],
    clip_shape: tuple[int, int, int, int],
    grouping: Grouping,
    untraceable: Sequence[Reason] = (),
    unfollowed: Sequence[Reason] = (),
) -> StagePlan:
    """Group the temporal convolutions, and find the frame unit.

    The unit is the smallest g for all of whose multiples the model runs and all joins agree.

    Args:
        root: where module paths start.
        analyses: of the program in evaluation, and of the one in training where it differs.
        clip_shape: (C, T, H, W).
        grouping: what one decision governs.
        untraceable: the modules that could not be traced.
        unfollowed: why sizes and positions do not follow the kept frames.

    Raises:
        UnsupportedModel: there is nothing to decide.
        Ada3DError: an unknown grouping.
    """
    analysis, num_frames = analyses[0], clip_shape[1]
    invalid = _invalid_lengths(analyses)
    reasons: list[Reason] = []
    sites = []
    for path in analysis.convolutions:
        conv = root.get_submodule(path)
        assert isinstance(conv, nn.Conv3d)
        why = ungateable(conv)
        if why is None:
            sites.append(path)
        else:
            reasons.append(Reason(path, why))
    unit = frame_unit(invalid, num_frames)
    reasons += [*_unit_reasons(invalid, num_frames, unit), *unfollowed]
    grouped = group(sites, grouping, analysis.resolutions)
    stages = tuple(Stage(name, tuple(paths)) for name, paths in grouped.items())
    if unit is None and not stages:
        nothing = Reason(
            "model",
            "no frame can be dropped and no temporal convolution can be turned off: nothing to decide",
        )
        raise UnsupportedModel(model_name(root), [*reasons, nothing])
    told = {reason.where for reason in untraceable}
    return StagePlan(
        clip_shape=clip_shape,
        stages=stages,
        frame_unit=unit,
        reasons=tuple(dict.fromkeys(reasons)),
        dense=(*untraceable, *_without_packed_form(root, analysis, told)),
        execution=_execution(root, analysis),
    )


def _execution(root: nn.Module, analysis: TimeAnalysis) -> str:
    """How the operations that multiply and add run, as long as there is a time axis."""
    dense = set(analysis.dense_nodes)
    packed = {
        node
        for node, layout in analysis.layouts.items()
        if layout.kind in (*PACKED, "tokens", "batches")
    }
    packed = (packed | set(analysis.time_mixing_nodes)) - dense
    if not any(_multiplies(node, root) for node in dense):
        return "packed"
    return "partly dense" if any(_multiplies(node, root) for node in packed) else "dense"


def _multiplies(node: fx.Node, root: nn.Module) -> bool:
    if node.op == "call_module":
        return any(True for _ in root.get_submodule(str(node.target)).parameters())
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return node.op in ("call_function", "call_method") and name in _PRODUCTS


def _without_packed_form(root: nn.Module, analysis: TimeAnalysis, told: set[str]) -> list[Reason]:
    """The traced operations that have no packed form, by the block that they are in.

    Those at the paths ``told`` are left out.
    """
    names: dict[str, dict[str, None]] = {}
    for node in analysis.dense_nodes:
        path = module_path(node)
        if node in analysis.tensors and path not in told:
            operation = getattr(node.target, "__name__", node.target)
            if node.op == "call_module":
                operation = type(root.get_submodule(str(node.target))).__name__
            names.setdefault(_block(path), {})[str(operation)] = None
    return [
        Reason(
            path, f"no packed form of {', '.join(list(ops)[:6])}{' ...' if len(ops) > 6 else ''}"
        )
        for path, ops in names.items()
    ]


def _block(path: str) -> str:
    """'backbone.blocks.3.attn.qkv' -> 'backbone.blocks.3'; a path without a number is itself."""
    parts = path.split(".")
    first = next((i for i, part in enumerate(parts) if part.isdigit()), len(parts))
    return ".".join(parts[: first + 1])


def unit_of(analyses: Sequence[TimeAnalysis], num_frames: int) -> int | None:
    """Return the frame unit of a model's programs; None where no frame can be dropped."""
    return frame_unit(_invalid_lengths(analyses), num_frames)


def _invalid_lengths(analyses: Sequence[TimeAnalysis]) -> dict[int, Reason]:
    return {length: why for a in analyses for length, why in a.invalid_lengths.items()}


def frame_unit(invalid: Container[int], num_frames: int) -> int | None:
    """Return the smallest g for all of whose multiples clips can have so many frames, if any."""
    for unit in range(1, num_frames):
        multiples = range(unit, num_frames + 1, unit)
        if num_frames % unit == 0 and not any(n in invalid for n in multiples):
            return unit
    return None


def _unit_reasons(invalid: Mapping[int, Reason], num_frames: int, unit: int | None) -> list[Reason]:
    """Why frames cannot be dropped in smaller units: one reason for each smaller unit."""
    smaller = [n for n in range(1, unit or num_frames) if num_frames % n == 0]
    failing = [next(n for n in range(g, num_frames + 1, g) if n in invalid) for g in smaller]
    return [invalid[n] for n in dict.fromkeys(failing[::-1])]
