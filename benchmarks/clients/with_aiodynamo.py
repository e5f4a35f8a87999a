"""aiodynamo, on aiohttp; its numbers are all floats."""

from __future__ import annotations

import asyncio

from aiodynamo.client import Client as DynamoClient
from aiodynamo.credentials import Key, StaticCredentials
from aiodynamo.expressions import F, UpdateExpression
from aiodynamo.http.aiohttp import AIOHTTP
from aiodynamo.models import BatchGetRequest, BatchWriteRequest
from aiohttp import ClientSession
from yarl import URL

from benchmarks.clients.base import ACCESS_KEY, REGION, SECRET_KEY, AsyncClient, Call
from benchmarks.data import Dataset, Row
from benchmarks.items import TIMES, Conversion, key_of

_OBSERVED_AT = F("observed_at")
_UNLESS_NEWER = _OBSERVED_AT.does_not_exist() | _OBSERVED_AT.lte(TIMES["observed_at"])


class Aiodynamo(AsyncClient):
    """`Client` of aiodynamo."""

    packages = ("aiodynamo", "aiohttp")

    def __init__(self, url: str, prefix: str) -> None:
        super().__init__(url, prefix)
        self._session = self.loop.run_until_complete(_session())
        credentials = StaticCredentials(Key(ACCESS_KEY, SECRET_KEY))
        http = AIOHTTP(self._session)
        self._client = DynamoClient(http, credentials, REGION, URL(url), numeric_type=float)

    def reader(self, dataset: Dataset, ids: list[int]) -> Call:
        """As `Client.reader`."""
        table, conversion = self.table(dataset), Conversion(dataset)

        async def read_one() -> list[Row]:
            return [conversion.row(await self._client.get_item(table, key_of(ids[0])))]

        async def read() -> list[Row]:
            request = BatchGetRequest([key_of(number) for number in ids])
            answer = await self._client.batch_get({table: request})
            return conversion.rows(ids, answer.items[table])

        return read_one if len(ids) == 1 else read

    def writer(self, dataset: Dataset, rows: list[Row]) -> Call:
        """As `Client.writer`."""
        table, conversion = self.table(dataset), Conversion(dataset)

        async def write() -> None:
            request = BatchWriteRequest(items_to_put=[conversion.item(row) for row in rows])
            await self._client.batch_write({table: request})

        return write

    def updater(self, dataset: Dataset, rows: list[Row]) -> Call:
        """As `Client.updater`."""
        table, conversion = self.table(dataset), Conversion(dataset)
        fields = {name: F(name) for name in conversion.names}

        async def update_one(row: Row) -> None:
            item = conversion.item(row)
            sets = [
                update for name, f in fields.items() for update in f.set(item[name]).set_updates
            ]
            await self._client.update_item(
                table, key_of(row["id"]), UpdateExpression(sets), condition=_UNLESS_NEWER
            )

        async def update() -> None:
            await asyncio.gather(*map(update_one, rows))

        return update

    async def aclose(self) -> None:
        """As `AsyncClient.aclose`."""
        await self._session.close()


async def _session() -> ClientSession:
    return ClientSession()
