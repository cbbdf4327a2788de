"""Make the published MMAction2 1.2.0 and MMEngine 0.10 importable and resumable.

Nothing happens where nothing is missing.

- MMAction2's package lacks ``mmaction.models.localizers.drn`` although ``mmaction.models`` imports
  it.
- MMAction2 imports ``importlib_metadata`` without depending on it.
- MMEngine calls ``torch.load`` as before PyTorch 2.6, where every class in a checkpoint must now be
  allowed by name.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import pickle
import sys
import types
from pathlib import Path

import torch


def apply() -> list[str]:
    """Fill the gaps; call it before the first import of ``mmaction.models``.

    Returns:
        Names of what was missing.
    """
    filled = []
    if importlib.util.find_spec("importlib_metadata") is None:
        sys.modules["importlib_metadata"] = importlib.metadata
        filled.append("importlib_metadata")
    if _lacks_drn():
        _stub_drn()
        filled.append("mmaction.models.localizers.drn")
    if hasattr(torch.serialization, "add_safe_globals"):
        torch.serialization.add_safe_globals(_checkpoint_classes())
    return filled


def _lacks_drn() -> bool:
    name = "mmaction.models.localizers.drn"
    if name in sys.modules:
        return False
    # finding a top-level package does not import it
    mmaction = importlib.util.find_spec("mmaction")
    folders = (mmaction.submodule_search_locations or []) if mmaction else []
    localizers = [Path(folder, "models", "localizers") for folder in folders]
    return any(path.is_dir() and not (path / "drn").is_dir() for path in localizers)


def _stub_drn() -> None:
    class DRN:
        """Stands in for the localizer that the package was published without."""

        def __init__(self, *args, **kwargs):
            raise NotImplementedError("this MMAction2 package does not contain the DRN localizer")

    package = types.ModuleType("mmaction.models.localizers.drn")
    module = types.ModuleType("mmaction.models.localizers.drn.drn")
    package.__path__ = []
    package.drn, module.DRN = module, DRN
    sys.modules[package.__name__], sys.modules[module.__name__] = package, module


def _checkpoint_classes() -> list:
    """List what MMEngine's own checkpoints hold beside tensors.

    These are logged values, as histories of NumPy numbers.
    """
    import numpy
    from mmengine.logging.history_buffer import HistoryBuffer
    from mmengine.optim import scheduler

    core = numpy._core if hasattr(numpy, "_core") else numpy.core
    return [
        _checkpoint_getattr(),
        scheduler.OneCycleParamScheduler,
        HistoryBuffer,
        numpy.ndarray,
        numpy.dtype,
        core.multiarray._reconstruct,
        core.multiarray.scalar,
        numpy.dtypes.Float64DType,
        numpy.dtypes.Float32DType,
        numpy.dtypes.Int64DType,
        numpy.dtypes.Int32DType,
        numpy.dtypes.BoolDType,
    ]


def _checkpoint_getattr():
    """Make what stands in for ``getattr`` while unpickling: it gives only what is named here."""
    from mmengine.logging.history_buffer import HistoryBuffer
    from mmengine.optim import scheduler

    allowed = {
        HistoryBuffer: ("min", "max", "mean", "current"),
        scheduler.OneCycleParamScheduler: ("_annealing_cos", "_annealing_linear"),
    }

    def checkpoint_getattr(owner, name):
        if name not in allowed.get(owner, ()):
            raise pickle.UnpicklingError(f"a checkpoint may not read {name!r} of {owner!r}")
        return getattr(owner, name)

    # classes are allowed by the name under which the checkpoint asks for them
    checkpoint_getattr.__module__ = "builtins"
    checkpoint_getattr.__name__ = checkpoint_getattr.__qualname__ = "getattr"
    return checkpoint_getattr
