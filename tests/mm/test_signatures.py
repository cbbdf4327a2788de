"""What a class takes is read from its own code, and what fits an annotation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from torch import Tensor, nn

from ada3d_fx.learn.estimators import Reinforce
from ada3d_fx.mm.signatures import clearly_wrong, described, fits, signature_of


class Parent:
    def __init__(self, a, b: int = 1, c: float = 2.0):
        pass


class Passing(Parent):
    def __init__(self, d: str, **others):
        super().__init__(0, c=3.0, **others)


class Silent(Passing):
    pass


class Reading(Parent):
    def __init__(self, e=1, **others):
        others.pop("f", None)
        super().__init__(0, **others)


class Closed(Parent):
    def __init__(self, e=1):
        super().__init__(0)


def function(x, *, y: bool = True, **others):
    return Closed(**others)


def test_what_is_passed_on_is_known():
    for kind in (Passing, Silent):
        known = signature_of(kind)
        assert known.hints == {"d": str, "b": int} and known.required == ("d",)
        assert not known.is_open
    assert set(signature_of(function).hints) == {"x", "y", "e"}
    assert {"gamma", "samples", "entropy", "baseline"} <= set(signature_of(Reinforce).hints)
    assert not signature_of(Reinforce).is_open


def test_what_may_be_read_otherwise_is_open():
    known = signature_of(Reading)
    assert known.is_open and known.required == () and {"a", "b", "c", "e"} == set(known.hints)


def test_what_has_no_more_is_closed():
    assert signature_of(Closed).hints == {"e": Any} and not signature_of(Closed).is_open
    assert signature_of(object).hints == {} and not signature_of(object).is_open
    assert signature_of(dict).is_open  # written in C


@dataclass
class Group:
    a: int = 1


TABLE = [
    (float, (1, 1.5), ("1", True, None, [1])),
    (int, (1,), (1.5, "1", True, None)),
    (bool, (True,), (1, "True", None)),
    (str, ("a",), (1, None, ["a"])),
    (float | None, (1, None), ("1",)),
    (Sequence[int], ((1, 2), [1], []), ("12", 1, [1.5], ["a"])),
    (tuple[int, int], ([1, 2],), ([1], (1, 2, 3), "ab")),
    (tuple[int, ...], ([1, 2, 3],), (["a"],)),
    (Mapping[str, int], ({"a": 1},), ([1], "a")),
    (Literal["a", "b"] | None, ("a", None), ("c", 1)),
    (Group | Mapping | None, ({"a": 1}, None), (1, "a")),
    (Sequence[Group | Mapping], ([{"a": 1}],), ({"a": 1}, [1])),
    (nn.Module, ({"type": "C3D"}, "name"), (1, None, True)),
    (Any, (1, None, "a"), ()),
    (Callable, (len, {"type": "x"}), ()),
]


@pytest.mark.parametrize("hint, right, wrong", TABLE, ids=[str(row[0]) for row in TABLE])
def test_types(hint, right, wrong):
    assert all(fits(value, hint) for value in right)
    assert not any(fits(value, hint) for value in wrong)


def test_loose_annotations_of_others():
    assert clearly_wrong("x", int) and clearly_wrong("x", float | Tensor | None)
    for value, hint in ((1.5, int), ([1], int), ("x", int | str), ("x", Any), ("x", dict | int)):
        assert not clearly_wrong(value, hint)


def test_types_in_words():
    assert described(float | None) == "a number or None"
    assert described(Group | Mapping | None) == "a dict or None"
    assert described(tuple[int, int]) == "2 values"
    assert described(Sequence[int]) == "a list, each a whole number"
