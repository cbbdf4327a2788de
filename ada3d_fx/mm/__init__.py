"""MMEngine and MMAction2 adapters. Importing this package registers them.

In a config: ``custom_imports = dict(imports=['ada3d_fx.mm'])``.
"""

from .. import requirements

requirements.check((*requirements.CORE, *requirements.FRAMEWORK))

with requirements.explained():
    from .. import compat

    compat.apply()

    from ..videos import transforms
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
