"""`AsyncDualStore`: as `store.DualStore`, for asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import datetime
from typing import Any, Generic, TypeVar, overload

from chalk_online_store._fork import reset_after_fork
from chalk_online_store.arguments import list_of, timeout_seconds
from chalk_online_store.async_store import AsyncOnlineStore
from chalk_online_store.effects import Sleep
from chalk_online_store.errors import InvalidSchema
from chalk_online_store.migration.core import DualCore
from chalk_online_store.migration.report import DualReport, DualSettings, Outstanding, Side
from chalk_online_store.migration.steps import Steps, Store
from chalk_online_store.migration.store import POLL_SECONDS, check_store
from chalk_online_store.operations.prepared import ReadRequest
from chalk_online_store.operations.rows import Row, Rows
from chalk_online_store.operations.times import ObservedAt
from chalk_online_store.report import Report
from chalk_online_store.schema import Duration, Namespace
from chalk_online_store.writer.ledger import DeadLetters

C = TypeVar("C")
"""A feature class."""

T = TypeVar("T")

_STOP_TIMEOUT_SECONDS = 60.0


class AsyncDualStore:
    """Two stores for the time of a migration, for asyncio. The same as `DualStore`, awaited.

    Takes two `AsyncOnlineStore`s, or objects with the same methods. Shadow reads run in a task of
    the event loop that sampled them; reads that a cancelled task leaves are compared by the next
    one, or dropped by `close`.
    """

    def __init__(
        self,
        old: AsyncOnlineStore | Store,
        new: AsyncOnlineStore | Store,
        *,
        read_from: Side = "old",
        compare: float = 0.01,
        settings: DualSettings | None = None,
    ) -> None:
        for name, store in (("old", old), ("new", new)):
            check_store(store, name, is_async=True, expected="AsyncOnlineStore")
        self._core = DualCore(old, new, read_from, compare, settings)
        self._task: asyncio.Task[None] | None = None
        self._core.shadow_reads.is_worker_lost = self._is_worker_lost
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
    ) -> AsyncDualStore:
        """As `DualStore.open`; `options` are passed to `AsyncOnlineStore.open`."""
        schema = list_of(schema, "schema", "feature classes", "[schema]", InvalidSchema)
        stores = [AsyncOnlineStore.open(url, schema, **options) for url in (old, new)]
        return cls(*stores, read_from=read_from, compare=compare, settings=settings)

    def reset(self) -> None:
        """In a forked child: have an empty report and no task yet."""
        self._core.reset()
        self._task = None

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
    ) -> Rows[Any]:
        """As `DualStore.read`."""
        options = {"max_staleness": max_staleness, "consistent": consistent, "defaults": defaults}
        once = {"timeout": timeout, "raise_failed": raise_failed}
        return await run(
            self._core.read(schema, keys, features, options, self._begin_worker, **once)
        )

    @overload
    async def get(
        self, schema: type[C], key: Any, features: Sequence[Any] | None = ..., **options: Any
    ) -> Row[C]: ...
    @overload
    async def get(
        self, schema: Namespace, key: Any, features: Sequence[Any] | None = ..., **options: Any
    ) -> Row[Any]: ...
    async def get(
        self, schema: Any, key: Any, features: Sequence[Any] | None = None, **options: Any
    ) -> Row[Any]:
        """As `DualStore.get`."""
        return (await self.read(schema, [key], features, **options))[0]

    async def read_many(
        self,
        *requests: ReadRequest[Any],
        consistent: bool = False,
        timeout: float | None = None,
        defaults: bool = False,
        raise_failed: bool = False,
    ) -> tuple[Rows[Any], ...]:
        """As `DualStore.read_many`."""
        options = {"consistent": consistent, "defaults": defaults}
        once = {"timeout": timeout, "raise_failed": raise_failed}
        return await run(self._core.read_many(requests, options, self._begin_worker, **once))

    @overload
    def prepare(
        self,
        schema: type[C],
        features: Sequence[Any] | None = ...,
        *,
        max_staleness: Mapping[Any, Duration] | None = ...,
        defaults: bool = ...,
    ) -> AsyncPreparedDualRead[C]: ...
    @overload
    def prepare(
        self,
        schema: Namespace,
        features: Sequence[Any] | None = ...,
        *,
        max_staleness: Mapping[Any, Duration] | None = ...,
        defaults: bool = ...,
    ) -> AsyncPreparedDualRead[Any]: ...
    def prepare(
        self,
        schema: Any,
        features: Sequence[Any] | None = None,
        *,
        max_staleness: Mapping[Any, Duration] | None = None,
        defaults: bool = False,
    ) -> AsyncPreparedDualRead[Any]:
        """As `DualStore.prepare`."""
        options = {"max_staleness": max_staleness, "defaults": defaults}
        self._core.check_read(schema, features, options)
        return AsyncPreparedDualRead(self, schema, features, options)

    async def write(
        self,
        schema: Namespace | type[C],
        rows: Iterable[Mapping[Any, Any] | C],
        *,
        observed_at: ObservedAt = None,
        timeout: float | None = None,
    ) -> Report:
        """As `DualStore.write`. If a write is cancelled, its entities are outstanding."""
        return await run(self._core.write(schema, rows, observed_at, timeout))

    async def delete(
        self,
        schema: Namespace | type,
        keys: Iterable[Any],
        features: Sequence[Any] | None = None,
        *,
        observed_at: datetime | None = None,
        timeout: float | None = None,
    ) -> Report:
        """As `DualStore.delete`."""
        return await run(self._core.delete(schema, keys, features, observed_at, timeout))

    def switch_to(self, store: Side, *, force: bool = False) -> None:
        """As `DualStore.switch_to`."""
        self._core.switch_to(store, force=force)

    def outstanding(self, store: Side | None = None) -> list[Outstanding]:
        """As `DualStore.outstanding`."""
        return self._core.listed(store)

    async def copy_outstanding(
        self,
        store: Side | None = None,
        *,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> int:
        """As `DualStore.copy_outstanding`."""
        return await run(self._core.copy_outstanding(store, limit, timeout))

    async def backfill(
        self,
        schema: Namespace | type,
        keys: Iterable[Any],
        *,
        store: Side = "new",
        timeout: float | None = None,
    ) -> int:
        """As `DualStore.backfill`."""
        return await run(self._core.backfill(schema, keys, store, timeout))

    def dead_letters(self, store: Side, sink: DeadLetters | None = None) -> DeadLetters:
        """As `DualStore.dead_letters`, for an `AsyncPersistenceWriter`."""
        return self._core.dead_letters(store, sink)

    def report(self) -> DualReport:
        """As `DualStore.report`."""
        return self._core.report()

    def reset_report(self) -> None:
        """As `DualStore.reset_report`."""
        self._core.reset_report()

    async def wait_for_comparisons(self, timeout: float = 30.0) -> bool:
        """As `DualStore.wait_for_comparisons`."""
        until = time.monotonic() + timeout_seconds(timeout)
        while not self._core.shadow_reads.is_idle:
            if time.monotonic() >= until:
                return False
            await asyncio.sleep(POLL_SECONDS)
        return True

    async def close(self) -> None:
        """As `DualStore.close`."""
        async with AsyncExitStack() as steps:  # Take each step, even if another one raises.
            for store in self._core.stores.values():
                steps.push_async_callback(store.close)
            steps.push_async_callback(self._stop)
            self._core.shadow_reads.close()

    async def _stop(self) -> None:
        """Cancel the task if it belongs to this event loop."""
        task = self._task
        if task is None or task.done() or task.get_loop() is not asyncio.get_running_loop():
            return
        task.cancel()
        with suppress(TimeoutError):
            await asyncio.wait({task}, timeout=_STOP_TIMEOUT_SECONDS)

    async def __aenter__(self) -> AsyncDualStore:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _is_worker_lost(self) -> bool:
        task = self._task
        return task is None or task.done() or task.get_loop().is_closed()

    def _begin_worker(self) -> None:
        work = run(self._core.shadow_reads.work())
        self._task = asyncio.get_running_loop().create_task(work)


class AsyncPreparedDualRead(Generic[C]):
    """A read of the same features again and again; made by `AsyncDualStore.prepare`."""

    def __init__(
        self, store: AsyncDualStore, schema: Any, features: Any, options: Mapping[str, Any]
    ) -> None:
        self._store = store
        self._schema = schema
        self._features = features if features is None else tuple(features)
        self._options = options

    async def read(self, keys: Iterable[Any], **options: Any) -> Rows[C]:
        """As `PreparedDualRead.read`."""
        every = {**self._options, **options}
        rows: Rows[C] = await self._store.read(self._schema, keys, self._features, **every)
        return rows

    async def get(self, key: Any, **options: Any) -> Row[C]:
        """As `PreparedDualRead.get`."""
        return (await self.read([key], **options))[0]


async def run(steps: Steps[T]) -> T:
    """Perform an operation; a cancellation is thrown into it."""
    try:
        step = next(steps)
        while True:
            try:
                value = await (_sleep(step) if isinstance(step, Sleep) else step())
            except BaseException as error:  # noqa: BLE001 - the operation raises it, or another.
                step = steps.throw(error)
            else:
                step = steps.send(value)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return] # an operation's T
    finally:
        steps.close()


async def _sleep(step: Sleep) -> None:
    await asyncio.sleep(step.seconds)
