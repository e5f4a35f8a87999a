"""aioboto3: its client, with boto3's TypeDeserializer and TypeSerializer."""

from __future__ import annotations

import asyncio
from typing import Any

import aioboto3
from botocore.config import Config

from benchmarks.clients.base import ACCESS_KEY, REGION, SECRET_KEY, AsyncClient, Call
from benchmarks.clients.with_boto3 import Attributes, conversion_of
from benchmarks.data import Dataset, Row
from benchmarks.items import key_of


class Aioboto3Client(AsyncClient):
    """The same work as boto3's client, awaited."""

    packages = ("aioboto3", "aiobotocore", "botocore", "aiohttp")

    def __init__(self, url: str, prefix: str) -> None:
        super().__init__(url, prefix)
        session = aioboto3.Session(ACCESS_KEY, SECRET_KEY, region_name=REGION)
        config = Config(max_pool_connections=64)
        self._context = session.client("dynamodb", endpoint_url=url, config=config)
        self._client: Any = self.loop.run_until_complete(self._context.__aenter__())
        self._attributes = Attributes()

    def reader(self, dataset: Dataset, ids: list[int]) -> Call:
        """As `Client.reader`."""
        table, conversion = self.table(dataset), conversion_of(dataset)
        of, item = self._attributes.of, self._attributes.item

        async def read_one() -> list[Row]:
            answer = await self._client.get_item(TableName=table, Key=of(key_of(ids[0])))
            return [conversion.row(item(answer["Item"]))]

        async def read() -> list[Row]:
            keys = [of(key_of(number)) for number in ids]
            answer = await self._client.batch_get_item(RequestItems={table: {"Keys": keys}})
            return conversion.rows(ids, map(item, answer["Responses"][table]))

        return read_one if len(ids) == 1 else read

    def writer(self, dataset: Dataset, rows: list[Row]) -> Call:
        """As `Client.writer`."""
        table, conversion, of = self.table(dataset), conversion_of(dataset), self._attributes.of

        async def write() -> None:
            puts = [{"PutRequest": {"Item": of(conversion.item(row))}} for row in rows]
            await self._client.batch_write_item(RequestItems={table: puts})

        return write

    def updater(self, dataset: Dataset, rows: list[Row]) -> Call:
        """As `Client.updater`."""
        table, conversion, of = self.table(dataset), conversion_of(dataset), self._attributes.of
        options = conversion.update_options()

        async def update_one(row: Row) -> None:
            values, key = of(conversion.update_values(row)), of(key_of(row["id"]))
            await self._client.update_item(
                TableName=table, Key=key, ExpressionAttributeValues=values, **options
            )

        async def update() -> None:
            await asyncio.gather(*map(update_one, rows))

        return update

    async def aclose(self) -> None:
        """As `AsyncClient.aclose`."""
        await self._context.__aexit__(None, None, None)


class Aioboto3Resource(Aioboto3Client):
    """Its `batch_writer`, with values as boto3's resource takes them."""

    def __init__(self, url: str, prefix: str) -> None:
        super().__init__(url, prefix)
        session = aioboto3.Session(ACCESS_KEY, SECRET_KEY, region_name=REGION)
        self._resources = session.resource("dynamodb", endpoint_url=url)
        self._resource: Any = self.loop.run_until_complete(self._resources.__aenter__())

    def streamer(self, dataset: Dataset, rows: list[Row]) -> Call:
        """As `Client.streamer`."""
        conversion = conversion_of(dataset)

        async def write() -> None:
            table = await self._resource.Table(self.table(dataset))
            async with table.batch_writer() as batch:
                for row in rows:
                    await batch.put_item(Item=conversion.item(row))

        return write

    async def aclose(self) -> None:
        """As `AsyncClient.aclose`."""
        await self._resources.__aexit__(None, None, None)
        await super().aclose()
