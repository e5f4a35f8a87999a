"""The rivals: boto3's resource, and its client with TypeDeserializer and TypeSerializer.

Both do what a feature store on top of them has to: ask for the keys, put the items back into
their order, and turn Decimal and Binary into the declared types, column by column. They check no
staleness and hand back no statuses, which the store does.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

import boto3
from boto3.dynamodb.types import TypeDeserializer, TypeSerializer

from benchmarks.client import Client
from benchmarks.data import (
    KINDS,
    READ_MANY,
    READ_ONE,
    REGION,
    ROWS,
    TABLE,
    UPDATE,
    WRITE,
    Call,
)
from benchmarks.items import KEY, STORE, TIMES, Item, item_of, key_of, to_columns

SESSION = boto3.Session("testing", "testing", region_name=REGION)

_ASSIGNED = [*KINDS, *TIMES]
UPDATE_OPTIONS: dict[str, Any] = {
    "UpdateExpression": "SET " + ",".join(f"#{name}=:{name}" for name in _ASSIGNED),
    "ConditionExpression": "attribute_not_exists(#observed_at) OR #observed_at<=:observed_at",
    "ExpressionAttributeNames": {f"#{name}": name for name in _ASSIGNED},
}
"""What an update says of every row alike: assign all, unless something newer is there."""


class Boto3(Client):
    """What both rivals share."""

    def repeat(self, call: Call, times: int) -> Any:
        """As `Client.repeat`."""
        rows = ROWS[: call.entities]
        perform = {
            READ_MANY: self._read_many,
            READ_ONE: self._read_one,
            WRITE: self._write,
            UPDATE: self._update,
        }[call]
        result: Any = None
        for _ in range(times):
            result = perform(rows)
        return result

    @abstractmethod
    def _read_many(self, rows: list[Item]) -> dict[str, list[Any]]: ...

    @abstractmethod
    def _read_one(self, rows: list[Item]) -> dict[str, list[Any]]: ...

    @abstractmethod
    def _write(self, rows: list[Item]) -> None: ...

    @abstractmethod
    def _update(self, rows: list[Item]) -> None: ...


class Boto3Resource(Boto3):
    """What most Python code uses: tables as objects, Python values in and out."""

    name = "boto3 resource"

    def __init__(self, url: str) -> None:
        self._resource = SESSION.resource("dynamodb", endpoint_url=url)
        self._table = self._resource.Table(TABLE)

    def _read_many(self, rows: list[Item]) -> dict[str, list[Any]]:
        keys = [key_of(row["id"]) for row in rows]
        answer = self._resource.batch_get_item(RequestItems={TABLE: {"Keys": keys}})
        return to_columns(in_order(keys, answer["Responses"][TABLE]))

    def _read_one(self, rows: list[Item]) -> dict[str, list[Any]]:
        return to_columns([self._table.get_item(Key=key_of(rows[0]["id"]))["Item"]])

    def _write(self, rows: list[Item]) -> None:
        with self._table.batch_writer() as batch:
            for row in rows:
                batch.put_item(Item=item_of(row))

    def _update(self, rows: list[Item]) -> None:
        for row in rows:
            values = update_values(row)
            self._table.update_item(
                Key=key_of(row["id"]), ExpressionAttributeValues=values, **UPDATE_OPTIONS
            )

    def close(self) -> None:
        """As `Client.close`."""
        self._resource.meta.client.close()


class Boto3Client(Boto3):
    """The layer below, with the resource's own conversion of values."""

    name = "boto3 client + TypeDeserializer"

    def __init__(self, url: str) -> None:
        self._client = SESSION.client("dynamodb", endpoint_url=url)
        self._serialize = TypeSerializer().serialize
        self._deserialize = TypeDeserializer().deserialize

    def _read_many(self, rows: list[Item]) -> dict[str, list[Any]]:
        keys = [key_of(row["id"]) for row in rows]
        wanted = [self._attributes(key) for key in keys]
        answer = self._client.batch_get_item(RequestItems={TABLE: {"Keys": wanted}})
        return to_columns(in_order(keys, map(self._item, answer["Responses"][TABLE])))

    def _read_one(self, rows: list[Item]) -> dict[str, list[Any]]:
        key = self._attributes(key_of(rows[0]["id"]))
        answer = self._client.get_item(TableName=TABLE, Key=key)
        return to_columns([self._item(answer["Item"])])

    def _write(self, rows: list[Item]) -> None:
        self._client.batch_write_item(
            RequestItems={
                TABLE: [{"PutRequest": {"Item": self._attributes(item_of(row))}} for row in rows]
            }
        )

    def _update(self, rows: list[Item]) -> None:
        for row in rows:
            self._client.update_item(
                TableName=TABLE,
                Key=self._attributes(key_of(row["id"])),
                ExpressionAttributeValues=self._attributes(update_values(row)),
                **UPDATE_OPTIONS,
            )

    def close(self) -> None:
        """As `Client.close`."""
        self._client.close()

    def _attributes(self, item: Item) -> dict[str, Any]:
        serialize = self._serialize
        return {name: serialize(value) for name, value in item.items()}

    def _item(self, attributes: Mapping[str, Any]) -> Item:
        deserialize = self._deserialize
        return {name: deserialize(value) for name, value in attributes.items()}


def in_order(keys: Iterable[Item], items: Iterable[Item]) -> list[Item]:
    """Items in the order of their keys: BatchGetItem answers in any."""
    found = {item[KEY]: item for item in items}
    return [found[key[KEY]] for key in keys]


def update_values(row: Item) -> Item:
    values: Item = {f":{name}": value for name, value in TIMES.items()}
    for name, store in STORE:
        values[f":{name}"] = store(row[name])
    return values
