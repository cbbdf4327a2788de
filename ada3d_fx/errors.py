"""The one root of errors, and how a list of reasons is worded."""

from __future__ import annotations

import codecs
import errno
import math
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple


class Ada3DError(Exception):
    """A mistake of the user's: the message names what, where, and what to try."""


def require_number(
    option: str,
    value: Any,
    low: float = -math.inf,
    high: float = math.inf,
    above: bool = False,
    whole: bool = False,
) -> None:
    """Check that an option is a finite number within bounds.

    Args:
        option: its name, for the message.
        value: its value.
        low: the least that it may be.
        high: the most that it may be.
        above: it must be more than ``low``.
        whole: it must be an int.

    Raises:
        Ada3DError: no number, not finite, or outside.
    """
    number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if number and math.isfinite(value) and low <= value <= high and not (above and value == low):
        return
    least = f"above {low:g}" if above else f"at least {low:g}"
    bounds = [least] * (low > -math.inf) + [f"at most {high:g}"] * (high < math.inf)
    kind = "whole" if whole else "finite"
    raise Ada3DError(
        f"{option}={value!r}; expected a {kind} number {' and '.join(bounds)}".rstrip()
    )


def said_to_users(error: Ada3DError | OSError | UnicodeEncodeError) -> str | None:
    """Say what is wrong with what a user gave, a file's place or the disk; None: it is our mistake.

    A missing file is: those that a user gives are looked for beforehand.
    """
    encoding = sys.getfilesystemencoding()
    locale = f"the names of files in this locale are {encoding}; try LC_ALL=C.UTF-8 or PYTHONUTF8=1"
    if isinstance(error, Ada3DError):
        # one from a data loader's worker process comes with its traceback in the message
        message = str(error).rsplit("Ada3DError: ", 1)[-1].strip()
        whole = message.encode(encoding, "ignore").decode(encoding) == message
        whole |= codecs.lookup(encoding).name == "utf-8"
        return message if whole else f"{message} ({locale})"
    if isinstance(error, UnicodeEncodeError):
        known = codecs.lookup(error.encoding) == codecs.lookup(encoding)
        return f"{error.object!a} cannot be a file's name: {locale}" if known else None
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, FileNotFoundError) or not (error.filename or full):
        return None
    what = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
    return f"{what}; make room and run it again" if full else what


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
