"""Parts of a program that run the model's own code: dense regions, and checkpointed ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils.checkpoint import checkpoint

from .attention import Attending
from .module_tree import keep_unregistered, with_modules
from .packing import StageGate
from .segments import ClipRun, Segments
from .time_forms import same_form
from .twins import TWINS, centre_slice, plain
from .windows import fitting


class Region(nn.Module):
    """A part of a program that runs on the modules of the whole; it has none of its own.

    So modules that are replaced, frozen or moved later are seen.

    Args:
        root: where the paths in ``graph`` start.
        graph: the operations, from inputs to a tuple of outputs.
    """

    root: nn.Module

    def __init__(self, root: nn.Module, graph: fx.Graph):
        super().__init__()
        keep_unregistered(self, root=root)
        program = fx.GraphModule(root, graph, class_name=type(self).__name__)
        self.code, self.program = program.code, type(program).forward


class Checkpointed(Region):
    """Operations that run again in backward.

    Args:
        root: see `Region`.
        graph: see `Region`.
        statistics_once: whether BatchNorm counts a batch once, and not again in backward, as it
            does where the model's own code asks for it.
    """

    def __init__(self, root: nn.Module, graph: fx.Graph, statistics_once: bool = False):
        super().__init__(root, graph)
        self.statistics_once = statistics_once
        self.called = [str(node.target) for node in graph.nodes if node.op == "call_module"]

    def forward(self, *values: Any) -> Any:
        """Run the operations; with gradients, under torch.utils.checkpoint."""
        if not torch.is_grad_enabled():
            return self.program(self.root, *values)
        return checkpoint(
            self.program, self.root, *values, use_reentrant=False, context_fn=self._contexts
        )

    def _contexts(self) -> tuple[AbstractContextManager, AbstractContextManager]:
        """What the operations run in: in forward, and in backward."""
        kept = self._statistics_kept if self.statistics_once else nullcontext
        return nullcontext(), _Contexts(same_form(), kept)

    @contextmanager
    def _statistics_kept(self) -> Iterator[None]:
        """Let BatchNorm write its statistics into copies."""
        called = (self.root.get_submodule(path) for path in self.called)
        norms = {m for module in called for m in module.modules() if _has_statistics(m)}
        own = {norm: dict(norm._buffers) for norm in norms}
        try:
            for norm in norms:
                copied = {k: None if v is None else v.clone() for k, v in norm._buffers.items()}
                norm._buffers.update(copied)
            yield
        finally:
            for norm in norms:
                norm._buffers.update(own[norm])


class _Contexts(AbstractContextManager):
    """Several contexts as one that can be entered again: a graph may be gone through twice."""

    def __init__(self, *makers: Callable[[], AbstractContextManager]):
        self.makers, self.entered = makers, list[ExitStack]()

    def __enter__(self) -> None:
        with ExitStack() as stack:
            for make in self.makers:
                stack.enter_context(make())
            self.entered.append(stack.pop_all())

    def __exit__(self, *error: Any) -> None:
        self.entered.pop().__exit__(*error)


class DenseRegion(Region):
    """Operations without a packed form: they run densely on the clips of each run.

    The clips of a run agree in length and in the decisions of the stages inside.

    Args:
        root: where the paths in ``graph`` start.
        graph: the operations, from dense inputs to a tuple of outputs.
        inputs: the kind of each input (see `passes.analysis.Layout`); a 'dense' one has a value per
            run.
        outputs: the kind of each output.
        twin_paths: the modules here that have twins, as `paths_with_twins` finds them.
        sites: path of a gated convolution among them -> the place of its gate in ``forward``.
        attending: the same operations where nobody wants gradients, if they hold attention.
    """

    def __init__(
        self,
        root: nn.Module,
        graph: fx.Graph,
        inputs: Sequence[str],
        outputs: Sequence[str],
        twin_paths: Sequence[str],
        sites: Mapping[str, int],
        attending: Attending | None = None,
    ):
        super().__init__(root, graph)
        self.attending = attending
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.writes = any("writes" in node.meta for node in graph.nodes)  # in place, into a value
        self.twin_paths, self.sites = tuple(twin_paths), dict(sites)

    def forward(
        self,
        segments: Segments,
        values: Sequence[Tensor],
        tables: Sequence[Segments],
        gates: Sequence[StageGate],
    ) -> tuple[Any, ...]:
        """Run the operations on each run of clips.

        Args:
            segments: the clip table of the kept frames.
            values: the inputs, in the form that their kinds say.
            tables: the clip table of each input; that of 'clips' and 'dense' is not used.
            gates: those of the stages inside; those of all stages where an input or output is
                'dense', so that the regions at both of its ends have the same runs.

        Returns:
            The outputs, in the form that their kinds say.
        """
        decisions = list(zip(*(gate.on for gate in gates))) if gates else None
        runs = segments.runs(decisions)
        parts = [
            _per_run(kind, value, table, runs)
            for kind, value, table in zip(self.inputs, values, tables)
        ]
        if self.writes:  # autograd lets nobody write into what `split` gives
            parts = [
                part if kind == "dense" else [own.clone() for own in part]
                for kind, part in zip(self.inputs, parts)
            ]
        program = self.program
        if self.attending is not None and self.attending.stands_for(self.root):
            program = self.attending.program
        results = [program(self._variant(run), *part) for run, part in zip(runs, zip(*parts))]
        return tuple(_joined(kind, made) for kind, made in zip(self.outputs, zip(*results)))

    def _variant(self, run: ClipRun) -> nn.Module:
        """The modules as this run needs them: stages that are off sliced, pools that fit."""
        replaced = {}
        for path in self.twin_paths:
            module = self.root.get_submodule(path)
            wanted = fitting(plain(module))
            if path in self.sites and not run.on[self.sites[path]]:
                assert isinstance(module, nn.Conv3d)
                wanted = centre_slice(module)
            if wanted is not module:
                replaced[path] = wanted
        return with_modules(self.root, replaced)


def _has_statistics(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm)


def paths_with_twins(root: nn.Module, graph: fx.Graph) -> list[str]:
    """List the modules called in ``graph``, or inside what it calls, that have twins."""
    paths: dict[str, None] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            for name, module in root.get_submodule(node.target).named_modules():
                if isinstance(module, tuple(TWINS)):
                    paths[f"{node.target}.{name}" if name else node.target] = None
    return list(paths)


def _per_run(kind: str, value: Any, table: Segments, runs: Sequence[ClipRun]) -> Sequence[Any]:
    """A value of the packed program as the model's own code takes it, for each run.

    Frames are contiguous, as a ``view()`` of the model's may expect.
    """
    if kind == "dense":
        return value
    if kind == "clips":
        return value.split([run.num_clips for run in runs])
    if kind == "frames":
        return [part.contiguous() for part in table.split(value, runs)]
    lengths = [table.lengths[run.first] for run in runs]
    parts = value.contiguous().split([run.num_clips * length for run, length in zip(runs, lengths)])
    if kind == "rows":
        return parts
    return [
        part.squeeze(1).unflatten(0, (run.num_clips, length))
        for part, run, length in zip(parts, runs, lengths)
    ]


def _joined(kind: str, parts: Sequence[Any]) -> Any:
    """What the runs made, as one value of the packed program.

    Their gradients are contiguous, as those of a model are: torch's InstanceNorm gives wrong ones
    for those of a pack, which are channels last, see `as_rows`.
    """
    for part in parts if kind in ("frames", "clips") else ():
        if part.requires_grad:
            part.register_hook(Tensor.contiguous)
    if kind == "frames":
        return Segments.join(parts)
    if kind == "clips":
        return torch.cat(list(parts)) if len(parts) > 1 else parts[0]
    return parts
