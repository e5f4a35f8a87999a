"""The account of a writer: accepted = written + dead + pending, at every moment.

Problem. An exception may come at any line: a `MemoryError`, a thread that cannot start, one that
is thrown in from outside. A row that has left one queue and has not reached the next would be lost.

Approach. `_open` has every submission that was accepted and has a row that is neither written nor
dead, and the state of each of its rows. It is the only truth: queues, batches and counters are
derived from it, and after any exception they are derived again (`recount`). So nothing depends on
a queue being put right by the code that failed.

Invariants.
- A row's state is set after what it says has happened: after its dead letter was delivered, after
  the engine has acknowledged it. A fault in between repeats that; it never skips it.
- A state is set once. A row that is encoded again after a fault may end twice; it counts once.
- A submission leaves `_open` after the totals in `_closed` include it. The totals name it, so that
  a fault between these two steps shows.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from chalk_online_store.errors import OnlineStoreError
from chalk_online_store.logs import event
from chalk_online_store.writer.pending import Entry
from chalk_online_store.writer.records import Record, contents, key_text, rows_of
from chalk_online_store.writer.settings import LOG
from chalk_online_store.writer.signal import OwnerLock, Signal
from chalk_online_store.writer.tickets import (
    DEAD,
    ENDED,
    KEPT,
    WRITTEN,
    EncodedBatch,
    Inbox,
    PendingRow,
    ReplayBuffer,
    Submission,
    Ticket,
    Wakeable,
)

# --- Dead letters: rows that can never be written, with the reason why ---------------------


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A row that will never be written, and why.

    A row that lay in the spool when the process began is as its attributes say: its key is a
    text, and of what kind its values are is lost where DynamoDB's types do not say so.
    """

    namespace: str
    row: Mapping[str, Any]
    observed_at: datetime
    error: OnlineStoreError


DeadLetters: TypeAlias = Callable[[Sequence[DeadLetter]], None]
"""Takes letters, in the writer's thread; best soon. What it raises is logged."""


def moment(microseconds: int) -> datetime:
    """UTC microseconds as a datetime."""
    return _EPOCH + timedelta(microseconds=microseconds)


class DeadLetterFile:
    """A sink that appends each letter to a file, as a line of JSON.

    Its members are `namespace`, `observed_at` (ISO 8601), `error` (the class), `message`, and
    `row`. Values that JSON does not have are shown as text, bytes in base64. The file holds
    values: only its owner may read it. On disk before a letter counts as dead.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._lock = OwnerLock()

    def __call__(self, letters: Sequence[DeadLetter]) -> None:
        """Append letters; raises `OSError`."""
        lines = "".join(letter_line(letter) for letter in letters)
        with self._lock:
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())


def letter_line(letter: DeadLetter) -> str:
    """Return a letter as a line of JSON."""
    found = {
        "namespace": letter.namespace,
        "observed_at": letter.observed_at.isoformat(),
        "error": type(letter.error).__name__,
        "message": str(letter.error),
        "row": {str(name): _plain(value) for name, value in letter.row.items()},
    }
    return json.dumps(found, default=_text) + "\n"


def _plain(value: Any) -> Any:
    """As JSON has it: keys are texts, and there are no lone surrogates in UTF-8."""
    match value:
        case dict():
            return {str(key): _plain(each) for key, each in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_plain(each) for each in value]
        case np.ndarray():
            return value.tolist()
        case bytes():
            return base64.b64encode(value).decode()
    return value


def _text(value: Any) -> str:
    return str(value)


_ROW_BYTES = 1000.0
"""What a row from the spool takes in memory, about."""


@dataclass(slots=True)
class Counts:
    """What a writer has done so far. Changed under the inbox's lock, or in the loop alone."""

    accepted: int = 0
    written: int = 0
    dead: int = 0
    recovered: int = 0
    replayed: int = 0
    superseded: int = 0
    batches: int = 0
    changes: int = 0
    requests: int = 0
    retries: int = 0
    throttles: int = 0
    wcu: float = 0.0
    failed_letters: int = 0


class Ledger:
    """Follows each row from `submit` to its end, and each parcel of them to where it is not needed.

    `room` rings when rows have ended.
    """

    def __init__(self, inbox: Inbox, window: ReplayBuffer | None, dead_letters: DeadLetters | None):
        self.inbox = inbox
        self.counts = Counts()
        self.room = Signal()
        self._window = window
        self._sink = dead_letters
        self._open: dict[int, Submission] = {}
        self._closed = (0, 0, -1)
        """The written and the dead rows of all submissions that are over, and the last of these."""
        self._numbers = itertools.count()
        self._recovered: dict[int, Submission] = {}
        self._records: set[int] = set()
        self._stale: set[int] = set()
        self._stale_until = -1
        self._parcels_gone: list[int] = []

    # --- accepting: under the inbox's lock, in any thread ---

    def accept(self, submission: Submission) -> None:
        """Rows are taken in."""
        submission.number = next(self._numbers)
        self._open[submission.number] = submission
        self.counts.accepted += submission.ticket.rows
        self.inbox.count(submission.ticket)

    def unfinished(self) -> list[Submission]:
        """The submissions that have pending rows, in the order in which they were accepted."""
        with self.inbox.lock:
            return list(self._open.values())

    def recover(
        self, record: Record, record_id: int, now: float, by: Wakeable
    ) -> dict[int, PendingRow]:
        """Take in the rows of a record of an earlier process: the pending ones, by their position.

        They are taken in once, however often this is called.
        """
        times = {made.row: made.observed_at for made in record.changes}
        with self.inbox.lock:
            submission = self._recovered.get(record_id)
            if submission is None:
                submission = self._take_in(record.namespace, times, record_id, now, by)
            pending = submission.pending()
        parcel = EncodedBatch(len(pending))
        parcel.id = record_id
        rows = list(times)
        return {rows[position]: PendingRow(submission, position, parcel) for position in pending}

    def _take_in(
        self, namespace: str, times: Mapping[int, int], record_id: int, now: float, by: Wakeable
    ) -> Submission:
        rows = len(times)
        ticket = Ticket(rows, _ROW_BYTES, now, by)
        submission = Submission(ticket, namespace, [None] * rows, list(times.values()), "live")
        submission.record_id = record_id
        submission.states[:] = bytes([KEPT]) * rows
        ticket.kept(rows)
        self._recovered[record_id] = submission
        self.accept(submission)
        self.counts.recovered += rows
        return submission

    def dead_letter(
        self, record: Record, units: Mapping[int, PendingRow], error: OnlineStoreError, now: float
    ) -> None:
        """The rows of a record of an earlier process can never be written."""
        rows = rows_of(record)
        for position, unit in units.items():
            unit.row, unit.error = rows[position], error
        self.end(list(units.values()), now)

    # --- ending: in the loop ---

    def done(self, entries: Iterable[Entry], regions: Iterable[str], now: float) -> None:
        """Entries are in the table, acknowledged by these regions."""
        ended: list[PendingRow] = []
        for entry in entries:
            for unit in entry.units:
                unit.left -= 1
                if not unit.left:
                    ended.append(unit)
                for region in regions:
                    unit.parcel.regions[region] = now
        self.end(ended, now)

    def failed(self, entry: Entry, error: OnlineStoreError, now: float) -> None:
        """An entry can never be written."""
        ended: list[PendingRow] = []
        for unit in entry.units:
            unit.left -= 1
            unit.error = unit.error or error
            if unit.row is None:
                unit.row = _row_of(entry)
            if not unit.left:
                ended.append(unit)
        self.end(ended, now)

    def end(self, units: Sequence[PendingRow], now: float) -> None:
        """Rows are written, or dead."""
        self._deliver([_letter(unit) for unit in units if unit.error and not unit.has_ended])
        counts: dict[Submission, list[int]] = {}
        with self.inbox.lock:
            for unit in units:
                submission, position = unit.submission, unit.position
                state = submission.states[position]
                if state & ENDED:
                    continue
                ends = counts.get(submission)
                if ends is None:
                    ends = counts[submission] = [0, 0, 0]
                if unit.error is None:
                    submission.states[position] = KEPT | WRITTEN
                    ends[0] += 1
                else:
                    submission.ticket.fail(position, unit.error)
                    submission.states[position] = KEPT | DEAD
                    ends[1] += 1
                ends[2] += not state  # Not in the spool: it is safe only now.
            for submission, (written, died, kept) in counts.items():
                self.inbox.release(written + died, submission.ticket.row_bytes)
                self._count(submission, written, died, kept)
        if units:
            self.room.notify()
        self._finish_parcels(units, now)

    def refuse(self, submissions: Sequence[Submission], error: OnlineStoreError) -> None:
        """Rows can never be written."""
        for submission in submissions:
            self._refuse(submission, submission.pending(), error, are_counted=True)
        self.room.notify()

    def shed(self, submissions: Sequence[Submission], error: OnlineStoreError) -> None:
        """Rows that the inbox has released are given up; in any thread."""
        for submission in submissions:
            self._refuse(submission, submission.pending(), error, are_counted=False)

    def abandon(self, error: OnlineStoreError, *, is_spooled: bool) -> int:
        """Give up what is pending and not in the spool; the number of these rows."""
        rows = 0
        for submission in self.unfinished():
            lost = [p for p in submission.pending() if not (is_spooled and submission.states[p])]
            self._refuse(submission, lost, error, are_counted=True)
            rows += len(lost)
        return rows

    def _refuse(
        self,
        submission: Submission,
        positions: Sequence[int],
        error: OnlineStoreError,
        *,
        are_counted: bool,
    ) -> None:
        """Rows of a submission are dead; `are_counted` says that the inbox still counts them."""
        ticket, states = submission.ticket, submission.states
        letters = [
            DeadLetter(
                submission.namespace,
                submission.rows[position] or {},
                moment(submission.times[position]),
                error,
            )
            for position in positions
        ]
        self._deliver(letters)
        with self.inbox.lock:
            # `close` may give up rows while a request that it did not wait for is acknowledged.
            positions = [each for each in positions if not states[each] & ENDED]
            kept = 0
            for position in positions:
                ticket.fail(position, error)
                kept += not states[position]
                states[position] = KEPT | DEAD
            if are_counted:
                self.inbox.release(len(positions), ticket.row_bytes)
            self._count(submission, 0, len(positions), kept)

    def _count(self, submission: Submission, written: int, dead: int, kept: int) -> None:
        self.counts.written += written
        self.counts.dead += dead
        ticket = submission.ticket
        ticket.kept(kept)
        ticket.ended(written, dead)
        if not ticket.pending:
            self._close(submission)

    def _close(self, submission: Submission) -> None:
        """A submission is over: see the invariants above."""
        written, dead, last = self._closed
        self._open.pop(last, None)
        ticket, number = submission.ticket, submission.number
        self._closed = (written + ticket.written, dead + ticket.dead, number)
        self._open.pop(number, None)
        if submission.record_id is not None:
            self._recovered.pop(submission.record_id, None)

    # --- after a fault ---

    def recount(self) -> list[Submission]:
        """Derive all counters from the states of rows; the submissions that have pending rows.

        Called under the inbox's lock, when nothing of this writer is under way.
        """
        self._open.pop(self._closed[2], None)
        for submission in list(self._open.values()):
            submission.ticket.recount(submission.states)
            if not submission.ticket.pending:
                self._close(submission)
        tickets = [submission.ticket for submission in self._open.values()]
        inbox, counts = self.inbox, self.counts
        inbox.rows = sum(ticket.pending for ticket in tickets)
        inbox.bytes = sum(ticket.pending * ticket.row_bytes for ticket in tickets)
        counts.written = self._closed[0] + sum(ticket.written for ticket in tickets)
        counts.dead = self._closed[1] + sum(ticket.dead for ticket in tickets)
        counts.accepted = counts.written + counts.dead + inbox.rows
        return list(self._open.values())

    def keep_until_written(self, submissions: Sequence[Submission]) -> None:
        """After a fault: records in the spool are kept until all these submissions are over.

        Which rows a record has is not known any more, as they are encoded again.
        """
        self._stale |= self._records
        self._records = set()
        if submissions:
            self._stale_until = submissions[-1].number

    def release_stale(self) -> None:
        """Let records go that were kept since a fault, if they are not needed any more."""
        if self._stale:
            with self.inbox.lock:
                first = next(iter(self._open), self._stale_until + 1)
            if first > self._stale_until:
                self._parcels_gone += self._stale
                self._stale = set()

    # --- dead letters ---

    def _deliver(self, letters: Sequence[DeadLetter]) -> None:
        if not letters:
            return
        if self._sink is None:
            found = Counter((letter.namespace, type(letter.error).__name__) for letter in letters)
            causes = {type(letter.error).__name__: letter.error for letter in letters}
            for (namespace, kind), rows in found.items():
                said = event(
                    "writer.rows_dropped",
                    namespace=namespace,
                    rows=rows,
                    reason=kind,
                    error=causes[kind],
                )
                LOG.error(
                    "%d rows of %s are dropped: %s.",
                    rows,
                    namespace,
                    kind,
                    extra=said,
                )
            return
        try:
            self._sink(letters)
        except BaseException as error:  # noqa: BLE001 - a sink that exits must not end the writer.
            self.counts.failed_letters += len(letters)
            kind = type(error).__name__
            said = event("writer.dead_letters_failed", rows=len(letters), error=error)
            LOG.error("%d dead letters could not be delivered: %s.", len(letters), kind, extra=said)

    # --- parcels ---

    def _finish_parcels(self, units: Sequence[PendingRow], now: float) -> None:
        for unit in units:
            parcel = unit.parcel
            parcel.left -= 1
            if parcel.left:
                continue
            if self._window is not None and parcel.regions:
                self._window.add(parcel, now)
                self._records.discard(parcel.id or 0)
            else:
                self.release([parcel])

    def release(self, parcels: Iterable[EncodedBatch]) -> None:
        """Parcels are not needed any more."""
        for parcel in parcels:
            if parcel.id is not None:
                self._parcels_gone.append(parcel.id)
                self._records.discard(parcel.id)

    @property
    def gone(self) -> int:
        """How many records of the spool are not needed any more."""
        return len(self._parcels_gone)

    def records_gone(self) -> list[int]:
        """Those records, to be removed."""
        return list(self._parcels_gone)

    def removed(self, records: Sequence[int]) -> None:
        """These records are not in the spool any more."""
        if records:
            removed = set(records)
            self._parcels_gone = [record for record in self._parcels_gone if record not in removed]

    def kept(self, parcels: Iterable[EncodedBatch], chunks: Iterable[Sequence[PendingRow]]) -> None:
        """These rows are on disk now, as these parcels."""
        self._records.update(parcel.id for parcel in parcels if parcel.id is not None)
        counts: Counter[Ticket] = Counter()
        with self.inbox.lock:
            for units in chunks:
                for unit in units:
                    states = unit.submission.states
                    if not states[unit.position]:
                        states[unit.position] = KEPT
                        counts[unit.submission.ticket] += 1
            for ticket, rows in counts.items():
                ticket.kept(rows)


def _letter(unit: PendingRow) -> DeadLetter:
    assert unit.error is not None
    submission = unit.submission
    observed_at = moment(submission.times[unit.position])
    return DeadLetter(submission.namespace, unit.row or {}, observed_at, unit.error)


def _row_of(entry: Entry) -> dict[str, object]:
    """What is known of a row that came from the spool."""
    codec, change = entry.codec, entry.change
    by_id = {column.id: column.feature.name for g in codec.groups.values() for column in g.columns}
    names = [by_id[name] for name in change.form.kept + change.form.gone]
    return {codec.namespace.key_name: key_text(change.key.pk), **contents(change, names)}
