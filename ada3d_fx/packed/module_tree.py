"""Another root over the same children."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from torch import nn


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


def replace_module(root: nn.Module, path: str, module: nn.Module) -> None:
    """Put ``module`` at ``path`` below ``root``."""
    parent, _, name = path.rpartition(".")
    setattr(root.get_submodule(parent), name, module)
