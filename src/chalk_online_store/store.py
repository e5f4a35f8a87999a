"""`OnlineStore`: a thin shell over the core of operations, for threads.

Importing this module loads nothing that a store needs. Opening a store does, in the thread that
opens it: an import while serving would delay a call, and a fork during an import hangs the child.
"""

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
    from chalk_online_store.drivers.sync import SyncDriver, Transport
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


class OnlineStore:
    """Features in one table, for threads. Make one and share it: it is thread-safe.

    Use `OnlineStore.open`, and close it, best by `with`.
    """

    def __init__(
        self,
        backend: Backend,
        transports: Mapping[str, Transport],
        schema: Schema,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        lru_cache: LRUCache | None = None,
        coalesce: Duration | None = None,
        max_future_skew: Duration = MAX_FUTURE_SKEW,
        route: RoutedAttempts | None = None,
    ) -> None:
        from chalk_online_store.drivers.sync import SyncDriver
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
        self._driver = SyncDriver(transports)

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
    ) -> OnlineStore:
        """Open the store at a URL (see `chalk_online_store.urls`); nothing is sent yet.

        `schema` lists the namespaces: classes under `@features`, or `Namespace`s. `timeout`,
        in seconds, bounds each call that does not state its own. `lru_cache` holds for every
        namespace that has no cache of its own. `session` is a `boto3.Session` to take
        credentials, region and endpoint from, or a dictionary with the session of each region
        for a Global Table whose replicas are in several accounts (see docs/regions.md).

        `coalesce`, such as "1ms", is for servers that read one entity at a time in many threads
        or tasks: reads of at most ten entities wait that long for others, to share requests and
        answers. Without it each read sends its own.

        `max_future_skew` is how far ahead of this process's clock an `observed_at` may be (default:
        5 minutes; "infinity" for no limit). Later ones are refused with `FutureTimestamp`, since
        they would block all writes and deletes until then. A namespace may have its own limit:
        see `OnlineStoreConfig`.

        `routing` says how a region of several is chosen (see docs/failover.md). Given for a URL
        of one region, it hedges reads there over a second connection.

        Raises `InvalidURL`, `InvalidSchema`, `InvalidCredentials`, `InvalidValue`.
        """
        from chalk_online_store.connect import connect
        from chalk_online_store.operations.core import checked

        schema = checked(schema, coalesce, timeout, lru_cache, routing, max_future_skew)
        backend, transports, route = connect(url, session, routing)
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
    def read(
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
    def read(
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
    def read(
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
    def read(  # type: ignore[overload-overlap]
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
    def read(
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
    def read(
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
    def read(
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
        """Read features (all, unless named) of the entities with these primary keys.

        The rows have the order of `keys`, duplicates included, and every feature of every key
        has a status: `hit`, `null`, `missing`, `stale` or `failed`.

        `max_staleness` overrides the schema's for this read; "0s" leaves a feature unread.
        `consistent` asks for a strong read, past the cache. `timeout` is in seconds: keys that
        could not be read by then are `failed`, or raise `ReadFailed` with `raise_failed`.

        With `defaults`, a feature that is missing or stale has the value of its declared default,
        `feature(default=...)`; its status stays what it is.

        Raises `UnknownFeature`, `InvalidKey`, `TypeConflict`, `StoreClosed`, `TableNotFound`,
        `InvalidCredentials`, `AccessDenied`.
        """
        prepared = self._core.prepare(schema, features, max_staleness, defaults)
        operation = self._core.read(prepared, keys, consistent, timeout, raise_failed)
        return self._driver.run(operation)

    @overload
    def get(
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
    def get(
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
    def get(
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
    def get(
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
    def get(
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
    def get(
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
    def get(
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
        """Read features of one entity: as `read` of one key, whose row it returns.

        Like `read`, it has a row for an entity that does not exist: its features are `missing`.
        """
        prepared = self._core.prepare(schema, features, max_staleness, defaults)
        operation = self._core.read(prepared, [key], consistent, timeout, raise_failed)
        return self._driver.run(operation)[0]

    @overload
    def read_many(
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
    def read_many(
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
    def read_many(
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
    def read_many(
        self,
        *requests: ReadRequest[Any],
        consistent: bool = ...,
        timeout: float | None = ...,
        defaults: bool = ...,
        raise_failed: bool = ...,
    ) -> tuple[Rows[Any], ...]: ...
    def read_many(
        self,
        *requests: ReadRequest[Any],
        consistent: bool = False,
        timeout: float | None = None,
        defaults: bool = False,
        raise_failed: bool = False,
    ) -> tuple[Any, ...]:
        """Read entities of several namespaces in one call, and return the rows of each request.

        All requests have one deadline and one report, which each of the results has. On DynamoDB
        what needs no cache shares BatchGetItems. Arguments are those of `read`, which hold for
        all requests. Raises as `read` does.
        """
        operation = self._core.read_many(
            requests,
            consistent=consistent,
            timeout=timeout,
            defaults=defaults,
            raise_failed=raise_failed,
        )
        return self._driver.run(operation)

    @overload
    def search(
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
    def search(
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
    def search(
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
        """Find the `k` entities (1 to 100) whose vectors are nearest to `vector`, best first.

        `feature` is a `Vector` with an index: `feature(index=VectorIndex(...))`. `vector` has as
        many numbers as it has dimensions, or is a matrix with one row per search. `where` names
        values of the index's filters: only entities that have all of them are found. `features`
        are read of what was found (default: all). `timeout` is in seconds.

        On DynamoDB the index answers, approximately and eventually consistent, and what it does not
        hold is read by a batch. SQLite and Valkey compare every stored vector. That is exact, reads
        at most `max_scanned` items, and raises `SearchTooLarge` for more.

        The rows have scores, statuses and observed-ats. Entities whose vector is deleted, stale or
        null are never returned, so there may be fewer than `k` rows.

        Raises `InvalidValue` for a vector of another length, with NaN, or of zeros for a cosine
        distance, for `k` and for `where`; `VectorIndexUnavailable` if the table has no such index
        or is building it; and as `read` does.
        """
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
        return self._driver.run(operation)

    @property
    def core(self) -> Core:
        """The operations, for what is built on a store."""
        return self._core

    @property
    def driver(self) -> SyncDriver:
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
    ) -> PreparedRead[C]: ...
    @overload
    def prepare(
        self,
        schema: Namespace,
        features: Sequence[Any] | None = ...,
        *,
        max_staleness: Mapping[Any, Duration] | None = ...,
        defaults: bool = ...,
    ) -> PreparedRead[Any]: ...
    def prepare(
        self,
        schema: Namespace | type[Any],
        features: Sequence[Any] | None = None,
        *,
        max_staleness: Mapping[Any, Duration] | None = None,
        defaults: bool = False,
    ) -> PreparedRead[Any]:
        """Resolve once what a server reads again and again; nothing is sent.

        `read` keeps what it resolved as well, so this spares it the search: one or two
        microseconds a call. Raises `UnknownFeature`, `StoreClosed`.
        """
        prepared = self._core.prepare(schema, features, max_staleness, defaults)
        return PreparedRead(self._core, self._driver, prepared)

    def warm(self, connections: int = 4, *, timeout: float | None = None) -> int:
        """Do what the first calls would otherwise wait for, and answer how many connections idle.

        Fetches credentials, opens `connections` (names resolved, TLS agreed on), and reads the
        registry. Call it before a server takes traffic. Raises `RequestError`,
        `InvalidCredentials`, `StoreClosed`.
        """
        connections = whole_number(connections, "connections", most=MAX_CONNECTIONS)
        self._driver.run(self._core.warm(timeout))
        return self._driver.warm(connections, DEFAULT_TIMEOUT if timeout is None else timeout)

    def stats(self) -> StoreStats:
        """What the caches and Bloom filters of this process did so far; sends nothing."""
        return self._core.stats(read_clocks())

    def health(self, *, timeout: float | None = 2.0) -> Health:
        """Read the table in every region, once, and tell which answered within `timeout` seconds.

        Raises `StoreClosed`; what goes wrong in a region is in the answer.
        """
        return self._driver.run(self._core.health(timeout))

    def regions(self) -> list[RegionStatus]:
        """Every region as this process sees it; sends nothing. Empty where nothing is routed."""
        return self._core.status(read_clocks())

    def order_regions(
        self,
        *,
        pinned: str = "",
        drained: Sequence[str] = (),
        evacuated: Sequence[str] = (),
        timeout: float | None = None,
    ) -> dict[str, str]:
        """Decide for a whole fleet which regions are asked, until other orders are given.

        A pinned region is the only one that is asked. Drained ones lose their traffic gradually,
        and are asked where all others are down. Evacuated ones are not asked at all. Without
        arguments the routers of all processes decide again. Orders lie in the table: processes
        follow them at their next probe.

        Answers, by region, why it could not be told; "" where it was. Raises `InvalidValue`,
        `StoreClosed`, and `RequestError` where no region could be told.
        """
        return self._driver.run(self._core.order(pinned, drained, evacuated, timeout))

    def write(
        self,
        schema: Namespace | type[C],
        rows: Iterable[Mapping[Any, Any] | C],
        *,
        observed_at: ObservedAt = None,
        ordering: Ordering = "event",
        timeout: float | None = None,
    ) -> Report:
        """Write rows: mappings with the primary key and any of the features.

        A feature that a row does not name keeps its value; None is a null. A row may as well be an
        instance of a dataclass, attrs class or pydantic model: all of its fields are written, and
        so are its Nones. `observed_at`, a
        datetime with a time zone or one for each row, says when the values were true: now,
        unless stated. A late, older value never overwrites a newer one.

        `ordering="arrival"` is for bulk loads: each row replaces what its groups held,
        whatever that was, 25 items a request.

        All rows are checked before anything is sent. Raises `InvalidValue`, `FutureTimestamp`,
        `InvalidKey`,
        `UnknownFeature`, `ItemTooLarge`, `TypeConflict`, `RegistryUnavailable`, `StoreClosed`;
        `WriteFailed` where some rows could not be written within `timeout` seconds.
        """
        operation = self._core.write(
            schema, rows, observed_at=observed_at, ordering=ordering, timeout=timeout
        )
        return self._driver.run(operation)

    def delete(
        self,
        schema: Namespace | type,
        keys: Iterable[Any],
        features: Sequence[Any] | None = None,
        *,
        observed_at: datetime | None = None,
        ordering: Ordering = "event",
        timeout: float | None = None,
    ) -> Report:
        """Delete some features of these entities, or the entities themselves.

        A delete is a write in time: values observed later than `observed_at` (now, unless
        stated) stay, and older ones that arrive later do not come back. For that a deleted
        entity leaves a small tombstone, which expires after a week. `ordering="arrival"`
        leaves none; it deletes entities, not single features.

        Raises as `write` does.
        """
        operation = self._core.delete(
            schema,
            keys,
            features,
            observed_at=observed_at,
            ordering=ordering,
            timeout=timeout,
        )
        return self._driver.run(operation)

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
    ) -> Scan[C]: ...
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
    ) -> Scan[Any]: ...
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
    ) -> Scan[Any]:
        """Scan a namespace: iterate over pages of its entities, as rows in no order.

        Returns an iterator of `Rows`. Nothing is sent before the first page is taken. Entities
        without any of the `features` are left out. An entity can be returned twice (see
        docs/scanning.md). Values and statuses are those of an eventually consistent `read`.

        The scan reads the items of **all** namespaces of the table, `page_items` of each of
        `segments` at once (default: 500 of 1), and consumes at most `rcu_per_second` on average.
        `token` continues the scan that had this `Scan.token`. `timeout` bounds each page, in
        seconds (default: the store's).

        Raises `UnknownFeature`, `InvalidValue`, `StoreClosed` at once, and `RequestError`,
        `DamagedItem` when a page is taken; a page that failed can be taken again.
        """
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
        return Scan(scan, self._driver)

    def count(
        self,
        schema: Namespace | type[Any],
        *,
        segments: int = 1,
        rcu_per_second: float | None = None,
        timeout: float | None = None,
    ) -> CountReport:
        """Count the entities of a namespace that have a stored value, stale or not.

        Scans the whole table, as `scan` does, with 8 bytes of memory per item of the namespace.
        `timeout` bounds each page, in seconds.

        Raises `InvalidValue`, `RequestError`, `DamagedItem`, `StoreClosed`.
        """
        operation = self._core.count(
            schema, segments=segments, rcu_per_second=rcu_per_second, timeout=timeout
        )
        return self._driver.run(operation)

    def delete_where(
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
        """Delete the entities for whose row `predicate` returns True; by default, only count them.

        Rows have `features` (default: all); the whole entity is deleted, as by `delete` at the time
        the scan began, so that values observed later stay. Pass `dry_run=False` to delete.
        `timeout` bounds each page and each delete, in seconds.

        Raises as `scan` and `delete` do, and `ReadFailed` if a row could not be read: the
        pages before it were handled.
        """
        operation = self._core.delete_where(
            schema,
            predicate,
            features,
            dry_run=dry_run,
            segments=segments,
            rcu_per_second=rcu_per_second,
            timeout=timeout,
        )
        return self._driver.run(operation)

    def forget(
        self, schema: Namespace | type[Any], key: Any, *, timeout: float | None = 30.0
    ) -> ErasureReport:
        """Erase all values of an entity, whatever their time, and verify that in every region.

        Deletes every group in the registry, whichever schema declares it, then reads the entity
        with strongly consistent reads in each region until no value is left, or `timeout`
        seconds have passed (None: the store's timeout). Check `verified` of the result. A
        tombstone with the primary key, but without values, stays for a week. docs/scanning.md
        says what is not covered.

        Raises as `delete` does.
        """
        return self._driver.run(self._core.forget(schema, key, timeout=timeout))

    def write_result(
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
        """Keep the result of a query, for `read_result`.

        It is found again by the query's name and version and the inputs, names to values in any
        order. `features` are names to values: those in full names of features that the schema
        declares, such as `user.risk`, come back exactly as their types say; others are whatever
        a `Document` holds. A result is served for `max_staleness` after `observed_at`, which is
        now unless stated, and an older one never replaces a newer one.

        Raises `InvalidValue` and `ItemTooLarge`, and as `write` does.
        """
        operation = self._core.write_result(
            query,
            inputs,
            features,
            version=version,
            max_staleness=max_staleness,
            observed_at=observed_at,
            timeout=timeout,
        )
        return self._driver.run(operation)

    def read_result(
        self,
        query: str,
        inputs: Mapping[str, Any],
        *,
        version: str = "",
        max_staleness: Duration = "infinity",
        consistent: bool = False,
        timeout: float | None = None,
    ) -> QueryResult:
        """The result of a query for these inputs, if there is one that is fresh enough.

        It is served neither beyond its own max staleness nor beyond the one that is given. See
        its `status`. Raises `InvalidValue`, and as `read` does.
        """
        operation = self._core.read_result(
            query,
            inputs,
            version=version,
            max_staleness=max_staleness,
            consistent=consistent,
            timeout=timeout,
        )
        return self._driver.run(operation)

    def drop(
        self, schema: Namespace | type, features: Sequence[Any], *, timeout: float | None = None
    ) -> Report:
        """Drop features from the registry: their names become free, their ids never again.

        Also features that the schema has no more. No item is touched: values go with the next
        whole write of their item, or when it expires. Other processes go on with what they
        know until they load the registry again; one that still declares a dropped feature
        registers it anew when it writes. This store does not: here a write of the feature
        raises `UnknownFeature`, and a read finds it `missing`.

        Raises `UnknownFeature` for what neither the registry nor the schema has,
        `RegistryUnavailable`, `StoreClosed`.
        """
        return self._driver.run(self._core.drop(schema, features, timeout=timeout))

    def rename(
        self, schema: Namespace | type, old: str, new: str, *, timeout: float | None = None
    ) -> Report:
        """Rename a feature in the registry; it keeps its id, and so all of its values.

        The old name stays an alias, so that processes with the old schema go on. Rename before
        a process with the new schema writes. The schema of this store may be either.

        Raises `UnknownFeature` where the registry does not have `old`, `RegistryError` where
        `new` is another feature or no name, `RegistryUnavailable`, `StoreClosed`.
        """
        return self._driver.run(self._core.rename(schema, old, new, timeout=timeout))

    def build_bloom_filters(
        self,
        schemas: Sequence[Namespace | type],
        *,
        wait: float | None = None,
        segments: int = 4,
        rcu_per_second: float | None = None,
        progress: Progress | None = None,
    ) -> BuildReport:
        """Build the Bloom filters of namespaces anew, by one parallel Scan of the whole table.

        Every process that writes to them must declare them (see docs/caching.md). A build goes on
        beside reads and writes, and takes at most `rcu_per_second`, if that is stated; it first
        waits until every writer knows of it: for `wait` seconds, 0 only where none is running;
        unless stated for 70, and where there are several regions for 130.
        `progress` is told the items scanned and the RCU taken so far.

        Raises `InvalidSchema` where a namespace declares no filter, `InvalidValue`,
        `WriteConflict` where another build of the same filter begins meanwhile, `StoreClosed`,
        `RequestError`.
        """
        operation = self._core.build_bloom_filters(
            schemas,
            wait=wait,
            segments=segments,
            rcu_per_second=rcu_per_second,
            progress=progress,
        )
        return self._driver.run(operation)

    def close(self) -> None:
        """Close every connection; a second call does nothing."""
        if not self._core.closed:
            self._core.closed = True
            self._driver.close()

    def __enter__(self) -> OnlineStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class PreparedRead(Generic[S]):
    """A read of the same features again and again; made by `OnlineStore.prepare`."""

    def __init__(self, core: Core, driver: SyncDriver, prepared: Prepared) -> None:
        self._core = core
        self._driver = driver
        self._prepared = prepared

    def read(
        self,
        keys: Iterable[Any],
        *,
        consistent: bool = False,
        timeout: float | None = None,
        raise_failed: bool = False,
    ) -> Rows[S]:
        """As `OnlineStore.read`."""
        operation = self._core.read(self._prepared, keys, consistent, timeout, raise_failed)
        return self._driver.run(operation)

    def matrix(
        self,
        keys: Iterable[Any],
        *,
        dtype: Any = "f4",
        missing: float = math.nan,
        skip_failed: bool = False,
        consistent: bool = False,
        timeout: float | None = None,
    ) -> FeatureMatrix:
        """Read the features of many entities as one numpy matrix, with their statuses.

        All features of this read must be float, int, bool, datetime, date, timedelta or vector.
        The arguments, and what is raised, are those of `Rows.matrix` and `OnlineStore.read`;
        what they refuse is refused before anything is sent.
        """
        self._prepared.check_matrix(dtype, missing, skip_failed)
        rows = self.read(keys, consistent=consistent, timeout=timeout)
        return rows.matrix(dtype=dtype, missing=missing, skip_failed=skip_failed)

    def get(
        self,
        key: Any,
        *,
        consistent: bool = False,
        timeout: float | None = None,
        raise_failed: bool = False,
    ) -> Row[S]:
        """As `OnlineStore.get`."""
        operation = self._core.read(self._prepared, [key], consistent, timeout, raise_failed)
        return self._driver.run(operation)[0]


class Scan(Generic[S]):
    """A scan in progress: an iterator of `Rows`; made by `OnlineStore.scan`. Not thread-safe."""

    def __init__(self, scan: ScanStart, driver: SyncDriver) -> None:
        self._scan = scan
        self._driver = driver

    @property
    def token(self) -> str:
        """The position after the last page that was taken, for `scan(..., token=...)`.

        It can contain primary keys of any namespace: do not log it.
        """
        return self._scan.pages.token

    @property
    def report(self) -> Report:
        """What the scan has cost so far."""
        return self._scan.pages.report

    def __iter__(self) -> Scan[S]:
        return self

    def __next__(self) -> Rows[S]:
        rows = self._driver.run(self._scan.next_rows())
        if rows is None:
            raise StopIteration
        return rows
