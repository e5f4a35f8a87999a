"""Rows of JSON Lines: each line an object, whose names are features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from chalk_online_store.codec.values import microseconds_utc
from chalk_online_store.errors import InvalidValue, OnlineStoreError
from chalk_online_store.integrations.objects import zone_of
from chalk_online_store.integrations.texts import (
    CONVERSION_ERRORS,
    Unexact,
    json_converter,
    read_json,
)
from chalk_online_store.schema import Namespace
from chalk_online_store.schema.types import SCALARS, FeatureType


class LineConverter:
    """Converts lines to rows of a namespace. A row keeps the names that its line has.

    `key` names the members of the primary key, `observed_at` that of the observed-at. Timestamps
    without a time zone are in `zone`.
    """

    def __init__(
        self, namespace: Namespace, key: Sequence[str], observed_at: str | None, zone: str | None
    ) -> None:
        self._namespace = namespace
        self._key = list(key)
        self._observed_at = observed_at
        self._zone = zone_of(zone)
        self._parts = [self._converter(SCALARS[part]) for part in namespace.key.parts]
        self._moment = self._converter(SCALARS[datetime])
        self._known: dict[str, tuple[str, bool, Callable[[Any], Any], FeatureType]] = {}

    def _converter(self, kind: FeatureType) -> Callable[[Any], Any]:
        return json_converter(kind, self._zone)

    def convert(self, line: str, row: int) -> tuple[dict[str, Any], datetime | None]:
        """Return a row and its observed-at. Raises `InvalidValue` naming what cannot be read."""
        given = read_object(line, row)
        observed_at = None
        if self._observed_at is not None:
            observed_at = self._moment_of(given.pop(self._observed_at, None), row)
        parts = []
        for name, convert in zip(self._key, self._parts, strict=True):
            value = given.pop(name, None)
            if value is None:
                raise InvalidValue(f"The primary key {name!r} is null or missing (row {row}).")
            parts.append(_converted(value, convert, name, "primary key", row))
        found = {self._namespace.key_name: tuple(parts) if len(parts) > 1 else parts[0]}
        for name, value in given.items():
            feature, nullable, convert, kind = self._feature(name)
            if feature in found:
                raise InvalidValue(f"{name!r} is a feature that the line has twice (row {row}).")
            if value is None and nullable:
                found[feature] = None
            else:
                found[feature] = _converted(value, convert, name, kind.name, row)
        return found, observed_at

    def _feature(self, name: str) -> tuple[str, bool, Callable[[Any], Any], FeatureType]:
        known = self._known.get(name)
        if known is None:
            try:
                feature = self._namespace.feature(name)
            except OnlineStoreError as error:
                raise InvalidValue(str(error)) from None
            known = (feature.name, feature.nullable, self._converter(feature.type), feature.type)
            self._known[name] = known
        return known

    def _moment_of(self, value: Any, row: int) -> datetime:
        name = self._observed_at or ""
        found: datetime = _converted(value, self._moment, name, "datetime", row)
        if microseconds_utc(found) < 0:
            raise InvalidValue(f"{name!r} is a time before 1970 as observed-at (row {row}).")
        return found


def read_object(line: str, row: int) -> dict[str, Any]:
    """Read a line. Raises `InvalidValue` if it is not a JSON object."""
    try:
        found = read_json(line)
    except Unexact as error:
        raise InvalidValue(f"The line cannot be read: {error} (row {row}).") from None
    if not isinstance(found, Mapping):
        raise InvalidValue(f"The line is not a JSON object (row {row}).")
    return dict(found)


def _converted(value: Any, convert: Callable[[Any], Any], name: str, what: str, row: int) -> Any:
    if value is None:
        raise InvalidValue(f"{name!r} is null or missing, and must be {what} (row {row}).")
    try:
        return convert(value)
    except CONVERSION_ERRORS as error:
        reason = f": {error}" if isinstance(error, Unexact) else ""
        raise InvalidValue(f"{name!r} is no {what}{reason} (row {row}).") from None
