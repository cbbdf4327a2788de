"""Other roots over the same modules: the one place that works around nn.Module's bookkeeping.

A converted network shows the same modules in several ways: as the user's tree of names, as the
rewritten program, as the folded one, and as variants in which some convolutions are sliced. There
must be one of each parameter all the same, under one name in ``state_dict()``: checkpoints then load,
optimizers see it once, and what is moved, frozen or replaced in one view is so in all of them.
nn.Module registers whatever module is assigned to it, and fx.GraphModule builds containers of its
own; both would break this. The functions here do not, and none of them copies a parameter.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn


def keep_unregistered(owner: nn.Module, **values: Any) -> None:
    """Store values without registering them, so that ``state_dict()`` lists each parameter once.

    Args:
        owner: the module whose attributes they become.
        values: modules, or anything else, by attribute name.
    """
    owner.__dict__.update(values)


def share_children(owner: nn.Module, root: nn.Module) -> None:
    """Make the modules, parameters and buffers of ``root`` those of ``owner`` as well.

    The tables themselves are shared: what is later assigned to one of the two is seen by both.
    """
    owner._modules, owner._parameters, owner._buffers = (
        root._modules,
        root._parameters,
        root._buffers,
    )
    owner._non_persistent_buffers_set = root._non_persistent_buffers_set


def with_modules(root: nn.Module, replaced: Mapping[str, nn.Module]) -> nn.Module:
    """Return a root with other modules at some paths, which shares everything else with ``root``.

    Only the modules above the replaced ones are copied, without what is in them. A module that has
    several names keeps them: it is copied once.

    Args:
        root: it is not changed.
        replaced: path -> the module to put there; at the top, a name may be new.

    Returns:
        The new root, or ``root`` itself if nothing is replaced.
    """
    if "" in replaced:
        return replaced[""]
    copies: dict[nn.Module, nn.Module] = {}

    def copy_of(path: str) -> nn.Module:
        original = root.get_submodule(path)
        if original not in copies:
            copies[original] = shallow_copy(original)
        if path:
            parent, _, name = path.rpartition(".")
            copy_of(parent)._modules[name] = copies[original]
        return copies[original]

    for path, module in replaced.items():
        parent, _, name = path.rpartition(".")
        copy_of(parent)._modules[name] = module
    return copies.get(root, root)


def graph_over(
    root: nn.Module,
    graph: fx.Graph,
    class_name: str,
    extra: Mapping[str, nn.Module] | None = None,
) -> fx.GraphModule:
    """Make an fx.GraphModule whose children are the very modules of ``root``, and ``extra`` ones.

    fx.GraphModule on its own builds plain containers along the paths that the graph calls. The
    model's own containers carry what their classes do in ``train()``, such as frozen stages, and
    they see a module that is replaced later.

    Args:
        root: where the paths in ``graph`` start; it is not changed.
        graph: the program.
        class_name: the name of the class of the result.
        extra: further children, by name.
    """
    source = with_modules(root, extra or {})
    module = fx.GraphModule(source, graph, class_name=class_name)
    module._modules = dict(source._modules)
    # fx makes buffers of what are none in the model: constants, and attributes that hold tensors
    attributes = {k: v for k, v in module._buffers.items() if k not in source._buffers}
    module._parameters, module._buffers = source._parameters, source._buffers
    # which fx of torch 2.11 forgets
    module._non_persistent_buffers_set = source._non_persistent_buffers_set
    keep_unregistered(module, **attributes)
    return module


CONSTANT = "_tensor_constant"  # so fx calls tensors that a model's code makes, such as literals


def constants_of(module: nn.Module) -> dict[str, Tensor]:
    """Return the constants that tracing left on a module, by attribute name."""
    return {
        name: value
        for name, value in vars(module).items()
        if name.startswith(CONSTANT) and isinstance(value, Tensor)
    }


def save_only(module: nn.Module, names: Container[str]) -> None:
    """Leave the buffers that are not among ``names`` out of a module's ``state_dict()``."""
    for path, part in module.named_modules():
        for name in part._buffers:
            if (f"{path}.{name}" if path else name) not in names:
                part._non_persistent_buffers_set.add(name)


def without_constants(module: nn.Module) -> nn.Module:
    """Take the constants of a module away; return the module."""
    for name in constants_of(module):
        del module.__dict__[name]
    return module


def keep_constants(module: nn.Module, graphs: Iterable[fx.Graph]) -> None:
    """Take the constants of a module away that no graph reads."""
    read = {str(node.target) for graph in graphs for node in graph.nodes if node.op == "get_attr"}
    for name in constants_of(module):
        if name not in read:
            del module.__dict__[name]


def place_constants(module: nn.Module, device: torch.device) -> None:
    """Move the constants of a module, whose type stays that which the model's code gives them.

    Single numbers stay where they are: they mix with tensors of any device.
    """
    for name, value in constants_of(module).items():
        if value.ndim:
            module.__dict__[name] = value.to(device)


def module_at(root: nn.Module, path: str) -> nn.Module:
    """Return a module by its path, as ``get_submodule`` does, in a tenth of the time.

    Raises:
        AttributeError: there is none.
    """
    module: nn.Module | None = root
    for name in path.split("."):
        module = module._modules.get(name) if module is not None else None
    return root.get_submodule(path) if module is None else module


def free_name(root: nn.Module, path: str) -> str:
    """Return ``path``, with underscores at its end until nothing in ``root`` has that name."""
    parent, _, name = path.rpartition(".")
    while hasattr(root.get_submodule(parent), name):
        name += "_"
    return f"{parent}.{name}" if parent else name


def adopt_children(module: nn.Module, root: nn.Module) -> None:
    """Let a module made by `graph_over` or `with_modules` see the children of ``root`` of now.

    Its own further children stay. What is replaced deeper in the tree is seen anyway.
    """
    module._modules.update(root._modules)


def shallow_copy(module: nn.Module) -> nn.Module:
    """Copy a module without its children, parameters and buffers: it has a list of its own of them.

    Not ``copy.copy``: modules such as fx.GraphModule make that a costlier copy of another kind.
    """
    copied = nn.Module.__new__(type(module))
    copied.__dict__.update(module.__dict__)
    copied._modules = dict(module._modules)
    return copied
