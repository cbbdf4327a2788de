"""Parts of a program that run the model's own code: dense regions, and checkpointed ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils.checkpoint import checkpoint

from .module_tree import with_modules
from .segments import ClipRun, Segments
from .twins import TWINS, centre_slice, plain_module
from .windows import fit_window


class Region(nn.Module):
    """A part of a program, on the modules of the whole: it has none of its own, so that replaced,
    frozen or moved modules are seen. ``holder`` is where its paths start."""

    def __init__(self, holder: nn.Module, graph: fx.Graph):
        super().__init__()
        self.__dict__["holder"] = holder
        program = fx.GraphModule(holder, graph, class_name=type(self).__name__)
        self.code, self.program = program.code, type(program).forward


class Checkpointed(Region):
    """Operations that a model's own code runs under torch.utils.checkpoint: made anew in backward."""

    def forward(self, *values):
        if not torch.is_grad_enabled():
            return self.program(self.holder, *values)
        return checkpoint(self.program, self.holder, *values, use_reentrant=False)


class DenseRegion(Region):
    """Operations that no packed form is known for (DESIGN: a leaf per length): they run densely on
    the clips of each run, equal in length and in the decisions of the stages inside.

    Args:
        graph: the operations, from dense inputs to a tuple of outputs.
        inputs, outputs: the kind of each (see layouts.Layout); a 'dense' one has a value per run.
        mixing: paths of the modules here that have twins, see `time_mixing`.
        sites: path of a convolution among them -> the place of its stage's gate in ``forward``.
        windows: path of a pool -> its input's length for a clip of L frames.
    """

    def __init__(
        self,
        holder: nn.Module,
        graph: fx.Graph,
        inputs: Sequence[str],
        outputs: Sequence[str],
        mixing: Sequence[str],
        sites: Mapping[str, int],
        windows: Mapping[str, Sequence[int | None]],
    ):
        super().__init__(holder, graph)
        self.inputs, self.outputs, self.mixing = tuple(inputs), tuple(outputs), tuple(mixing)
        self.sites, self.windows = dict(sites), dict(windows)

    def forward(
        self,
        segments: Segments,
        values: Sequence[Tensor],
        tables: Sequence[Segments],
        gates: Sequence[Sequence[bool]],
    ) -> tuple[Tensor, ...]:
        """segments: of the kept frames; values and their own tables (ignored for 'clips'); gates:
        of the stages inside (of all, where an input or output is dense, so that both ends have the
        same runs), one decision per clip."""
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

    def _variant(self, run: ClipRun) -> nn.Module:
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


def _of_runs(kind: str, value: Any, table: Segments, runs: Sequence[ClipRun]) -> Sequence[Any]:
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
