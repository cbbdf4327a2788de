"""MMEngine and MMAction2 adapters. Importing this package registers them.

In a config: ``custom_imports = dict(imports=['ada3d_fx.mm'])``.
"""

from . import compat

compat.apply()

from . import build, datasets, hooks, metric, optim, recognizer  # noqa: E402  (after compat)

__all__ = ["build", "compat", "datasets", "hooks", "metric", "optim", "recognizer"]
