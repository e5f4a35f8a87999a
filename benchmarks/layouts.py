"""One row in each of the layouts that bytes are counted of, as an item in DynamoDB's JSON.

Full names are `user.fraud_score`. Feast's are `fraud_score`, as each feature view has a table.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeAlias

import msgspec
import numpy as np

from benchmarks.entities import OBSERVED, STALENESS
from benchmarks.items import microseconds
from chalk_online_store import Namespace
from chalk_online_store.codec.changes import fresh_item, render_item
from chalk_online_store.codec.layout import TableLayout
from chalk_online_store.codec.namespaces import NamespaceCodec
from chalk_online_store.codec.registry import Registry

Row: TypeAlias = Mapping[str, Any]
Item: TypeAlias = dict[str, Any]
Layout: TypeAlias = Callable[[Row], Item]


def layouts(namespace: Namespace) -> dict[str, Layout]:
    """The layouts by name, ours last."""
    return {
        "JSON, full names": json_item,
        "Feast: protobuf": feast_item,
        "native types, full names": native_item,
        "ours": our_layout(namespace),
    }


def features_of(row: Row) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "id"}


# --- JSON: one string, compact ------------------------------------------------------------


def json_item(row: Row) -> Item:
    """The key, the times that the store keeps as well, and all features in one string."""
    named = {f"user.{name}": value for name, value in features_of(row).items()}
    text = json.dumps(named, default=_json_value, separators=(",", ":"))
    return _keyed(row) | {"features": {"S": text}}


def _json_value(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return value.tolist()


# --- Feast 0.67: a map from feature names to serialised `feast.types.Value` messages ------


def feast_item(row: Row) -> Item:
    """As `DynamoDBOnlineStore` writes it: the key's hash in hex, the event time as a text."""
    values = {name: {"B": _base64(feast_value(value))} for name, value in features_of(row).items()}
    return {
        "entity_id": {"S": f"{row['id']:032x}"},  # 128 bits of murmur3: any 32 digits weigh as much
        "event_ts": {"S": str(OBSERVED)},
        "values": {"M": values},
    }


def feast_value(value: Any) -> bytes:
    """A `feast.types.Value`, of which exactly one field of a oneof is set, by hand.

    A tag is the field's number and its wire type: 0 varint, 1 eight bytes, 2 a length and bytes.
    """
    match value:
        case bool():
            return _tag(7, 0) + _varint(value)
        case int():
            return _tag(4, 0) + _varint(value % 2**64)
        case float():
            return _tag(5, 1) + struct.pack("<d", value)
        case str():
            return _tag(2, 2) + _sized(value.encode())
        case datetime():
            return _tag(8, 0) + _varint(int(value.timestamp()))  # Feast keeps seconds
        case np.ndarray():  # as bytes: as a list of floats it takes four bytes more
            return _tag(1, 2) + _sized(value.astype("<f4").tobytes())
    raise TypeError(type(value).__name__)


def _tag(field: int, wire_type: int) -> bytes:
    return _varint(field << 3 | wire_type)


def _sized(raw: bytes) -> bytes:
    return _varint(len(raw)) + raw


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that more follow."""
    head = bytearray()
    while value > 127:
        head.append(value & 127 | 128)
        value >>= 7
    return bytes((*head, value))


# --- native types under full names ---------------------------------------------------------


def native_item(row: Row) -> Item:
    """As a user of boto3 lays it out, with the times that the store keeps as well."""
    return _keyed(row) | {
        f"user.{name}": _native(value) for name, value in features_of(row).items()
    }


def _keyed(row: Row) -> Item:
    expires = int((OBSERVED + STALENESS).timestamp()) + 1
    return {
        "pk": {"S": f"user:{row['id']}"},
        "observed_at": _number(microseconds(OBSERVED)),
        "ttl": _number(expires),
    }


def _native(value: Any) -> Item:
    match value:
        case bool():
            return {"BOOL": value}
        case int() | float():
            return _number(value)
        case str():
            return {"S": value}
        case datetime():
            return _number(microseconds(value))
    return {"B": _base64(value.astype("<f4").tobytes())}


def _number(value: float) -> Item:
    return {"N": repr(value)}


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


# --- ours ----------------------------------------------------------------------------------


def our_layout(namespace: Namespace) -> Layout:
    """What the store writes into an empty table, by its own code."""
    codec = codec_of(namespace)

    def our_item(row: Row) -> Item:
        (change,) = codec.changes(row, microseconds(OBSERVED))
        item: Item = msgspec.json.decode(render_item(fresh_item(codec.layout, change)))
        return item

    return our_item


def codec_of(namespace: Namespace) -> NamespaceCodec:
    """The namespace with the ids that it gets in an empty table."""
    layout = TableLayout()
    entries = Registry().allocate(Registry().missing(namespace), layout.reserved)
    return NamespaceCodec(namespace, Registry(tuple(entries)), layout)
