"""The passes in their order: a model's scoring part -> the programs of an adaptive network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import fx, nn

from ..elastic.conversion import follows_times
from ..errors import Ada3DError
from ..packed.module_tree import adopt_children, keep_constants, place_constants, without_constants
from ..packed.regions import Region
from ..packed.twins import Twin, become_twin
from ..plan import StagePlan
from ..tracing.isolation import own_caches
from ..tracing.model import check_names
from ..tracing.shadow import shadow_of
from .fold import FoldedGraph
from .group import Grouping
from .planning import make_plan
from .programs import analysed_programs
from .rewrite import rewrite


@dataclass(frozen=True, eq=False)
class Conversion:
    """What the passes make of a model."""

    grouping: Grouping  # what one decision governs, as `convert` was asked
    checkpointing: bool  # whether blocks are computed again in backward, as it was asked
    positions: str  # which positions kept frames have, as it was asked
    root: nn.Module  # the model, with twins in place of the modules that mix time
    twin_paths: tuple[str, ...]  # where the twins are
    aliases: tuple[tuple[str, ...], ...]  # the names of each module that has several
    # path of a module -> whether it writes into its input, where others read that input
    observed_writers: dict[str, bool]
    plan: StagePlan  # what can be decided
    is_traced: bool  # whether no module of the model runs code that could not be traced
    follows_times: bool  # whether positions follow the kept frames, and sizes are numbers
    source: fx.Graph  # the model's own program in evaluation: clips -> scores
    windows: dict[
        fx.Node, tuple[int | None, ...]
    ]  # call of a pool in it -> input's length by clip's
    graph_module: fx.GraphModule  # the rewritten program: (clips, policy) -> scores
    training_module: fx.GraphModule  # the one for training; the same object where they agree
    folded: FoldedGraph  # the one for inference, BatchNorm folded into convolutions

    def see_replaced_parts(self) -> None:
        """Let the programs run the children of the model of now, which users may have replaced.

        Raises:
            Ada3DError: a child was replaced by one that is not converted, or a module of several
                names under one of them only, or a module that wrote into its input by one that does
                not, or the other way round, where others read that input.
        """
        self.check_writers()
        for names in self.aliases:
            if len({id(self.root.get_submodule(name)) for name in names}) > 1:
                raise Ada3DError(
                    f"AdaptiveNetwork: {', '.join(names)} were one module when it was converted, and "
                    "are several now; replace all of them by one, or replace it in the plain model "
                    "and convert that again"
                )
        seen, root = self.graph_module._modules, self.root
        replaced = [name for name, child in root._modules.items() if seen.get(name) is not child]
        if not replaced:
            return
        for path in self.twin_paths:
            part = path.partition(".")[0]
            if part in replaced and not _is_twin(root, path):
                raise Ada3DError(
                    f"AdaptiveNetwork: its part {part!r} was replaced by a module that is not converted "
                    f"({path} is no twin); replace it in the plain model and convert that again"
                )
        for view in self._views():
            adopt_children(view, root)

    def check_writers(self) -> None:
        """Check that modules still write into what others read, or still do not.

        Raises:
            Ada3DError: one that did does not any more, or the other way round.
        """
        for path, wrote in self.observed_writers.items():
            if bool(getattr(self.root.get_submodule(path), "inplace", False)) != wrote:
                did, does = ("wrote", "does not now") if wrote else ("did not write", "does now")
                raise Ada3DError(
                    f"AdaptiveNetwork: {path} {did} into its input when it was converted, and {does}, "
                    "and others read that input; keep its 'inplace', or change it in the plain model "
                    "and convert that again"
                )

    def place_constants(self) -> None:
        """Move the constants of the model's code to where its parameters are."""
        tensors = (*self.root.parameters(), *self.root.buffers())
        device = tensors[0].device if tensors else torch.device("meta")
        if device.type != "meta":  # from where no value comes back
            for module in (self.root, *self._views()):
                place_constants(module, device)

    def _views(self) -> Iterator[nn.Module]:
        """The programs, and the roots of their own that their regions have."""
        for program in (self.graph_module, self.training_module, self.folded.graph_module):
            yield program
            for region in program.children():
                if isinstance(region, Region) and region.root is not self.root:
                    yield region.root


def _is_twin(root: nn.Module, path: str) -> bool:
    try:
        return isinstance(root.get_submodule(path), Twin)
    except AttributeError:
        return False


def _aliases(root: nn.Module) -> tuple[tuple[str, ...], ...]:
    names: dict[nn.Module, list[str]] = {}
    for path, module in root.named_modules(remove_duplicate=False):
        if not any(True for _ in module.children()):
            names.setdefault(module, []).append(path)
    return tuple(tuple(paths) for paths in names.values() if len(paths) > 1)


@torch.inference_mode(False)  # where tensors do not tell that they were written into
def run_passes(
    root: nn.Module,
    clip_shape: tuple[int, int, int, int],
    grouping: Grouping,
    checkpointing: bool = False,
    positions: str = "own",
) -> Conversion:
    """Trace, analyse, plan, swap twins in, rewrite, fold.

    Args:
        root: a module from clips to scores, as `scoring_model` gives it. It becomes part of the
            result: the modules that mix time turn into their twins.
        clip_shape: (C, T, H, W) of the clips for which the plan is made.
        grouping: what one decision governs, see `convert`.
        checkpointing: whether blocks are computed again in backward, see `convert`.
        positions: which positions kept frames have, see `convert`.

    Raises:
        UnsupportedModel: nothing can be decided, or the model cannot run on such clips.
        Ada3DError: an unknown grouping, or a part whose name no program can have.
    """
    without_constants(root)  # of an earlier conversion
    check_names(root)
    shadow = shadow_of(root)
    with own_caches(root):
        programs, analyses, unfollowed = analysed_programs(
            root, shadow, clip_shape, checkpointing, positions
        )
    keep_constants(root, (p.graph for p in programs))
    plan = make_plan(root, analyses, clip_shape, grouping, programs[0].untraceable, unfollowed)
    twin_paths = {str(node.target) for a in analyses for node in a.time_mixing_nodes}
    for path in twin_paths:
        become_twin(root.get_submodule(path))
    rewritten = [rewrite(root, p.graph, a, plan) for p, a in zip(programs, analyses)]
    converted = Conversion(
        grouping=grouping,
        checkpointing=checkpointing,
        positions=positions,
        root=root,
        twin_paths=tuple(sorted(twin_paths)),
        aliases=_aliases(root),
        observed_writers={k: v for p in programs for k, v in p.observed_writers.items()},
        plan=plan,
        is_traced=not any(p.untraceable for p in programs),
        follows_times=any(follows_times(p.graph) for p in programs),
        source=programs[0].graph,
        windows=analyses[0].windows,
        graph_module=rewritten[0],
        training_module=rewritten[-1],
        folded=FoldedGraph(rewritten[0]),
    )
    converted.place_constants()
    return converted
