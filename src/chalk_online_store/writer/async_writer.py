"""`AsyncPersistenceWriter`: as `writer.PersistenceWriter`, for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar, cast

from chalk_online_store.arguments import optional_timeout
from chalk_online_store.async_store import AsyncOnlineStore
from chalk_online_store.drivers.aio import AsyncDriver, InThread
from chalk_online_store.drivers.steps import read_clocks
from chalk_online_store.errors import RowsPending, StoreClosed
from chalk_online_store.operations.times import ObservedAt
from chalk_online_store.schema import Duration, Namespace
from chalk_online_store.writer.core import WriterCore, spool_for
from chalk_online_store.writer.dead_letters import DeadLetters
from chalk_online_store.writer.exits import at_exit, not_at_exit
from chalk_online_store.writer.intake import SPOOL
from chalk_online_store.writer.settings import Writing
from chalk_online_store.writer.stats import WriterStats
from chalk_online_store.writer.tickets import AsyncTicket, Priority

C = TypeVar("C")
"""A class whose instances are rows."""


class AsyncPersistenceWriter:
    """Writes rows to a store in the background, for asyncio. The same as `PersistenceWriter`.

    It works in a task of the event loop in which it is used first, and may be used in no other.
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
        self._store = store
        settings = settings or Writing()
        self._spool = spool_for(store.core, settings, spool, spool_bytes)
        self._core = WriterCore(
            store.core,
            settings,
            spool=self._spool,
            dead_letters=dead_letters,
            tickets=AsyncTicket,
        )
        transports = dict(store.driver.transports)
        if self._spool is not None:
            transports[SPOOL] = InThread(self._spool)
        self._driver = AsyncDriver(transports)
        self._task: asyncio.Task[None] | None = None
        at_exit(self)

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        if self._task is None:
            self._task = loop.create_task(self._driver.run(self._core.run()))
        elif self._task.get_loop() is not loop:
            raise StoreClosed("This writer belongs to another event loop; open another.")

    async def submit(
        self,
        schema: Namespace | type[C],
        rows: Iterable[Mapping[str, Any] | C],
        observed_at: ObservedAt = None,
        *,
        priority: Priority = "live",
    ) -> AsyncTicket:
        """As `PersistenceWriter.submit`; it waits only where there is no room."""
        self._start()
        submission = self._core.submission(schema, rows, observed_at, priority, read_clocks())
        if not self._core.offer(submission):
            await self._driver.run(self._core.wait_for_room(submission))
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
        row = self._store.core.results.row(query, inputs, features, version, max_staleness)
        return await self.submit(
            self._store.core.of_results(), [row], observed_at, priority=priority
        )

    async def flush(self, timeout: float | None = None) -> None:
        """As `PersistenceWriter.flush`."""
        self._start()
        await self._driver.run(self._core.flush(timeout))

    async def drain(self, timeout: float | None = None) -> None:
        """As `PersistenceWriter.drain`."""
        timeout = optional_timeout(timeout)
        self._core.draining = True
        await self.flush(timeout)

    async def close(self, timeout: float | None = 30.0) -> None:
        """As `PersistenceWriter.close`."""
        timeout = optional_timeout(timeout)
        if self._core.stopped:
            return
        not_at_exit(self)
        try:
            with suppress(RowsPending):
                await self.drain(timeout)
        finally:
            self._core.stop()
            if self._task is not None:
                await self._task
            await self._driver.stop()
            self._end()

    def _end(self) -> None:
        if self._spool is not None:
            self._spool.close()
        self._core.abandon(read_clocks().monotonic)

    def close_at_exit(self, timeout: float) -> None:
        """The event loop is gone: nothing can be written any more."""
        self._core.stop()
        self._end()

    def stats(self) -> WriterStats:
        """As `PersistenceWriter.stats`."""
        return self._core.stats(read_clocks())

    async def __aenter__(self) -> AsyncPersistenceWriter:
        self._start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
