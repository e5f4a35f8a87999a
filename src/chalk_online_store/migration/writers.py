"""`DualWriter` and `AsyncDualWriter`: two persistence writers behind the methods of one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from chalk_online_store.arguments import optional_timeout
from chalk_online_store.drivers.steps import read_clocks
from chalk_online_store.errors import InvalidStore, RowsAbandoned, RowsPending
from chalk_online_store.migration import async_store, store
from chalk_online_store.migration.async_store import AsyncDualStore
from chalk_online_store.migration.report import Side
from chalk_online_store.migration.store import DualStore
from chalk_online_store.operations.times import ObservedAt
from chalk_online_store.schema import Namespace
from chalk_online_store.writer.async_writer import AsyncPersistenceWriter
from chalk_online_store.writer.intake import OnInvalid
from chalk_online_store.writer.settings import WriterStats
from chalk_online_store.writer.tickets import AsyncTicket, Priority, Ticket
from chalk_online_store.writer.writer import PersistenceWriter

C = TypeVar("C")
"""A class whose instances are rows."""


class DualWriter:
    """A `PersistenceWriter` for each store of a `DualStore`. Thread-safe; close it before `store`.

    `old` and `new` are open writers on `store.old` and `store.new`, with queues and spools of
    their own. Pass them `store.dead_letters("old")` and `store.dead_letters("new")`, so that
    entities of rows which cannot be written to one store are outstanding.

    Raises `InvalidStore` for writers of the wrong kind.
    """

    def __init__(self, store: DualStore, old: PersistenceWriter, new: PersistenceWriter) -> None:
        _check(store, DualStore, old, new, PersistenceWriter)
        self._store = store
        self.writers: Mapping[Side, PersistenceWriter] = {"old": old, "new": new}

    def submit(
        self,
        schema: Namespace | type[C],
        rows: Iterable[Mapping[str, Any] | C],
        observed_at: ObservedAt = None,
        *,
        priority: Priority = "live",
        on_invalid: OnInvalid = "raise",
    ) -> Ticket:
        """Hand rows over to both writers, with the same observed-at.

        Returns the ticket of the store that serves reads. If the writer of the shadow store
        refuses the rows, as a closed or a full one does, their entities are outstanding.
        Raises as `PersistenceWriter.submit` does.
        """
        options = {"priority": priority, "on_invalid": on_invalid}
        dual = self._store.dual
        ticket: Ticket = store.run(dual.submit(self.writers, schema, rows, observed_at, options))
        return ticket

    def flush(self, timeout: float | None = None) -> None:
        """Flush the writer of the store that serves reads, and then the other one.

        Raises as `PersistenceWriter.flush` does, but not for rows pending in the shadow store.
        """
        until = _deadline(timeout)
        serving, shadow = _in_order(self._store, self.writers)
        serving.flush(timeout)
        with _shadow_may_fail():
            shadow.flush(_left(until))

    def close(self, timeout: float | None = 30.0) -> None:
        """Close both writers, each within `timeout` seconds. A second call does nothing.

        Raises as `PersistenceWriter.close` does for the store that serves reads. Rows of the
        shadow store that are abandoned go to its dead letters.
        """
        optional_timeout(timeout)
        serving, shadow = _in_order(self._store, self.writers)
        try:
            serving.close(timeout)
        finally:
            with _shadow_may_fail():
                shadow.close(timeout)

    def stats(self) -> dict[Side, WriterStats]:
        """Return the statistics of both writers."""
        return {side: writer.stats() for side, writer in self.writers.items()}

    def __enter__(self) -> DualWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncDualWriter:
    """As `DualWriter`, of two `AsyncPersistenceWriter`s."""

    def __init__(
        self, store: AsyncDualStore, old: AsyncPersistenceWriter, new: AsyncPersistenceWriter
    ) -> None:
        _check(store, AsyncDualStore, old, new, AsyncPersistenceWriter)
        self._store = store
        self.writers: Mapping[Side, AsyncPersistenceWriter] = {"old": old, "new": new}

    async def submit(
        self,
        schema: Namespace | type[C],
        rows: Iterable[Mapping[str, Any] | C],
        observed_at: ObservedAt = None,
        *,
        priority: Priority = "live",
        on_invalid: OnInvalid = "raise",
    ) -> AsyncTicket:
        """As `DualWriter.submit`."""
        options = {"priority": priority, "on_invalid": on_invalid}
        dual = self._store.dual
        ticket: AsyncTicket = await async_store.run(
            dual.submit(self.writers, schema, rows, observed_at, options)
        )
        return ticket

    async def flush(self, timeout: float | None = None) -> None:
        """As `DualWriter.flush`."""
        until = _deadline(timeout)
        serving, shadow = _in_order(self._store, self.writers)
        await serving.flush(timeout)
        with _shadow_may_fail():
            await shadow.flush(_left(until))

    async def close(self, timeout: float | None = 30.0) -> None:
        """As `DualWriter.close`."""
        optional_timeout(timeout)
        serving, shadow = _in_order(self._store, self.writers)
        try:
            await serving.close(timeout)
        finally:
            with _shadow_may_fail():
                await shadow.close(timeout)

    def stats(self) -> dict[Side, WriterStats]:
        """As `DualWriter.stats`."""
        return {side: writer.stats() for side, writer in self.writers.items()}

    async def __aenter__(self) -> AsyncDualWriter:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


_shadow_may_fail = partial(suppress, RowsPending, RowsAbandoned)
"""Rows of the shadow store are pending still, or dead letters, which makes them outstanding."""

W = TypeVar("W")
"""A persistence writer."""


def _check(store: Any, kind: type, old: Any, new: Any, writer: type) -> None:
    for name, value, expected in (
        ("store", store, kind),
        ("old", old, writer),
        ("new", new, writer),
    ):
        if not isinstance(value, expected):
            raise InvalidStore(
                f"{name} must be an open {expected.__name__}; got {type(value).__name__}."
            )


def _in_order(store: DualStore | AsyncDualStore, writers: Mapping[Side, W]) -> tuple[W, W]:
    """Return the writer of the store that serves reads, and the other one."""
    if store.read_from == "old":
        return writers["old"], writers["new"]
    return writers["new"], writers["old"]


def _deadline(timeout: float | None) -> float | None:
    timeout = optional_timeout(timeout)
    return None if timeout is None else read_clocks().monotonic + timeout


def _left(until: float | None) -> float | None:
    return None if until is None else max(until - read_clocks().monotonic, 0.0)
