"""ada3d_fx: each clip decides which of its frames and temporal convolutions are computed."""

from . import requirements

requirements.check(requirements.CORE)

with requirements.explained():
    from .convert import AdaptiveNetwork, convert
    from .cost.price import price, price_table
    from .distribution import PolicyDistribution
    from .errors import Ada3DError, Reason, UnsupportedModel
    from .packed.segments import Segments
    from .plan import Stage, StagePlan
    from .policy import Policy
    from .specialize import specialize

__version__ = "0.1.0"

__all__ = [
    "Ada3DError",
    "AdaptiveNetwork",
    "Policy",
    "PolicyDistribution",
    "Reason",
    "Segments",
    "Stage",
    "StagePlan",
    "UnsupportedModel",
    "convert",
    "price",
    "price_table",
    "specialize",
]
