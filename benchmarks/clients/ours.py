"""Ours: the store for threads and the store for asyncio, each giving rows or columns."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any
from urllib.parse import urlencode

from benchmarks.clients.base import ACCESS_KEY, REGION, SECRET_KEY, AsyncClient, Call, Client
from benchmarks.data import OBSERVED_AT, STALENESS, Dataset, Floats, Row
from chalk_online_store import (
    AsyncOnlineStore,
    Feature,
    LRUCache,
    Namespace,
    OnlineStore,
    Vector,
)

KEYS = ("pk", "sk")
PACKAGES = ("chalk-online-store", "msgspec", "numpy", "urllib3", "aiohttp")
CACHE = LRUCache(max_size=10_000, ttl="1h")

_VECTOR: Any = Vector  # Type checkers take no subscript of it outside of annotations.


@cache
def namespace(dataset: Dataset) -> Namespace:
    """The schema of a dataset."""
    declared = (
        Feature(name, _type_of(kind), max_staleness=STALENESS)
        for name, kind in dataset.kinds.items()
    )
    return Namespace("user", int, tuple(declared))


def _type_of(kind: Any) -> Any:
    return _VECTOR[kind.size, kind.dtype] if isinstance(kind, Floats) else kind


def as_rows(rows: Any) -> list[Row]:
    """What a read answered, as a list of dictionaries."""
    return [row.to_dict() for row in rows]


def as_columns(rows: Any) -> dict[str, list[Any]]:
    """What a read answered, as a dictionary of columns."""
    columns: dict[str, list[Any]] = rows.to_dict()
    return columns


class Store(Client):
    """`OnlineStore`."""

    packages = PACKAGES
    keys = KEYS
    form: Callable[[Any], Any] = staticmethod(as_rows)

    def __init__(self, url: str, prefix: str) -> None:
        super().__init__(url, prefix)
        self._stores: dict[tuple[Dataset, bool], OnlineStore] = {}

    def store(self, dataset: Dataset, cached: bool = False) -> OnlineStore:
        """The store of a dataset's table."""
        if (dataset, cached) not in self._stores:
            self._stores[dataset, cached] = OnlineStore.open(
                store_url(self.url, self.table(dataset)),
                [namespace(dataset)],
                session=session(),
                lru_cache=CACHE if cached else None,
                timeout=60,
            )
        return self._stores[dataset, cached]

    def reader(self, dataset: Dataset, ids: list[int]) -> Call:
        """As `Client.reader`."""
        return self._reader(self.store(dataset), namespace(dataset), ids)

    def cached_reader(self, dataset: Dataset, ids: list[int]) -> Call | None:
        """With the store's own cache."""
        return self._reader(self.store(dataset, cached=True), namespace(dataset), ids)

    def _reader(self, store: OnlineStore, schema: Namespace, ids: list[int]) -> Call:
        form = self.form
        return lambda: form(store.read(schema, ids))

    def writer(self, dataset: Dataset, rows: list[Row]) -> Call:
        """As `Client.writer`."""
        return self._writer(dataset, rows, "arrival")

    def updater(self, dataset: Dataset, rows: list[Row]) -> Call | None:
        """As `Client.updater`."""
        return self._writer(dataset, rows, "event")

    def _writer(self, dataset: Dataset, rows: list[Row], ordering: Any) -> Call:
        store, schema = self.store(dataset), namespace(dataset)
        return lambda: store.write(schema, rows, observed_at=OBSERVED_AT, ordering=ordering)

    def close(self) -> None:
        """As `Client.close`."""
        for store in self._stores.values():
            store.close()


class StoreColumns(Store):
    """`OnlineStore`, columns."""

    reads_only = True
    form = staticmethod(as_columns)


class AsyncStore(AsyncClient):
    """`AsyncOnlineStore`."""

    packages = PACKAGES
    keys = KEYS
    form: Callable[[Any], Any] = staticmethod(as_rows)

    def __init__(self, url: str, prefix: str) -> None:
        super().__init__(url, prefix)
        self._stores: dict[tuple[Dataset, bool], AsyncOnlineStore] = {}

    def store(self, dataset: Dataset, cached: bool = False) -> AsyncOnlineStore:
        """The store of a dataset's table."""
        if (dataset, cached) not in self._stores:
            self._stores[dataset, cached] = AsyncOnlineStore.open(
                store_url(self.url, self.table(dataset)),
                [namespace(dataset)],
                session=session(),
                lru_cache=CACHE if cached else None,
                timeout=60,
            )
        return self._stores[dataset, cached]

    def reader(self, dataset: Dataset, ids: list[int]) -> Call:
        """As `Client.reader`."""
        return self._reader(self.store(dataset), namespace(dataset), ids)

    def cached_reader(self, dataset: Dataset, ids: list[int]) -> Call:
        """With the store's own cache."""
        return self._reader(self.store(dataset, cached=True), namespace(dataset), ids)

    def _reader(self, store: AsyncOnlineStore, schema: Namespace, ids: list[int]) -> Call:
        form = self.form

        async def read() -> Any:
            return form(await store.read(schema, ids))

        return read

    def writer(self, dataset: Dataset, rows: list[Row]) -> Call:
        """As `Client.writer`."""
        return self._writer(dataset, rows, "arrival")

    def updater(self, dataset: Dataset, rows: list[Row]) -> Call:
        """As `Client.updater`."""
        return self._writer(dataset, rows, "event")

    def _writer(self, dataset: Dataset, rows: list[Row], ordering: Any) -> Call:
        store, schema = self.store(dataset), namespace(dataset)
        return lambda: store.write(schema, rows, observed_at=OBSERVED_AT, ordering=ordering)

    async def aclose(self) -> None:
        """As `AsyncClient.aclose`."""
        for store in self._stores.values():
            await store.close()


class AsyncStoreColumns(AsyncStore):
    """`AsyncOnlineStore`, columns."""

    reads_only = True
    form = staticmethod(as_columns)


def session() -> Any:
    """The made-up credentials that every client has."""
    import boto3

    return boto3.Session(ACCESS_KEY, SECRET_KEY)


def store_url(url: str, table: str) -> str:
    """The URL of a table in the server at `url`."""
    return f"dynamodb:///{table}?{urlencode({'region': REGION, 'endpoint_url': url})}"
