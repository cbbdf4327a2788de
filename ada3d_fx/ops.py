"""The packed twins: modules that mix time, on packs. A twin is the original module, weights and
all, under a new class."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .rules import fit_window, ungateable
from .segments import Packing, Run, Segments


def stage_gate(packing: Packing, stage: int) -> tuple[bool, ...]:
    """Decision v_k of each clip of the pack."""
    return packing.gates[stage]


class PackedConv3d(nn.Conv3d):
    """A temporal convolution on a pack; where ``gate`` is off, its centre slice w[:, :, kt // 2]
    (paper, sec. 3.2).

    Each run of clips is a dense convolution with the taps that can reach a frame at all: a clip of
    one frame, or one whose gate is off, has its own frame only. So the cost follows the policy, and
    2D needs no code of its own.
    """

    def forward(
        self, rows: Tensor, segments: Segments, gate: Sequence[bool] | None = None
    ) -> Tensor:
        """rows [F, C, 1, H, W], gate one bool per clip (None: all on) -> [F', C', 1, H', W']."""
        if ungateable(self) is not None:
            runs = segments.runs()
            return Segments.join([self._dense(part, None) for part in segments.split(rows, runs)])
        gate = tuple(
            length > 1 and on
            for length, on in zip(segments.lengths, gate or (True,) * len(segments.lengths))
        )
        if self.stride[0] == 1:
            segments, gate = segments.alone(gate)
        runs = segments.runs(gate)
        reach = [self._reach(run.length) if run.on else 0 for run in runs]
        weights = {radius: self._taps(radius) for radius in set(reach)}
        return Segments.join(
            [
                self._dense(part, radius, weights[radius])
                for part, radius in zip(segments.split(rows, runs), reach)
            ]
        )

    def _reach(self, length: int) -> int:
        return min(self.kernel_size[0] // 2, (length - 1) // self.dilation[0])

    def _taps(self, radius: int) -> Tensor:
        centre = self.kernel_size[0] // 2
        if radius == centre:
            return self.weight
        taps = self.weight[:, :, centre - radius : centre + radius + 1]
        return taps.contiguous(memory_format=torch.channels_last_3d)

    def _dense(self, clips: Tensor, radius: int | None, weight: Tensor | None = None) -> Tensor:
        if radius is None:
            return self._conv_forward(clips, self.weight, self.bias)
        padding = self.padding
        if not isinstance(padding, str):
            padding = (radius * self.dilation[0], *padding[1:])
        return F.conv3d(clips, weight, self.bias, self.stride, padding, self.dilation, self.groups)


class _RunWise(nn.Module):
    """A pool on a pack: the original on the clips of each run, its window fitted to clips shorter
    than it."""

    def forward(self, rows: Tensor, segments: Segments) -> Tensor:
        """rows [F, C, 1, H, W] -> [F', C, 1, H', W']."""
        runs = segments.runs()
        return Segments.join(
            [
                super(_RunWise, fit_window(self, run.length)).forward(part)
                for part, run in zip(segments.split(rows, runs), runs)
            ]
        )


class PackedMaxPool3d(_RunWise, nn.MaxPool3d):
    """Max pooling over time and space."""


class PackedAvgPool3d(_RunWise, nn.AvgPool3d):
    """Average pooling over time and space."""


class PackedAdaptiveAvgPool3d(_RunWise, nn.AdaptiveAvgPool3d):
    """The mean over time: one row per clip."""


class PackedAdaptiveMaxPool3d(_RunWise, nn.AdaptiveMaxPool3d):
    """The maximum over time: one row per clip."""


TWINS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv3d: PackedConv3d,
    nn.MaxPool3d: PackedMaxPool3d,
    nn.AvgPool3d: PackedAvgPool3d,
    nn.AdaptiveAvgPool3d: PackedAdaptiveAvgPool3d,
    nn.AdaptiveMaxPool3d: PackedAdaptiveMaxPool3d,
}


def make_twin(module: nn.Module) -> nn.Module:
    """``module`` on packs: the same parameters, buffers and hooks."""
    packed = next(packed for plain, packed in TWINS.items() if isinstance(module, plain))
    twin = copy.copy(module)
    twin.plain_class = type(module)
    twin.__class__ = packed
    return twin


def plain_module(twin: nn.Module) -> nn.Module:
    """The inverse of ``make_twin``; shares the parameters. A module that is no twin is itself."""
    if "plain_class" not in twin.__dict__:
        return twin
    module = copy.copy(twin)
    module.__class__ = module.__dict__.pop("plain_class")
    return module


def centre_slice(conv: nn.Conv3d) -> nn.Conv3d:
    """``conv`` with w[:, :, kt // 2] only; its weight is a view, so gradients reach the original."""
    assert ungateable(conv) is None
    flat = copy.copy(plain_module(conv))
    flat._parameters = {k: v for k, v in conv._parameters.items() if k != "weight"}
    centre = conv.kernel_size[0] // 2
    flat.weight = conv.weight[:, :, centre : centre + 1]
    flat.kernel_size = (1, *conv.kernel_size[1:])
    if not isinstance(conv.padding, str):
        flat.padding = (0, *conv.padding[1:])
    return flat


def with_modules(root: nn.Module, replaced: Mapping[str, nn.Module]) -> nn.Module:
    """``root`` with other modules at some paths. Only the modules above them are copied (shallowly):
    everything else, all parameters and all buffers are shared."""
    if not replaced:
        return root
    top = copy.copy(root)
    top._modules = dict(root._modules)
    below: dict[str, dict[str, nn.Module]] = {}
    for path, module in replaced.items():
        name, _, rest = path.partition(".")
        if rest:
            below.setdefault(name, {})[rest] = module
        else:
            top._modules[name] = module
    for name, inner in below.items():
        top._modules[name] = with_modules(root._modules[name], inner)
    return top


class Part(nn.Module):
    """A part of a program, on the modules of the whole: it has none of its own, so that replaced,
    frozen or moved modules are seen. ``holder`` is where its paths start."""

    def __init__(self, holder: nn.Module, graph: fx.Graph):
        super().__init__()
        self.__dict__["holder"] = holder
        program = fx.GraphModule(holder, graph, class_name=type(self).__name__)
        self.code, self.program = program.code, type(program).forward


class Checkpointed(Part):
    """Operations that a model's own code runs under torch.utils.checkpoint: made anew in backward."""

    def forward(self, *values):
        if not torch.is_grad_enabled():
            return self.program(self.holder, *values)
        return checkpoint(self.program, self.holder, *values, use_reentrant=False)


class DenseRegion(Part):
    """Operations that no packed form is known for (DESIGN: a leaf per length): they run densely on
    the clips of each run, equal in length and in the decisions of the stages inside.

    Args:
        graph: the operations, from dense inputs to a tuple of outputs.
        inputs, outputs: the kind of each (see layouts.Layout); a 'dense' one has a value per run.
        stages: the stages that have convolutions here, inside modules kept whole too; all stages
            where an input or output is dense, so that both ends have the same runs.
        sites: path of a convolution -> its place in ``stages``.
        windows: path of a pool -> its input's length for a clip of L frames.
    """

    def __init__(
        self,
        holder: nn.Module,
        graph: fx.Graph,
        inputs: Sequence[str],
        outputs: Sequence[str],
        stages: Sequence[int],
        sites: Mapping[str, int],
        windows: Mapping[str, Sequence[int | None]],
    ):
        super().__init__(holder, graph)
        self.inputs, self.outputs, self.stages = tuple(inputs), tuple(outputs), tuple(stages)
        self.sites, self.windows = dict(sites), dict(windows)
        self.mixing = time_mixing(holder, graph)

    def forward(
        self,
        segments: Segments,
        values: Sequence[Tensor],
        tables: Sequence[Segments],
        gates: Sequence[Sequence[bool]],
    ) -> tuple[Tensor, ...]:
        """segments: of the kept frames; values and their own tables (ignored for 'clips'); gates:
        per stage inside, one decision per clip."""
        runs = segments.runs(list(zip(*gates)) if gates else None)
        parts = [
            _of_runs(kind, value, table, runs)
            for kind, value, table in zip(self.inputs, values, tables)
        ]
        results = zip(
            *(self.program(self._variant(run), *part) for run, part in zip(runs, zip(*parts)))
        )
        return tuple(
            Segments.join(result)
            if kind == "frames"
            else _cat(result)
            if kind == "clips"
            else result
            for kind, result in zip(self.outputs, results)
        )

    def _variant(self, run: Run) -> nn.Module:
        """The modules as this run needs them: stages that are off sliced, windows fitted."""
        replaced = {}
        for path in self.mixing:
            module = self.holder.get_submodule(path)
            wanted = plain_module(module)
            if path in self.sites and not run.on[self.sites[path]]:
                wanted = centre_slice(module)
            elif path in self.windows:
                wanted = fit_window(wanted, self.windows[path][run.length] or 1)
            if wanted is not module:
                replaced[path] = wanted
        return with_modules(self.holder, replaced)


def _of_runs(kind: str, value: Any, table: Segments, runs: Sequence[Run]) -> Sequence[Any]:
    """A value of the packed program as what the model's own code takes, for each run; contiguous,
    as its view() may expect."""
    if kind == "dense":
        return value
    if kind == "clips":
        return value.split([run.count for run in runs])
    if kind == "frames":
        return [part.contiguous() for part in table.split(value, runs)]
    lengths = [table.lengths[run.first] for run in runs]
    parts = value.contiguous().split([run.count * length for run, length in zip(runs, lengths)])
    if kind == "rows":
        return parts
    return [
        part.squeeze(1).unflatten(0, (run.count, length))
        for part, run, length in zip(parts, runs, lengths)
    ]


def time_mixing(holder: nn.Module, graph: fx.Graph) -> list[str]:
    """Paths of the modules in a part that have twins, inside modules kept whole too."""
    paths: dict[str, None] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            for name, module in holder.get_submodule(node.target).named_modules():
                if isinstance(module, tuple(TWINS)):
                    paths[f"{node.target}.{name}" if name else node.target] = None
    return list(paths)


def _cat(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts)) if len(parts) > 1 else parts[0]
