"""MMEngine and MMAction2 adapters. Importing this package registers them.

In a config: ``custom_imports = dict(imports=['ada3d_fx.mm'])``.
"""

from .. import requirements

with requirements.explained():
    # first, as it checks what is installed and fills MMAction2's gaps
    from ..videos import transforms  # isort: skip
    from . import (
        build,
        differences,
        hooks,
        inferencer,
        inflated,
        metric,
        optim,
        recognizer,
        step_times,
    )
    from .inferencer import Ada3DInferencer

__all__ = [
    "Ada3DInferencer",
    "build",
    "differences",
    "hooks",
    "inferencer",
    "inflated",
    "metric",
    "optim",
    "recognizer",
    "step_times",
    "transforms",
]
