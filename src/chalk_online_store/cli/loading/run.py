"""The load itself: batches of a file are written one after the other, and progress is kept."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from chalk_online_store.cli.checkpoint import load_checkpoint, save_checkpoint
from chalk_online_store.cli.loading.source import ROWS_PER_BATCH, Rows, Source
from chalk_online_store.codec.changes import render_fresh
from chalk_online_store.codec.columns import Stored
from chalk_online_store.codec.namespaces import NamespaceCodec
from chalk_online_store.codec.sizes import item_size
from chalk_online_store.errors import InvalidValue
from chalk_online_store.logs import event
from chalk_online_store.operations.write import row_by_row
from chalk_online_store.planning.items import draft_codec
from chalk_online_store.planning.units import write_units
from chalk_online_store.report import Report
from chalk_online_store.schema import seconds
from chalk_online_store.store import OnlineStore
from chalk_online_store.writer.bulk import BulkWriter
from chalk_online_store.writer.ledger import DeadLetter, DeadLetterFile
from chalk_online_store.writer.settings import LOG, Writing

# --- How far a load has come, kept beside its file, so that it goes on after an interrupt ---


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Progress(msgspec.Struct):
    """The first `rows` rows of a file are written, or dead, in a table.

    `observed_at` (UTC us) is that of all rows, unless a column has it: a load that goes on later
    keeps it.
    """

    source: dict[str, Any]
    target: str
    observed_at: int
    rows: int = 0
    dead: int = 0

    @property
    def moment(self) -> datetime:
        """`observed_at` as a datetime."""
        return _EPOCH + timedelta(microseconds=self.observed_at)


def take_up(path: Path, source: dict[str, Any], target: str, now: datetime) -> Progress:
    """What an interrupted load has left, or a new beginning.

    Raises `InvalidValue` where the file or the table was another one.
    """
    found = load_checkpoint(path, Progress, "load")
    if found is None:
        return Progress(source, target, (now - _EPOCH) // timedelta(microseconds=1))
    if (found.source, found.target) != (source, target):
        what = "table" if found.source == source else "file"
        raise InvalidValue(
            f"{path} is the progress of another load: the {what} is not the same. Remove it to "
            "begin anew, or name another one with --progress."
        )
    return found


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
                    loader.finish()
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

    def finish(self) -> None:
        """Wait until the rate allows for all that was written."""
        self._driver.run(self._writer.finish())

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


# --- What a load takes, from a sample of its rows, before anything is written --------------


_GB = 1e9
_SAMPLE = 500
_NOW = 1_800_000_123_456_789
"""UTC microseconds with 16 digits: DynamoDB does not count trailing zeros."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a load takes; WCU and bytes of all its items, by the mean of `sample` rows.

    An update takes what the item was before, where that was larger: nothing is known of that.
    """

    rows: int
    sample: int
    items: float
    wcu: float
    bytes: float

    def price_of_writes(self, a_million: float) -> float:
        """Dollars, on demand; `a_million` is the price of so many write request units."""
        return self.wcu / 1e6 * a_million

    def price_of_import(self, a_gigabyte: float) -> float:
        """Dollars for an import from S3; `a_gigabyte` is the price of one, uncompressed."""
        return self.bytes / _GB * a_gigabyte


def estimate(source: Source) -> Estimate:
    """What loading a file takes."""
    sample = next(iter(source.read(rows_per_batch=_SAMPLE)), None)
    rows: Sequence[Mapping[str, Any]] = sample.rows if sample else []
    sizes = _sizes(draft_codec(source.namespace), rows)
    count = max(1, len(rows))
    return Estimate(
        source.count,
        len(rows),
        len(sizes) / count * source.count,
        sum(map(write_units, sizes)) / count * source.count,
        sum(sizes) / count * source.count,
    )


def _sizes(codec: NamespaceCodec, rows: Sequence[Mapping[str, Any]]) -> list[int]:
    planned, _ = row_by_row(codec, rows, [_NOW] * len(rows))
    decode = msgspec.json.decode
    return [item_size(decode(render_fresh(codec.layout, change))) for _, change in planned]
