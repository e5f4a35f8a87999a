"""Correctness first: every client must read and write the very rows of `data.ROWS`."""

from __future__ import annotations

from typing import Any

import numpy as np
from boto3.dynamodb.types import TypeDeserializer

from benchmarks.canned import Table
from benchmarks.client import Client
from benchmarks.data import READ_MANY, READ_ONE, ROWS, TABLE, UPDATE, WRITE, columns
from benchmarks.items import Item, from_json, to_columns
from benchmarks.server import CannedServer


def check(client: Client, table: Table, server: CannedServer) -> None:
    """Make every call, and compare what came, or what the server was sent."""
    for call in (READ_MANY, READ_ONE):
        result = client.repeat(call, client.at_once)
        _require_equal(client, result, columns(ROWS[: call.entities]))
    client.repeat(WRITE, client.at_once)
    sent = [put["PutRequest"]["Item"] for put in _last_batch(server)]
    _require_written(client, table, sent)
    client.repeat(UPDATE, client.at_once)
    _require_written(client, table, [_updated(body) for body in server.recorded("UpdateItem")])


def _last_batch(server: CannedServer) -> list[Any]:
    batch: list[Any] = server.recorded("BatchWriteItem")[-1]["RequestItems"][TABLE]
    return batch


def _updated(body: Any) -> Item:
    """The attributes that an UpdateItem sets, with the key."""
    names, values = body["ExpressionAttributeNames"], body["ExpressionAttributeValues"]
    assignments = body["UpdateExpression"].removeprefix("SET ").partition(" REMOVE ")[0]
    pairs = (assignment.split("=") for assignment in assignments.split(","))
    return {**body["Key"], **{names[left.strip()]: values[right.strip()] for left, right in pairs}}


def _require_written(client: Client, table: Table, sent: list[Item]) -> None:
    written = {}
    for attributes in sent:
        item = _deserialized(from_json(attributes))
        named = {table.names.get(name, name): value for name, value in item.items()}
        written[table.keys.index(item[table.key])] = named
    if sorted(written) != list(range(WRITE.entities)):
        raise AssertionError(f"{client.name} wrote the rows {sorted(written)}")
    result = to_columns([written[number] for number in range(WRITE.entities)])
    _require_equal(client, result, columns(ROWS[: WRITE.entities]))


def _deserialized(attributes: Item) -> Item:
    deserialize = TypeDeserializer().deserialize
    return {name: deserialize(value) for name, value in attributes.items()}


def _require_equal(client: Client, result: dict[str, Any], source: dict[str, list[Any]]) -> None:
    if result.keys() != source.keys():
        raise AssertionError(f"{client.name} has the features {sorted(result)}")
    for name, values in source.items():
        if not _all_same(result[name], values):
            raise AssertionError(f"{client.name} has other values of {name}")


def _all_same(found: list[Any], wanted: list[Any]) -> bool:
    return len(found) == len(wanted) and all(map(_same, found, wanted))


def _same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, np.ndarray):
        return found.dtype == wanted.dtype and np.array_equal(found, wanted)
    return type(found) is type(wanted) and bool(found == wanted)
