"""The operations of `DualStore` and `AsyncDualStore`: dual writes, shadow reads and copies.

Dual writes. A write goes to the serving store first, and then, with the same observed-at, to the
shadow store. One after the other, because the caller learns about the serving store alone: if that
refuses a row or fails, the row must not be in the shadow store only. A row that is not known to be
in the shadow store makes its entity outstanding. That includes rows that the serving store may
have written in part, and calls that were cancelled. `copy_outstanding` reads such entities
from the other store and writes them again, each value with its observed-at. That is safe at any
time, because a newer value stays.

A shadow store that does not answer costs each write `shadow_timeout`. So after
`_FAILURES_BEFORE_SKIPPING` such writes in a row, writes are skipped for a while, and their
entities are outstanding at once.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from chalk_online_store.arguments import (
    check_callable,
    check_flag,
    check_instance,
    finite_number,
    key_list,
    name_list,
    optional_timeout,
    row_list,
    whole_number,
)
from chalk_online_store.codec.values import moment
from chalk_online_store.drivers.steps import read_clocks
from chalk_online_store.errors import (
    InvalidKey,
    InvalidStore,
    InvalidValue,
    OnlineStoreError,
    RequestError,
    WriteFailed,
    WritesOutstanding,
)
from chalk_online_store.logs import event
from chalk_online_store.migration.outstanding import Deletes, Entity, OutstandingEntities
from chalk_online_store.migration.report import (
    SIDES,
    DualReport,
    DualSettings,
    Outstanding,
    Side,
    check_side,
    other_side,
)
from chalk_online_store.migration.shadow_reads import LOG, ShadowReads, shadow_read_of
from chalk_online_store.migration.steps import Steps, Store
from chalk_online_store.operations.prepared import ReadRequest
from chalk_online_store.operations.rows import Rows, Status
from chalk_online_store.operations.times import ObservedAt, time_of, times_of_rows
from chalk_online_store.report import Report
from chalk_online_store.schema import Namespace, namespace_of
from chalk_online_store.schema.instances import rows_of
from chalk_online_store.writer.ledger import DeadLetter, DeadLetters

_FAILURES_BEFORE_SKIPPING = 3

_COPIED_AT_ONCE = 100
"""Entities that one read and one write copy."""


@dataclass(frozen=True, slots=True)
class _Mutation:
    """A write or a delete: `send` performs a part of it in a store, by positions of keys."""

    namespace: Namespace
    keys: Sequence[Any]
    send: Callable[[Side, Sequence[int], float | None], Any]
    deletes: Deletes


class DualCore:
    """Two stores, and the operations on both. Thread-safe."""

    def __init__(
        self,
        old: Store,
        new: Store,
        read_from: Side,
        compare: float,
        settings: DualSettings | None,
        rng: random.Random | None = None,
    ) -> None:
        self.stores: dict[Side, Store] = {"old": old, "new": new}
        self.serving = check_side(read_from, "read_from")
        self.compare = finite_number(compare, "compare", most=1.0)
        check_instance(settings, DualSettings, "settings", InvalidValue)
        self.settings = settings = DualSettings() if settings is None else settings
        if old is new:
            raise InvalidStore("old and new are the same store. Open each store by its own URL.")
        _check_schemas(old, new)
        self._random = (rng or random.Random()).random
        self.outstanding = OutstandingEntities(settings.max_outstanding)
        self.shadow_reads = ShadowReads(self.stores, settings)
        self._reset_writes()
        self._renew()

    def reset(self) -> None:
        """In a forked child: count from 0. Outstanding entities stay with the parent process."""
        self.outstanding.renew()
        self.shadow_reads.renew()
        self._reset_writes()
        self._renew()

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._is_failing = False
        self._failures_in_a_row = 0
        self._skips_until = 0.0

    def _reset_writes(self) -> None:
        self._writes = self._failed = self._skipped = 0
        self._errors: dict[str, int] = {}
        self._cost = {side: Report() for side in SIDES}

    # --- reads -----------------------------------------------------------------------------

    def check_read(
        self, schema: Any, features: Sequence[Any] | None, options: Mapping[str, Any]
    ) -> None:
        """Raise for arguments that one of the two stores refuses; sends nothing."""
        for store in self.stores.values():
            store.prepare(schema, features, **options)

    def read(
        self,
        schema: Any,
        keys: Iterable[Any],
        features: Sequence[Any] | None,
        options: Mapping[str, Any],
        begin_worker: Callable[[], None],
        **once: Any,
    ) -> Steps[Rows[Any]]:
        """Read from the serving store. `options` hold for the shadow read too, `once` does not."""
        serving, began = self.serving, time.monotonic()
        rows: Rows[Any] = yield partial(
            self.stores[serving].read, schema, keys, features, **options, **once
        )
        if self._is_sampled():
            self.shadow_reads.count_call(serving, rows.report, time.monotonic() - began)
            self._offer(schema, rows, options, serving, begin_worker)
        return rows

    def read_many(
        self,
        requests: Sequence[ReadRequest[Any]],
        options: Mapping[str, Any],
        begin_worker: Callable[[], None],
        **once: Any,
    ) -> Steps[tuple[Rows[Any], ...]]:
        """Read several namespaces from the serving store."""
        serving = self.serving
        found: tuple[Rows[Any], ...] = yield partial(
            self.stores[serving].read_many, *requests, **options, **once
        )
        if found and self._is_sampled():
            self.shadow_reads.count_call(serving, found[0].report, None)
            for request, rows in zip(requests, found, strict=True):
                each = {**options, "max_staleness": request.max_staleness}
                self._offer(request.schema, rows, each, serving, begin_worker, is_alone=False)
        return found

    def _is_sampled(self) -> bool:
        return self.compare > 0 and self._random() < self.compare

    def _offer(
        self,
        schema: Any,
        rows: Rows[Any],
        options: Mapping[str, Any],
        serving: Side,
        begin_worker: Callable[[], None],
        *,
        is_alone: bool = True,
    ) -> None:
        """Have a read compared. A read that was answered does not fail because of that."""
        start, namespace = self._random(), namespace_of(schema)
        read = shadow_read_of(schema, namespace, rows, options, serving, start, is_alone=is_alone)
        if not self.shadow_reads.offer(read):
            return
        try:
            begin_worker()
        except Exception as error:  # noqa: BLE001 - no thread could be started, for example.
            self.shadow_reads.worker_failed()
            said = event("migration.worker_failed", error=error)
            LOG.warning("Shadow reads wait: no worker can be started.", extra=said)

    # --- writes ----------------------------------------------------------------------------

    def write(
        self, schema: Any, rows: Iterable[Any], observed_at: ObservedAt, timeout: float | None
    ) -> Steps[Report]:
        """Write rows to both stores; see the module."""
        namespace = self.namespace(schema)
        found, times = self.fixed_times(namespace, rows, observed_at)
        moments = [moment(time) for time in times]

        def send(side: Side, positions: Sequence[int], timeout: float | None) -> Any:
            return self.stores[side].write(
                schema,
                [found[position] for position in positions],
                observed_at=[moments[position] for position in positions],
                timeout=timeout,
            )

        keys = [row.get(namespace.key_name) for row in found]
        return (yield from self._mutate(_Mutation(namespace, keys, send, {}), timeout))

    def fixed_times(
        self, namespace: Namespace, rows: Iterable[Any], observed_at: ObservedAt
    ) -> tuple[Sequence[Mapping[str, Any]], list[int]]:
        """Return rows as mappings, and the observed-at of each (UTC us): the same for both stores.

        Raises `InvalidValue`.
        """
        found, own = rows_of(namespace, row_list(rows))
        return found, times_of_rows(observed_at, len(found), own, read_clocks().wall)

    def delete(
        self,
        schema: Any,
        keys: Iterable[Any],
        features: Sequence[Any] | None,
        observed_at: datetime | None,
        timeout: float | None,
    ) -> Steps[Report]:
        """Delete entities or features from both stores; see the module."""
        namespace = self.namespace(schema)
        found, names = key_list(keys), None
        if features is not None:
            names = tuple(namespace.feature(name).name for name in name_list(features))
        time = read_clocks().wall if observed_at is None else time_of(observed_at)

        def send(side: Side, positions: Sequence[int], timeout: float | None) -> Any:
            return self.stores[side].delete(
                schema,
                [found[position] for position in positions],
                names,
                observed_at=moment(time),
                timeout=timeout,
            )

        mutation = _Mutation(namespace, found, send, {names: time})
        return (yield from self._mutate(mutation, timeout))

    def namespace(self, schema: Any) -> Namespace:
        """Return a namespace that both stores declare. Raises `UnknownFeature`, `StoreClosed`."""
        self.stores["old"].core.namespace(schema)
        return self.stores["new"].core.namespace(schema)

    def _mutate(self, mutation: _Mutation, timeout: float | None) -> Steps[Report]:
        optional_timeout(timeout)
        serving, everything = self.serving, range(len(mutation.keys))
        shadow, failure = other_side(serving), None
        report, written = Report(), list(everything)
        with self._lock:
            self._writes += 1
        try:
            report = yield partial(mutation.send, serving, everything, timeout)
        except WriteFailed as error:
            failure, report = error, error.report
            written = [position for position in everything if position not in error.failed]
            self._mark(mutation, shadow, error.failed, is_certain=False)
        except BaseException as error:
            # Errors of arguments are raised before anything is sent. After any other one, such as
            # a cancellation, the serving store may have a part of the write.
            if isinstance(error, RequestError) or not isinstance(error, OnlineStoreError):
                self._mark(mutation, shadow, everything, is_certain=False)
            raise
        self._add_cost(serving, report)
        if written:
            yield from self._mutate_shadow(mutation, shadow, written)
        if failure is not None:
            raise failure
        return report

    def _mutate_shadow(
        self, mutation: _Mutation, shadow: Side, positions: Sequence[int]
    ) -> Steps[None]:
        if self._skips():
            with self._lock:
                self._failed += 1
                self._skipped += 1
            self._mark(mutation, shadow, positions)
            return
        try:
            report = yield partial(mutation.send, shadow, positions, self.settings.shadow_timeout)
        except Exception as error:
            places: Iterable[int] = positions
            if isinstance(error, WriteFailed):
                places = [positions[place] for place in error.failed]
                self._add_cost(shadow, error.report)
            self._mark(mutation, shadow, places)
            self._count_failure(shadow, error)
            if self.settings.raise_shadow_failures:
                raise
        except BaseException:
            self._mark(mutation, shadow, positions)
            raise
        else:
            self._add_cost(shadow, report)
            self._count_success(shadow)

    def _mark(
        self,
        mutation: _Mutation,
        side: Side,
        positions: Iterable[int],
        *,
        is_certain: bool = True,
    ) -> None:
        keys = [mutation.keys[position] for position in positions]
        self._add_outstanding(
            side, mutation.namespace, keys, mutation.deletes, is_certain=is_certain
        )

    def _add_outstanding(
        self,
        side: Side,
        namespace: Namespace,
        keys: Iterable[Any],
        deletes: Deletes | None = None,
        *,
        is_certain: bool = True,
    ) -> None:
        """Add entities. Invalid keys cannot be copied; they are counted as dropped."""
        codec = self.stores[side].core.registry.draft(namespace)
        for key in keys:
            try:
                codec.partition_keys([key])
            except InvalidKey:
                self.outstanding.dropped += 1
            else:
                self.outstanding.add(side, namespace, [key], deletes, is_certain=is_certain)

    def _add_cost(self, side: Side, report: Report) -> None:
        with self._lock:
            self._cost[side].add(report)

    def _skips(self) -> bool:
        with self._lock:
            if self._failures_in_a_row < _FAILURES_BEFORE_SKIPPING:
                return False
            now = time.monotonic()
            if now < self._skips_until:
                return True
            self._skips_until = now + self.settings.retry_after  # One write tries again.
            return False

    def _count_failure(self, side: Side, error: Exception) -> None:
        name = type(error).__name__
        with self._lock:
            self._failed += 1
            self._errors[name] = self._errors.get(name, 0) + 1
            is_first, self._is_failing = not self._is_failing, True
            if _is_outage(error):
                self._failures_in_a_row += 1
                if self._failures_in_a_row == _FAILURES_BEFORE_SKIPPING:
                    self._skips_until = time.monotonic() + self.settings.retry_after
        if is_first:
            said = event("migration.shadow_writes_failed", store=side, error=error)
            LOG.warning(
                "Writes to the %s store fail (%s); their entities are outstanding.",
                side,
                name,
                extra=said,
            )

    def _count_success(self, side: Side) -> None:
        with self._lock:
            recovered, self._is_failing = self._is_failing, False
            self._failures_in_a_row = 0
        if recovered:
            LOG.info(
                "Writes to the %s store succeed again.",
                side,
                extra=event("migration.shadow_writes_recovered", store=side),
            )

    # --- persistence writers ---------------------------------------------------------------

    def submit(
        self,
        writers: Mapping[Side, Any],
        schema: Any,
        rows: Iterable[Any],
        observed_at: ObservedAt,
        options: Mapping[str, Any],
    ) -> Steps[Any]:
        """Submit rows to both persistence writers; return the ticket of the serving store."""
        namespace = self.namespace(schema)
        found, times = self.fixed_times(namespace, rows, observed_at)
        moments, serving = [moment(time) for time in times], self.serving
        shadow, keys = other_side(serving), [row.get(namespace.key_name) for row in found]
        with self._lock:
            self._writes += 1
        try:
            ticket = yield partial(writers[serving].submit, schema, found, moments, **options)
        except OnlineStoreError:  # No row was accepted.
            raise
        except BaseException:
            self._add_outstanding(shadow, namespace, keys)
            raise
        try:
            yield partial(writers[shadow].submit, schema, found, moments, **options)
        except BaseException as error:
            self._add_outstanding(shadow, namespace, keys)
            if not isinstance(error, Exception):
                raise
            self._count_failure(shadow, error)
            if self.settings.raise_shadow_failures:
                raise
        return ticket

    def dead_letters(self, side: Side, sink: DeadLetters | None) -> DeadLetters:
        """Return a sink that makes the entities of rows outstanding, and passes the rows on."""
        check_side(side, "store")
        check_callable(sink, "sink", "DeadLetterFile(path), or a function")

        def take(letters: Sequence[DeadLetter]) -> None:
            for letter in letters:
                namespace = self.stores[side].core.schema.get(letter.namespace)
                if namespace is not None:
                    self._add_outstanding(side, namespace, [letter.row.get(namespace.key_name)])
            if sink is not None:
                sink(letters)
                return
            said = event("migration.dead_letters", store=side, rows=len(letters))
            LOG.warning(
                "%d rows cannot be written to the %s store; their entities are outstanding.",
                len(letters),
                side,
                extra=said,
            )

        return take

    # --- copies ----------------------------------------------------------------------------

    def copy_outstanding(
        self, side: Side | None, limit: int | None, timeout: float | None
    ) -> Steps[int]:
        """Copy outstanding entities of one store, or of both; return how many were copied."""
        optional_timeout(timeout)
        if limit is not None:
            whole_number(limit, "limit")
        copied = 0
        for each in SIDES if side is None else (check_side(side, "store"),):
            left = self.outstanding.count(each) if limit is None else limit - copied
            taken = self.outstanding.take(each, max(left, 0))
            by_namespace: dict[str, list[Entity]] = {}
            for entity in taken:
                by_namespace.setdefault(entity.namespace.name, []).append(entity)
            try:
                for entities in by_namespace.values():
                    for some in _batches(entities):
                        done = yield from self._copy(each, some, timeout)
                        copied += len(done)
                        taken = [entity for entity in taken if id(entity) not in done]
            finally:
                self.outstanding.put_back(each, taken)
        return copied

    def backfill(
        self, schema: Any, keys: Iterable[Any], side: Side, timeout: float | None
    ) -> Steps[int]:
        """Copy entities to one store from the other; return how many were copied."""
        optional_timeout(timeout)
        check_side(side, "store")
        namespace, copied = self.namespace(schema), 0
        for some in _batches([Entity(namespace, key) for key in key_list(keys)]):
            copied += len((yield from self._copy(side, some, timeout)))
        return copied

    def _copy(
        self, side: Side, entities: Sequence[Entity], timeout: float | None
    ) -> Steps[set[int]]:
        """Copy entities of one namespace; return the ids of the copied `Entity` objects."""
        namespace = entities[0].namespace
        rows: Rows[Any] = yield partial(
            self.stores[other_side(side)].read,
            namespace,
            [entity.key for entity in entities],
            None,
            max_staleness=dict.fromkeys(namespace.by_name, "infinity"),
            consistent=True,
            timeout=timeout,
        )
        for features, at, keys, sides in _deletes_of(entities, rows, side):
            for each in sides:
                yield partial(
                    self.stores[each].delete,
                    namespace,
                    keys,
                    features,
                    observed_at=moment(at),
                    timeout=timeout,
                )
        whole = [index for index in range(len(entities)) if _is_read(rows, index)]
        found = [pair for index in whole for pair in _rows_by_time(namespace, rows, index)]
        if found:
            yield partial(
                self.stores[side].write,
                namespace,
                [row for row, _ in found],
                observed_at=[moment(at) for _, at in found],
                timeout=timeout,
            )
        return {id(entities[index]) for index in whole}

    # --- the state -------------------------------------------------------------------------

    def switch_to(self, side: Side, *, force: bool) -> None:
        """Read from a store from now on. Raises `WritesOutstanding`."""
        check_side(side, "store")
        check_flag(force, "force")
        count = self.outstanding.count(side)
        if side == self.serving:
            return
        if count and not force:
            raise WritesOutstanding(
                f"The {side} store lacks writes to {count:,} entities. Call copy_outstanding() "
                "first, or pass force=True.",
                count,
            )
        self.serving = side
        with self._lock:
            self._is_failing = False
            self._failures_in_a_row = 0
        said = event("migration.switched", store=side, outstanding=count)
        LOG.info("Reads are served by the %s store.", side, extra=said)

    def listed(self, side: Side | None) -> list[Outstanding]:
        """Return the outstanding entities of one store, or of both."""
        sides = SIDES if side is None else (check_side(side, "store"),)
        return [each for one in sides for each in self.outstanding.listed(one)]

    def report(self) -> DualReport:
        """Return the report."""
        reads = self.shadow_reads
        cost = {side: Report() for side in SIDES}
        with self._lock:
            errors = dict(self._errors)
            for side in SIDES:
                cost[side].add(self._cost[side])
                cost[side].add(reads.cost[side])
            writes = self._writes, self._failed, self._skipped
        for name, count in dict(reads.errors).items():
            errors[name] = errors.get(name, 0) + count
        return DualReport(
            self.serving,
            reads.features(),
            reads.samples(),
            reads.sampled,
            reads.compared,
            reads.dropped,
            reads.failed,
            reads.latency(),
            *writes,
            {side: self.outstanding.count(side) for side in SIDES},
            self.outstanding.dropped,
            errors,
            cost,
        )

    def reset_report(self) -> None:
        """Set all counts to 0; outstanding entities remain."""
        self.shadow_reads.reset()
        with self._lock:
            self._reset_writes()


def _check_schemas(old: Store, new: Store) -> None:
    ours, theirs = old.core.schema, new.core.schema
    for name in sorted({*ours, *theirs}):
        if ours.get(name) is not theirs.get(name):
            raise InvalidStore(
                f"old and new do not declare the same namespace {name!r}. Open both stores with "
                "the same feature classes."
            )


def _is_outage(error: Exception) -> bool:
    """Return True if a store did not answer, or answered that it cannot work."""
    if isinstance(error, WriteFailed):
        return all(_is_outage(cause) for cause in error.failed.values())
    return isinstance(error, TimeoutError | OSError) or getattr(error, "engine_fault", False)


def _batches(entities: Sequence[Entity]) -> list[Sequence[Entity]]:
    starts = range(0, len(entities), _COPIED_AT_ONCE)
    return [entities[start : start + _COPIED_AT_ONCE] for start in starts]


def _is_read(rows: Rows[Any], index: int) -> bool:
    return all(rows.answer(index, name).status is not Status.FAILED for name in rows.features)


def _deletes_of(
    entities: Sequence[Entity], rows: Rows[Any], side: Side
) -> Iterator[tuple[tuple[str, ...] | None, int, list[Any], tuple[Side, ...]]]:
    """Return the deletes to perform: features, time (UTC us), keys, and the stores that lack it.

    A delete that has failed in the other store is performed in both stores, for the features that
    are missing there: that removes nothing which a reader sees, and from then on both stores treat
    older values that arrive late alike. If a feature is still there, it was not deleted.
    """
    found: dict[tuple[tuple[str, ...] | None, int, tuple[Side, ...]], list[Any]] = {}
    for index, entity in enumerate(entities):
        for features, at in entity.deletes.items():
            found.setdefault((features, at, (side,)), []).append(entity.key)
        for features, at in entity.uncertain.items():
            named = rows.features if features is None else features
            missing = tuple(
                name for name in named if rows.answer(index, name).status is Status.MISSING
            )
            if missing:
                gone = None if features is None and len(missing) == len(named) else missing
                found.setdefault((gone, at, SIDES), []).append(entity.key)
    for (features, at, sides), keys in found.items():
        yield features, at, keys, sides


def _rows_by_time(
    namespace: Namespace, rows: Rows[Any], index: int
) -> list[tuple[dict[str, Any], int]]:
    """Return the values of an entity as rows, one for each observed-at (UTC us)."""
    found: dict[int, dict[str, Any]] = {}
    for name in rows.features:
        _, value, observed_at = rows.answer(index, name)
        if observed_at is not None:
            row = found.setdefault(observed_at, {namespace.key_name: rows.keys[index]})
            row[name] = value
    return [(row, at) for at, row in sorted(found.items())]
