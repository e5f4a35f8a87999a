"""pydynox, whose core is Rust."""

from __future__ import annotations

from pydynox import DynamoDBClient

from benchmarks.clients.base import ACCESS_KEY, REGION, SECRET_KEY, Call, Client
from benchmarks.data import Dataset, Row
from benchmarks.items import Conversion, key_of


class Pydynox(Client):
    """Its client with the `sync_` methods, dictionaries in and out."""

    packages = ("pydynox",)

    def __init__(self, url: str, prefix: str) -> None:
        super().__init__(url, prefix)
        self._client = DynamoDBClient(REGION, ACCESS_KEY, SECRET_KEY, endpoint_url=url)

    def reader(self, dataset: Dataset, ids: list[int]) -> Call:
        """As `Client.reader`."""
        table, conversion = self.table(dataset), Conversion(dataset)

        def read_one() -> list[Row]:
            item = self._client.sync_get_item(table, key_of(ids[0]))
            assert item is not None
            return [conversion.row(item)]

        def read() -> list[Row]:
            keys = [key_of(number) for number in ids]
            return conversion.rows(ids, self._client.sync_batch_get(table, keys))

        return read_one if len(ids) == 1 else read

    def writer(self, dataset: Dataset, rows: list[Row]) -> Call:
        """As `Client.writer`."""
        table, conversion = self.table(dataset), Conversion(dataset)

        def write() -> None:
            self._client.sync_batch_write(table, [conversion.item(row) for row in rows])

        return write

    def updater(self, dataset: Dataset, rows: list[Row]) -> Call:
        """As `Client.updater`."""
        table, conversion = self.table(dataset), Conversion(dataset)
        options = conversion.update_options(_snake_case)

        def update() -> None:
            for row in rows:
                self._client.sync_update_item(
                    table,
                    key_of(row["id"]),
                    expression_attribute_values=conversion.update_values(row),
                    **options,
                )

        return update

    def close(self) -> None:
        """It has nothing to close."""


def _snake_case(name: str) -> str:
    """`UpdateExpression` as `update_expression`."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).removeprefix("_")
