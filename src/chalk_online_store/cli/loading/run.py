"""The load itself: rows are handed to a persistence writer, and followed to their end."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from chalk_online_store.cli.kept import keep
from chalk_online_store.cli.loading.progress import Progress
from chalk_online_store.cli.loading.source import Rows, Source
from chalk_online_store.errors import RowsAbandoned, RowsPending, WriteFailed
from chalk_online_store.store import OnlineStore
from chalk_online_store.writer.dead_letters import DeadLetter, DeadLetterFile
from chalk_online_store.writer.settings import Writing
from chalk_online_store.writer.stats import WriterStats
from chalk_online_store.writer.tickets import Ticket
from chalk_online_store.writer.writer import PersistenceWriter

KEEP_EVERY = 1.0
"""Seconds between two states of the progress on disk."""

_MOST_ROWS = 50_000
_AFTER_AN_INTERRUPTION = 2.0
"""Seconds for what is under way when a load is interrupted."""

Tell = Callable[[Progress, WriterStats], None]


@dataclass(frozen=True, slots=True)
class Order:
    """What to load, and how."""

    url: str
    source: Source
    ordering: Literal["event", "arrival"]
    wcu_per_second: float | None
    dead_letters: Path
    progress: Path


def load(order: Order, progress: Progress, tell: Tell) -> WriterStats:
    """Write what is left of a file; `tell` hears how far it is.

    Whatever ends it, the progress is on disk then. Raises what writers and sources do.
    """
    settings = Writing(
        ordering=order.ordering,
        wcu_per_second=order.wcu_per_second,
        max_rows=_MOST_ROWS,
        block_timeout="1d",
    )
    following = _Following(order, progress, tell)
    with OnlineStore.open(order.url, [order.source.namespace]) as store:
        store.read(order.source.namespace, [])  # A writer would await an engine that is not there.
        following.writer = PersistenceWriter(store, settings, dead_letters=following.bury)
        try:
            for rows in order.source.read(progress.rows):
                following.submit(rows)
            following.wait_for_all()
        finally:
            following.end()
        return following.writer.stats()


class _Following:
    """The submissions that are under way, in their order."""

    writer: PersistenceWriter

    def __init__(self, order: Order, progress: Progress, tell: Tell) -> None:
        self._order = order
        self._progress = progress
        self._tell = tell
        self._letters = DeadLetterFile(order.dead_letters)
        self._ended = False
        self._tickets: deque[tuple[Ticket, list[DeadLetter]]] = deque()
        self._kept_at = time.monotonic()

    def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Keep dead letters; what is left when a load is interrupted is none."""
        if not self._ended:
            self._letters(letters)

    def end(self) -> None:
        """Keep how far it has come; what is not written by then is for the next time.

        A second Ctrl-C ends the wait for rows in flight, and no more.
        """
        try:
            with suppress(RowsPending):
                self.writer.flush(_AFTER_AN_INTERRUPTION)
        finally:
            self.look()
            if self._progress.rows:
                self.keep()
            self._ended = True
            with suppress(RowsAbandoned):
                self.writer.close(0)

    def submit(self, rows: Rows) -> None:
        """Hand rows over, once there is room."""
        observed_at = self._progress.moment if rows.observed_at is None else rows.observed_at
        namespace = self._order.source.namespace
        refused = [
            DeadLetter(namespace.name, row, self._progress.moment, error)
            for row, error in rows.refused
        ]
        ticket = self.writer.submit(
            namespace, rows.rows, observed_at, priority="backfill", on_invalid="dead_letter"
        )
        self._tickets.append((ticket, refused))
        self.look()

    def wait_for_all(self) -> None:
        """Wait until the last row has ended."""
        while self._tickets:
            with suppress(RowsPending, WriteFailed):
                self._tickets[0][0].wait(timeout=0.2)
            self.look()

    def look(self) -> None:
        """See how far it is."""
        progress = self._progress
        while self._tickets and self._tickets[0][0].done:
            ticket, refused = self._tickets.popleft()
            if refused:  # Not before its turn: a load that goes on later refuses them again.
                self._letters(refused)
            progress.rows += ticket.rows + len(refused)
            progress.dead += ticket.dead + len(refused)
        if progress.rows and time.monotonic() - self._kept_at > KEEP_EVERY:
            self.keep()
        self._tell(progress, self.writer.stats())

    def keep(self) -> None:
        """Put the progress on disk."""
        keep(self._order.progress, self._progress)
        self._kept_at = time.monotonic()
