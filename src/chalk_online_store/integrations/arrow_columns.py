"""Arrow columns as the values of features: by the feature's type, a whole column at a time.

The inverse of `operations.arrow_types`, and what else means the same: columns of narrower
numbers, of other units of time, encoded as dictionaries, lists for vectors.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from datetime import date, timezone
from decimal import Decimal
from itertools import islice
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
from chalk_online_store.integrations.time_zones import zone_of
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


def column_of(
    array: pa.Array, kind: FeatureType, column: str, first: int = 0, zone: str | None = None
) -> Sequence[Any]:
    """Return a column's values for a feature of this type; moments as they are stored.

    Values of another type are left as they are, and are refused with their row when it is written.
    Timestamps without a time zone are in `zone`, at any depth. Raises `InvalidValue` naming a
    column, and its row, that cannot be read exactly; rows are counted from `first`.
    """
    array = decoded(array, column)
    if zone is None and _has_timestamps_without_zone(array.type):
        raise _no_moments(array, column)
    if isinstance(kind, Scalar) and kind.name in _MOMENTS:
        found = _moments(array, kind.name, column, first, zone)
        if found is not None:
            return found
    if isinstance(kind, VectorType) and kinds.is_fixed_size_list(array.type):
        return vectors_of(array, column)
    if kinds.is_floating(array.type) and kind == _FLOAT:
        array = array.cast(pa.float64())
    if kinds.is_floating(array.type) and kind == _INT:
        with contextlib.suppress(pa.ArrowInvalid):  # Then one by one, to find the row.
            array = array.cast(pa.int64())
    values = values_of(array, column, first, zone)
    rich = _rich(kind)
    if rich is None or (kind == _INT and kinds.is_integer(array.type)):
        return values
    made: list[Any] = []
    try:
        for value in values:
            made.append(None if value is None else rich(value))
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError):
        raise InvalidValue(
            f"Column {column!r} ({array.type}) has a value that is no {kind.name} of the feature's "
            f"(row {first + len(made)})."
        ) from None
    return made


def values_of(array: pa.Array, column: str, first: int = 0, zone: str | None = None) -> list[Any]:
    """Return a column's values as Python has them; raises `InvalidValue` if it has none exactly."""

    def convert(array: pa.Array) -> list[Any]:
        return _exact_values(array, zone)

    try:
        return convert(array)
    except InvalidValue as error:
        raise InvalidValue(f"Column {column!r} ({array.type}) has {error}") from None
    except _NotInZoneError:
        row = first + _failing_row(array, convert)
        raise InvalidValue(
            f"Column {column!r} is not in the time zone {zone!r} (row {row}): it has no such zone, "
            "or the clocks change at such a time."
        ) from None
    except UnicodeDecodeError:
        row = first + _failing_row(array, convert)
        raise InvalidValue(
            f"Column {column!r} ({array.type}) has text that is not UTF-8 (row {row}). Cast it to "
            "binary, or repair it."
        ) from None
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError, OverflowError) as error:
        if _has_name_twice(array.type):
            raise InvalidValue(
                f"Column {column!r} ({array.type}) has two fields of one name. Rename one of them."
            ) from None
        row = first + _failing_row(array, convert)
        raise InvalidValue(
            f"Column {column!r} ({array.type}) is not whole microseconds of the years 1 to 9999 "
            f"(row {row}). {_ROUND}"
        ) from error


_ROUND = "Round or cast it to microseconds first."


class _NotInZoneError(ValueError):
    """A timestamp that a time zone does not have, or has twice, or a zone that is not known."""


def _assume_zone(array: pa.Array, zone: str | None) -> pa.Array:
    """Timestamps without a time zone in this one."""
    if zone is None or not kinds.is_timestamp(array.type) or array.type.tz is not None:
        return array
    try:
        known = zone_of(zone)
        if isinstance(known, timezone):  # pyarrow takes offsets from 19 on.
            offset = pa.scalar(known.utcoffset(None), pa.duration(array.type.unit))
            return pc.subtract_checked(array, offset).cast(pa.timestamp(array.type.unit, "UTC"))
        return pc.assume_timezone(array, zone)
    except pa.ArrowInvalid:
        raise _NotInZoneError from None


def _exact_values(array: pa.Array, zone: str | None = None) -> list[Any]:
    """Values as `to_pylist` gives them, with times in Python's own microseconds at any depth.

    pyarrow makes pandas' objects of nanoseconds where pandas is installed, and cuts them off
    where it is not. A cast refuses what would be cut off, but not every type with parts has
    one: so each array that has nanoseconds in it is taken apart.
    """
    array = _assume_zone(decoded(array), zone)
    kind = array.type
    if not (_has_nanoseconds(kind) or _has_timestamps_without_zone(kind)):
        return array.to_pylist()  # type: ignore[no-any-return]
    if kinds.is_struct(kind):
        return _structs(array, zone)
    if kinds.is_map(kind):
        rows = _lists(_map_as_lists(array), zone)
        return [None if r is None else [(e["key"], e["value"]) for e in r] for r in rows]
    if is_list(kind):
        return _lists(array, zone)
    return array.cast(_microseconds_type(kind)).to_pylist()  # type: ignore[no-any-return]


def _structs(array: pa.Array, zone: str | None) -> list[Any]:
    names = [field.name for field in array.type]
    if len({*names}) < len(names):
        raise ValueError("two fields of one name")
    fields = [_exact_values(field, zone) for field in array.flatten()]
    valid = array.is_valid().to_pylist()
    rows = zip(*fields, strict=True)
    return [
        dict(zip(names, row, strict=True)) if there else None
        for row, there in zip(rows, valid, strict=True)
    ]


def _lists(array: pa.Array, zone: str | None) -> list[Any]:
    parts = iter(_exact_values(array.flatten(), zone))  # Null lists have no part there.
    lengths = pc.list_value_length(array).to_pylist()
    return [None if length is None else list(islice(parts, length)) for length in lengths]


def _map_as_lists(array: pa.Array) -> pa.Array:
    """A map as the list of structs that it is: pyarrow flattens lists alone."""
    entries = pa.StructArray.from_arrays([array.keys, array.items], ["key", "value"])
    return pa.Array.from_buffers(
        pa.list_(entries.type),
        len(array),
        array.buffers()[:2],
        offset=array.offset,
        children=[entries],
    )


def _failing_row(array: pa.Array, convert: Callable[[pa.Array], Any]) -> int:
    """The first row that cannot be converted, though the whole could not."""
    for row in range(len(array)):
        try:
            convert(array.slice(row, 1))
        except (pa.ArrowException, ValueError, OverflowError):
            return row
    return 0


def decoded(array: pa.Array, column: str = "") -> pa.Array:
    """Return an array without dictionaries, runs and extension types around its values."""
    if isinstance(array, pa.ExtensionArray):
        if array.type.extension_name in EXTENSIONS_WITHOUT_VALUES:
            raise InvalidValue(
                f"Column {column!r} is {array.type}: no feature has such values. Cast it to a type "
                "of docs/frames.md."
            )
        if array.type.extension_name == "arrow.bool8":
            return array.storage.cast(pa.bool_())
        return decoded(array.storage, column)
    if kinds.is_dictionary(array.type):
        if _is_view(array.type.value_type):  # pyarrow takes no values from an array of views.
            array = pa.DictionaryArray.from_arrays(array.indices, _without_views(array.dictionary))
        return decoded(array.dictionary_decode(), column)
    if kinds.is_run_end_encoded(array.type):
        if _is_view(array.type.value_type):
            return pa.array(array.to_pylist(), array.type.value_type)
        return decoded(pc.run_end_decode(array), column)
    return array


EXTENSIONS_WITHOUT_VALUES = frozenset({"arrow.opaque", "pandas.period", "pandas.interval"})
"""Extension types whose storage alone does not say a value."""


def _is_view(kind: pa.DataType) -> bool:
    return bool(kinds.is_string_view(kind) or kinds.is_binary_view(kind))


def _without_views(array: pa.Array) -> pa.Array:
    return array.cast(pa.large_string() if kinds.is_string_view(array.type) else pa.large_binary())


def is_list(kind: pa.DataType) -> bool:
    """Return True for lists of every layout."""
    return any(is_kind(kind) for is_kind in _LISTS)


_LISTS: tuple[Callable[[Any], bool], ...] = (
    kinds.is_list,
    kinds.is_large_list,
    kinds.is_fixed_size_list,
    kinds.is_list_view,
    kinds.is_large_list_view,
)


def _has_nanoseconds(kind: pa.DataType) -> bool:
    """Return True if a type is finer than Python's times, or holds one that is."""
    return _holds(kind, _is_in_nanoseconds)


def _has_timestamps_without_zone(kind: pa.DataType) -> bool:
    return _holds(kind, lambda leaf: kinds.is_timestamp(leaf) and leaf.tz is None)


def _has_name_twice(kind: pa.DataType) -> bool:
    if kinds.is_struct(kind):
        names = [field.name for field in kind]
        return len({*names}) < len(names) or any(_has_name_twice(field.type) for field in kind)
    return bool(kinds.is_nested(kind)) and any(
        _has_name_twice(kind.field(place).type) for place in range(kind.num_fields)
    )


def _is_in_nanoseconds(kind: pa.DataType) -> bool:
    times = kinds.is_timestamp(kind) or kinds.is_duration(kind) or kinds.is_time64(kind)
    return bool(times and kind.unit == "ns")


def _holds(kind: pa.DataType, is_one: Callable[[pa.DataType], bool]) -> bool:
    """Return True if `is_one` holds for a type, or for one that it is made of."""
    if kinds.is_struct(kind):
        return any(_holds(field.type, is_one) for field in kind)
    if kinds.is_map(kind):
        return _holds(kind.key_type, is_one) or _holds(kind.item_type, is_one)
    if is_list(kind) or kinds.is_dictionary(kind) or kinds.is_run_end_encoded(kind):
        return _holds(kind.value_type, is_one)
    if isinstance(kind, pa.BaseExtensionType):
        return _holds(kind.storage_type, is_one)
    return is_one(kind)


def _microseconds_type(kind: pa.DataType) -> pa.DataType:
    if kinds.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    return pa.duration("us") if kinds.is_duration(kind) else pa.time64("us")


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


def moments_of(array: pa.Array, column: str, first: int = 0, zone: str | None = None) -> Stored:
    """Return moments in UTC; raises `InvalidValue` if a column has no time zone, or no moments."""
    found = _moments(decoded(array, column), "datetime", column, first, zone)
    if found is None:
        raise _no_moments(array, column)
    return found


def _no_moments(array: pa.Array, column: str) -> InvalidValue:
    return InvalidValue(
        f"Column {column!r} is {array.type}: moments are timestamps with a time zone; "
        'time_zone="UTC" says which those without are in.'
    )


def _moments(
    array: pa.Array, name: str, column: str, first: int, zone: str | None
) -> Stored | None:
    says, unit, number, lowest, highest = _MOMENTS[name]
    try:
        array = _assume_zone(array, zone)
    except _NotInZoneError:
        values_of(array, column, first, zone)  # It names the row.
        raise
    if not says(array.type):
        if name == "datetime" and kinds.is_timestamp(array.type):
            raise _no_moments(array, column)
        return None
    try:
        numbers = array.cast(unit).cast(number)
    except pa.ArrowInvalid as error:
        row = first + _failing_row(array, lambda one: one.cast(unit))
        raise InvalidValue(
            f"Column {column!r} ({array.type}) is not whole microseconds (row {row}). {_ROUND}"
        ) from error
    least, most = pc.min_max(numbers).values()
    if least.is_valid and not lowest <= least.as_py() <= most.as_py() <= highest:
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
    return lambda entries: {name: part(value) for name, value in dict_of(entries).items()}


def dict_of(entries: Any) -> dict[Any, Any]:
    """The entries of a map or struct as a dict. Raises `InvalidValue` if a key occurs twice."""
    found = dict(entries)
    if len(found) < len(entries):
        raise InvalidValue("a key occurs twice in a map")
    return found


def _struct(kind: StructType) -> Rich:
    parts = {field.name: (_optional(field.element), field.required) for field in kind.fields}

    def rich(found: Any) -> Any:
        if not parts.keys() >= found.keys():  # A field that the class lacks would be dropped.
            raise KeyError(kind.name)
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
    """Take whole decimals, for more than 64 bits, and whole floats, as pandas has with nulls."""
    if isinstance(value, Decimal | float):
        with contextlib.suppress(ValueError, OverflowError):
            return int(value) if value == int(value) else value
    return value


def scalar_maker(kind: FeatureType) -> Rich | None:
    """Return what makes a scalar of what Arrow has for it; None if nothing needs to."""
    return _RICH.get(kind.name) if isinstance(kind, Scalar) else None


_RICH: dict[str, Rich] = {"decimal": _decimal, "uuid": _uuid, "int": _int}
