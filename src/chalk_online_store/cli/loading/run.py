"""The load itself: batches of a file are written one after the other, and progress is kept."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple

from chalk_online_store.cli.checkpoint import save_checkpoint
from chalk_online_store.cli.loading.progress import Progress
from chalk_online_store.cli.loading.source import ROWS_PER_BATCH, Rows, Source
from chalk_online_store.codec.columns import Stored
from chalk_online_store.logs import event
from chalk_online_store.report import Report
from chalk_online_store.schema import seconds
from chalk_online_store.store import OnlineStore
from chalk_online_store.writer.bulk import BulkWriter
from chalk_online_store.writer.dead_letters import DeadLetter, DeadLetterFile
from chalk_online_store.writer.logs import LOG
from chalk_online_store.writer.settings import Writing

SAVE_EVERY_SECONDS = 1.0
"""Time between two states of the progress on disk."""

_MIN_ROWS_PER_BATCH = 25
"""One BatchWriteItem. A slow load has small batches, so that an interruption repeats few rows."""

_REPLAY_SECONDS = seconds(Writing().replay_window)
"""What a region acknowledged in this time before it was lost may not be in the other regions."""

Tell = Callable[[Progress, Report], None]


@dataclass(frozen=True, slots=True)
class Order:
    """What to load, and how."""

    url: str
    source: Source
    ordering: Literal["event", "arrival"]
    wcu_per_second: float | None
    dead_letters: Path
    progress: Path


def load(order: Order, progress: Progress, tell: Tell) -> Report:
    """Write the rows of a file that are not written yet; call `tell` after each batch.

    However it ends, the progress is on disk then. Raises what the store and the source raise.
    """
    with OnlineStore.open(order.url, [order.source.namespace]) as store:
        # A load waits for an engine that stops. An engine that is not there from the start is
        # an error, which this read raises.
        store.read(order.source.namespace, [])
        loader = _Loader(order, progress, store)
        most = _rows_per_batch(order.wcu_per_second)
        try:
            while True:
                for rows in order.source.read(progress.rows, most):
                    loader.write(rows)
                    tell(progress, loader.report)
                    if loader.go_back_after_lost_region():
                        break
                else:
                    return loader.report
        finally:
            if progress.rows:
                save_checkpoint(order.progress, progress)


def _rows_per_batch(wcu_per_second: float | None) -> int:
    """Return the rows of a batch: what is written in about a second, if a rate is given."""
    if wcu_per_second is None:
        return ROWS_PER_BATCH
    return int(max(_MIN_ROWS_PER_BATCH, min(ROWS_PER_BATCH, wcu_per_second)))


def _moment_at(rows: Rows, position: int, default: datetime) -> datetime:
    """Return the observed-at of a row."""
    times = rows.observed_at
    if times is None:
        return default
    found: datetime = times.values()[position] if isinstance(times, Stored) else times[position]
    return found


class _Acknowledged(NamedTuple):
    """The progress before a batch, and the region that acknowledged it at a monotonic time."""

    at: float
    region: str
    rows: int
    dead: int


class _Loader:
    """Writes batches, and counts their rows once all of them are written or dead letters.

    If the region that is written to is lost, the last batches may not be in the other regions.
    They are read from the file and written again, as the persistence writer replays its rows.
    """

    def __init__(self, order: Order, progress: Progress, store: OnlineStore) -> None:
        self._order = order
        self._progress = progress
        self._namespace = order.source.namespace
        self._driver = store.driver
        self._router = store.core.router
        self._writer = BulkWriter(store.core, self._namespace, order.ordering, order.wcu_per_second)
        self._letters = DeadLetterFile(order.dead_letters)
        self._acknowledged: deque[_Acknowledged] = deque()
        self._region = "" if self._router is None else self._router.written
        self._furthest = 0
        self._saved_at = time.monotonic()

    @property
    def report(self) -> Report:
        return self._writer.report

    def write(self, rows: Rows) -> None:
        """Write a batch. An interrupted batch is written again by the next load."""
        progress = self._progress
        started = progress.moment
        letters = [
            DeadLetter(self._namespace.name, row, started, error) for row, error in rows.refused
        ]
        is_replay = progress.rows < self._furthest
        if len(rows.rows):
            observed_at = started if rows.observed_at is None else rows.observed_at
            writing = self._writer.write(rows.rows, observed_at, is_replay=is_replay)
            refused = self._driver.run(writing)
            for position, error in sorted(refused.items()):
                row, at = rows.rows[position], _moment_at(rows, position, started)
                letters.append(DeadLetter(self._namespace.name, row, at, error))
        if letters and not is_replay:
            self._letters(letters)
        now = time.monotonic()
        if self._router is not None:
            before = _Acknowledged(now, self._region, progress.rows, progress.dead)
            self._acknowledged.append(before)
            while self._acknowledged[0].at < now - _REPLAY_SECONDS:
                self._acknowledged.popleft()
        progress.rows += rows.total
        progress.dead += len(letters)
        self._furthest = max(self._furthest, progress.rows)
        if now - self._saved_at > SAVE_EVERY_SECONDS:
            save_checkpoint(self._order.progress, progress)
            self._saved_at = now

    def go_back_after_lost_region(self) -> bool:
        """Set the progress back to the first batch that may be lost; return False if none is."""
        router = self._router
        if router is None or router.written == self._region:
            return False
        left, self._region = self._region, router.written
        if not router.may_have_lost_writes(left):
            return False
        first = next((each for each in self._acknowledged if each.region == left), None)
        self._acknowledged.clear()
        if first is None:
            return False
        LOG.warning(
            "%d rows that %s has acknowledged are written to %s again.",
            self._progress.rows - first.rows, left, self._region,
            extra=event("load.replay", lost=[left], region=self._region),
        )  # fmt: skip
        self._progress.rows, self._progress.dead = first.rows, first.dead
        return True
