"""Ours, for streams of rows: the persistence writers, and what one would do without them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.clients.base import Call
from benchmarks.clients.ours import AsyncStore, Store, namespace
from benchmarks.data import OBSERVED_AT, Dataset, Row
from chalk_online_store import AsyncPersistenceWriter, PersistenceWriter, Writing

AT_ONCE = 100
"""Rows that are handed over together."""


def handfuls(rows: list[Row], size: int) -> list[list[Row]]:
    """Rows, so many at a time."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]


class Arrival(Store):
    """`PersistenceWriter` with `ordering="arrival"`: it does what `batch_writer` does."""

    ordering: ClassVar[Any] = "arrival"
    spooled = False

    def __init__(self, url: str, prefix: str) -> None:
        super().__init__(url, prefix)
        self._directory = tempfile.TemporaryDirectory()
        self._writers: list[PersistenceWriter] = []

    def streamer(self, dataset: Dataset, rows: list[Row]) -> Call:
        """As `Client.streamer`."""
        spool = Path(self._directory.name) / f"{len(self._writers)}.spool"
        writer = PersistenceWriter(
            self.store(dataset),
            Writing(ordering=self.ordering),
            spool=spool if self.spooled else None,
        )
        self._writers.append(writer)
        schema = namespace(dataset)

        def stream() -> None:
            for some in handfuls(rows, AT_ONCE):
                writer.submit(schema, some, OBSERVED_AT)
            writer.flush(60)

        return stream

    def close(self) -> None:
        """As `Client.close`."""
        for writer in self._writers:
            writer.close()
        super().close()
        self._directory.cleanup()


class Event(Arrival):
    """`PersistenceWriter`: the newest observed-at wins, by a conditional UpdateItem each."""

    ordering = "event"


class Durable(Arrival):
    """Through a spool on disk."""

    spooled = True


class DurableEvent(Event):
    """Both."""

    spooled = True


class ByHand(Store):
    """`OnlineStore.write` of 25 rows at a time, one after the other."""

    def streamer(self, dataset: Dataset, rows: list[Row]) -> Call:
        """As `Client.streamer`."""
        writes = [self.writer(dataset, some) for some in handfuls(rows, 25)]

        def stream() -> None:
            for write in writes:
                write()

        return stream


class AsyncArrival(AsyncStore):
    """`AsyncPersistenceWriter` with `ordering="arrival"`."""

    _writers: list[AsyncPersistenceWriter]

    def streamer(self, dataset: Dataset, rows: list[Row]) -> Call:
        """As `Client.streamer`."""
        writer = AsyncPersistenceWriter(self.store(dataset), Writing(ordering="arrival"))
        self._writers = [*getattr(self, "_writers", []), writer]
        schema = namespace(dataset)

        async def stream() -> None:
            for some in handfuls(rows, AT_ONCE):
                await writer.submit(schema, some, OBSERVED_AT)
            await writer.flush(60)

        return stream

    async def aclose(self) -> None:
        """As `AsyncClient.aclose`."""
        for writer in self._writers:
            await writer.close()
        await super().aclose()
