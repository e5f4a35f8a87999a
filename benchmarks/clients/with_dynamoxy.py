"""dynamoxy, whose core is Rust; asyncio only."""

from __future__ import annotations

import asyncio

import dynamoxy
from dynamoxy import F

from benchmarks.clients.base import ACCESS_KEY, REGION, SECRET_KEY, AsyncClient, Call
from benchmarks.data import Dataset, Row
from benchmarks.items import TIMES, Conversion, key_of


class Dynamoxy(AsyncClient):
    """Its tables, dictionaries in and out."""

    packages = ("dynamoxy",)

    def __init__(self, url: str, prefix: str) -> None:
        super().__init__(url, prefix)
        credentials = dynamoxy.Credentials(ACCESS_KEY, SECRET_KEY)
        self._client = dynamoxy.Client(region=REGION, endpoint_url=url, credentials=credentials)

    def reader(self, dataset: Dataset, ids: list[int]) -> Call:
        """As `Client.reader`."""
        table, conversion = self._client.table(self.table(dataset)), Conversion(dataset)

        async def read_one() -> list[Row]:
            item = await table.get(key_of(ids[0]))
            assert item is not None
            return [conversion.row(item)]

        async def read() -> list[Row]:
            return conversion.rows(ids, await table.batch_get(map(key_of, ids)))

        return read_one if len(ids) == 1 else read

    def writer(self, dataset: Dataset, rows: list[Row]) -> Call:
        """As `Client.writer`."""
        table, conversion = self._client.table(self.table(dataset)), Conversion(dataset)

        async def write() -> None:
            await table.batch_write(puts=map(conversion.item, rows))

        return write

    def updater(self, dataset: Dataset, rows: list[Row]) -> Call:
        """As `Client.updater`."""
        table, conversion = self._client.table(self.table(dataset)), Conversion(dataset)
        fields = {name: F(name) for name in conversion.names}
        observed_at = fields["observed_at"]
        unless_newer = ~observed_at.exists() | (observed_at <= TIMES["observed_at"])

        async def update_one(row: Row) -> None:
            item = conversion.item(row)
            actions = [field.set(item[name]) for name, field in fields.items()]
            key = key_of(row["id"])
            await table.update(key, *actions, condition=unless_newer, return_values="NONE")

        async def update() -> None:
            await asyncio.gather(*map(update_one, rows))

        return update

    async def aclose(self) -> None:
        """As `AsyncClient.aclose`."""
        await self._client.close()
