"""One parameter group for each of the two networks."""

from __future__ import annotations

from collections.abc import Mapping

from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS
from torch import nn

GROUPS = ("recognizer", "selector")


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class Ada3DOptimWrapperConstructor:
    """One parameter group for the recognizer (theta of eq. 8) and one for the selector (w).

    Each group bears its name, by which TrainingPhaseHook sets its learning rate.

    Args:
        optim_wrapper_cfg: MMEngine's options of the wrapper, with ``optimizer``.
        paramwise_cfg: MMEngine's; not used.
    """

    def __init__(self, optim_wrapper_cfg: Mapping, paramwise_cfg: Mapping | None = None):
        self.config = dict(optim_wrapper_cfg)

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimizer of an Ada3DRecognizer and its wrapper."""
        model = unwrap(model)
        groups = []
        for name in GROUPS:
            part = getattr(model, name, None)
            params = [p for p in part.parameters() if p.requires_grad] if part is not None else []
            if params:
                groups.append({"params": params, "name": name})
        config = {"type": "OptimWrapper", **self.config}
        optimizer = OPTIMIZERS.build({**config.pop("optimizer"), "params": groups})
        return OPTIM_WRAPPERS.build({**config, "optimizer": optimizer})


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model within a distributed wrapper."""
    return model.module if is_model_wrapper(model) else model
