"""Rows of JSON: objects whose names are features.

`load`, `put` and the persistence service read them in one way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from chalk_online_store.codec.values import microseconds_utc
from chalk_online_store.errors import InvalidValue, OnlineStoreError
from chalk_online_store.integrations.text_values import (
    CONVERSION_ERRORS,
    Unexact,
    json_converter,
    read_json,
    reason_of,
)
from chalk_online_store.integrations.time_zones import zone_of
from chalk_online_store.schema import Namespace
from chalk_online_store.schema.types import SCALARS, FeatureType


class _Member(NamedTuple):
    """How the member of an object becomes a feature's value."""

    feature: str
    nullable: bool
    convert: Callable[[Any], Any]
    kind: FeatureType


class JsonRows:
    """Converts JSON objects to rows of a namespace. A row has the features that its object has.

    `key` names the members of the primary key, one for each part. By default it is the member
    with the name of the key, which is a list if the key has several parts. `observed_at` names the
    member of the observed-at. Timestamps without a time zone are in `zone`. With `native_values`,
    a value that JSON does not have, such as a datetime of an Avro record, is passed on as it is.
    """

    def __init__(
        self,
        namespace: Namespace,
        key: Sequence[str] | None = None,
        observed_at: str | None = None,
        zone: str | None = None,
        *,
        native_values: bool = False,
    ) -> None:
        self._namespace = namespace
        self._key = list(key or [namespace.key_name])
        self._observed_at = observed_at
        self._zone = zone_of(zone)
        self._parts = [self._converter(SCALARS[part]) for part in namespace.key.parts]
        self._moment = self._converter(SCALARS[datetime])
        self._members: dict[str, _Member] = {}
        self._native_values = native_values

    def _converter(self, kind: FeatureType) -> Callable[[Any], Any]:
        return json_converter(kind, self._zone)

    def convert(self, line: str, row: int) -> tuple[dict[str, Any], datetime | None]:
        """Return a row and its observed-at. Raises `InvalidValue` naming what cannot be read."""
        given = read_object(line, row)
        observed_at = None
        if self._observed_at is not None:
            observed_at = self._moment_of(given.pop(self._observed_at, None), row)
        return self.convert_object(given, row), observed_at

    def convert_object(self, given: dict[str, Any], row: int | None = None) -> dict[str, Any]:
        """Return the row of an object without its observed-at, which is used up.

        Raises `InvalidValue` naming what cannot be read, and the number of the row, if it has one.
        """
        found = {self._namespace.key_name: self._key_of(given, row)}
        for name, value in given.items():
            member = self._member(name)
            if member.feature in found:
                raise InvalidValue(f"{name!r} is a feature that the row has twice{_at(row)}.")
            if value is None and member.nullable:
                found[member.feature] = None
            else:
                found[member.feature] = self._converted(
                    value, member.convert, name, member.kind.name, row
                )
        return found

    def _converted(
        self, value: Any, convert: Callable[[Any], Any], name: str, what: str, row: int | None
    ) -> Any:
        try:
            return _converted(value, convert, name, what, row)
        except InvalidValue:
            if self._native_values and value is not None:
                return value  # The writer checks it, as any value.
            raise

    def _key_of(self, given: dict[str, Any], row: int | None) -> Any:
        """Take the primary key out of an object."""
        values = [given.pop(name, None) for name in self._key]
        names = self._key
        if len(values) < len(self._parts):  # One member for all parts.
            names = [*self._key] * len(self._parts)
            values = values[0] if isinstance(values[0], list) else []
            if len(values) != len(names):
                raise InvalidValue(
                    f"The primary key {names[0]!r} has {len(names)} parts: write it as a list of "
                    f"these{_at(row)}."
                )
        parts = []
        for name, value, convert in zip(names, values, self._parts, strict=True):
            if value is None:
                raise InvalidValue(f"The primary key {name!r} is null or missing{_at(row)}.")
            parts.append(self._converted(value, convert, name, "primary key", row))
        return tuple(parts) if self._namespace.key.composite else parts[0]

    def _member(self, name: str) -> _Member:
        known = self._members.get(name)
        if known is None:
            try:
                feature = self._namespace.feature(name)
            except OnlineStoreError as error:
                raise InvalidValue(str(error)) from None
            convert = self._converter(feature.type)
            known = _Member(feature.name, feature.nullable, convert, feature.type)
            self._members[name] = known
        return known

    def _moment_of(self, value: Any, row: int) -> datetime:
        name = self._observed_at or ""
        found: datetime = _converted(value, self._moment, name, "datetime", row)
        if microseconds_utc(found) < 0:
            raise InvalidValue(f"{name!r} is a time before 1970 as observed-at{_at(row)}.")
        return found


def read_object(line: str, row: int | None = None) -> dict[str, Any]:
    """Read a line. Raises `InvalidValue` if it is not a JSON object."""
    try:
        found = read_json(line)
    except Unexact as error:
        raise InvalidValue(f"The line cannot be read: {error}{_at(row)}.") from None
    if not isinstance(found, Mapping):
        raise InvalidValue(f"The line is not a JSON object{_at(row)}.")
    return dict(found)


def _at(row: int | None) -> str:
    return "" if row is None else f" (row {row})"


def _converted(
    value: Any, convert: Callable[[Any], Any], name: str, what: str, row: int | None
) -> Any:
    if value is None:
        raise InvalidValue(f"{name!r} is null or missing, and must be {what}{_at(row)}.")
    try:
        return convert(value)
    except CONVERSION_ERRORS as error:
        raise InvalidValue(f"{name!r} is no {what}{reason_of(error)}{_at(row)}.") from None
