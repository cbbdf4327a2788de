"""Files of results, read back: what is cut off or foreign in them is named."""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ..errors import Ada3DError

BYTE_ORDER_MARKS = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}

# What a value may be, see `check`.
NUMBER, VALUE = (int, float), (str, int, float)
NAMES = {str: "a text", int: "a whole number", NUMBER: "a number", VALUE: "a text or a number"}


def read_text(path: str | Path, hint: str, errors: str = "strict") -> str:
    """Read a file of UTF-8, with or without a byte order mark.

    Args:
        path: the file.
        hint: what to try where it is not there or bad.
        errors: what to do with other bytes, as `bytes.decode` takes it.

    Raises:
        Ada3DError: no such file, an empty one, or one of another encoding.
    """
    path = Path(path)
    if not path.is_file():
        raise Ada3DError(f"no file at {path}; {hint}")
    data = path.read_bytes()
    encoding = BYTE_ORDER_MARKS.get(data[:2])
    try:
        if encoding:
            raise UnicodeError(f"it is {encoding}")
        text = data.decode("utf-8-sig", errors)
    except UnicodeError as error:
        raise Ada3DError(f"{path} is no text in UTF-8: {error}; {hint}") from error
    if not text.strip():
        raise Ada3DError(f"{path} is empty; {hint}")
    return text


def read_json(path: str | Path, hint: str) -> Any:
    """Read a file of JSON.

    Args:
        path: the file.
        hint: what to try where it is not there or bad.

    Raises:
        Ada3DError: no such file, no JSON, or numbers that JSON lacks (NaN, infinities).
    """
    text = read_text(path, hint)
    try:
        return json.loads(text, parse_float=_finite, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise Ada3DError(f"{path} is cut off, or no JSON: {error}; {hint}") from error


def check(value: Any, kind: Any, where: str = "") -> None:
    """Check that a value out of a file has the form that it should have.

    Args:
        value: what was read.
        kind: a type or several; a pattern, for a text; ``[kind]``, for a list; or a mapping from
            keys to kinds, in which ``'key?'`` may be missing or None.
        where: the way to the value, such as ``'rows[0].name'``.

    Raises:
        ValueError: it has another form; the message tells the way to what is wrong.
    """
    if isinstance(kind, Mapping):
        _expect(isinstance(value, Mapping), value, "an object", where)
        for key, inner in kind.items():
            name, optional = key.rstrip("?"), key.endswith("?")
            way = f"{where}.{name}" if where else name
            if not optional and name not in value:
                raise ValueError(f"{way} is missing")
            if not optional or value.get(name) is not None:
                check(value[name], inner, way)
    elif isinstance(kind, list):
        _expect(isinstance(value, list), value, "a list", where)
        for index, item in enumerate(value):
            check(item, kind[0], f"{where}[{index}]")
    elif isinstance(kind, re.Pattern):
        fits = isinstance(value, str) and kind.fullmatch(value)
        _expect(bool(fits), value, f"a text of {kind.pattern}", where)
    else:
        right = isinstance(value, kind) and not isinstance(value, bool)
        _expect(right, value, NAMES[kind], where)


def row_kind(columns: Sequence[tuple[str, str, str]]) -> dict[str, Any]:
    """Return the kind of a row of a table with these columns, for `check`."""
    return {f"{key}?": NUMBER if ":" in form else VALUE for key, _, form in columns}


def _expect(right: bool, value: Any, expected: str, where: str) -> None:
    if not right:
        shown = repr(value) if len(repr(value)) <= 40 else f"{repr(value)[:37]}..."
        raise ValueError(f"{where or 'the whole'} is {shown}, not {expected}")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        _refuse(text)
    return value


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"it holds {text}, which is no finite number")
