"""`AsyncPersistenceWriter`: as `writer.PersistenceWriter`, for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar, cast

from chalk_online_store._fork import reset_after_fork
from chalk_online_store.arguments import optional_timeout
from chalk_online_store.async_store import AsyncOnlineStore
from chalk_online_store.drivers.aio import AsyncDriver, InThread
from chalk_online_store.drivers.steps import read_clocks
from chalk_online_store.errors import RowsPending, StoreClosed
from chalk_online_store.logs import event
from chalk_online_store.operations.times import ObservedAt, time_of
from chalk_online_store.schema import Duration, Namespace, seconds
from chalk_online_store.writer.core import WriterCore, check_store, spool_for
from chalk_online_store.writer.intake import SPOOL, OnInvalid
from chalk_online_store.writer.ledger import DeadLetters
from chalk_online_store.writer.settings import LOG, WriterStats, Writing
from chalk_online_store.writer.signal import at_exit, not_at_exit
from chalk_online_store.writer.tickets import AsyncTicket, Priority

_JOIN_SECONDS = 5.0
"""How much longer than its requests the task may take to end."""

C = TypeVar("C")
"""A class whose instances are rows."""


class AsyncPersistenceWriter:
    """Writes rows to a store in the background, for asyncio. The same as `PersistenceWriter`.

    It works in a task of the event loop in which it is used first. Only after that loop was closed,
    as by the end of `asyncio.run`, it continues in the next loop in which it is used.
    """

    def __init__(
        self,
        store: AsyncOnlineStore,
        settings: Writing | None = None,
        *,
        spool: str | Path | None = None,
        spool_bytes: int = 1 << 30,
        dead_letters: DeadLetters | None = None,
    ) -> None:
        check_store(store, AsyncOnlineStore, "AsyncPersistenceWriter", "PersistenceWriter")
        self._store = store
        self._settings = Writing() if settings is None else settings
        self._dead_letters = dead_letters
        self._spool = spool_for(store.core, self._settings, spool, spool_bytes)
        try:
            self._reset()
        except BaseException:
            if self._spool is not None:
                self._spool.close()
            raise
        reset_after_fork(self)
        at_exit(self)

    def reset(self) -> None:
        """In a fork: have nothing under way, and no task yet."""
        self._core.leave_to_parent()
        self._reset()

    def _reset(self) -> None:
        self._core = WriterCore(
            self._store.core,
            self._settings,
            spool=self._spool,
            dead_letters=self._dead_letters,
            tickets=AsyncTicket,
            revive=self._start,
        )
        transports = dict(self._store.driver.transports)
        if self._spool is not None:
            transports[SPOOL] = InThread(self._spool)
        self._driver = AsyncDriver(transports)
        self._task: asyncio.Task[None] | None = None

    def _start(self) -> None:
        """Have a task that works, in whatever event loop. Raises `StoreClosed`."""
        if self._spool is not None:
            self._spool.check_process()
        task = self._task
        if self._core.stopped or (task is not None and _is_alive(task)):
            return
        self._task = asyncio.get_running_loop().create_task(self._work())

    def _start_here(self) -> None:
        """Have a task that works in this event loop. Raises `StoreClosed` if it has another one."""
        self._start()
        task, here = self._task, asyncio.get_running_loop()
        if task is not None and _is_alive(task) and task.get_loop() is not here:
            raise StoreClosed("This writer belongs to another event loop; open another.")

    async def _work(self) -> None:
        core = self._core
        try:
            await self._driver.run(core.run())
        finally:
            if not core.stopped:
                rows = core.inbox.rows
                said = event("writer.interrupted", rows=rows)
                LOG.warning(
                    "The task of the writer was ended by its event loop; %d rows are pending.",
                    rows,
                    extra=said,
                )

    async def submit(
        self,
        schema: Namespace | type[C],
        rows: Iterable[Mapping[str, Any] | C],
        observed_at: ObservedAt = None,
        *,
        priority: Priority = "live",
        on_invalid: OnInvalid = "raise",
    ) -> AsyncTicket:
        """As `PersistenceWriter.submit`; it waits only where there is no room."""
        self._start_here()
        core = self._core
        submission = core.submission(schema, rows, observed_at, priority, read_clocks(), on_invalid)
        if not core.offer(submission):
            await self._driver.run(core.wait_for_room(submission))
        return cast(AsyncTicket, submission.ticket)

    async def write_result(
        self,
        query: str,
        inputs: Mapping[str, Any],
        features: Mapping[str, Any],
        *,
        version: str = "",
        max_staleness: Duration = "infinity",
        observed_at: datetime | None = None,
        priority: Priority = "live",
    ) -> AsyncTicket:
        """As `PersistenceWriter.write_result`."""
        if observed_at is not None:
            time_of(observed_at)
        row = self._store.core.results.row(query, inputs, features, version, max_staleness)
        return await self.submit(
            self._store.core.of_results(), [row], observed_at, priority=priority
        )

    async def flush(self, timeout: float | None = None) -> None:
        """As `PersistenceWriter.flush`."""
        timeout = optional_timeout(timeout)
        self._start_here()
        await self._driver.run(self._core.flush(timeout))

    async def drain(self, timeout: float | None = None) -> None:
        """As `PersistenceWriter.drain`."""
        timeout = optional_timeout(timeout)
        self._core.draining = True
        await self.flush(timeout)

    async def close(self, timeout: float | None = 30.0) -> None:
        """As `PersistenceWriter.close`.

        If the call is cancelled, it ends all the same, without waiting further: what is under way
        is given up, and counts as not written.
        """
        timeout = optional_timeout(timeout)
        if self._core.ended or (self._spool is not None and self._spool.foreign):
            not_at_exit(self)
            return
        self._start_here()
        try:
            with suppress(RowsPending):
                await self.drain(timeout)
            self._core.stop()
            await self._join()
        finally:
            self._end()

    async def _join(self) -> None:
        """Wait for the task to end what is under way."""
        if self._task is not None:
            await asyncio.wait(
                {self._task}, timeout=seconds(self._settings.write_timeout) + _JOIN_SECONDS
            )
        await self._driver.stop()

    def _end(self) -> None:
        """End without waiting: no cancellation can come in between."""
        with ExitStack() as steps:  # Each step is taken, whatever the others raise.
            steps.callback(not_at_exit, self)
            if self._spool is not None:
                steps.callback(self._spool.close)
            if not self._core.ended:
                steps.callback(self._core.abandon)
            steps.callback(self._cancel)
            steps.callback(self._core.stop)

    def _cancel(self) -> None:
        task = self._task
        if task is not None and _is_alive(task):
            task.cancel()

    def close_at_exit(self, timeout: float) -> None:
        """The event loop is gone: nothing can be written any more."""
        self._end()

    def stats(self) -> WriterStats:
        """As `PersistenceWriter.stats`."""
        return self._core.stats(read_clocks())

    async def __aenter__(self) -> AsyncPersistenceWriter:
        self._start_here()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _is_alive(task: asyncio.Task[None]) -> bool:
    """Return True if a task can still end by itself."""
    return not (task.done() or task.get_loop().is_closed())
