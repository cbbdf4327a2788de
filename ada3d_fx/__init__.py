"""ada3d_fx: each clip decides how many of its frames, and which temporal-convolution stages, are worth computing."""

from .convert import AdaptiveNetwork, convert, specialize
from .errors import Ada3DError, Reason, UnsupportedModel
from .flops import price, price_table
from .policy import Policy, PolicyDistribution
from .segments import Segments
from .stages import Stage, StagePlan

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
