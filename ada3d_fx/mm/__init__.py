"""MMEngine and MMAction2 adapters. Importing this package registers them.

In a config: ``custom_imports = dict(imports=['ada3d_fx.mm'])``.
"""

from . import compat

compat.apply()

from . import datasets, hooks, metric, recognizer  # noqa: E402  (MMAction2 imports after compat only)

__all__ = ["compat", "datasets", "hooks", "metric", "recognizer"]
