"""The account of a writer: accepted = written + dead + pending, at every moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from chalk_online_store.errors import OnlineStoreError
from chalk_online_store.logs import event
from chalk_online_store.writer.bell import Bell
from chalk_online_store.writer.dead_letters import DeadLetter, DeadLetters, moment
from chalk_online_store.writer.inbox import Inbox
from chalk_online_store.writer.logs import LOG
from chalk_online_store.writer.pending import Entry
from chalk_online_store.writer.records import Record, contents, key_text, rows_of
from chalk_online_store.writer.tickets import Progress, Submission, Ticket, Unit
from chalk_online_store.writer.window import Parcel, Window

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

    def __init__(self, inbox: Inbox, window: Window | None, dead_letters: DeadLetters | None):
        self.inbox = inbox
        self.counts = Counts()
        self.room = Bell()
        self._window = window
        self._sink = dead_letters
        self._epochs: list[Progress] = [Progress(0)]
        self._parcels_gone: list[int] = []

    # --- accepting: under the inbox's lock, in any thread ---

    def accept(self, ticket: Ticket) -> None:
        """Rows are taken in."""
        self.counts.accepted += ticket.rows
        ticket.epoch = self._epochs[-1]
        ticket.epoch.left += ticket.rows

    def so_far(self) -> list[Progress]:
        """The progress of all that was accepted by now."""
        with self.inbox.lock:
            self._epochs = [epoch for epoch in self._epochs if epoch.left]
            found = list(self._epochs)
            self._epochs.append(Progress(0))
        return found

    def recover(self, record: Record, record_id: int, now: float) -> dict[int, Unit]:
        """Take in the rows of a record of an earlier process, by their position in it."""
        times = {made.row: made.observed_at for made in record.changes}
        parcel = Parcel(len(times))
        parcel.id = record_id
        ticket = Ticket(len(times), _ROW_BYTES, now, self.inbox.lock, Bell())
        with self.inbox.lock:
            self.inbox.count(ticket)
            self.accept(ticket)
            ticket.kept(len(times))
        self.counts.recovered += len(times)
        name = record.namespace
        return {row: Unit(ticket, name, None, time, parcel) for row, time in times.items()}

    def bury(self, record: Record, record_id: int, error: OnlineStoreError, now: float) -> None:
        """The rows of a record of an earlier process can never be written."""
        units = self.recover(record, record_id, now)
        rows = rows_of(record)
        for position, unit in units.items():
            unit.row, unit.error = rows[position], error
        self.end(list(units.values()), now)

    # --- ending: in the loop ---

    def done(self, entries: Iterable[Entry], regions: Iterable[str], now: float) -> None:
        """Entries are in the table, acknowledged by these regions."""
        ended: list[Unit] = []
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
        ended: list[Unit] = []
        for unit in entry.units:
            unit.left -= 1
            unit.error = unit.error or error
            if unit.row is None:
                unit.row = _row_of(entry)
            if not unit.left:
                ended.append(unit)
        self.end(ended, now)

    def end(self, units: Sequence[Unit], now: float) -> None:
        """Rows are written, or dead."""
        letters = [_letter(unit) for unit in units if unit.error is not None]
        self._deliver(letters)
        by_ticket: dict[Ticket, list[int]] = {}
        for unit in units:
            ends = by_ticket.setdefault(unit.ticket, [0, 0, 0])
            ends[unit.error is not None] += 1
            ends[2] += unit.parcel.id is None  # Not in the spool: it is safe only now.
        with self.inbox.lock:
            for ticket, (written, dead, kept) in by_ticket.items():
                self.inbox.release(written + dead, ticket.row_bytes)
                self._count(ticket, written, dead, kept)
        if units:
            self.room.ring()
        self._finish_parcels(units, now)

    def refuse(self, submissions: Sequence[Submission], error: OnlineStoreError) -> None:
        """Rows can never be encoded."""
        self.shed(submissions, error)
        with self.inbox.lock:
            for submission in submissions:
                self.inbox.release(len(submission.rows), submission.ticket.row_bytes)
        self.room.ring()

    def shed(self, submissions: Sequence[Submission], error: OnlineStoreError) -> None:
        """Rows that the inbox has let go of are given up; in any thread."""
        for submission in submissions:
            pairs = zip(submission.rows, submission.times, strict=True)
            name = submission.namespace.name
            self._deliver([DeadLetter(name, row, moment(time), error) for row, time in pairs])
            rows = len(submission.rows)
            with self.inbox.lock:
                self._count(submission.ticket, 0, rows, rows)

    def _count(self, ticket: Ticket, written: int, dead: int, kept: int) -> None:
        self.counts.written += written
        self.counts.dead += dead
        ticket.epoch.advance(written + dead)
        ticket.kept(kept)
        ticket.ended(written, dead)

    def _deliver(self, letters: Sequence[DeadLetter]) -> None:
        if not letters:
            return
        if self._sink is None:
            found = Counter((letter.namespace, type(letter.error).__name__) for letter in letters)
            for (namespace, kind), rows in found.items():
                LOG.error(
                    "%d rows of %s are dropped: %s.",
                    rows,
                    namespace,
                    kind,
                    extra=event("writer.rows_dropped", namespace=namespace, rows=rows, reason=kind),
                )
            return
        try:
            self._sink(letters)
        except Exception as error:  # noqa: BLE001 - whatever a user's sink does, rows go on.
            self.counts.failed_letters += len(letters)
            kind = type(error).__name__
            said = event("writer.dead_letters_failed", rows=len(letters), error=error)
            LOG.error("%d dead letters could not be delivered: %s.", len(letters), kind, extra=said)

    # --- parcels ---

    def _finish_parcels(self, units: Sequence[Unit], now: float) -> None:
        for unit in units:
            parcel = unit.parcel
            parcel.left -= 1
            if parcel.left:
                continue
            if self._window is not None and parcel.regions:
                self._window.add(parcel, now)
            else:
                self.let_go([parcel])

    def let_go(self, parcels: Iterable[Parcel]) -> None:
        """Parcels are not needed any more."""
        self._parcels_gone += [parcel.id for parcel in parcels if parcel.id is not None]

    @property
    def gone(self) -> int:
        """How many records of the spool are not needed any more."""
        return len(self._parcels_gone)

    def kept(self, chunks: Iterable[Sequence[Unit]]) -> None:
        """These rows are on disk now."""
        found = Counter(unit.ticket for units in chunks for unit in units)
        with self.inbox.lock:
            for ticket, rows in found.items():
                ticket.kept(rows)

    def give_back(self, gone: Sequence[int]) -> None:
        """These records could not be removed now."""
        self._parcels_gone += gone

    def take_gone(self) -> list[int]:
        """Those records, to be removed."""
        gone, self._parcels_gone = self._parcels_gone, []
        return gone


def _letter(unit: Unit) -> DeadLetter:
    assert unit.error is not None
    return DeadLetter(unit.namespace, unit.row or {}, moment(unit.observed_at), unit.error)


def _row_of(entry: Entry) -> dict[str, object]:
    """What is known of a row that came from the spool."""
    codec, change = entry.codec, entry.change
    by_id = {column.id: column.feature.name for g in codec.groups.values() for column in g.columns}
    names = [by_id[name] for name in change.form.kept + change.form.gone]
    return {codec.namespace.key_name: key_text(change.key.pk), **contents(change, names)}
