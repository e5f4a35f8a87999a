"""Ours: the store for threads and the store for asyncio, each giving rows or columns."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar
from urllib.parse import urlencode

import boto3

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
PACKAGES = ("chalk-online-store", "httptools", "msgspec", "numpy")
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
    found: list[Row] = rows.to_pylist()
    return found


def as_columns(rows: Any) -> dict[str, list[Any]]:
    """What a read answered, as a dictionary of columns."""
    columns: dict[str, list[Any]] = rows.to_dict()
    return columns


class Ours(Client):
    """What both stores share: one store for each table, and one more with a cache."""

    packages = PACKAGES
    keys = KEYS
    form: Callable[[Any], Any] = staticmethod(as_rows)
    open: ClassVar[Callable[..., Any]]

    def __init__(self, url: str, prefix: str) -> None:
        super().__init__(url, prefix)
        self.stores: dict[tuple[Dataset, bool], Any] = {}

    def store(self, dataset: Dataset, cached: bool = False) -> Any:
        """The store of a dataset's table."""
        if (dataset, cached) not in self.stores:
            self.stores[dataset, cached] = type(self).open(
                store_url(self.url, self.table(dataset)),
                [namespace(dataset)],
                session=boto3.Session(ACCESS_KEY, SECRET_KEY),
                lru_cache=CACHE if cached else None,
                timeout=60,
            )
        return self.stores[dataset, cached]

    @abstractmethod
    def reader_of(self, store: Any, schema: Namespace, ids: list[int]) -> Call:
        """Read from a store."""

    def reader(self, dataset: Dataset, ids: list[int]) -> Call:
        """As `Client.reader`."""
        return self.reader_of(self.store(dataset), namespace(dataset), ids)

    def cached_reader(self, dataset: Dataset, ids: list[int]) -> Call | None:
        """With the store's own cache."""
        return self.reader_of(self.store(dataset, cached=True), namespace(dataset), ids)

    def writer(self, dataset: Dataset, rows: list[Row]) -> Call:
        """As `Client.writer`."""
        return self._writer(dataset, rows, "arrival")

    def updater(self, dataset: Dataset, rows: list[Row]) -> Call | None:
        """As `Client.updater`."""
        return self._writer(dataset, rows, "event")

    def _writer(self, dataset: Dataset, rows: list[Row], ordering: str) -> Call:
        write, schema = self.store(dataset).write, namespace(dataset)
        return lambda: write(schema, rows, observed_at=OBSERVED_AT, ordering=ordering)


class Store(Ours):
    """`OnlineStore`."""

    open = OnlineStore.open

    def reader_of(self, store: Any, schema: Namespace, ids: list[int]) -> Call:
        """As `Ours.reader_of`."""
        form = self.form
        return lambda: form(store.read(schema, ids))

    def close(self) -> None:
        """As `Client.close`."""
        for store in self.stores.values():
            store.close()


class StoreColumns(Store):
    """`OnlineStore`, columns."""

    reads_only = True
    form = staticmethod(as_columns)


class PureStore(Store):
    """`OnlineStore` where the decoder in C was not built."""

    reads_only = True

    def __init__(self, url: str, prefix: str) -> None:
        os.environ["CHALK_ONLINE_STORE_PURE"] = "1"
        super().__init__(url, prefix)


class PureStoreColumns(PureStore):
    """The same, columns."""

    form = staticmethod(as_columns)


class AsyncStore(Ours, AsyncClient):
    """`AsyncOnlineStore`."""

    open = AsyncOnlineStore.open

    def reader_of(self, store: Any, schema: Namespace, ids: list[int]) -> Call:
        """As `Ours.reader_of`."""
        form = self.form

        async def read() -> Any:
            return form(await store.read(schema, ids))

        return read

    async def aclose(self) -> None:
        """As `AsyncClient.aclose`."""
        for store in self.stores.values():
            await store.close()


class AsyncStoreColumns(AsyncStore):
    """`AsyncOnlineStore`, columns."""

    reads_only = True
    form = staticmethod(as_columns)


class UvloopStore(AsyncStore):
    """`AsyncOnlineStore` on uvloop."""

    def __init__(self, url: str, prefix: str) -> None:
        import uvloop

        super().__init__(url, prefix)
        self.loop.close()
        self.loop = uvloop.new_event_loop()


def store_url(url: str, table: str) -> str:
    """The URL of a table in the server at `url`."""
    return f"dynamodb:///{table}?{urlencode({'region': REGION, 'endpoint_url': url})}"
