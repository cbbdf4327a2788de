"""MMEngine and MMAction2 adapters. Importing this package registers them.

In a config: ``custom_imports = dict(imports=['ada3d_fx.mm'])``.
"""

from .. import requirements

requirements.check(requirements.FRAMEWORK)

with requirements.explained():
    from . import compat

    compat.apply()

    from . import build, datasets, hooks, metric, optim, recognizer

__all__ = ["build", "compat", "datasets", "hooks", "metric", "optim", "recognizer"]
