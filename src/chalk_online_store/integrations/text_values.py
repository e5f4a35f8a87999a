"""Feature values from text: cells, and JSON. Without Arrow, so that every command has it.

The feature's type decides how a text is read. Types with parts, and documents, are JSON. Whatever a
type cannot hold exactly is refused: nanoseconds, a time without a time zone, an integer that no
float has.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta, tzinfo
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

import msgspec

from chalk_online_store.integrations.time_zones import in_zone
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
    VectorType,
)

Convert = Callable[[Any], Any]
"""A text, or a value as `read_json` gives it, to a feature's value. Raises `ValueError`."""


class Unexact(ValueError):
    """Why a text is no value of a type; its message holds no value."""


CONVERSION_ERRORS = (ArithmeticError, KeyError, TypeError, ValueError, RecursionError)


def reason_of(error: Exception) -> str:
    """Return what to append to a message: why a text is refused, if that is known."""
    return f": {error}" if isinstance(error, Unexact) else ""


# --- values ---------------------------------------------------------------------------------


def text_converter(kind: FeatureType, zone: tzinfo | None) -> Convert:
    """Return what makes a feature's value of the text of a cell."""
    if isinstance(kind, Scalar) and kind.name in _SCALARS:
        return _scalar(kind.name, zone)
    if isinstance(kind, ChoiceType):
        return _choice(kind, text_converter(kind.member, zone))
    convert = json_converter(kind, zone)
    return lambda text: convert(read_json(text))


def json_converter(kind: FeatureType, zone: tzinfo | None) -> Convert:
    """Return what makes a feature's value of what `read_json` gives, which is not null."""
    if isinstance(kind, Scalar):
        return _scalar_of_json(kind.name, zone)
    if isinstance(kind, ChoiceType):
        return _choice(kind, json_converter(kind.member, zone))
    if isinstance(kind, DocumentType):
        return _document
    if isinstance(kind, VectorType):
        return lambda value: [_float_of_json(each) for each in _list(value)]
    if isinstance(kind, ListType):
        part = _part(kind.element, zone)
        return lambda value: kind.make(map(part, _list(value)))
    if isinstance(kind, SetType):
        element = json_converter(kind.element, zone)
        return lambda value: kind.make(map(element, _list(value)))
    if isinstance(kind, TupleType):
        parts = [_part(element, zone) for element in kind.elements]
        return lambda value: tuple(
            part(each) for part, each in zip(parts, _list(value), strict=True)
        )
    if isinstance(kind, DictType):
        of = _part(kind.value, zone)
        return lambda value: {name: of(each) for name, each in _mapping(value).items()}
    return _struct(kind, zone)


def read_json(text: str) -> Any:
    """Read JSON with every digit: numbers with a point or exponent are Decimals.

    Raises `ValueError` for what is not JSON, and for an object that has a name twice.
    """
    try:
        return _DECODER.decode(text)
    except Unexact:
        raise
    except json.JSONDecodeError:
        raise Unexact("it is not JSON") from None
    except ValueError:  # Python's limit of the digits of an int.
        raise Unexact("a number has too many digits") from None
    except RecursionError:
        raise Unexact("it is nested too deeply") from None


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Unexact("a name occurs twice in a JSON object")
    return found


_DECODER = json.JSONDecoder(parse_float=Decimal, object_pairs_hook=_pairs)


def _choice(kind: ChoiceType, member: Convert) -> Convert:
    def convert(value: Any) -> Any:
        found = kind.choices.get(member(value), kind)
        if found is kind:
            raise Unexact("it is not among the declared values")
        return found

    return convert


def _part(element: Element, zone: tzinfo | None) -> Convert:
    convert = json_converter(element.type, zone)

    def part(value: Any) -> Any:
        if value is None and not element.nullable:
            raise Unexact("null within it")
        return None if value is None else convert(value)

    return part


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError
    return value


def _struct(kind: StructType, zone: tzinfo | None) -> Convert:
    parts = {field.name: _part(field.element, zone) for field in kind.fields}
    needed = {field.name for field in kind.fields if field.required and field.default is None}
    nullable = {field.name for field in kind.fields if field.element.nullable}

    def convert(value: Any) -> Any:
        given = _mapping(value)
        if given.keys() - parts.keys():
            raise Unexact("a field that its class does not have")
        if needed - nullable - given.keys():
            raise Unexact("a field is missing")
        absent = dict.fromkeys(needed - given.keys())
        return kind.make(absent | {name: parts[name](each) for name, each in given.items()})

    return convert


def _document(value: Any) -> Any:
    if isinstance(value, Decimal):
        return _float(str(value))
    if isinstance(value, list):
        return [_document(each) for each in value]
    if isinstance(value, Mapping):
        return {name: _document(each) for name, each in value.items()}
    return value


# --- scalars --------------------------------------------------------------------------------

_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?", re.ASCII)
_NO_NUMBER = frozenset({"nan", "inf", "-inf", "+inf", "infinity", "-infinity", "+infinity"})
_BOOLS = {"true": True, "false": False, "1": True, "0": False}
_FRACTION = re.compile(r"[.,]([0-9]+)")
_SPAN = re.compile(r"(?:(-?[0-9]+) days?,? )?\+?([0-9]{1,2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?")
_MOST_DIGITS = 38


def _int(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise ValueError
    number = Decimal(text)
    if number.adjusted() > _MOST_DIGITS:
        raise Unexact("more than 38 digits")
    if number != number.to_integral_value():
        raise Unexact("it is not a whole number")
    return int(number)


def _float(text: str) -> float:
    if text.lower() in _NO_NUMBER:
        return float(text)
    if not _NUMBER.fullmatch(text):
        raise ValueError
    found = float(text)
    if math.isinf(found):
        raise Unexact("it is too large")
    if text.lstrip("+-").isdigit() and int(text) != found:
        raise Unexact("an integer that no float holds exactly")
    return found


def _bool(text: str) -> bool:
    return _BOOLS[text.lower()]


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text) if _NUMBER.fullmatch(text) else _special(text)
    except InvalidOperation:
        raise ValueError from None


def _special(text: str) -> Decimal:
    if text.lower() not in _NO_NUMBER:
        raise ValueError
    return Decimal(text)


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _check_fraction(text: str) -> str:
    """Refuse what Python would cut off."""
    found = _FRACTION.search(text)
    if found and found[1][6:].strip("0"):
        raise Unexact("it is finer than whole microseconds")
    return text


def _date(text: str) -> date:
    if len(text) != len("2026-01-02"):
        raise ValueError
    return date.fromisoformat(text)


def _time(text: str) -> time:
    found = time.fromisoformat(_check_fraction(text))
    if found.tzinfo is not None:
        raise Unexact("it has a time zone")
    return found


def _timedelta(text: str) -> timedelta:
    _check_fraction(text)
    if found := _SPAN.fullmatch(text):
        days, hours, minutes, seconds, fraction = found.groups()
        microseconds = int((fraction or "")[:6].ljust(6, "0"))
        return timedelta(int(days or 0), int(seconds), microseconds, 0, int(minutes), int(hours))
    try:
        return msgspec.convert(text, timedelta)
    except msgspec.ValidationError:
        raise Unexact("a duration is written like P1DT2S or 1 days 00:00:02") from None


def _datetime(zone: tzinfo | None) -> Convert:
    def convert(text: str) -> datetime:
        found = datetime.fromisoformat(_check_fraction(text))
        try:
            found = in_zone(found, zone)
        except ValueError:
            raise Unexact("the clocks change at that time") from None
        if found.tzinfo is None:
            raise Unexact("it has no time zone; state it with --time-zone")
        return found

    return convert


def _same(text: str) -> str:
    return text


def _null(_text: str) -> None:
    raise ValueError


_SCALARS: dict[str, Convert] = {
    "str": _same,
    "int": _int,
    "float": _float,
    "bool": _bool,
    "decimal": _decimal,
    "bytes": _bytes,
    "date": _date,
    "time": _time,
    "timedelta": _timedelta,
    "uuid": UUID,
    "datetime": _same,
    "none": _null,
}


def _scalar(name: str, zone: tzinfo | None) -> Convert:
    convert = _datetime(zone) if name == "datetime" else _SCALARS[name]
    if name == "str":
        return convert
    return lambda text: convert(text.strip(" "))


def _scalar_of_json(name: str, zone: tzinfo | None) -> Convert:
    of_text = _scalar(name, zone)

    def convert(value: Any) -> Any:
        if isinstance(value, str):
            return of_text(value)
        if name == "bool" and isinstance(value, bool):
            return value
        if name in ("int", "float", "decimal") and not isinstance(value, bool):
            return _number(value, name, of_text)
        raise TypeError

    return convert


def _number(value: Any, name: str, of_text: Convert) -> Any:
    if isinstance(value, float):  # NaN and infinities.
        if name == "float":
            return value
        raise TypeError
    if type(value) is int and name == "int":
        return value
    if type(value) is Decimal and name == "float":
        found = float(value)
        if math.isinf(found):
            raise Unexact("it is too large")
        return found
    if not isinstance(value, int | Decimal):
        raise TypeError
    return of_text(str(value))


def _float_of_json(value: Any) -> float:
    """Return a number of a vector, which is rounded; JSON has no NaN and infinities but as text."""
    if isinstance(value, str) and value.lower() in _NO_NUMBER:
        return float(value)
    if isinstance(value, bool | str):
        raise TypeError
    return value if isinstance(value, float) else float(_number(value, "decimal", _decimal))
