"""Hypothesis strategies that several tests share: values of every type, and what makes them equal.

`VALUES` maps each annotation without parts to a strategy for its values; a new one gets a row
here. `any_types()` makes up types of any parts, `namespaces()` whole schemas.
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
import struct
import types
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict
from uuid import UUID

import attrs
import msgspec
import numpy as np
import pydantic
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from chalk_online_store import Document, Feature, Namespace, Vector

vector: Any = Vector
"""`Vector`, which type checkers let nobody subscript."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Colour(enum.Enum):
    """An Enum stored as text."""

    RED = "r"
    GREEN = "g"
    CRIMSON = "r"  # noqa: PIE796 - an alias


class Level(enum.IntEnum):
    """An Enum stored as a number."""

    LOW = -1
    HIGH = 10**20


class Mark(enum.Enum):
    """An Enum stored as bytes."""

    EMPTY = b""
    FULL = b"\x00\xff"


def exactly(value: Any) -> Any:
    """Something that is equal only for identical values: types, signs, digits and NaN bits.

    It can be hashed. The order of dictionaries and sets does not count.
    """
    if isinstance(value, float):
        return float, struct.pack(">d", value)
    if isinstance(value, Decimal):
        return Decimal, value.as_tuple()
    if isinstance(value, np.ndarray | np.float16):
        return value.dtype, value.shape, value.tobytes()
    if isinstance(value, datetime):
        return datetime, (value - EPOCH) // timedelta(microseconds=1)
    if isinstance(value, dict):
        return dict, frozenset((exactly(k), exactly(part)) for k, part in value.items())
    if isinstance(value, set | frozenset):
        return type(value), frozenset(Counter(map(exactly, value)).items())
    if isinstance(value, list | tuple):
        return type(value), tuple(map(exactly, value))
    names = field_names(type(value))
    if names is not None:
        return type(value), tuple((name, exactly(getattr(value, name))) for name in names)
    return type(value), value


def field_names(cls: Any) -> tuple[str, ...] | None:
    """The fields of a class that has any, but for tuples and dictionaries."""
    if dataclasses.is_dataclass(cls):
        return tuple(field.name for field in dataclasses.fields(cls))
    if attrs.has(cls):
        return tuple(field.name for field in attrs.fields(cls))
    if issubclass(cls, pydantic.BaseModel):
        return tuple(cls.model_fields)
    return getattr(cls, "__struct_fields__", None)


def double(bits: int) -> float:
    """The float of these 64 bits."""
    return float(struct.unpack(">d", struct.pack(">Q", bits))[0])


def in_utc_range(value: datetime) -> bool:
    """Whether the year in UTC is one that Python has."""
    year_one = datetime.min.replace(tzinfo=UTC)
    return year_one <= value <= datetime.max.replace(tzinfo=UTC)


EDGE_FLOATS = [0.0, -0.0, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308]
EDGE_FLOATS += [1e-130, -1e-130, 9.999999999999999e-131, 9.99e125, 9.999999999999999e125, 1e126]
EDGE_FLOATS += [-1e126, 0.1, 1e22, 1e16, 2.0**53, float("inf"), float("-inf"), float("nan")]
EDGE_FLOATS += [double(0xFFF8000000000000), double(0x7FF8000000000001), double(0x7FF0000000000001)]

doubles = st.integers(0, 2**64 - 1).map(double)
floats = st.sampled_from(EDGE_FLOATS) | doubles | st.floats()

MAX_INT = 10**38 - 1
ints = st.integers(-MAX_INT, MAX_INT) | st.integers(-300, 300)
ints |= st.integers(0, 37).map(lambda exponent: 10**exponent)

digits = st.lists(st.integers(0, 9), min_size=1, max_size=45)
exponents = st.integers(-300, 300) | st.integers(-40, 3) | st.sampled_from([-131, -130, -129])
finite_decimals = st.builds(
    lambda sign, digits, exponent: Decimal((sign, tuple(digits), exponent)),
    st.integers(0, 1),
    digits,
    exponents,
)
EDGE_DECIMALS = ["9" * 38, "9" * 39, "0." + "3" * 38, "0." + "3" * 39, "1E-130", "1E-131"]
EDGE_DECIMALS += ["100", "1E+2", "1" + "0" * 37, "1" + "0" * 38, "1.10", "0.00", "0", "1E+125"]
SPECIAL_DECIMALS = ["NaN", "-NaN", "NaN123", "sNaN", "-sNaN7", "Infinity", "-Infinity", "-0"]
decimals = (
    finite_decimals | st.sampled_from(EDGE_DECIMALS + SPECIAL_DECIMALS).map(Decimal) | st.decimals()
)

offsets = st.timedeltas(timedelta(hours=-23, minutes=-59), timedelta(hours=23, minutes=59))
zones = st.timezones() | offsets.map(timezone) | st.just(UTC)
EDGE_DATETIMES = [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC), EPOCH]
any_datetimes = st.datetimes(timezones=zones) | st.sampled_from(EDGE_DATETIMES)
datetimes = any_datetimes.filter(in_utc_range)


def vectors(size: int, dtype: str) -> SearchStrategy[Any]:
    """Vectors of any bits at all."""
    width = size * np.dtype(dtype).itemsize
    return st.binary(min_size=width, max_size=width).map(
        lambda raw: np.frombuffer(raw, np.dtype(f"<{dtype}"))
    )


VALUES: dict[Any, SearchStrategy[Any]] = {
    bool: st.booleans(),
    str: st.text(),
    bytes: st.binary() | st.binary(min_size=3, max_size=3),
    int: ints,
    float: floats,
    Decimal: decimals,
    datetime: datetimes,
    date: st.dates(),
    time: st.times(),
    timedelta: st.timedeltas() | st.sampled_from([timedelta.min, timedelta.max]),
    UUID: st.uuids(),
    None: st.none(),
    Colour: st.sampled_from(Colour),
    Level: st.sampled_from(Level),
    Mark: st.sampled_from(Mark),
    Literal["x", "y"]: st.sampled_from(["x", "y"]),
    Literal[True]: st.just(True),
    vector[3]: vectors(3, "f2"),
    vector[2, "f4"]: vectors(2, "f4"),
    vector[1, "f8"]: vectors(1, "f8"),
}
"""Strategies for the values of each annotation."""


# --- types with parts ----------------------------------------------------------------------


class Typed(NamedTuple):
    """An annotation, and a strategy for its values."""

    annotation: Any
    values: SearchStrategy[Any]


class Schema(NamedTuple):
    """A namespace, and a strategy for its rows but for the primary key."""

    namespace: Namespace
    rows: SearchStrategy[dict[str, Any]]


def _hashable(value: Any) -> bool:
    return not (isinstance(value, Decimal) and value.is_snan())


def _loose(values: SearchStrategy[Any]) -> SearchStrategy[Any]:
    """Values that a document holds beside each other."""
    keys = st.text(max_size=3) | st.integers(-3, 3) | st.binary(max_size=2) | st.none()
    return st.lists(values, max_size=3) | st.dictionaries(keys, values, max_size=3)


small_text = st.text(max_size=5)
document_leaves: SearchStrategy[Any] = st.none() | st.booleans() | floats
document_leaves |= st.integers(-(2**63), 2**64 - 1) | small_text
document_leaves |= st.binary(max_size=5) | datetimes
documents = st.recursive(document_leaves, _loose, max_leaves=6)

leaves = st.sampled_from([Typed(annotation, values) for annotation, values in VALUES.items()])
leaves |= st.sampled_from([Typed(Any, documents), Typed(Document, documents)])

ELEMENTS: list[Any] = [
    a for a in VALUES if a is not None and not (isinstance(a, type) and issubclass(a, Vector))
]
"""What a set may hold."""

dict_keys = st.text(min_size=1, max_size=5) | st.sampled_from(
    ["a.b", " ", '"', "\\", "null", "#", "é"]
)


@st.composite
def sets(draw: st.DrawFn) -> Typed:
    """Sets and frozensets."""
    annotation = draw(st.sampled_from(ELEMENTS))
    kind: Any = draw(st.sampled_from([set, frozenset]))
    elements = st.lists(VALUES[annotation].filter(_hashable), max_size=4)
    return Typed(kind[annotation], elements.map(kind))


def _optional(of: Typed) -> Typed:
    return of if of.annotation is None else Typed(of.annotation | None, st.none() | of.values)


def _containers(parts: SearchStrategy[Typed]) -> SearchStrategy[Typed]:
    plain = parts.filter(lambda of: of.annotation is not None)
    return st.one_of(
        plain.map(_optional),
        parts.map(lambda of: Typed(list[of.annotation], st.lists(of.values, max_size=3))),  # type: ignore[name-defined]
        parts.map(lambda of: Typed(tuple[of.annotation, ...], _tuples(of.values))),  # type: ignore[name-defined]
        parts.map(lambda of: Typed(dict[str, of.annotation], _dicts(of.values))),  # type: ignore[name-defined]
        st.lists(parts, max_size=3).map(_fixed_tuple),
        structs(parts),
    )


def _tuples(values: SearchStrategy[Any]) -> SearchStrategy[Any]:
    return st.lists(values, max_size=3).map(tuple)


def _dicts(values: SearchStrategy[Any]) -> SearchStrategy[Any]:
    return st.dictionaries(dict_keys, values, max_size=3)


def _fixed_tuple(parts: list[Typed]) -> Typed:
    annotation = tuple.__class_getitem__(tuple(of.annotation for of in parts))
    return Typed(annotation, st.tuples(*(of.values for of in parts)))


Fields = dict[str, Typed]

FIELD_NAMES = ["a", "b", "street", "größe", "a_long_name", "N", "keys"]


@st.composite
def structs(draw: st.DrawFn, parts: SearchStrategy[Typed]) -> Typed:
    """Classes of every kind that has fields, made up on the spot."""
    names = draw(st.lists(st.sampled_from(FIELD_NAMES), max_size=3, unique=True))
    fields = {name: draw(parts) for name in names}
    make: Callable[[Fields], Typed] = draw(st.sampled_from(STRUCTS))
    return make(fields)


def _hints(fields: Fields) -> dict[str, Any]:
    return {name: of.annotation for name, of in fields.items()}


def _values(fields: Fields) -> dict[str, SearchStrategy[Any]]:
    return {name: of.values for name, of in fields.items()}


def a_dataclass(fields: Fields) -> Typed:
    cls = dataclasses.make_dataclass("Data", list(_hints(fields).items()), slots=True)
    return Typed(cls, st.builds(cls, **_values(fields)))


def an_attrs_class(fields: Fields) -> Typed:
    hints = {name: hint or types.NoneType for name, hint in _hints(fields).items()}
    made = {name: attrs.field(type=hint) for name, hint in hints.items()}
    cls = attrs.make_class("Attrs", made, frozen=True)
    return Typed(cls, st.builds(cls, **_values(fields)))


def a_model(fields: Fields) -> Typed:
    # Never built, since a model takes no TypedDict of `typing`, and validates what we do not.
    config = pydantic.ConfigDict(arbitrary_types_allowed=True, defer_build=True)
    given: Any = {name: (hint, ...) for name, hint in _hints(fields).items()}
    cls = pydantic.create_model("Model", __config__=config, **given)
    values = st.fixed_dictionaries(_values(fields))
    return Typed(cls, values.map(lambda made: cls.model_construct(**made)))


def a_named_tuple(fields: Fields) -> Typed:
    cls: Any = NamedTuple("Named", list(_hints(fields).items()))  # type: ignore[misc]
    return Typed(cls, st.builds(cls, **_values(fields)))


def a_msgspec_struct(fields: Fields) -> Typed:
    cls = msgspec.defstruct("Struct", list(_hints(fields).items()))
    return Typed(cls, st.builds(cls, **_values(fields)))


def a_typed_dict(fields: Fields) -> Typed:
    """Every other key need not be there."""
    hints, values = _hints(fields), _values(fields)
    loose = set(list(hints)[::2])
    marked = {n: NotRequired[h] if n in loose else h for n, h in hints.items()}
    cls: Any = TypedDict("Typed", marked)  # type: ignore[misc]
    required = {n: v for n, v in values.items() if n not in loose}
    optional = {n: v for n, v in values.items() if n in loose}
    return Typed(cls, st.fixed_dictionaries(required, optional=optional))


STRUCTS: list[Callable[[Fields], Typed]] = [
    a_dataclass,
    an_attrs_class,
    a_model,
    a_named_tuple,
    a_msgspec_struct,
    a_typed_dict,
]


def any_types(max_leaves: int = 5) -> SearchStrategy[Typed]:
    """Types of every kind, in one another."""
    return st.recursive(leaves | sets(), _containers, max_leaves=max_leaves)


GROUPS = st.sampled_from(["default", "realtime"])
_numbers = itertools.count()


@st.composite
def namespaces(draw: st.DrawFn) -> Schema:
    """Whole schemas of a few features, under names that are never given twice."""
    made = draw(st.lists(any_types(), min_size=1, max_size=4))
    features = [Feature(f"f{i}", of.annotation, group=draw(GROUPS)) for i, of in enumerate(made)]
    values = {f"f{i}": of.values for i, of in enumerate(made)}
    rows = st.fixed_dictionaries({}, optional=values).filter(bool)
    return Schema(Namespace(f"made_{next(_numbers)}", int, features), rows)
