"""MMEngine and MMAction2 adapters. Importing this package registers them.

In a config: ``custom_imports = dict(imports=['ada3d_fx.mm'])``.
"""

from . import compat

compat.apply()

from . import datasets  # noqa: E402  (after compat: MMAction2 may not import without it)

__all__ = ["compat", "datasets"]
