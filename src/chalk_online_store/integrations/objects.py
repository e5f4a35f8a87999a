"""Columns of Python objects, as pandas has them, as the values of features.

Each value is converted by the feature's type alone, so every row of a column of dictionaries keeps
its own keys. What pandas calls missing (None, NaN, NaT, NA) is a null.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, tzinfo
from typing import Any
from uuid import UUID

import numpy as np

from chalk_online_store.codec.columns import Stored
from chalk_online_store.codec.values import (
    FINER_THAN_MICROSECONDS,
    ValueRefused,
    microseconds_utc,
    moment,
    nanoseconds_of,
)
from chalk_online_store.errors import InvalidValue
from chalk_online_store.integrations.arrow_columns import dict_of, scalar_maker
from chalk_online_store.integrations.time_zones import in_zone, zone_of
from chalk_online_store.operations.arrow_types import elements_of, parts_of
from chalk_online_store.schema.types import (
    ChoiceType,
    DictType,
    DocumentType,
    Element,
    FeatureType,
    ListType,
    Scalar,
    SetType,
    StructType,
    TupleType,
)

Convert = Callable[[Any], Any]
"""An object that is not null, to the feature's value."""


def values_of_objects(
    column: Sequence[Any], kind: FeatureType, name: str, first: int, zone: str | None
) -> list[Any]:
    """Return a column's values for a feature; raises `InvalidValue` naming a bad column and row.

    Values of another type are left as they are, and are refused with their row when it is written.
    """
    convert = _nullable(_converter(kind, zone_of(zone)))
    found: list[Any] = []
    try:
        for value in column:
            found.append(convert(value))
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        row = first + len(found)
        if isinstance(error, InvalidValue | ValueRefused):
            raise InvalidValue(f"Column {name!r} (row {row}): {error}") from None
        raise InvalidValue(
            f"Column {name!r} has a value that is no {kind.name} of the feature's (row {row})."
        ) from None
    except ValueRefused as refused:
        raise InvalidValue(f"Column {name!r} is {refused} (row {first + len(found)}).") from None
    return found


def moments_of_objects(column: Sequence[Any], name: str, first: int, zone: str | None) -> Stored:
    """Return observed-at as they are stored; raises `InvalidValue` naming a bad column and row."""
    found: list[int | None] = []
    values = values_of_objects(column, Scalar("datetime"), name, first, zone)
    for row, value in enumerate(values, first):
        try:
            found.append(None if value is None else microseconds_utc(value))
        except (TypeError, ValueRefused):
            raise InvalidValue(
                f"Column {name!r} has a value that is no moment with a time zone (row {row})."
            ) from None
    return Stored(found, moment)


def is_null(value: Any) -> bool:
    """Return True for None, NaN, and NaT and NA of pandas, which is not imported."""
    if value is None:
        return True
    if isinstance(value, float | np.floating):
        return bool(np.isnan(value))
    if isinstance(value, np.datetime64 | np.timedelta64):
        return bool(np.isnat(value))
    return type(value).__name__ in ("NAType", "NaTType") and "pandas" in sys.modules


def _nullable(convert: Convert) -> Convert:
    return lambda value: None if is_null(value) else convert(value)


def _converter(kind: FeatureType, zone: tzinfo | None) -> Convert:
    """Return what makes a feature's value of an object that is not null."""
    if isinstance(kind, DocumentType):
        return lambda value: _plain(value, zone)
    if isinstance(kind, ListType | SetType):
        (element,) = elements_of(kind)
        return _collection(kind.make, _part(element, zone))
    if isinstance(kind, DictType):
        return _dictionary(_part(kind.value, zone))
    if isinstance(kind, TupleType):
        return _tuple([_part(element, zone) for _, element in parts_of(kind)])
    if isinstance(kind, StructType):
        return _struct(kind, zone)
    if isinstance(kind, ChoiceType):
        return _choice(kind)
    return _scalar(kind, zone)


def _part(element: Element, zone: tzinfo | None) -> Convert:
    """Convert a part; a NaN within a list of floats, or of documents, is a NaN."""
    convert = _converter(element.type, zone)
    is_float = isinstance(element.type, Scalar) and element.type.name == "float"
    if is_float or isinstance(element.type, DocumentType):
        return lambda value: None if value is None else convert(value)
    return _nullable(convert)


def _scalar(kind: FeatureType, zone: tzinfo | None) -> Convert:
    make = scalar_maker(kind)

    def convert(value: Any) -> Any:
        if isinstance(value, np.generic) and not isinstance(value, np.floating):
            value = _item(value)
        if isinstance(value, np.ndarray) and value.dtype == object:
            return value.tolist()  # A vector: its codec takes numbers alone.
        if isinstance(value, datetime | timedelta):
            if nanoseconds_of(value):
                raise ValueRefused(FINER_THAN_MICROSECONDS)
            if isinstance(value, datetime):
                return in_zone(value, zone)
        return value if make is None or isinstance(value, UUID) else make(value)

    return convert


def _item(value: np.generic) -> Any:
    if isinstance(value, np.datetime64 | np.timedelta64):
        exact = value.astype(f"{value.dtype.kind}8[us]")
        if exact != value:
            raise ValueRefused(FINER_THAN_MICROSECONDS)
        return exact.item()
    return value.item()


def _choice(kind: ChoiceType) -> Convert:
    shown = {(type(choice), choice) for choice in kind.choices.values()}
    choices = {(type(stored), stored): choice for stored, choice in kind.choices.items()}

    def convert(value: Any) -> Any:
        if isinstance(value, np.generic):
            value = value.item()
        return value if (type(value), value) in shown else choices[type(value), value]

    return convert


def _sequence(value: Any) -> Sequence[Any]:
    if isinstance(value, np.ndarray):
        return list(value)
    if isinstance(value, list | tuple):
        return value
    raise TypeError


def _collection(make: type, part: Convert) -> Convert:
    def convert(value: Any) -> Any:
        given = value if isinstance(value, set | frozenset) else _sequence(value)
        return make(map(part, given))

    return convert


def _dictionary(part: Convert) -> Convert:
    def convert(value: Any) -> Any:
        found = value if isinstance(value, Mapping) else dict_of(_sequence(value))
        return {name: part(each) for name, each in found.items()}

    return convert


def _tuple(parts: list[Convert]) -> Convert:
    def convert(value: Any) -> Any:
        if isinstance(value, Mapping):  # As Arrow has a tuple.
            value = [value[str(place)] for place in range(len(parts))]
        return tuple(part(each) for part, each in zip(parts, _sequence(value), strict=True))

    return convert


def _struct(kind: StructType, zone: tzinfo | None) -> Convert:
    parts = {field.name: _part(field.element, zone) for field in kind.fields}
    required = {field.name for field in kind.fields if field.required and field.default is None}

    def convert(value: Any) -> Any:
        if type(value) is kind.cls and kind.cls is not dict:
            return value
        if not isinstance(value, Mapping):
            raise TypeError
        if not required <= value.keys() <= parts.keys():
            raise KeyError(kind.name)
        return kind.make({name: parts[name](each) for name, each in value.items()})

    return convert


def _plain(value: Any, zone: tzinfo | None) -> Any:
    """Return a document without numpy's and pandas' own types, at any depth."""
    if isinstance(value, Mapping):
        return {_plain(name, zone): _plain(each, zone) for name, each in value.items()}
    if isinstance(value, list | np.ndarray):
        return [_plain(each, zone) for each in value]
    if isinstance(value, np.generic):
        value = None if is_null(value) and not isinstance(value, np.floating) else _item(value)
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, datetime):
        return _datetime(in_zone(value, zone))
    if isinstance(value, timedelta) and nanoseconds_of(value):
        raise ValueRefused(FINER_THAN_MICROSECONDS)
    return value


def _datetime(value: datetime) -> datetime:
    """Return a plain datetime for one of pandas."""
    if nanoseconds_of(value):
        raise ValueRefused(FINER_THAN_MICROSECONDS)
    convert = getattr(value, "to_pydatetime", None)
    return value if convert is None else convert()
