"""Arrow columns as the values of features: by the feature's type, a whole column at a time.

The inverse of `operations.arrow_types`, and what else means the same: columns of narrower
numbers, of other units of time, encoded as dictionaries, lists for vectors.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from chalk_online_store.codec.columns import Stored
from chalk_online_store.codec.nested import codec_of
from chalk_online_store.codec.values import moment
from chalk_online_store.errors import InvalidValue
from chalk_online_store.operations.arrow_types import elements_of, parts_of
from chalk_online_store.schema.types import (
    SCALARS,
    ChoiceType,
    DictType,
    Element,
    FeatureType,
    ListType,
    Scalar,
    SetType,
    StructType,
    TupleType,
    VectorType,
)

FLOATS = {pa.float16(): "f2", pa.float32(): "f4", pa.float64(): "f8"}

_FLOAT, _INT = SCALARS[float], SCALARS[int]

Rich = Callable[[Any], Any]
"""What pyarrow gives for a value that is not null, to the value."""

_FIRST = -62_135_596_800_000_000
_LAST = 253_402_300_799_999_999
"""The years 1 to 9999, which Python has, in microseconds from 1970."""

_DAY = 86_400_000_000


def column_of(array: pa.Array, kind: FeatureType, column: str) -> Sequence[Any]:
    """A column's values for a feature of this type; moments as they are stored.

    What is not of the type is left as it is, to be refused with its row when it is written.
    Raises `InvalidValue` naming a column that cannot be read exactly.
    """
    array = _decoded(array)
    if isinstance(kind, Scalar) and kind.name in _MOMENTS:
        found = _moments(array, kind.name, column)
        if found is not None:
            return found
    if isinstance(kind, VectorType) and kinds.is_fixed_size_list(array.type):
        return vectors_of(array, column)
    if kinds.is_floating(array.type) and kind == _FLOAT:
        array = array.cast(pa.float64())
    values = values_of(array, column)
    rich = _rich(kind)
    if rich is None or (kind == _INT and kinds.is_integer(array.type)):
        return values
    try:
        return [None if value is None else rich(value) for value in values]
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError):
        raise InvalidValue(
            f"Column {column!r} ({array.type}) has a value that is no {kind.name} of the feature's."
        ) from None


def values_of(array: pa.Array, column: str) -> list[Any]:
    """A column's values as Python has them; raises `InvalidValue` where it has none exactly."""
    array = _decoded(array)
    kind = _in_microseconds(array.type)
    try:
        found: list[Any] = (array if kind == array.type else array.cast(kind)).to_pylist()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError, OverflowError) as error:
        raise InvalidValue(
            f"Column {column!r} ({array.type}) is not whole microseconds of the years 1 to 9999."
        ) from error
    return found


def _decoded(array: pa.Array) -> pa.Array:
    """Without what a type has around its values."""
    if isinstance(array, pa.ExtensionArray):
        return _decoded(array.storage)
    if kinds.is_dictionary(array.type):
        return _decoded(array.dictionary_decode())
    return array


def _in_microseconds(kind: pa.DataType) -> pa.DataType:
    """A type that Python's moments have the precision of, also of what it holds."""
    if kinds.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    if kinds.is_duration(kind):
        return pa.duration("us")
    if kinds.is_time64(kind):
        return pa.time64("us")
    if kinds.is_list(kind):
        return pa.list_(kind.value_field.with_type(_in_microseconds(kind.value_type)))
    if kinds.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_in_microseconds(kind.value_type)))
    if kinds.is_struct(kind):
        return pa.struct([field.with_type(_in_microseconds(field.type)) for field in kind])
    return kind


# --- moments -------------------------------------------------------------------------------

_MOMENTS: dict[str, tuple[Callable[[Any], bool], pa.DataType, pa.DataType, int, int]] = {
    "datetime": (
        lambda kind: kinds.is_timestamp(kind) and kind.tz is not None,
        pa.timestamp("us", "UTC"),
        pa.int64(),
        _FIRST,
        _LAST,
    ),
    "date": (
        kinds.is_date,
        pa.date32(),
        pa.int32(),
        date.min.toordinal() - date(1970, 1, 1).toordinal(),
        date.max.toordinal() - date(1970, 1, 1).toordinal(),
    ),
    "time": (kinds.is_time, pa.time64("us"), pa.int64(), 0, _DAY - 1),
    "timedelta": (kinds.is_duration, pa.duration("us"), pa.int64(), -(2**63), 2**63 - 1),
}
"""Which Arrow types say such a moment, in what units it is stored, and from when until when."""


def moments_of(array: pa.Array, column: str) -> Stored:
    """Moments in UTC; raises `InvalidValue` where a column has no time zone, or no moments."""
    found = _moments(_decoded(array), "datetime", column)
    if found is None:
        raise _no_moments(array, column)
    return found


def _no_moments(array: pa.Array, column: str) -> InvalidValue:
    return InvalidValue(
        f"Column {column!r} is {array.type}: moments are timestamps with a time zone; "
        'time_zone="UTC" says which those without are in.'
    )


def _moments(array: pa.Array, name: str, column: str) -> Stored | None:
    says, unit, number, first, last = _MOMENTS[name]
    if not says(array.type):
        if name == "datetime" and kinds.is_timestamp(array.type):
            raise _no_moments(array, column)
        return None
    try:
        numbers = array.cast(unit).cast(number)
    except pa.ArrowInvalid as error:
        raise InvalidValue(
            f"Column {column!r} ({array.type}) is not whole microseconds."
        ) from error
    least, most = pc.min_max(numbers).values()
    if least.is_valid and not first <= least.as_py() <= most.as_py() <= last:
        raise InvalidValue(f"Column {column!r} has a {name} that Python does not have.")
    make = codec_of(Scalar(name), column).convert or moment
    return Stored(numbers.to_pylist(), make)


# --- vectors, and what has parts -----------------------------------------------------------


def vectors_of(array: pa.Array, column: str) -> list[Any]:
    """Fixed-size lists as numpy arrays, views of one matrix; None for null."""
    flat = array.flatten()  # Nulls have none.
    if flat.null_count:
        raise InvalidValue(f"Column {column!r} has a vector with a null in it.")
    matrix = flat.to_numpy(zero_copy_only=False).reshape(-1, array.type.list_size)
    rows = iter(np.ascontiguousarray(matrix))
    return [next(rows) if valid else None for valid in array.is_valid().to_pylist()]


def _rich(kind: FeatureType) -> Rich | None:
    """What a feature's values are made with; None where pyarrow gives them."""
    if isinstance(kind, Scalar):
        return _RICH.get(kind.name)
    if isinstance(kind, ChoiceType):
        return kind.choices.__getitem__
    if isinstance(kind, DictType):
        return _entries(_optional(kind.value))
    if isinstance(kind, ListType | SetType):
        (element,) = elements_of(kind)
        return _collection(kind.make, _optional(element))
    if isinstance(kind, TupleType):
        parts = [(name, _optional(element)) for name, element in parts_of(kind)]
        return lambda found: tuple(part(found[name]) for name, part in parts)
    return _struct(kind) if isinstance(kind, StructType) else None


def _optional(element: Element) -> Rich:
    rich = _rich(element.type)
    if rich is None:
        return lambda value: value
    return lambda value: None if value is None else rich(value)


def _collection(make: type, part: Rich) -> Rich:
    return lambda values: make(map(part, values))


def _entries(part: Rich) -> Rich:
    """Arrow gives a map as pairs, a struct as a dictionary."""
    return lambda entries: {name: part(value) for name, value in dict(entries).items()}


def _struct(kind: StructType) -> Rich:
    parts = {field.name: (_optional(field.element), field.required) for field in kind.fields}

    def rich(found: Any) -> Any:
        fields = {}
        for name, (part, required) in parts.items():
            value = part(found.get(name))
            if value is not None or required:
                fields[name] = value
        return kind.make(fields)

    return rich


def _decimal(value: Any) -> Any:
    return Decimal(value) if isinstance(value, str) else value


def _uuid(value: Any) -> Any:
    return UUID(bytes=value) if isinstance(value, bytes) else UUID(value)


def _int(value: Any) -> Any:
    """Arrow has integers of more than 64 bits as decimals."""
    if isinstance(value, Decimal):
        with contextlib.suppress(ValueError, OverflowError):
            return int(value) if value == int(value) else value
    return value


_RICH: dict[str, Rich] = {"decimal": _decimal, "uuid": _uuid, "int": _int}
