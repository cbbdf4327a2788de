"""Values of options as they are typed; each parser says what it expects.

They are argparse types: what they do not take is an ArgumentTypeError.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from fractions import Fraction

from . import files

# \d and int() take the digits of all scripts, str.isdigit() exponents too, and int() fails on very
# many; these are plain ones.
DIGITS = r"[0-9]{1,18}"
NUMBER = r"[1-9][0-9]{0,17}"
SEEDS = 2**32  # so many are NumPy's


def words(text: str) -> list[str]:
    """Parse ``'a,b'`` as ``['a', 'b']``."""
    parts = [part for part in text.split(",") if part]
    if not parts:
        raise argparse.ArgumentTypeError(f"{text!r}: expected words, a,b,...")
    return parts


def positive(text: str) -> float:
    """Parse a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a finite number above 0")
    return value


def numbers(text: str) -> list[float]:
    """Parse ``'0.2,3'`` as ``[0.2, 3.0]``; finite numbers only."""
    try:
        parsed = [float(part) for part in text.split(",")]
    except ValueError:
        parsed = [math.nan]
    if not all(map(math.isfinite, parsed)):
        raise argparse.ArgumentTypeError(f"{text!r}: expected finite numbers, a,b,...")
    return parsed


def positives(text: str) -> list[float]:
    """Parse ``'0.2,3'`` as ``[0.2, 3.0]``; finite numbers above 0."""
    return [positive(part) for part in text.split(",")]


def integer(text: str) -> int:
    """Parse a whole number of decimal digits."""
    if not re.fullmatch(rf"[+-]?{DIGITS}", text.strip(" ")):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number")
    return int(text)


def whole_number(text: str) -> int:
    """Parse a whole number above 0."""
    if not (re.fullmatch(DIGITS, text) and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number above 0")
    return int(text)


def natural(text: str) -> int:
    """Parse a whole number, at least 0."""
    if not re.fullmatch(DIGITS, text):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number, at least 0")
    return int(text)


def seed(text: str) -> int:
    """Parse a random seed, as NumPy takes them."""
    if not (re.fullmatch(DIGITS, text.strip(" ")) and int(text) < SEEDS):
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected a seed, a whole number from 0 to {SEEDS - 1}"
        )
    return int(text)


def seeds(text: str) -> list[int]:
    """Parse ``'0,1'`` as the seeds ``[0, 1]``."""
    return _listed(text, seed, f"whole numbers from 0 to {SEEDS - 1}")


def whole_numbers(text: str) -> list[int]:
    """Parse ``'0,1'`` as ``[0, 1]``."""
    return _listed(text, integer, "whole numbers")


def counts(text: str) -> list[int]:
    """Parse ``'1,4,8'`` as ``[1, 4, 8]``; whole numbers above 0."""
    return _listed(text, whole_number, "whole numbers above 0")


def _listed(text: str, parse: Callable[[str], int], expected: str) -> list[int]:
    """Parse numbers with commas between them."""
    try:
        return [parse(part) for part in text.split(",")]
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected {expected}, a,b,...") from None


def clip_shape(text: str) -> tuple[int, int, int, int]:
    """Parse ``'3,8,224,224'`` as ``(3, 8, 224, 224)``: C, T, H, W."""
    match = re.fullmatch(rf"({NUMBER}),({NUMBER}),({NUMBER}),({NUMBER})", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r}: expected C,T,H,W, such as 3,8,224,224")
    channels, frames, height, width = map(int, match.groups())
    return channels, frames, height, width


def size(text: str) -> tuple[int, int]:
    """Parse ``'64x48'`` as the width and height ``(64, 48)``."""
    match = re.fullmatch(rf"({NUMBER})x({NUMBER})", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r}: expected WIDTHxHEIGHT, such as 64x48")
    return int(match[1]), int(match[2])


def output_file(text: str) -> str:
    """Take the name of a file that will be written, if it can be written as things are now."""
    try:
        files.check(text)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error.strerror}") from None
    return text


def usage(text: str) -> tuple[float, float]:
    """Parse ``'23/32:0.45'`` as the fractions of frames and stages ``(0.71875, 0.45)``."""
    try:
        frames, stages = (float(Fraction(part)) for part in text.split(":"))
    except (ValueError, ZeroDivisionError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected FRAMES:STAGES, such as 0.7:0.4 or 23/32:9/20"
        ) from None
    if not (0 <= frames <= 1 and 0 <= stages <= 1):
        raise argparse.ArgumentTypeError(f"{text!r}: both fractions must be in [0, 1]")
    return frames, stages
