"""Rows as boto3 users store them: full names, native types, one key; and DynamoDB's JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeAlias

import numpy as np

from benchmarks.data import KINDS, OBSERVED_AT, STALENESS

Item: TypeAlias = dict[str, Any]
Convert: TypeAlias = Callable[[Any], Any]

KEY = "entity_id"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def same(value: Any) -> Any:
    return value


def microseconds(value: datetime) -> int:
    return (value - _EPOCH) // timedelta(microseconds=1)


def float_to_decimal(value: float) -> Decimal:
    return Decimal(repr(value))


def vector_to_bytes(value: Any) -> bytes:
    return bytes(value.astype("<f4").tobytes())


def datetime_of(stored: Decimal) -> datetime:
    return _EPOCH + timedelta(microseconds=int(stored))


def vector_of(stored: Any) -> Any:
    return np.frombuffer(stored.value, "<f4")


_STORE: dict[Any, Convert] = {float: float_to_decimal, datetime: microseconds}
_LOAD: dict[Any, Convert] = {float: float, int: int, datetime: datetime_of}

STORE: list[tuple[str, Convert]] = [
    (name, vector_to_bytes if hasattr(kind, "size") else _STORE.get(kind, same))
    for name, kind in KINDS.items()
]
"""Each feature, and how its value becomes what boto3 takes."""

LOAD: list[tuple[str, Convert]] = [
    (name, vector_of if hasattr(kind, "size") else _LOAD.get(kind, same))
    for name, kind in KINDS.items()
]
"""Each feature, and how what boto3 gives (Decimal, Binary) becomes its value."""

TIMES = {
    "observed_at": microseconds(OBSERVED_AT),
    "ttl": int((OBSERVED_AT + STALENESS).timestamp()) + 1,
}
"""What the store keeps in an item beside its features, so that both write as much."""


def key_of(number: int) -> Item:
    return {KEY: str(number)}


def item_of(row: Mapping[str, Any]) -> Item:
    """A row as boto3's resource takes it."""
    item = key_of(row["id"]) | TIMES
    for name, store in STORE:
        item[name] = store(row[name])
    return item


def to_columns(items: list[Item]) -> dict[str, list[Any]]:
    """The features of items as boto3 gives them, each converted to its declared type."""
    return {name: [load(item[name]) for item in items] for name, load in LOAD}


def to_json(attributes: Mapping[str, Any]) -> str:
    """An item of DynamoDB's attributes as it goes over the wire."""
    return json.dumps(
        attributes, separators=(",", ":"), default=lambda raw: base64.b64encode(raw).decode()
    )


def from_json(attributes: Mapping[str, Mapping[str, Any]]) -> Item:
    """Attributes as they were parsed from the wire, with their bytes decoded."""
    return {
        name: {"B": base64.b64decode(value["B"])} if "B" in value else value
        for name, value in attributes.items()
    }
