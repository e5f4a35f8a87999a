"""`AsyncOnlineStore`: as `store.OnlineStore`, for asyncio."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from chalk_online_store.arguments import (
    DEFAULT_TIMEOUT,
    MAX_CONNECTIONS,
    MAX_FUTURE_SKEW,
    whole_number,
)
from chalk_online_store.drivers.steps import read_clocks

if TYPE_CHECKING:
    from chalk_online_store.backend import Backend
    from chalk_online_store.drivers.aio import AsyncDriver, AsyncTransport
    from chalk_online_store.drivers.sessions import Sessions
    from chalk_online_store.operations.bloom.build import BuildReport, Progress
    from chalk_online_store.operations.core import Core, Schema
    from chalk_online_store.operations.prepared import Prepared
    from chalk_online_store.operations.regions import Health
    from chalk_online_store.operations.results import QueryResult
    from chalk_online_store.operations.rows import Rows
    from chalk_online_store.operations.tiers import StoreStats
    from chalk_online_store.operations.times import ObservedAt
    from chalk_online_store.operations.write import Ordering
    from chalk_online_store.report import Report
    from chalk_online_store.routing.attempts import RoutedAttempts
    from chalk_online_store.routing.router import RegionStatus
    from chalk_online_store.routing.settings import Routing
    from chalk_online_store.schema import Duration, LRUCache, Namespace

C = TypeVar("C")
"""A class whose instances are rows."""


class AsyncOnlineStore:
    """Features in one table, for asyncio. The same as `OnlineStore`, awaited."""

    def __init__(
        self,
        backend: Backend,
        transports: Mapping[str, AsyncTransport],
        schema: Schema,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        lru_cache: LRUCache | None = None,
        coalesce: Duration | None = None,
        max_future_skew: Duration = MAX_FUTURE_SKEW,
        route: RoutedAttempts | None = None,
    ) -> None:
        from chalk_online_store.drivers.aio import AsyncDriver
        from chalk_online_store.operations.core import Core

        self._core = Core(
            backend,
            schema,
            timeout=timeout,
            lru_cache=lru_cache,
            coalesce=coalesce,
            max_future_skew=max_future_skew,
            route=route,
        )
        self._driver = AsyncDriver(transports)

    @classmethod
    def open(
        cls,
        url: str,
        schema: Schema,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        lru_cache: LRUCache | None = None,
        coalesce: Duration | None = None,
        max_future_skew: Duration = MAX_FUTURE_SKEW,
        routing: Routing | None = None,
        session: Sessions | None = None,
    ) -> AsyncOnlineStore:
        """As `OnlineStore.open`; `session` has `aioboto3.Session`s or `boto3.Session`s."""
        from chalk_online_store.connect import connect_async
        from chalk_online_store.operations.core import checked

        schema = checked(schema, coalesce, timeout, lru_cache, routing, max_future_skew)
        backend, transports, route = connect_async(url, session, routing)
        return cls(
            backend,
            transports,
            schema,
            timeout=timeout,
            lru_cache=lru_cache,
            coalesce=coalesce,
            max_future_skew=max_future_skew,
            route=route,
        )

    async def read(
        self,
        schema: Namespace | type,
        keys: Iterable[Any],
        features: Sequence[str] | None = None,
        *,
        max_staleness: Mapping[str, Duration] | None = None,
        consistent: bool = False,
        timeout: float | None = None,
    ) -> Rows:
        """As `OnlineStore.read`."""
        prepared = self._core.prepare(schema, features, max_staleness)
        return await self._driver.run(self._core.read(prepared, keys, consistent, timeout))

    @property
    def core(self) -> Core:
        """The operations, for what is built on a store."""
        return self._core

    @property
    def driver(self) -> AsyncDriver:
        """What performs them."""
        return self._driver

    def prepare(
        self,
        schema: Namespace | type,
        features: Sequence[str] | None = None,
        *,
        max_staleness: Mapping[str, Duration] | None = None,
    ) -> AsyncPreparedRead:
        """As `OnlineStore.prepare`."""
        prepared = self._core.prepare(schema, features, max_staleness)
        return AsyncPreparedRead(self._core, self._driver, prepared)

    async def warm(self, connections: int = 4, *, timeout: float | None = None) -> int:
        """As `OnlineStore.warm`, for the running event loop."""
        connections = whole_number(connections, "connections", most=MAX_CONNECTIONS)
        await self._driver.run(self._core.warm(timeout))
        seconds = DEFAULT_TIMEOUT if timeout is None else timeout
        return await self._driver.warm(connections, seconds)

    def stats(self) -> StoreStats:
        """As `OnlineStore.stats`; not to be awaited."""
        return self._core.stats(read_clocks())

    async def health(self, *, timeout: float | None = 2.0) -> Health:
        """As `OnlineStore.health`."""
        return await self._driver.run(self._core.health(timeout))

    def regions(self) -> list[RegionStatus]:
        """As `OnlineStore.regions`; not to be awaited."""
        return self._core.status(read_clocks())

    async def order_regions(
        self,
        *,
        pinned: str = "",
        drained: Sequence[str] = (),
        evacuated: Sequence[str] = (),
        timeout: float | None = None,
    ) -> dict[str, str]:
        """As `OnlineStore.order_regions`."""
        return await self._driver.run(self._core.order(pinned, drained, evacuated, timeout))

    async def write(
        self,
        schema: Namespace | type[C],
        rows: Iterable[Mapping[str, Any] | C],
        *,
        observed_at: ObservedAt = None,
        ordering: Ordering = "event",
        timeout: float | None = None,
    ) -> Report:
        """As `OnlineStore.write`."""
        operation = self._core.write(
            schema, rows, observed_at=observed_at, ordering=ordering, timeout=timeout
        )
        return await self._driver.run(operation)

    async def delete(
        self,
        schema: Namespace | type,
        keys: Iterable[Any],
        features: Sequence[str] | None = None,
        *,
        observed_at: datetime | None = None,
        ordering: Ordering = "event",
        timeout: float | None = None,
    ) -> Report:
        """As `OnlineStore.delete`."""
        operation = self._core.delete(
            schema,
            keys,
            features,
            observed_at=observed_at,
            ordering=ordering,
            timeout=timeout,
        )
        return await self._driver.run(operation)

    async def write_result(
        self,
        query: str,
        inputs: Mapping[str, Any],
        features: Mapping[str, Any],
        *,
        version: str = "",
        max_staleness: Duration = "infinity",
        observed_at: datetime | None = None,
        timeout: float | None = None,
    ) -> Report:
        """As `OnlineStore.write_result`."""
        operation = self._core.write_result(
            query,
            inputs,
            features,
            version=version,
            max_staleness=max_staleness,
            observed_at=observed_at,
            timeout=timeout,
        )
        return await self._driver.run(operation)

    async def read_result(
        self,
        query: str,
        inputs: Mapping[str, Any],
        *,
        version: str = "",
        max_staleness: Duration = "infinity",
        consistent: bool = False,
        timeout: float | None = None,
    ) -> QueryResult:
        """As `OnlineStore.read_result`."""
        operation = self._core.read_result(
            query,
            inputs,
            version=version,
            max_staleness=max_staleness,
            consistent=consistent,
            timeout=timeout,
        )
        return await self._driver.run(operation)

    async def drop(
        self, schema: Namespace | type, features: Sequence[str], *, timeout: float | None = None
    ) -> Report:
        """As `OnlineStore.drop`."""
        return await self._driver.run(self._core.drop(schema, features, timeout=timeout))

    async def rename(
        self, schema: Namespace | type, old: str, new: str, *, timeout: float | None = None
    ) -> Report:
        """As `OnlineStore.rename`."""
        return await self._driver.run(self._core.rename(schema, old, new, timeout=timeout))

    async def build_bloom_filters(
        self,
        schemas: Sequence[Namespace | type],
        *,
        wait: float | None = None,
        segments: int = 4,
        rcu_per_second: float | None = None,
        progress: Progress | None = None,
    ) -> BuildReport:
        """As `OnlineStore.build_bloom_filters`."""
        operation = self._core.build_bloom_filters(
            schemas,
            wait=wait,
            segments=segments,
            rcu_per_second=rcu_per_second,
            progress=progress,
        )
        return await self._driver.run(operation)

    async def close(self) -> None:
        """As `OnlineStore.close`."""
        if not self._core.closed:
            self._core.closed = True
            await self._driver.close()

    async def __aenter__(self) -> AsyncOnlineStore:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class AsyncPreparedRead:
    """A read of the same features again and again; made by `AsyncOnlineStore.prepare`."""

    def __init__(self, core: Core, driver: AsyncDriver, prepared: Prepared) -> None:
        self._core = core
        self._driver = driver
        self._prepared = prepared

    async def read(
        self, keys: Iterable[Any], *, consistent: bool = False, timeout: float | None = None
    ) -> Rows:
        """As `OnlineStore.read`."""
        return await self._driver.run(self._core.read(self._prepared, keys, consistent, timeout))
