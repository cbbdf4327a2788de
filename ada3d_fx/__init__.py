"""ada3d_fx: each clip decides which of its frames and temporal convolutions are computed."""

from importlib.util import find_spec

from . import requirements
from .errors import Ada3DError, Reason, UnsupportedModel
from .runtime.session import Session

__version__ = "0.1.0"

__all__ = [
    "Ada3DError",
    "AdaptiveNetwork",
    "Policy",
    "PolicyDistribution",
    "Reason",
    "Segments",
    "Session",
    "Stage",
    "StagePlan",
    "UnsupportedModel",
    "convert",
    "export",
    "price",
    "price_table",
    "specialize",
]

# A service that runs exported networks has no torch, and needs `Session` only.
if find_spec("torch") is not None:
    requirements.check(requirements.CORE)
    with requirements.explained():
        from .convert import AdaptiveNetwork, convert
        from .cost.price import price, price_table
        from .distribution import PolicyDistribution
        from .export import export
        from .packed.segments import Segments
        from .plan import Stage, StagePlan
        from .policy import Policy
        from .specialize import specialize


def __getattr__(name: str) -> object:
    """Say what to install where a name is asked for that needs torch."""
    if name in __all__:
        requirements.check(requirements.CORE)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
