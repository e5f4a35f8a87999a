"""One store's operations: what `OnlineStore` and `AsyncOnlineStore` both are."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeAlias

from chalk_online_store.arguments import (
    MAX_FUTURE_SKEW,
    check_callable,
    check_flag,
    check_instance,
    check_text,
    finite_number,
    key_list,
    list_of,
    name_list,
    name_mapping,
    plain_name,
    row_list,
    text_list,
    timeout_seconds,
    whole_number,
)
from chalk_online_store.backend import Backend, Call
from chalk_online_store.codec.columns import ColumnBatch
from chalk_online_store.codec.namespaces import NamespaceCodec, Planned
from chalk_online_store.codec.registry import Registry, entries_of
from chalk_online_store.codec.results import RESULTS, key_of
from chalk_online_store.codec.values import moment
from chalk_online_store.effects import NOW, Instant, Operation, Spawn
from chalk_online_store.errors import InvalidSchema, InvalidValue, StoreClosed, UnknownFeature
from chalk_online_store.operations import read as reading
from chalk_online_store.operations import search as searching
from chalk_online_store.operations import write as writing
from chalk_online_store.operations.erasure import ErasureReport, verify_erased
from chalk_online_store.operations.hooks import CallHook, hooked
from chalk_online_store.operations.prepared import Prepared, ReadRequest, prepare
from chalk_online_store.operations.regions import Health, RegionKeeper
from chalk_online_store.operations.registry import RegistryKeeper
from chalk_online_store.operations.results import QueryResult, ResultCodec, found_result
from chalk_online_store.operations.rows import Row, Rows
from chalk_online_store.operations.scan import (
    MAX_PAGE_ITEMS,
    CountReport,
    DeletedWhere,
    SegmentedScan,
    TableScan,
    count_entities,
)
from chalk_online_store.operations.search import SearchRows
from chalk_online_store.operations.times import (
    ObservedAt,
    check_not_ahead,
    future_timestamp,
    time_of,
    times_of_rows,
)
from chalk_online_store.report import Report
from chalk_online_store.routing.attempts import RoutedAttempts
from chalk_online_store.routing.commands import RegionCommands
from chalk_online_store.routing.router import RegionStatus
from chalk_online_store.routing.settings import Routing
from chalk_online_store.schema import (
    Duration,
    LRUCache,
    Namespace,
    microseconds,
    namespace_of,
    namespaces,
)
from chalk_online_store.schema.instances import rows_of
from chalk_online_store.schema.vector_index import MAX_K
from chalk_online_store.tiers.filter.build import BuildReport, Progress, build_filters, wait_of
from chalk_online_store.tiers.tiers import StoreStats, Tiers

Schema: TypeAlias = Iterable[Namespace | type]

_ERASING: tuple[writing.Ordering, ...] = ("event", "arrival", "event")
"""How `forget` deletes: if values of a later time remain, they go too, and a tombstone follows."""

_PREPARED_KEPT = 1024
_LONGEST_WINDOW = 1_000_000
_MOST_SEGMENTS = 1_000_000
"""AWS: Scan takes from 1 to 1,000,000 as TotalSegments."""


class Core:
    """The state of an open store, and its operations.

    `timeout`, in seconds, bounds each call that does not state its own. `max_future_skew` is how
    far an observed-at may be ahead of this process's clock. `coalesce` is the window
    in which reads join each other; None for each by itself. `route` is the backend's, if it has
    several regions to choose from. `rng` draws the waits of those who
    register at once.
    """

    def __init__(
        self,
        backend: Backend,
        schema: Iterable[Namespace | type],
        *,
        timeout: float,
        lru_cache: LRUCache | None,
        coalesce: Duration | None = None,
        max_future_skew: Duration = MAX_FUTURE_SKEW,
        route: RoutedAttempts | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.backend = backend
        self.router = route.router if route else None
        self._regions = RegionKeeper(backend, self.router)
        if route is not None:
            route.probe = self._regions.probe
        self.schema = _own_namespaces(schema)
        self._timeout = timeout_seconds(timeout)
        self._max_future_skew = microseconds(max_future_skew, "max_future_skew")
        self.registry = RegistryKeeper(backend, rng)
        self._tiers = Tiers(
            backend,
            self.schema,
            timeout=timeout,
            lru_cache=lru_cache,
            window=None if coalesce is None else _window(coalesce),
            rng=rng,
        )
        self.results = ResultCodec(self.schema, self.registry)
        self._prepared: dict[Any, Prepared] = {}
        self._declared: dict[int, Namespace] = {}
        self.closed = False
        self.watcher: CallHook | None = None

    def declare(self, namespace: Namespace) -> None:
        """Take a namespace into the schema, in place of the one of its name, if there is one.

        For schemas that grow while the store is open, as Feast's do. Calls under way go on with
        the namespace that they began with, and others may still name it. What was dropped and is
        declared again is registered anew when it is written. A namespace keeps the cache and the
        filter that it had when its name was first declared.
        """
        self.check_open()
        if namespace.name == RESULTS.name:
            raise InvalidSchema(f"The namespace {RESULTS.name!r} is that of query results.")
        self.registry.declared_again(entry.name for entry in entries_of(namespace))
        if namespace.name not in self.schema:
            self._tiers.add(namespace)
        self._declared[id(namespace)] = namespace  # Kept, so that its `id` is no other's.
        self.schema[namespace.name] = namespace

    def prepare(
        self,
        schema: Namespace | type,
        features: Sequence[str] | None,
        max_staleness: reading.Overrides | None,
        defaults: bool = False,
    ) -> Prepared:
        """See `OnlineStore.prepare`."""
        names = None if features is None else name_list(features)
        if defaults is not False:
            check_flag(defaults, "defaults")
        overrides: tuple[tuple[str, Duration], ...] = ()
        if max_staleness is not None:
            max_staleness = name_mapping(max_staleness, "max_staleness", '{"risk": "5m"}')
            overrides = tuple(sorted(max_staleness.items()))
        wanted = (id(schema), names, overrides, defaults)
        try:
            prepared = self._prepared.get(wanted)
        except TypeError:  # A name or a duration that has no hash is neither.
            prepare(schema, self.namespace(schema), names, dict(overrides), defaults)
            raise
        if prepared is None:
            namespace = self.namespace(schema)
            prepared = prepare(schema, namespace, names, dict(overrides), defaults)
            if len(self._prepared) >= _PREPARED_KEPT:  # As where max_staleness always differs.
                self._prepared.clear()
            self._prepared[wanted] = prepared
        return prepared

    @hooked
    def read(
        self,
        prepared: Prepared,
        keys: Iterable[Any],
        consistent: bool,
        timeout: float | None,
        raise_failed: bool = False,
    ) -> Operation[Rows]:
        """See `OnlineStore.read`."""
        self.check_open()
        if consistent is not False:
            check_flag(consistent, "consistent")
        if raise_failed is not False:
            check_flag(raise_failed, "raise_failed")
        seconds = self._timeout if timeout is None else timeout_seconds(timeout)
        keys = key_list(keys)
        now: Instant = yield NOW
        # The first request follows at once: it need not look at the clock again.
        call = Call(now.monotonic + seconds, consistent, as_of=now)
        codec = self.registry.known(prepared.namespace)
        if codec is None:  # The keys are checked before anything is sent.
            self.registry.draft(prepared.namespace).partition_keys(keys)
            codec = yield from self.registry.for_read(prepared.namespace, call)
        partition_keys = codec.partition_keys(keys)
        plan = prepared.plan
        if plan is None or plan.codec is not codec:
            plan = self._make_plan(prepared, codec)
        through = self._tiers.reads(codec)
        rows = yield from reading.read(through, plan, keys, partition_keys, call)
        if raise_failed and call.report.failed:
            rows.raise_failed()
        return rows

    def _make_plan(self, prepared: Prepared, codec: NamespaceCodec) -> reading.ReadPlan:
        cached = prepared.namespace.name in self._tiers.caches
        plan = reading.plan_read(
            codec, prepared.names, prepared.overrides, cached, prepared.defaults
        )
        prepared.plan = plan
        return plan

    @hooked
    def read_many(
        self,
        requests: Sequence[ReadRequest[Any]],
        *,
        consistent: bool,
        timeout: float | None,
        defaults: bool,
        raise_failed: bool,
    ) -> Operation[tuple[Rows, ...]]:
        """See `OnlineStore.read_many`."""
        self.check_open()
        for name, flag in (("consistent", consistent), ("raise_failed", raise_failed)):
            check_flag(flag, name)
        prepared = []
        for request in requests:
            check_instance(request, ReadRequest, "requests", InvalidValue, optional=False)
            prepared.append(
                self.prepare(request.schema, request.features, request.max_staleness, defaults)
            )
        keys = [key_list(request.keys) for request in requests]
        for each, asked in zip(prepared, keys, strict=True):  # Before anything is sent.
            draft = self.registry.known(each.namespace) or self.registry.draft(each.namespace)
            draft.partition_keys(asked)
        call = yield from self._call(timeout)
        call.consistent, call.shares_requests = consistent, True
        reads = []
        for each, asked in zip(prepared, keys, strict=True):
            codec = self.registry.known(each.namespace)
            if codec is None:
                codec = yield from self.registry.for_read(each.namespace, call)
            plan = each.plan
            if plan is None or plan.codec is not codec:
                plan = self._make_plan(each, codec)
            pks, through = codec.partition_keys(asked), self._tiers.reads(codec)
            shares = through is self.backend
            reads.append(reading.PlannedRead(through, shares, plan, asked, pks))
        found = yield from reading.read_together(reads, call)
        if raise_failed and call.report.failed:
            for rows in found:
                rows.raise_failed()
        return found

    @hooked
    def search(
        self,
        schema: Namespace | type,
        feature: Any,
        vectors: Any,
        *,
        k: int,
        where: Mapping[Any, Any] | None,
        features: Sequence[Any] | None,
        max_staleness: reading.Overrides | None,
        max_scanned: int,
        timeout: float | None,
        defaults: bool,
        raise_failed: bool,
    ) -> Operation[SearchRows[Any]]:
        """See `OnlineStore.search`."""
        namespace = self.namespace(schema)
        k = whole_number(k, "k", most=MAX_K)
        max_scanned = whole_number(max_scanned, "max_scanned")
        check_flag(raise_failed, "raise_failed")
        checked = searching.check_search(namespace, feature, vectors, k, where, max_scanned)
        prepared = self.prepare(schema, features, max_staleness, defaults)
        names = tuple(dict.fromkeys(namespace.feature(name).name for name in prepared.names))
        call = yield from self._call(timeout)
        codec = yield from self.registry.for_read(namespace, call)
        plan = reading.plan_read(
            codec,
            tuple(dict.fromkeys((*checked.needed, *names))),
            prepared.overrides,
            namespace.name in self._tiers.caches,
            defaults,
        )
        query = searching.plan_search(codec, checked, plan, names)
        if query is None:
            return searching.nothing_found(plan, names, call.report)
        through = self._tiers.reads(codec)
        rows = yield from searching.search(self.backend, through, query, plan, names, call)
        if raise_failed and call.report.failed:
            rows.raise_failed()
        return rows

    @hooked
    def warm(self, timeout: float | None) -> Operation[None]:
        """Read the registry and the Bloom filters, as the first calls would otherwise."""
        self.check_open()
        call = yield from self._call(timeout)
        yield from self.registry.load(call)
        for namespace in self.schema.values():
            yield from self._tiers.refresh((yield from self.registry.for_read(namespace, call)))

    def known_registry(self, timeout: float | None) -> Operation[Registry]:
        """Read the registry: which ids the table has for the schema's names."""
        self.check_open()
        call = yield from self._call(timeout)
        return (yield from self.registry.load(call))

    def stats(self, now: Instant) -> StoreStats:
        """See `OnlineStore.stats`; `now` is a reading of the clocks."""
        return replace(self._tiers.stats(now), regions=tuple(self.status(now)))

    def status(self, now: Instant) -> list[RegionStatus]:
        """See `OnlineStore.regions`; `now` is a reading of the clocks."""
        return [] if self.router is None else self.router.status(now)

    @hooked
    def health(self, timeout: float | None) -> Operation[Health]:
        """See `OnlineStore.health`."""
        self.check_open()
        call = yield from self._call(timeout)
        searches = any(f.index is not None for n in self.schema.values() for f in n.features)
        return (yield from self._regions.health(call, searches=searches))

    def look_after_regions(self) -> Operation[None]:
        """Begin the probes that are due, as requests do: for a process that waits."""
        now: Instant = yield NOW
        for region in self.router.due(now.monotonic) if self.router else ():
            yield Spawn(self._regions.probe(region))

    @hooked
    def order(
        self,
        pinned: str,
        drained: Sequence[str],
        evacuated: Sequence[str],
        timeout: float | None,
    ) -> Operation[dict[str, str]]:
        """See `OnlineStore.order_regions`."""
        self.check_open()
        if self.router is None:
            raise InvalidValue("This store's URL has one region: there is nothing to choose.")
        check_text(pinned, "pinned")
        listed = [
            text_list(n, a, "regions") for n, a in ((drained, "drained"), (evacuated, "evacuated"))
        ]
        orders = RegionCommands(0, pinned, *listed)
        self.router.check(orders)
        call = yield from self._call(timeout)
        now: Instant = yield NOW
        looking = Call(now.monotonic + (call.deadline - now.monotonic) / 4)
        yield from self._regions.health(looking)
        return (yield from self._regions.order(orders.given(now.wall, self.router.orders), call))

    @hooked
    def write(
        self,
        schema: Namespace | type,
        rows: Iterable[Any],
        *,
        observed_at: ObservedAt,
        ordering: writing.Ordering,
        timeout: float | None,
        expires_at: int | None = None,
    ) -> Operation[Report]:
        """See `OnlineStore.write`. What is written expires at `expires_at` (UTC s) at the latest.

        DynamoDB removes expired items; reads know nothing of it.
        """
        namespace = self.namespace(schema)
        writing.check_ordering(ordering)
        own: Mapping[int, Any] = {}
        if not isinstance(rows, ColumnBatch):
            rows, own = rows_of(namespace, row_list(rows))
        seconds = self._timeout if timeout is None else timeout_seconds(timeout)
        now: Instant = yield NOW
        call = Call(now.monotonic + seconds)
        times = times_of_rows(observed_at, len(rows), own, now.wall)
        if observed_at is not None or own:
            check_not_ahead(times, self.latest_time(namespace, now))
        draft = self.registry.draft(namespace)
        planned = writing.changes_of_rows(draft, rows, times)
        codec = yield from self.registry.for_write(namespace, call)
        if codec is not draft:
            planned = writing.changes_of_rows(codec, rows, times)
        if expires_at is not None:
            planned = writing.expiring_by(planned, expires_at)
        return (yield from self.apply(codec, planned, ordering, call))

    @hooked
    def delete(
        self,
        schema: Namespace | type,
        keys: Iterable[Any],
        features: Sequence[str] | None,
        *,
        observed_at: datetime | None,
        ordering: writing.Ordering,
        timeout: float | None,
    ) -> Operation[Report]:
        """See `OnlineStore.delete`."""
        namespace = self.namespace(schema)
        writing.check_ordering(ordering)
        keys = key_list(keys)
        names = None
        if features is not None:
            names = [namespace.feature(name).name for name in name_list(features)]
        if names is not None and ordering == "arrival":
            raise InvalidValue(
                'ordering="arrival" replaces whole items: delete features by ordering="event".'
            )
        time = None if observed_at is None else time_of(observed_at)
        call = yield from self._call(timeout)
        now: Instant = yield NOW
        latest = self.latest_time(namespace, now)
        if time is not None and latest is not None and time > latest:
            raise future_timestamp("the delete")
        self.registry.draft(namespace).partition_keys(keys)
        # A delete in event time is remembered, and so needs ids as a write does.
        if names is not None:
            codec = yield from self.registry.for_write(namespace, call)
        else:
            registers = ordering == "event"
            codec = yield from self.registry.for_erasure(namespace, call, registers=registers)
        now = yield NOW
        planned = writing.changes_of_deletes(
            codec, keys, names, now.wall if time is None else time, now.wall
        )
        return (yield from self.apply(codec, planned, ordering, call))

    def scan(
        self,
        schema: Namespace | type,
        features: Sequence[str] | None,
        *,
        max_staleness: reading.Overrides | None,
        defaults: bool,
        segments: int,
        page_items: int,
        rcu_per_second: float | None,
        token: str | None,
        timeout: float | None,
    ) -> ScanStart:
        """See `OnlineStore.scan`. Checks the arguments at once; nothing is sent."""
        prepared = self.prepare(schema, features, max_staleness, defaults)
        pages = self._pages(
            prepared.namespace, segments, rcu_per_second, timeout, page_items, token
        )
        return ScanStart(self, prepared, pages)

    def _pages(
        self,
        namespace: Namespace,
        segments: int,
        rcu_per_second: float | None,
        timeout: float | None,
        page_items: int = 500,
        token: str | None = None,
    ) -> SegmentedScan:
        if rcu_per_second is not None:
            rcu_per_second = finite_number(rcu_per_second, "rcu_per_second", least=0.001)
        if token is not None:
            check_text(token, "token")
        return SegmentedScan(
            self.backend,
            namespace.name,
            segments=whole_number(segments, "segments", most=_MOST_SEGMENTS),
            page_items=whole_number(page_items, "page_items", most=MAX_PAGE_ITEMS),
            rcu_per_second=rcu_per_second,
            timeout=self._timeout if timeout is None else timeout_seconds(timeout),
            token=token,
        )

    def begin_scan(self, prepared: Prepared, pages: SegmentedScan) -> Operation[TableScan]:
        """Resolve what a scan reads by the registry."""
        call = yield from pages.new_call()
        codec = yield from self.registry.for_read(prepared.namespace, call)
        plan = reading.plan_read(
            codec, prepared.names, prepared.overrides, False, prepared.defaults
        )
        return TableScan(self.backend, plan, pages)

    @hooked
    def count(
        self,
        schema: Namespace | type,
        *,
        segments: int,
        rcu_per_second: float | None,
        timeout: float | None,
    ) -> Operation[CountReport]:
        """See `OnlineStore.count`."""
        namespace = self.namespace(schema)
        pages = self._pages(namespace, segments, rcu_per_second, timeout)
        call = yield from pages.new_call()
        codec = yield from self.registry.for_read(namespace, call)
        return (yield from count_entities(self.backend, codec, pages))

    @hooked
    def delete_where(
        self,
        schema: Namespace | type,
        predicate: Callable[[Row[Any]], bool],
        features: Sequence[str] | None,
        *,
        dry_run: bool,
        segments: int,
        rcu_per_second: float | None,
        timeout: float | None,
    ) -> Operation[DeletedWhere]:
        """See `OnlineStore.delete_where`."""
        prepared = self.prepare(schema, features, None)
        check_callable(predicate, "predicate", "a function of a row that returns a bool")
        if predicate is None:
            raise InvalidValue("predicate must be a function of a row that returns a bool.")
        check_flag(dry_run, "dry_run")
        pages = self._pages(prepared.namespace, segments, rcu_per_second, timeout)
        began: Instant = yield NOW
        scan = yield from self.begin_scan(prepared, pages)
        scanned = matched = 0
        report = Report()
        while (rows := (yield from scan.next_rows())) is not None:
            rows.raise_failed()  # A predicate cannot judge a row that was not read.
            keys = [row.key for row in rows if predicate(row)]
            scanned, matched = scanned + len(rows), matched + len(keys)
            if keys and not dry_run:
                report.add(
                    (
                        yield from self.delete(
                            schema,
                            keys,
                            None,
                            # What is written after the scan began was not judged, and stays.
                            observed_at=moment(began.wall),
                            ordering="event",
                            timeout=timeout,
                        )
                    )
                )
        report.add(scan.report)
        return DeletedWhere(scanned, matched, dry_run, report)

    @hooked
    def forget(
        self, schema: Namespace | type, key: Any, *, timeout: float | None
    ) -> Operation[ErasureReport]:
        """See `OnlineStore.forget`."""
        namespace = self.namespace(schema)
        call = yield from self._call(timeout)
        report = Report()
        for ordering in _ERASING:
            now: Instant = yield NOW
            left = call.deadline - now.monotonic
            deleted = yield from self.delete(
                schema, [key], None, observed_at=None, ordering=ordering, timeout=max(left, 0.001)
            )
            report.add(deleted)
            if ordering == "event" and not deleted.superseded:
                break
        (pk,) = self.registry.present(namespace).partition_keys([key])
        home = self.backend.home
        regions = list(self.router.regions) if self.router and home else [home]
        verified = yield from verify_erased(self.backend, pk, regions, call)
        report.add(call.report)
        return ErasureReport(verified, report)

    def write_result(
        self,
        query: str,
        inputs: Mapping[str, Any],
        features: Mapping[str, Any],
        *,
        version: str,
        max_staleness: Duration,
        observed_at: datetime | None,
        timeout: float | None,
    ) -> Operation[Report]:
        """See `OnlineStore.write_result`."""
        key_of(query, version, inputs)  # The arguments are checked before anything is sent.
        microseconds(max_staleness, "max_staleness")
        time = None if observed_at is None else moment(time_of(observed_at))
        call = yield from self._call(timeout)
        for namespace in self.results.of_structs(features):
            yield from self.registry.for_write(namespace, call)
        row = self.results.row(query, inputs, features, version, max_staleness)
        return (
            yield from self.write(
                self.of_results(), [row], observed_at=time, ordering="event", timeout=timeout
            )
        )

    def read_result(
        self,
        query: str,
        inputs: Mapping[str, Any],
        *,
        version: str,
        max_staleness: Duration,
        consistent: bool,
        timeout: float | None,
    ) -> Operation[QueryResult]:
        """See `OnlineStore.read_result`."""
        self.check_open()
        key = key_of(query, version, inputs)
        microseconds(max_staleness, "max_staleness")
        prepared = self.prepare(self.of_results(), None, {"result": max_staleness})
        rows = yield from self.read(prepared, [key], consistent, timeout)
        now: Instant = yield NOW
        return found_result(self.results, rows, now.wall)

    def of_results(self) -> Namespace:
        """The namespace of query results: a store's from its first use of any on."""
        if RESULTS.name not in self.schema:
            self._tiers.add(RESULTS)
            self.schema[RESULTS.name] = RESULTS
        return RESULTS

    @hooked
    def drop(
        self, schema: Namespace | type, features: Sequence[str], *, timeout: float | None
    ) -> Operation[Report]:
        """See `OnlineStore.drop`."""
        namespace = self.namespace(schema)
        names = [_full(namespace, name, "features") for name in name_list(features)]
        call = yield from self._call(timeout)
        declared = {entry.name for entry in entries_of(namespace)}
        yield from self.registry.drop(names, call, declared)
        return call.report

    @hooked
    def rename(
        self, schema: Namespace | type, old: str, new: str, *, timeout: float | None
    ) -> Operation[Report]:
        """See `OnlineStore.rename`."""
        namespace = self.namespace(schema)
        names = _full(namespace, old, "old"), _full(namespace, new, "new")
        call = yield from self._call(timeout)
        yield from self.registry.rename(*names, call)
        return call.report

    @hooked
    def build_bloom_filters(
        self,
        schemas: Sequence[Namespace | type],
        *,
        wait: float | None,
        segments: int,
        rcu_per_second: float | None,
        progress: Progress | None,
    ) -> Operation[BuildReport]:
        """See `OnlineStore.build_bloom_filters`."""
        listed = list_of(schemas, "schemas", "feature classes", "[schema]", InvalidSchema)
        found = [self.namespace(schema) for schema in listed]
        for namespace in found:
            if namespace.online_store_config.bloom_filter is None:
                raise InvalidSchema(
                    f"{namespace.name!r} declares no Bloom filter: give it one, in every process "
                    "that writes, by OnlineStoreConfig(bloom_filter=BloomFilter(...))."
                )
        if wait is None:
            wait = wait_of(len(self.router.regions) if self.router else 1)
        wait = timeout_seconds(wait, "wait")
        segments = whole_number(segments, "segments", most=_MOST_SEGMENTS)
        if rcu_per_second is not None:
            rcu_per_second = finite_number(rcu_per_second, "rcu_per_second", least=0.001)
        check_callable(progress, "progress", "a function of items and RCU")
        call = yield from self._call(None)
        yield from self.registry.load(call)
        self.registry.check_home()
        builds = {}
        for namespace in found:
            codec = yield from self.registry.for_write(namespace, call)
            assert codec.prefix is not None  # It is registered now.
            marked = namespace.name in codec.registry.filtered
            builds[codec.prefix.removesuffix(":")] = (namespace, marked)
        return (
            yield from build_filters(
                self.backend,
                builds,
                wait=wait,
                segments=segments,
                rcu_per_second=rcu_per_second,
                progress=progress or (lambda items, units: None),
            )
        )

    def apply(
        self,
        codec: NamespaceCodec,
        planned: Sequence[Planned],
        ordering: writing.Ordering,
        call: Call,
        superseded: set[int] | None = None,
    ) -> Operation[Report]:
        """Write planned changes; raises `WriteFailed`, and what no retry mends.

        Adds the positions of changes that newer values have superseded to `superseded`.
        """
        tiers = self._tiers
        self._regions.writing = True
        if planned:
            yield from tiers.announce(codec, planned, call)
            cache = tiers.caches.get(codec.namespace.name)
            yield from writing.write(
                self.backend, cache, codec, planned, ordering, call, tiers.coalescer, superseded
            )
        return call.report

    def latest_time(self, namespace: Namespace, now: Instant) -> int | None:
        """The newest observed-at that a write at `now` may have (UTC us); None for any."""
        own = namespace.online_store_config.max_future_skew
        skew = self._max_future_skew if own is None else microseconds(own)
        return None if skew is None else now.wall + skew

    def _call(self, timeout: float | None) -> Operation[Call]:
        seconds = self._timeout if timeout is None else timeout_seconds(timeout)
        now: Instant = yield NOW
        return Call(now.monotonic + seconds)

    def check_open(self) -> None:
        """Raise `StoreClosed` where that is so."""
        if self.closed:
            raise StoreClosed("This store is closed; open another.")

    def namespace(self, schema: Namespace | type) -> Namespace:
        """The namespace of this store's schema that is meant; raises `UnknownFeature`."""
        self.check_open()
        namespace = namespace_of(schema)
        current = self.schema.get(namespace.name) is namespace
        if not current and id(namespace) not in self._declared:
            raise UnknownFeature(
                f"{namespace.name!r} is not in this store's schema: open(url, schema=[...])."
            )
        return namespace


class ScanStart:
    """A scan of which nothing has been read yet."""

    def __init__(self, core: Core, prepared: Prepared, pages: SegmentedScan) -> None:
        self._core = core
        self._prepared = prepared
        self._pages = pages
        self._scan: TableScan | None = None

    @property
    def pages(self) -> SegmentedScan:
        """The position and the report."""
        return self._pages

    def next_rows(self) -> Operation[Rows[Any] | None]:
        """Return the rows of the next page that has any; None at the end."""
        self._core.check_open()
        if self._scan is None:
            self._scan = yield from self._core.begin_scan(self._prepared, self._pages)
        return (yield from self._scan.next_rows())


def checked(
    schema: Iterable[Namespace | type],
    coalesce: Duration | None,
    timeout: float,
    lru_cache: LRUCache | None,
    routing: Routing | None,
    max_future_skew: Duration,
) -> list[Namespace | type]:
    """Refuse what no store can be made with, before anything is opened; the schema as a list."""
    found = list_of(schema, "schema", "feature classes", "[schema]", InvalidSchema)
    _own_namespaces(found)
    if coalesce is not None:
        _window(coalesce)
    timeout_seconds(timeout)
    check_instance(lru_cache, LRUCache, "lru_cache", InvalidValue)
    check_instance(routing, Routing, "routing", InvalidValue)
    microseconds(max_future_skew, "max_future_skew")  # Refuses what is not a duration.
    return found


def _own_namespaces(schema: Iterable[Namespace | type]) -> dict[str, Namespace]:
    found = namespaces(schema)
    if RESULTS.name in found:
        raise InvalidSchema(f"The namespace {RESULTS.name!r} is that of query results.")
    return found


def _window(coalesce: Duration) -> float:
    """Seconds."""
    window = microseconds(coalesce, "coalesce")
    if window is None or window > _LONGEST_WINDOW:
        raise InvalidValue('coalesce= is a short window, such as "1ms"; at most "1s".')
    return window / 1e6


def _full(namespace: Namespace, name: str, argument: str) -> str:
    """`user.risk` of `risk` and of `user.risk`; the schema need not have it any more, or yet."""
    is_text = isinstance(name, str)
    name = plain_name(name)
    check_text(name, argument)
    short = name.removeprefix(f"{namespace.name}.")
    if "." in short and not is_text:  # A reference to another class, or through a join.
        namespace.feature(short)
    return f"{namespace.name}.{short}"
