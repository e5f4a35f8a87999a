"""`DualStore`: two stores for the time of a migration, for threads."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from inspect import iscoroutinefunction
from typing import Any, Generic, TypeVar, overload

from chalk_online_store._fork import reset_after_fork
from chalk_online_store.arguments import list_of, timeout_seconds
from chalk_online_store.drivers.workers import Workers
from chalk_online_store.effects import Sleep
from chalk_online_store.errors import InvalidSchema, InvalidStore
from chalk_online_store.migration.core import DualCore
from chalk_online_store.migration.report import DualReport, DualSettings, Outstanding, Side
from chalk_online_store.migration.steps import Step, Steps, Store
from chalk_online_store.operations.prepared import ReadRequest
from chalk_online_store.operations.rows import Row, Rows
from chalk_online_store.operations.times import ObservedAt
from chalk_online_store.report import Report
from chalk_online_store.schema import Duration, Namespace
from chalk_online_store.store import OnlineStore
from chalk_online_store.writer.ledger import DeadLetters

C = TypeVar("C")
"""A feature class."""

T = TypeVar("T")

POLL_SECONDS = 0.01
"""How often `wait_for_comparisons` looks whether there are comparisons left."""


class DualStore:
    """Two stores for the time of a migration. Thread-safe.

    Writes and deletes go to both stores with the same observed-at. Reads are served by one of them,
    `read_from`, until `switch_to`. A share of the reads, `compare` (from 0 to 1), is repeated in
    the other store, the shadow store, and the results are compared in the background.

    A call fails if the serving store fails. If the shadow store fails, the write is counted, and
    its entities are outstanding: `copy_outstanding` copies them. A shadow store never delays or
    fails a read.

    `old` and `new` are open `OnlineStore`s with the same schema, on any engines, or an object with
    the same methods, such as `FeastStore`. `close` closes both. In a forked child, the
    report is empty, and outstanding entities are left to the parent process.

    Raises `InvalidStore`, `InvalidValue`.
    """

    def __init__(
        self,
        old: OnlineStore | Store,
        new: OnlineStore | Store,
        *,
        read_from: Side = "old",
        compare: float = 0.01,
        settings: DualSettings | None = None,
    ) -> None:
        for name, store in (("old", old), ("new", new)):
            check_store(store, name, is_async=False, expected="OnlineStore")
        self._core = DualCore(old, new, read_from, compare, settings)
        self._workers = Workers(1, "chalk-online-store-shadow")
        reset_after_fork(self)

    @classmethod
    def open(
        cls,
        old: str,
        new: str,
        schema: Iterable[Namespace | type],
        *,
        read_from: Side = "old",
        compare: float = 0.01,
        settings: DualSettings | None = None,
        **options: Any,
    ) -> DualStore:
        """Open two stores by their URLs; `options` are those of `OnlineStore.open`, for both.

        Raises as `OnlineStore.open` does, and `InvalidValue`.
        """
        schema = list_of(schema, "schema", "feature classes", "[schema]", InvalidSchema)
        with ExitStack() as opened:
            stores = []
            for url in (old, new):
                stores.append(OnlineStore.open(url, schema, **options))
                opened.callback(stores[-1].close)
            dual = cls(*stores, read_from=read_from, compare=compare, settings=settings)
            opened.pop_all()
        return dual

    def reset(self) -> None:
        """In a forked child: have an empty report and no thread yet."""
        self._core.reset()
        self._workers = Workers(1, "chalk-online-store-shadow")

    @property
    def old(self) -> Any:
        """The old store."""
        return self._core.stores["old"]

    @property
    def new(self) -> Any:
        """The new store."""
        return self._core.stores["new"]

    @property
    def dual(self) -> DualCore:
        """The operations, for integrations."""
        return self._core

    @property
    def read_from(self) -> Side:
        """The store that serves reads."""
        return self._core.serving

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
    ) -> Rows[Any]:
        """Read features from the serving store: as `OnlineStore.read`."""
        options = {"max_staleness": max_staleness, "consistent": consistent, "defaults": defaults}
        once = {"timeout": timeout, "raise_failed": raise_failed}
        return run(self._core.read(schema, keys, features, options, self._begin_worker, **once))

    @overload
    def get(
        self, schema: type[C], key: Any, features: Sequence[Any] | None = ..., **options: Any
    ) -> Row[C]: ...
    @overload
    def get(
        self, schema: Namespace, key: Any, features: Sequence[Any] | None = ..., **options: Any
    ) -> Row[Any]: ...
    def get(
        self, schema: Any, key: Any, features: Sequence[Any] | None = None, **options: Any
    ) -> Row[Any]:
        """Read features of one entity; `options` are those of `read`."""
        return self.read(schema, [key], features, **options)[0]

    def read_many(
        self,
        *requests: ReadRequest[Any],
        consistent: bool = False,
        timeout: float | None = None,
        defaults: bool = False,
        raise_failed: bool = False,
    ) -> tuple[Rows[Any], ...]:
        """Read several namespaces from the serving store: as `OnlineStore.read_many`."""
        options = {"consistent": consistent, "defaults": defaults}
        once = {"timeout": timeout, "raise_failed": raise_failed}
        return run(self._core.read_many(requests, options, self._begin_worker, **once))

    @overload
    def prepare(
        self,
        schema: type[C],
        features: Sequence[Any] | None = ...,
        *,
        max_staleness: Mapping[Any, Duration] | None = ...,
        defaults: bool = ...,
    ) -> PreparedDualRead[C]: ...
    @overload
    def prepare(
        self,
        schema: Namespace,
        features: Sequence[Any] | None = ...,
        *,
        max_staleness: Mapping[Any, Duration] | None = ...,
        defaults: bool = ...,
    ) -> PreparedDualRead[Any]: ...
    def prepare(
        self,
        schema: Any,
        features: Sequence[Any] | None = None,
        *,
        max_staleness: Mapping[Any, Duration] | None = None,
        defaults: bool = False,
    ) -> PreparedDualRead[Any]:
        """Check the arguments of a read once, as `OnlineStore.prepare`; sends nothing."""
        options = {"max_staleness": max_staleness, "defaults": defaults}
        self._core.check_read(schema, features, options)
        return PreparedDualRead(self, schema, features, options)

    def write(
        self,
        schema: Namespace | type[C],
        rows: Iterable[Mapping[Any, Any] | C],
        *,
        observed_at: ObservedAt = None,
        timeout: float | None = None,
    ) -> Report:
        """Write rows to both stores; return the report of the serving store.

        As `OnlineStore.write`, in event time. `timeout` bounds the write to the serving store, and
        `shadow_timeout` of the settings the one that follows.

        Raises as `OnlineStore.write` does for the serving store; for the shadow store only if
        `raise_shadow_failures` is set.
        """
        return run(self._core.write(schema, rows, observed_at, timeout))

    def delete(
        self,
        schema: Namespace | type,
        keys: Iterable[Any],
        features: Sequence[Any] | None = None,
        *,
        observed_at: datetime | None = None,
        timeout: float | None = None,
    ) -> Report:
        """Delete features, or entities, from both stores; see `write` and `OnlineStore.delete`."""
        return run(self._core.delete(schema, keys, features, observed_at, timeout))

    def switch_to(self, store: Side, *, force: bool = False) -> None:
        """Serve reads from "old" or "new" from now on. Calls in progress end where they began.

        Raises `WritesOutstanding` if entities of that store are outstanding, unless `force` is set,
        and `InvalidValue`.
        """
        self._core.switch_to(store, force=force)

    def outstanding(self, store: Side | None = None) -> list[Outstanding]:
        """Return the entities to copy again, of one store or of both."""
        return self._core.listed(store)

    def copy_outstanding(
        self,
        store: Side | None = None,
        *,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> int:
        """Copy outstanding entities from the store that has them; return how many were copied.

        Each value is written with its observed-at, and deletes are repeated. `timeout` is that of
        each request of up to 100 entities. Raises as reads and writes do; then what was not
        copied is still outstanding. So are entities of which a feature could not be read.
        """
        return run(self._core.copy_outstanding(store, limit, timeout))

    def backfill(
        self,
        schema: Namespace | type,
        keys: Iterable[Any],
        *,
        store: Side = "new",
        timeout: float | None = None,
    ) -> int:
        """Copy entities to `store` from the other one; return how many could be read and copied.

        Values keep their observed-at, and newer values in `store` stay. Use the command `copy` if
        both are stores of this library: it needs no list of keys, and copies deletes as well.
        Raises as `copy_outstanding` does.
        """
        return run(self._core.backfill(schema, keys, store, timeout))

    def dead_letters(self, store: Side, sink: DeadLetters | None = None) -> DeadLetters:
        """Return the `dead_letters` of a `PersistenceWriter` on the store `store`.

        Entities of rows that the writer could not write are outstanding. `sink` gets the rows as
        well (default: they are logged, without values).
        """
        return self._core.dead_letters(store, sink)

    def report(self) -> DualReport:
        """Return what was counted and compared so far; sends nothing."""
        return self._core.report()

    def reset_report(self) -> None:
        """Set all counts to 0. Outstanding entities remain."""
        self._core.reset_report()

    def wait_for_comparisons(self, timeout: float = 30.0) -> bool:
        """Wait until all sampled reads are compared; return False after `timeout` seconds."""
        until = time.monotonic() + timeout_seconds(timeout)
        while not self._core.shadow_reads.is_idle:
            if time.monotonic() >= until:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def close(self) -> None:
        """Compare nothing more, and close both stores. A second call does nothing."""
        with ExitStack() as steps:  # Take each step, even if another one raises.
            for store in self._core.stores.values():
                steps.callback(store.close)
            steps.callback(self._workers.stop)
            steps.callback(self._core.shadow_reads.close)

    def __enter__(self) -> DualStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin_worker(self) -> None:
        self._workers.submit(lambda: run(self._core.shadow_reads.work()))


class PreparedDualRead(Generic[C]):
    """A read of the same features again and again; made by `DualStore.prepare`."""

    def __init__(
        self, store: DualStore, schema: Any, features: Any, options: Mapping[str, Any]
    ) -> None:
        self._store = store
        self._schema = schema
        self._features = features if features is None else tuple(features)
        self._options = options

    def read(self, keys: Iterable[Any], **options: Any) -> Rows[C]:
        """As `DualStore.read`; `options` are `consistent`, `timeout` and `raise_failed`."""
        every = {**self._options, **options}
        return self._store.read(self._schema, keys, self._features, **every)

    def get(self, key: Any, **options: Any) -> Row[C]:
        """As `DualStore.get`; `options` are those of `read`."""
        return self.read([key], **options)[0]


def run(steps: Steps[T]) -> T:
    """Perform an operation in the calling thread."""
    try:
        step = next(steps)
        while True:
            try:
                value = _perform(step)
            except BaseException as error:  # noqa: BLE001 - the operation raises it, or another.
                step = steps.throw(error)
            else:
                step = steps.send(value)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return] # an operation's T
    finally:
        steps.close()


def _perform(step: Step) -> Any:
    if isinstance(step, Sleep):
        time.sleep(step.seconds)
        return None
    return step()


def check_store(store: Any, argument: str, *, is_async: bool, expected: str) -> None:
    """Raise `InvalidStore` unless an argument is a store of the right kind."""
    read = getattr(type(store), "read", None)
    if getattr(store, "core", None) is None or iscoroutinefunction(read) is not is_async:
        raise InvalidStore(
            f"{argument} must be an open {expected}; got {type(store).__name__}. DualStore takes "
            "stores for threads, and AsyncDualStore stores for asyncio."
        )
