"""Make the published MMAction2 1.2.0 and MMEngine 0.10 importable, resumable, and safe to load with.

Gaps are filled where there are some; MMEngine's reading of checkpoints is replaced in any case.

- MMAction2's package lacks ``mmaction.models.localizers.drn`` although ``mmaction.models`` imports
  it.
- MMAction2 imports ``importlib_metadata`` without depending on it.
- MMAction2's multimodal models import names that later releases of transformers lack, which stops
  the import of all models; they are left out then, as MMAction2 does without transformers.
- MMEngine calls ``torch.load`` without ``weights_only``. Before PyTorch 2.6 that runs whatever code
  the file holds, and MMEngine's downloads do so still. From 2.6 on, every class in a checkpoint must
  be allowed by name.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import pickle
import sys
import types
import urllib.parse
from pathlib import Path

import torch

from . import weights


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
    if _multimodal_models_fail():
        from mmaction.utils import dependency

        dependency.WITH_MULTIMODAL = False
        filled.append("mmaction.models.multimodal")
    torch.serialization.add_safe_globals(_checkpoint_classes())
    _read_checkpoints_safely()
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


def _multimodal_models_fail() -> bool:
    """Whether transformers is there without what MMAction2's VindLU asks it for."""
    if "mmaction.models" in sys.modules or importlib.util.find_spec("transformers") is None:
        return False
    try:
        from transformers.modeling_utils import (  # noqa: F401
            PreTrainedModel,
            apply_chunking_to_forward,
            find_pruneable_heads_and_indices,
            prune_linear_layer,
        )
        from transformers.models.beit.modeling_beit import (  # noqa: F401
            BeitRelativePositionBias,
        )
    except ImportError:
        return True
    return False


class _TorchOfLoaders(types.ModuleType):
    """What MMEngine's checkpoint loaders take for torch: the same, but for ``load``."""

    load = staticmethod(weights.read)

    def __getattr__(self, name: str):
        return getattr(torch, name)


def _read_checkpoints_safely() -> None:
    """Make MMEngine read checkpoints by `weights.read`, wherever they come from.

    All its loaders, of local files, of downloads and of ``modelzoo://`` and the like, are in this
    module, and find both names there.
    """
    from mmengine.runner import checkpoint as loaders

    loaders.torch = _TorchOfLoaders("torch")
    loaders.load_url = _load_url


def _load_url(url, model_dir=None, map_location=None, progress=True):
    """Download a checkpoint, unless it was before, and read it, as torch.utils.model_zoo does."""
    folder = Path(model_dir or Path(torch.hub.get_dir(), "checkpoints"))
    path = folder / Path(urllib.parse.urlparse(url).path).name
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), progress=progress)
    return weights.read(path, map_location)


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
        _checkpoint_encode(),
        scheduler.OneCycleParamScheduler,
        HistoryBuffer,
        numpy.ndarray,
        numpy.dtype,
        core.multiarray._reconstruct,
        core.multiarray.scalar,
        # numpy.dtypes has these since NumPy 1.25 only
        *(type(numpy.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")),
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

    return _under_the_name(checkpoint_getattr, "builtins", "getattr")


def _checkpoint_encode():
    """Make what stands in for ``_codecs.encode``, by which a pickle holds the bytes of arrays.

    PyTorch allows that one itself since 2.5.
    """

    def checkpoint_encode(text, encoding):
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"a checkpoint may not use the encoding {encoding!r}")
        return text.encode(encoding)

    return _under_the_name(checkpoint_encode, "_codecs", "encode")


def _under_the_name(stand_in, module: str, name: str):
    """Rename a function: what is allowed is found by the name under which a checkpoint asks for it."""
    stand_in.__module__ = module
    stand_in.__name__ = stand_in.__qualname__ = name
    return stand_in
