"""Whether a node whose inputs are packed can run on the rows, and how: the tables applied."""

from __future__ import annotations

from torch import fx, nn

from ..tracing.rules import CONCATENATION, ELEMENTWISE, MIXES, MODULE_RULES, ROW_RULES, ROWWISE
from ..tracing.whole import is_known
from .analysis import TimeAnalysis
from .shapes import Shapes, ShapeTable


def rule_of(
    node: fx.Node, root: nn.Module, analysis: TimeAnalysis, shapes: ShapeTable, kind: str
) -> str | None:
    """Find the rule for a node all of whose clip-dependent inputs are packed alike.

    Args:
        node: the node.
        root: where module paths start.
        analysis: the layouts of the nodes before it.
        shapes: of the graph.
        kind: the layout of its packed inputs.

    Returns:
        ROWWISE, MIXES, or None where it has no packed form.
    """
    shapes_of_two_clips = next(iter(shapes.of_length.values()))
    packed = [n for n in node.all_input_nodes if analysis.layouts[n].kind == kind]
    ranks = {len(shapes_of_two_clips.of(n)) for n in packed}
    if kind == "swapped" or len(ranks) > 1 or (kind == "frames" and ranks != {5}):
        return None
    if node.op == "call_module":
        return _module_rule(node, root, kind) if len(packed) == 1 else None
    (ndim,) = ranks
    if node.target in CONCATENATION:
        axis = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
        on_channels = axis in (1, 1 - ndim) and len(packed) == len(node.all_input_nodes)
        return ROWWISE if on_channels else None
    if node.target not in ELEMENTWISE:
        return None
    # axes of the clips and of time, counted from the last
    axes = (ndim, ndim - 2) if kind == "frames" else (ndim,)
    touched = _constant_differs_along(axes, node, analysis, shapes_of_two_clips)
    return None if touched else ROWWISE


def _module_rule(node: fx.Node, root: nn.Module, kind: str) -> str | None:
    module = root.get_submodule(str(node.target))
    table = MODULE_RULES if kind == "frames" else ROW_RULES
    rule = next((rule for types, rule in table if isinstance(module, types)), None)
    simple = len(node.args) == 1 and not node.kwargs
    if rule is None or not simple or not is_known(module) or hasattr(module, "parametrizations"):
        return None
    return rule(module)


def _constant_differs_along(
    axes: tuple[int, ...], node: fx.Node, analysis: TimeAnalysis, shapes: Shapes
) -> bool:
    constants = [
        shapes.values[n] for n in node.all_input_nodes if analysis.layouts[n].kind == "const"
    ]
    return any(s is not None and len(s) >= a and s[-a] != 1 for s in constants for a in axes)


def is_broadcast(node: fx.Node, analysis: TimeAnalysis, shapes: ShapeTable) -> bool:
    """Tell whether a node joins one value per clip to all of its frames.

    Squeeze-and-excitation does: its per-clip inputs have one frame each.
    """
    per_clip = [n for n in node.all_input_nodes if analysis.layouts[n].kind == "clips"]
    sizes = [s.values[n] for s in shapes.of_length.values() for n in per_clip]
    return (
        bool(per_clip)
        and node.target in ELEMENTWISE
        and all(s is not None and len(s) == 5 and s[2] == 1 for s in sizes)
    )


def is_collapse(node: fx.Node, root: nn.Module, rule: str) -> bool:
    """Tell whether a node that mixes time leaves one row per clip."""
    if rule != MIXES or node.op != "call_module":
        return False
    pools = (nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d)
    return isinstance(root.get_submodule(str(node.target)), pools)
