"""The one root of errors, and how a list of reasons is worded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Ada3DError(Exception):
    """A mistake of the user's: the message names what, where, and what to try."""


class Reason(NamedTuple):
    """Why something cannot be done, and where in the model."""

    where: str  # path of the module, or name of the operation
    why: str

    def __str__(self) -> str:
        return f"{self.where}: {self.why}"


class UnsupportedModel(Ada3DError):
    """A model that cannot be converted, with all reasons at once.

    Args:
        model_name: what the message calls the model; kept as an attribute.
        reasons: every reason, each with its module path; kept as a tuple.
    """

    def __init__(self, model_name: str, reasons: Iterable[Reason]):
        self.model_name = model_name
        self.reasons = tuple(reasons)
        lines = "\n".join(f"  - {reason}" for reason in self.reasons)
        super().__init__(f"{model_name} cannot be converted:\n{lines}")

    def __reduce__(self) -> tuple:
        return type(self), (self.model_name, self.reasons)
