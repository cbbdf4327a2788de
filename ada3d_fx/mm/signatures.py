"""What options a class or a function takes, and of which types, by its own signature."""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union

from torch import Tensor

NUMBERS = (bool, int, float)
WORDS = {
    bool: "True or False", int: "a whole number", float: "a number", str: "text",
    Path: "a path", type(None): "None",
}  # fmt: skip


class Signature(NamedTuple):
    """The options of a class or a function."""

    hints: dict[str, Any]  # name -> annotation; Any where there is none
    required: tuple[str, ...] = ()  # those without a default
    is_open: bool = False  # other names may be taken too

    def without(self, names: Sequence[str]) -> Signature:
        """Leave out options that are given already."""
        return Signature(
            {name: hint for name, hint in self.hints.items() if name not in names},
            tuple(name for name in self.required if name not in names),
            self.is_open,
        )


@functools.cache
def signature_of(kind: Callable) -> Signature:
    """Read the options that a class or a function takes.

    Those that a ``**kwargs`` passes on, and nothing else, to the constructor of a parent class or to
    another class or function are among them; any other ``**kwargs`` makes the signature open.
    """
    return _read(kind, 0)


def _read(kind: Callable, first: int) -> Signature:
    """Read a signature; ``first``: the place in the class's MRO from which on it is looked for."""
    function, here = kind, first
    if inspect.isclass(kind):
        owners = list(enumerate(kind.__mro__))[first:]
        here, owner = next((i, c) for i, c in owners if "__init__" in vars(c))
        if owner is object:
            return Signature({})
        function = vars(owner)["__init__"]
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # written in C
        return Signature({}, is_open=True)
    parameters = parameters[1:] if inspect.isclass(kind) else parameters  # without self
    hints = _hints(function)
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    found = Signature(
        {p.name: hints.get(p.name, Any) for p in named},
        tuple(p.name for p in named if p.default is p.empty),
    )
    more = next((p.name for p in parameters if p.kind is p.VAR_KEYWORD), None)
    if more is None:
        return found
    rest = _passed_on(kind, function, more, here)
    hints = {**found.hints, **{k: v for k, v in rest.hints.items() if k not in found.hints}}
    required = (*found.required, *(name for name in rest.required if name not in found.hints))
    return Signature(hints, required, rest.is_open)


def _passed_on(kind: Callable, function: Callable, name: str, here: int) -> Signature:
    """Read the signature of what takes the ``**name`` of a function.

    Where that is unclear it is an open one, with whatever the parent classes name.
    """
    parents = kind.__mro__[here + 1 :] if inspect.isclass(kind) else ()
    unclear = Signature(_all_hints(parents), is_open=True)
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return unclear
    uses = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == name]
    call = next(
        (
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and any(k.arg is None and k.value in uses for k in node.keywords)
        ),
        None,
    )
    if call is None or len(uses) != 1:
        return unclear
    if ast.unparse(call.func) == "super().__init__":
        target = _read(kind, here + 1)
    elif isinstance(call.func, ast.Name):
        taker = getattr(function, "__globals__", {}).get(call.func.id)
        target = _read(taker, 0) if callable(taker) else unclear
    else:
        target = unclear
    given = sum(not isinstance(argument, ast.Starred) for argument in call.args)
    return target.without([*list(target.hints)[:given], *(k.arg for k in call.keywords if k.arg)])


def _all_hints(kinds: Sequence[type]) -> dict[str, Any]:
    """Collect the options of constructors, whoever passes them on."""
    found: dict[str, Any] = {}
    for function in (vars(kind)["__init__"] for kind in kinds if "__init__" in vars(kind)):
        if isinstance(function, types.FunctionType):
            hints = _hints(function)
            for name in list(inspect.signature(function).parameters)[1:]:
                found.setdefault(name, hints.get(name, Any))
    return found


def _hints(function: Callable) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError):  # a name for type checkers only
        return {}


# --------------------------------------------------------------------------------------- types


def fits(value: Any, hint: Any) -> bool:
    """Tell whether a config's value is of an annotated type.

    Lists and tuples are the same here; whatever stands for an object that is built of a config fits
    the object's class. A bool is no number, and a whole number is one.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in arguments)
    if origin is Literal:
        return value in arguments
    if hint in (None, type(None)):
        return value is None
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint in (int, bool):
        return type(value) is hint
    kind = origin or hint
    if not inspect.isclass(kind) or kind in (Any, object):  # or type variables
        return True
    if kind in (str, Path):
        return isinstance(value, (str, Path))
    if issubclass(kind, Mapping) or is_dataclass(kind):
        return isinstance(value, Mapping)
    if issubclass(kind, Sequence):
        return isinstance(value, (list, tuple)) and _elements_fit(value, arguments)
    return value is not None and not isinstance(value, (bool, int, float))


def _elements_fit(values: Sequence, hints: tuple) -> bool:
    if not hints:
        return True
    if len(hints) == 1 or hints[1] is Ellipsis:
        return all(fits(value, hints[0]) for value in values)
    return len(values) == len(hints) and all(map(fits, values, hints))


def clearly_wrong(value: Any, hint: Any) -> bool:
    """Tell whether a value cannot be what another package's annotation says.

    Such annotations are often narrower than what is taken; only text where there are to be numbers,
    or tensors or lists of them, counts.
    """
    union = typing.get_origin(hint) in (Union, types.UnionType)
    kinds = [typing.get_origin(one) or one for one in (typing.get_args(hint) if union else (hint,))]
    other = [
        one for one in kinds if one not in (*NUMBERS, type(None), Tensor, list, tuple, Sequence)
    ]
    return isinstance(value, str) and not other and any(one in NUMBERS for one in kinds)


def described(hint: Any) -> str:
    """Return an annotation in words: ``float | None`` -> 'a number or None'."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        words = dict.fromkeys(described(one) for one in arguments)
        return " or ".join(words)
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    kind = origin or hint
    if kind in WORDS:
        return WORDS[kind]
    if inspect.isclass(kind) and (issubclass(kind, Mapping) or is_dataclass(kind)):
        return "a dict"
    if inspect.isclass(kind) and issubclass(kind, Sequence):
        several = [one for one in arguments if one is not Ellipsis]
        if len(several) > 1:
            return f"{len(several)} values"
        return f"a list, each {described(several[0])}" if several else "a list"
    return getattr(kind, "__name__", str(kind))


def dataclass_in(hint: Any) -> type | None:
    """Find the dataclass in an annotation such as ``Options | Mapping | None`` or a list of such."""
    if inspect.isclass(hint) and is_dataclass(hint):
        return hint
    inner = (dataclass_in(one) for one in typing.get_args(hint))
    return next((one for one in inner if one is not None), None)
