"""`AsyncOnlineStore`: as `store.OnlineStore`, for asyncio."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, SupportsIndex, TypeVar, overload

from chalk_online_store.arguments import (
    DEFAULT_TIMEOUT,
    MAX_CONNECTIONS,
    MAX_FUTURE_SKEW,
    MAX_SCANNED,
    whole_number,
)
from chalk_online_store.drivers.steps import read_clocks

if TYPE_CHECKING:
    from uuid import UUID

    from typing_extensions import TypeVar as TypeVarWithDefault

    from chalk_online_store.backend import Backend
    from chalk_online_store.drivers.aio import AsyncDriver, AsyncTransport
    from chalk_online_store.dynamodb.sessions import Sessions
    from chalk_online_store.operations.core import Core, ScanStart, Schema
    from chalk_online_store.operations.erasure import ErasureReport
    from chalk_online_store.operations.matrix import FeatureMatrix
    from chalk_online_store.operations.prepared import Prepared, ReadRequest
    from chalk_online_store.operations.regions import Health
    from chalk_online_store.operations.results import QueryResult
    from chalk_online_store.operations.rows import Row, Rows
    from chalk_online_store.operations.scan import CountReport, DeletedWhere
    from chalk_online_store.operations.search import SearchRows
    from chalk_online_store.operations.times import ObservedAt
    from chalk_online_store.operations.write import Ordering
    from chalk_online_store.report import Report
    from chalk_online_store.routing.attempts import RoutedAttempts
    from chalk_online_store.routing.router import RegionStatus
    from chalk_online_store.routing.settings import Routing
    from chalk_online_store.schema import Duration, LRUCache, Namespace
    from chalk_online_store.schema.typed_keys import (
        ByInt,
        ByStr,
        ByUUID,
        HasIntKey,
        HasStrKey,
        HasUUIDKey,
        PrimaryKeyTypeMismatch,
    )
    from chalk_online_store.tiers.filter.build import BuildReport, Progress
    from chalk_online_store.tiers.tiers import StoreStats

    S = TypeVarWithDefault("S", default=Any)
else:
    S = TypeVar("S")

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
"""Feature classes."""


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

    @overload
    async def read(
        self,
        schema: type[ByInt],
        keys: Iterable[SupportsIndex],
        features: Sequence[Any] | None = ...,
        *,
        max_staleness: Mapping[Any, Duration] | None = ...,
        consistent: bool = ...,
        timeout: float | None = ...,
        defaults: bool = ...,
        raise_failed: bool = ...,
    ) -> Rows[ByInt]: ...
    @overload
    async def read(
        self,
        schema: type[ByStr],
        keys: Iterable[str],
        features: Sequence[Any] | None = ...,
        *,
        max_staleness: Mapping[Any, Duration] | None = ...,
        consistent: bool = ...,
        timeout: float | None = ...,
        defaults: bool = ...,
        raise_failed: bool = ...,
    ) -> Rows[ByStr]: ...
    @overload
    async def read(
        self,
        schema: type[ByUUID],
        keys: Iterable[UUID],
        features: Sequence[Any] | None = ...,
        *,
        max_staleness: Mapping[Any, Duration] | None = ...,
        consistent: bool = ...,
        timeout: float | None = ...,
        defaults: bool = ...,
        raise_failed: bool = ...,
    ) -> Rows[ByUUID]: ...
    @overload
    async def read(  # type: ignore[overload-overlap]
        self,
        schema: type[HasIntKey | HasStrKey | HasUUIDKey],
        keys: Iterable[Any],
        features: Sequence[Any] | None = ...,
        *,
        max_staleness: Mapping[Any, Duration] | None = ...,
        consistent: bool = ...,
        timeout: float | None = ...,
        defaults: bool = ...,
        raise_failed: bool = ...,
    ) -> PrimaryKeyTypeMismatch: ...
    @overload
    async def read(
        self,
        schema: type[C],
        keys: Iterable[Any],
        features: Sequence[Any] | None = ...,
        *,
        max_staleness: Mapping[Any, Duration] | None = ...,
        consistent: bool = ...,
        timeout: float | None = ...,
        defaults: bool = ...,
        raise_failed: bool = ...,
    ) -> Rows[C]: ...
    @overload
    async def read(
        self,
        schema: Namespace,
        keys: Iterable[Any],
        features: Sequence[Any] | None = ...,
        *,
        max_staleness: Mapping[Any, Duration] | None = ...,
        consistent: bool = ...,
        timeout: float | None = ...,
        defaults: bool = ...,
        raise_failed: bool = ...,
    ) -> Rows[Any]: ...
    async def read(
        self,
        schema: Namespace | type[Any],
        keys: Iterable[Any],
        features: Sequence[Any] | None = None,
        *,
        max_staleness: Mapping[Any, Duration] | None = None,
        consistent: bool = False,
        timeout: float | None = None,
        defaults: bool = False,
        raise_failed: bool = False,
    ) -> Any:
        """As `OnlineStore.read`."""
        prepared = self._core.prepare(schema, features, max_staleness, defaults)
        operation = self._core.read(prepared, keys, consistent, timeout, raise_failed)
        return await self._driver.run(operation)

    @overload
    async def get(
        self,
        schema: type[ByInt],
        key: SupportsIndex,
        features: Sequence[Any] | None = ...,
        *,
        max_staleness: Mapping[Any, Duration] | None = ...,
        consistent: bool = ...,
        timeout: float | None = ...,
        defaults: bool = ...,
        raise_failed: bool = ...,
    ) -> Row[ByInt]: ...
    @overload
    async def get(
        self,
        schema: type[ByStr],
        key: str,
        features: Sequence[Any] | None = ...,
        *,
        max_staleness: Mapping[Any, Duration] | None = ...,
        consistent: bool = ...,
        timeout: float | None = ...,
        defaults: bool = ...,
        raise_failed: bool = ...,
    ) -> Row[ByStr]: ...
    @overload
    async def get(
        self,
        schema: type[ByUUID],
        key: UUID,
        features: Sequence[Any] | None = ...,
        *,
        max_staleness: Mapping[Any, Duration] | None = ...,
        consistent: bool = ...,
        timeout: float | None = ...,
        defaults: bool = ...,
        raise_failed: bool = ...,
    ) -> Row[ByUUID]: ...
    @overload
    async def get(
        self,
        schema: type[HasIntKey | HasStrKey | HasUUIDKey],
        key: Any,
        features: Sequence[Any] | None = ...,
        *,
        max_staleness: Mapping[Any, Duration] | None = ...,
        consistent: bool = ...,
        timeout: float | None = ...,
        defaults: bool = ...,
        raise_failed: bool = ...,
    ) -> PrimaryKeyTypeMismatch: ...
    @overload
    async def get(
        self,
        schema: type[C],
        key: Any,
        features: Sequence[Any] | None = ...,
        *,
        max_staleness: Mapping[Any, Duration] | None = ...,
        consistent: bool = ...,
        timeout: float | None = ...,
        defaults: bool = ...,
        raise_failed: bool = ...,
    ) -> Row[C]: ...
    @overload
    async def get(
        self,
        schema: Namespace,
        key: Any,
        features: Sequence[Any] | None = ...,
        *,
        max_staleness: Mapping[Any, Duration] | None = ...,
        consistent: bool = ...,
        timeout: float | None = ...,
        defaults: bool = ...,
        raise_failed: bool = ...,
    ) -> Row[Any]: ...
    async def get(
        self,
        schema: Namespace | type[Any],
        key: Any,
        features: Sequence[Any] | None = None,
        *,
        max_staleness: Mapping[Any, Duration] | None = None,
        consistent: bool = False,
        timeout: float | None = None,
        defaults: bool = False,
        raise_failed: bool = False,
    ) -> Any:
        """As `OnlineStore.get`."""
        prepared = self._core.prepare(schema, features, max_staleness, defaults)
        operation = self._core.read(prepared, [key], consistent, timeout, raise_failed)
        return (await self._driver.run(operation))[0]

    @overload
    async def read_many(
        self,
        request1: ReadRequest[A],
        /,
        *,
        consistent: bool = ...,
        timeout: float | None = ...,
        defaults: bool = ...,
        raise_failed: bool = ...,
    ) -> tuple[Rows[A]]: ...
    @overload
    async def read_many(
        self,
        request1: ReadRequest[A],
        request2: ReadRequest[B],
        /,
        *,
        consistent: bool = ...,
        timeout: float | None = ...,
        defaults: bool = ...,
        raise_failed: bool = ...,
    ) -> tuple[Rows[A], Rows[B]]: ...
    @overload
    async def read_many(
        self,
        request1: ReadRequest[A],
        request2: ReadRequest[B],
        request3: ReadRequest[C],
        /,
        *,
        consistent: bool = ...,
        timeout: float | None = ...,
        defaults: bool = ...,
        raise_failed: bool = ...,
    ) -> tuple[Rows[A], Rows[B], Rows[C]]: ...
    @overload
    async def read_many(
        self,
        *requests: ReadRequest[Any],
        consistent: bool = ...,
        timeout: float | None = ...,
        defaults: bool = ...,
        raise_failed: bool = ...,
    ) -> tuple[Rows[Any], ...]: ...
    async def read_many(
        self,
        *requests: ReadRequest[Any],
        consistent: bool = False,
        timeout: float | None = None,
        defaults: bool = False,
        raise_failed: bool = False,
    ) -> tuple[Any, ...]:
        """As `OnlineStore.read_many`."""
        operation = self._core.read_many(
            requests,
            consistent=consistent,
            timeout=timeout,
            defaults=defaults,
            raise_failed=raise_failed,
        )
        return await self._driver.run(operation)

    @overload
    async def search(
        self,
        schema: type[C],
        feature: Any,
        vector: Any,
        k: int = ...,
        where: Mapping[Any, Any] | None = ...,
        features: Sequence[Any] | None = ...,
        *,
        max_staleness: Mapping[Any, Duration] | None = ...,
        max_scanned: int = ...,
        timeout: float | None = ...,
        defaults: bool = ...,
        raise_failed: bool = ...,
    ) -> SearchRows[C]: ...
    @overload
    async def search(
        self,
        schema: Namespace,
        feature: Any,
        vector: Any,
        k: int = ...,
        where: Mapping[Any, Any] | None = ...,
        features: Sequence[Any] | None = ...,
        *,
        max_staleness: Mapping[Any, Duration] | None = ...,
        max_scanned: int = ...,
        timeout: float | None = ...,
        defaults: bool = ...,
        raise_failed: bool = ...,
    ) -> SearchRows[Any]: ...
    async def search(
        self,
        schema: Namespace | type[Any],
        feature: Any,
        vector: Any,
        k: int = 10,
        where: Mapping[Any, Any] | None = None,
        features: Sequence[Any] | None = None,
        *,
        max_staleness: Mapping[Any, Duration] | None = None,
        max_scanned: int = MAX_SCANNED,
        timeout: float | None = None,
        defaults: bool = False,
        raise_failed: bool = False,
    ) -> Any:
        """As `OnlineStore.search`."""
        operation = self._core.search(
            schema,
            feature,
            vector,
            k=k,
            where=where,
            features=features,
            max_staleness=max_staleness,
            max_scanned=max_scanned,
            timeout=timeout,
            defaults=defaults,
            raise_failed=raise_failed,
        )
        return await self._driver.run(operation)

    @property
    def core(self) -> Core:
        """The operations, for what is built on a store."""
        return self._core

    @property
    def driver(self) -> AsyncDriver:
        """What performs them."""
        return self._driver

    @overload
    def prepare(
        self,
        schema: type[C],
        features: Sequence[Any] | None = ...,
        *,
        max_staleness: Mapping[Any, Duration] | None = ...,
        defaults: bool = ...,
    ) -> AsyncPreparedRead[C]: ...
    @overload
    def prepare(
        self,
        schema: Namespace,
        features: Sequence[Any] | None = ...,
        *,
        max_staleness: Mapping[Any, Duration] | None = ...,
        defaults: bool = ...,
    ) -> AsyncPreparedRead[Any]: ...
    def prepare(
        self,
        schema: Namespace | type[Any],
        features: Sequence[Any] | None = None,
        *,
        max_staleness: Mapping[Any, Duration] | None = None,
        defaults: bool = False,
    ) -> AsyncPreparedRead[Any]:
        """As `OnlineStore.prepare`."""
        prepared = self._core.prepare(schema, features, max_staleness, defaults)
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
        rows: Iterable[Mapping[Any, Any] | C],
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
        features: Sequence[Any] | None = None,
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

    @overload
    def scan(
        self,
        schema: type[C],
        features: Sequence[Any] | None = ...,
        *,
        max_staleness: Mapping[Any, Duration] | None = ...,
        defaults: bool = ...,
        segments: int = ...,
        page_items: int = ...,
        rcu_per_second: float | None = ...,
        token: str | None = ...,
        timeout: float | None = ...,
    ) -> AsyncScan[C]: ...
    @overload
    def scan(
        self,
        schema: Namespace,
        features: Sequence[Any] | None = ...,
        *,
        max_staleness: Mapping[Any, Duration] | None = ...,
        defaults: bool = ...,
        segments: int = ...,
        page_items: int = ...,
        rcu_per_second: float | None = ...,
        token: str | None = ...,
        timeout: float | None = ...,
    ) -> AsyncScan[Any]: ...
    def scan(
        self,
        schema: Namespace | type[Any],
        features: Sequence[Any] | None = None,
        *,
        max_staleness: Mapping[Any, Duration] | None = None,
        defaults: bool = False,
        segments: int = 1,
        page_items: int = 500,
        rcu_per_second: float | None = None,
        token: str | None = None,
        timeout: float | None = None,
    ) -> AsyncScan[Any]:
        """As `OnlineStore.scan`."""
        scan = self._core.scan(
            schema,
            features,
            max_staleness=max_staleness,
            defaults=defaults,
            segments=segments,
            page_items=page_items,
            rcu_per_second=rcu_per_second,
            token=token,
            timeout=timeout,
        )
        return AsyncScan(scan, self._driver)

    async def count(
        self,
        schema: Namespace | type[Any],
        *,
        segments: int = 1,
        rcu_per_second: float | None = None,
        timeout: float | None = None,
    ) -> CountReport:
        """As `OnlineStore.count`."""
        operation = self._core.count(
            schema, segments=segments, rcu_per_second=rcu_per_second, timeout=timeout
        )
        return await self._driver.run(operation)

    async def delete_where(
        self,
        schema: Namespace | type[C],
        predicate: Callable[[Row[C]], bool],
        features: Sequence[Any] | None = None,
        *,
        dry_run: bool = True,
        segments: int = 1,
        rcu_per_second: float | None = None,
        timeout: float | None = None,
    ) -> DeletedWhere:
        """As `OnlineStore.delete_where`."""
        operation = self._core.delete_where(
            schema,
            predicate,
            features,
            dry_run=dry_run,
            segments=segments,
            rcu_per_second=rcu_per_second,
            timeout=timeout,
        )
        return await self._driver.run(operation)

    async def forget(
        self, schema: Namespace | type[Any], key: Any, *, timeout: float | None = 30.0
    ) -> ErasureReport:
        """As `OnlineStore.forget`."""
        return await self._driver.run(self._core.forget(schema, key, timeout=timeout))

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
        self, schema: Namespace | type, features: Sequence[Any], *, timeout: float | None = None
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


class AsyncPreparedRead(Generic[S]):
    """A read of the same features again and again; made by `AsyncOnlineStore.prepare`."""

    def __init__(self, core: Core, driver: AsyncDriver, prepared: Prepared) -> None:
        self._core = core
        self._driver = driver
        self._prepared = prepared

    async def read(
        self,
        keys: Iterable[Any],
        *,
        consistent: bool = False,
        timeout: float | None = None,
        raise_failed: bool = False,
    ) -> Rows[S]:
        """As `OnlineStore.read`."""
        operation = self._core.read(self._prepared, keys, consistent, timeout, raise_failed)
        return await self._driver.run(operation)

    async def matrix(
        self,
        keys: Iterable[Any],
        *,
        dtype: Any = "f4",
        missing: float = math.nan,
        skip_failed: bool = False,
        consistent: bool = False,
        timeout: float | None = None,
    ) -> FeatureMatrix:
        """As `PreparedRead.matrix`."""
        self._prepared.check_matrix(dtype, missing, skip_failed)
        rows = await self.read(keys, consistent=consistent, timeout=timeout)
        return rows.matrix(dtype=dtype, missing=missing, skip_failed=skip_failed)

    async def get(
        self,
        key: Any,
        *,
        consistent: bool = False,
        timeout: float | None = None,
        raise_failed: bool = False,
    ) -> Row[S]:
        """As `OnlineStore.get`."""
        operation = self._core.read(self._prepared, [key], consistent, timeout, raise_failed)
        return (await self._driver.run(operation))[0]


class AsyncScan(Generic[S]):
    """A scan in progress: an async iterator of `Rows`; made by `AsyncOnlineStore.scan`."""

    def __init__(self, scan: ScanStart, driver: AsyncDriver) -> None:
        self._scan = scan
        self._driver = driver

    @property
    def token(self) -> str:
        """As `Scan.token`."""
        return self._scan.pages.token

    @property
    def report(self) -> Report:
        """What the scan has cost so far."""
        return self._scan.pages.report

    def __aiter__(self) -> AsyncScan[S]:
        return self

    async def __anext__(self) -> Rows[S]:
        rows = await self._driver.run(self._scan.next_rows())
        if rows is None:
            raise StopAsyncIteration
        return rows
