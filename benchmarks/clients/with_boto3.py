"""boto3: its resource, and its client with TypeDeserializer and TypeSerializer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import boto3
from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from botocore.config import Config
from cachetools import TTLCache

from benchmarks.clients.base import ACCESS_KEY, REGION, SECRET_KEY, Call, Client
from benchmarks.data import Dataset, Row
from benchmarks.items import Conversion, Item, float_to_decimal, key_of

SESSION = boto3.Session(ACCESS_KEY, SECRET_KEY, region_name=REGION)
CONFIG = Config(max_pool_connections=64)  # As many as any benchmark has callers.
BATCH = 100
"""AWS: BatchGetItem takes 100 keys."""


def conversion_of(dataset: Dataset) -> Conversion:
    """boto3 takes Decimal and gives Decimal and Binary."""
    return Conversion(dataset, store_float=float_to_decimal, bytes_of=lambda binary: binary.value)


def batches(ids: list[int]) -> Iterator[list[int]]:
    return (ids[start : start + BATCH] for start in range(0, len(ids), BATCH))


class Attributes:
    """Between items and DynamoDB's JSON."""

    def __init__(self) -> None:
        self._serialize = TypeSerializer().serialize
        self._deserialize = TypeDeserializer().deserialize

    def of(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """An item's attributes."""
        serialize = self._serialize
        return {name: serialize(value) for name, value in item.items()}

    def item(self, attributes: Mapping[str, Any]) -> Item:
        """The item that has these attributes."""
        deserialize = self._deserialize
        return {name: deserialize(value) for name, value in attributes.items()}


class Boto3Resource(Client):
    """What most Python code uses: tables as objects, Python values in and out."""

    packages = ("boto3", "botocore", "cachetools")

    def __init__(self, url: str, prefix: str) -> None:
        super().__init__(url, prefix)
        self._resource = SESSION.resource("dynamodb", endpoint_url=url, config=CONFIG)

    def reader(self, dataset: Dataset, ids: list[int]) -> Call:
        """As `Client.reader`."""
        table, conversion = self.table(dataset), conversion_of(dataset)
        one = self._resource.Table(table)

        def read_one() -> list[Row]:
            return [conversion.row(one.get_item(Key=key_of(ids[0]))["Item"])]

        def read() -> list[Row]:
            return self._read(table, conversion, ids)

        return read_one if len(ids) == 1 else read

    def _read(self, table: str, conversion: Conversion, ids: list[int]) -> list[Row]:
        items: list[Item] = []
        for some in batches(ids):
            asked: Any = {table: {"Keys": [key_of(number) for number in some]}}
            items += self._resource.batch_get_item(RequestItems=asked)["Responses"][table]
        return conversion.rows(ids, items)

    def cached_reader(self, dataset: Dataset, ids: list[int]) -> Call:
        """With cachetools' TTLCache of rows."""
        table, conversion = self.table(dataset), conversion_of(dataset)
        cache: TTLCache[int, Row] = TTLCache(maxsize=10_000, ttl=3600)

        def read() -> list[Row]:
            found = {number: cache.get(number) for number in ids}
            missed = [number for number, row in found.items() if row is None]
            if missed:
                read = dict(zip(missed, self._read(table, conversion, missed), strict=True))
                cache.update(read)
                found |= read
            return [row for row in found.values() if row is not None]

        return read

    def writer(self, dataset: Dataset, rows: list[Row]) -> Call:
        """As `Client.writer`."""
        table, conversion = self._resource.Table(self.table(dataset)), conversion_of(dataset)

        def write() -> None:
            with table.batch_writer() as batch:
                for row in rows:
                    batch.put_item(Item=conversion.item(row))

        return write

    def streamer(self, dataset: Dataset, rows: list[Row]) -> Call:
        """`batch_writer` takes any number."""
        return self.writer(dataset, rows)

    def updater(self, dataset: Dataset, rows: list[Row]) -> Call:
        """As `Client.updater`."""
        table, conversion = self._resource.Table(self.table(dataset)), conversion_of(dataset)
        options = conversion.update_options()

        def update() -> None:
            for row in rows:
                values = conversion.update_values(row)
                key = key_of(row["id"])
                table.update_item(Key=key, ExpressionAttributeValues=values, **options)

        return update

    def close(self) -> None:
        """As `Client.close`."""
        self._resource.meta.client.close()


class Boto3Client(Client):
    """The layer below, with the resource's own conversion of values."""

    packages = ("boto3", "botocore")

    def __init__(self, url: str, prefix: str) -> None:
        super().__init__(url, prefix)
        self._client = SESSION.client("dynamodb", endpoint_url=url, config=CONFIG)
        self._attributes = Attributes()

    def reader(self, dataset: Dataset, ids: list[int]) -> Call:
        """As `Client.reader`."""
        table, conversion = self.table(dataset), conversion_of(dataset)
        of, item = self._attributes.of, self._attributes.item

        def read_one() -> list[Row]:
            answer = self._client.get_item(TableName=table, Key=of(key_of(ids[0])))
            return [conversion.row(item(answer["Item"]))]

        def read() -> list[Row]:
            items: list[Item] = []
            for some in batches(ids):
                keys = [of(key_of(number)) for number in some]
                answer = self._client.batch_get_item(RequestItems={table: {"Keys": keys}})
                items += map(item, answer["Responses"][table])
            return conversion.rows(ids, items)

        return read_one if len(ids) == 1 else read

    def writer(self, dataset: Dataset, rows: list[Row]) -> Call:
        """As `Client.writer`."""
        table, conversion, of = self.table(dataset), conversion_of(dataset), self._attributes.of

        def write() -> None:
            puts: Any = [{"PutRequest": {"Item": of(conversion.item(row))}} for row in rows]
            self._client.batch_write_item(RequestItems={table: puts})

        return write

    def updater(self, dataset: Dataset, rows: list[Row]) -> Call:
        """As `Client.updater`."""
        table, conversion, of = self.table(dataset), conversion_of(dataset), self._attributes.of
        options = conversion.update_options()

        def update() -> None:
            for row in rows:
                self._client.update_item(
                    TableName=table,
                    Key=of(key_of(row["id"])),
                    ExpressionAttributeValues=of(conversion.update_values(row)),
                    **options,
                )

        return update

    def close(self) -> None:
        """As `Client.close`."""
        self._client.close()
