"""What the golden files hold: types with a value each, and histories of one item.

Only ever add to these: the names and what they stand for are a promise.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict
from uuid import UUID

import numpy as np

from chalk_online_store import Document, Feature, Namespace
from chalk_online_store.codec.changes import Attributes, Change, merge
from chalk_online_store.codec.layout import TableLayout
from chalk_online_store.codec.namespaces import NamespaceCodec
from chalk_online_store.codec.registry import Registry
from chalk_online_store.operations.write import changes_of_deletes
from tests.strategies import double, vector

LAYOUT = TableLayout()


class Colour(enum.Enum):
    RED = "r"


class Size(enum.IntEnum):
    LARGE = 3


class Point(NamedTuple):
    x: float
    y: float | None


@dataclass
class Address:
    street: str
    number: int | None = None
    tags: set[str] = field(default_factory=set)
    at: Point | None = None


class Visit(TypedDict):
    place: str
    length: NotRequired[timedelta]


TYPES: dict[str, tuple[Any, Any]] = {
    "none": (None, None),
    "null": (str | None, None),
    "bool": (bool, True),
    "str": (str, 'naïve ☃ 😀 "\\\n\0'),
    "str empty": (str, ""),
    "bytes": (bytes, b"\x00\xff~"),
    "int": (int, -12),
    "int of 38 digits": (int, 10**38 - 1),
    "float": (float, 0.1),
    "float whole": (float, 3.0),
    "float large": (float, 9.99e125),
    "float small": (float, -1e-130),
    "float negative zero": (float, -0.0),
    "float infinity": (float, float("-inf")),
    "float NaN": (float, double(0x7FF8000000000001)),
    "float subnormal": (float, 5e-324),
    "decimal": (Decimal, Decimal("-1.05")),
    "decimal with a trailing zero": (Decimal, Decimal("1.10")),
    "decimal with an exponent": (Decimal, Decimal("1E+2")),
    "decimal NaN": (Decimal, Decimal("NaN123")),
    "datetime": (datetime, datetime(2026, 11, 24, 3, 43, 1, 7, UTC)),
    "datetime before 1970": (datetime, datetime(1, 1, 1, tzinfo=UTC)),
    "date": (date, date(2026, 11, 24)),
    "time": (time, time(23, 59, 59, 999999)),
    "timedelta": (timedelta, timedelta(days=-1, microseconds=1)),
    "uuid": (UUID, UUID("12345678-1234-5678-1234-567812345678")),
    "enum": (Colour, Colour.RED),
    "enum of ints": (Size, Size.LARGE),
    "literal": (Literal["x", "y"], "y"),
    "vector": (vector[3], np.array([0.1, -0.0, np.inf], "f2")),
    "vector f4": (vector[2, "f4"], np.array([0.1, np.nan], "f4")),
    "vector f8": (vector[1, "f8"], np.array([0.1], "f8")),
    "list": (list[int | None], [1, None, -3]),
    "list empty": (list[str], []),
    "list of lists": (list[list[float]], [[0.5, float("inf")], []]),
    "tuple": (tuple[int, ...], (1, 2)),
    "tuple of places": (tuple[int, str | None, bytes], (1, None, b"x")),
    "set of text": (set[str], {"a", "b"}),
    "set of numbers": (frozenset[int], frozenset({-1, 2})),
    "set of bytes": (set[bytes], {b"\0", b"\1"}),
    "set of floats": (set[float], {1.5, -0.0}),
    "set of equal NaNs": (set[float], {float("nan"), float("nan")}),
    "set of bools": (set[bool], {True, False}),
    "set with an empty string": (set[str], {"", "a"}),
    "set empty": (set[int], set()),
    "dict": (dict[str, int | None], {"a": 1, 'ü. "': None}),
    "dict empty": (dict[str, int], {}),
    "struct": (Address, Address("Main St", 7, {"x"}, Point(0.5, None))),
    "struct of nulls and empty parts": (Address, Address("")),
    "struct of a TypedDict": (Visit, {"place": "x"}),
    "structs in a dict": (dict[str, list[Visit]], {"a": [{"place": "x", "length": timedelta(1)}]}),
    "document": (Document, {"a": [1, 2.5, None, True, b"x", "y"], 3: -(2**63)}),
    "document with a datetime": (Any, [datetime(2026, 11, 24, 0, 0, 0, 5, UTC)]),
}
"""A type and a value by a name that says what is special about it."""


# --- items ---------------------------------------------------------------------------------

USER = Namespace(
    "user",
    int,
    [
        Feature("email", str | None),
        Feature("visits", int),
        Feature("address", Address, max_staleness="30d"),
        Feature("risk", float, group="realtime", max_staleness="1h"),
        Feature("score", float, group="realtime", max_staleness="1d"),
    ],
)
STAY = Namespace("stay", tuple[int, str], [Feature("nights", int)])

HOME = Address("Main St", 7)
WHOLE = {"id": 7, "email": None, "visits": 3, "address": HOME}
RISK = {"id": 7, "risk": 0.5, "score": -0.0}
T = [datetime(2026, 1, 1, hour, tzinfo=UTC) for hour in range(10)]


def microseconds(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def registry_of(*namespaces: Namespace) -> Registry:
    """What a table knows to which these namespaces were added one after the other."""
    registry = Registry()
    for namespace in namespaces:
        new = registry.allocate(registry.missing(namespace), LAYOUT.reserved)
        registry = Registry((*registry.entries, *new))
    return registry


REGISTRY = registry_of(USER, STAY)


def codec_of(namespace: Namespace) -> NamespaceCodec:
    return NamespaceCodec(namespace, REGISTRY, LAYOUT)


def write(row: Mapping[str, Any], at: datetime, namespace: Namespace = USER) -> Change:
    (change,) = codec_of(namespace).changes(row, microseconds(at))
    return change


def delete(at: datetime, *names: str) -> Change:
    when = microseconds(at)
    planned = changes_of_deletes(codec_of(USER), [7], list(names) or None, when, when)
    return planned[0][1]


HISTORIES: dict[str, Callable[[], list[Change]]] = {
    "whole": lambda: [write(WHOLE, T[1])],
    "whole with an expiry": lambda: [write(RISK, T[1])],
    "of a composite key": lambda: [write({"id": (1, "a:b"), "nights": 2}, T[1], STAY)],
    "partial": lambda: [write({"id": 7, "visits": 3}, T[1])],
    "partial after whole": lambda: [write(WHOLE, T[1]), write({"id": 7, "visits": 4}, T[2])],
    "partial with an expiry": lambda: [write(RISK, T[1]), write({"id": 7, "risk": 1.0}, T[2])],
    "late whole": lambda: [write({"id": 7, "visits": 4}, T[3]), write(WHOLE, T[2])],
    "removed feature": lambda: [write(WHOLE, T[1]), delete(T[2], "visits")],
    "tombstone": lambda: [write(WHOLE, T[1]), delete(T[2])],
    "late tombstone": lambda: [
        write(WHOLE, T[1]),
        write({"id": 7, "visits": 4}, T[3]),
        delete(T[2]),
    ],
    "written after a tombstone": lambda: [delete(T[1]), write({"id": 7, "visits": 1}, T[2])],
}
"""Writes and deletes of one item, by what is special about it."""


def item_of(name: str) -> Attributes:
    """The item that a history comes to."""
    item: Attributes | None = None
    for change in HISTORIES[name]():
        item = merge(LAYOUT, item, change)
    assert item is not None
    return item


_VISITS_3 = {"email": None, "visits": (3, 1), "address": None}
SERVED: dict[str, dict[str, tuple[Any, int] | None]] = {
    "whole": {"email": (None, 1), "visits": (3, 1), "address": (HOME, 1)},
    "whole with an expiry": {"risk": (0.5, 1), "score": (-0.0, 1)},
    "of a composite key": {"nights": (2, 1)},
    "partial": _VISITS_3,
    "partial after whole": {"email": (None, 1), "visits": (4, 2), "address": (HOME, 1)},
    "partial with an expiry": {"risk": (1.0, 2), "score": (-0.0, 1)},
    "late whole": {"email": (None, 2), "visits": (4, 3), "address": (HOME, 2)},
    "removed feature": {"email": (None, 1), "visits": None, "address": (HOME, 1)},
    "tombstone": {"email": None, "visits": None, "address": None},
    "late tombstone": {"email": None, "visits": (4, 3), "address": None},
    "written after a tombstone": {"email": None, "visits": (1, 2), "address": None},
}
"""Value and hour of observation of each feature of an item; None where there is no value."""
