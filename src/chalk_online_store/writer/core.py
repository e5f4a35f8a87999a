"""What `PersistenceWriter` and `AsyncPersistenceWriter` both are."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, get_args

from chalk_online_store.arguments import (
    check_callable,
    check_choice,
    check_instance,
    optional_timeout,
    row_list,
    whole_number,
)
from chalk_online_store.effects import NOW, All, Await, Instant, Operation, Sleep
from chalk_online_store.errors import (
    InvalidValue,
    QueueFull,
    RowsAbandoned,
    RowsPending,
    StoreClosed,
)
from chalk_online_store.operations.core import Core
from chalk_online_store.operations.times import ObservedAt, times_of
from chalk_online_store.schema import Namespace, seconds
from chalk_online_store.schema.instances import rows_of
from chalk_online_store.writer.dead_letters import DeadLetters
from chalk_online_store.writer.inbox import Inbox, bytes_of
from chalk_online_store.writer.intake import Intake
from chalk_online_store.writer.ledger import Ledger
from chalk_online_store.writer.logs import log_mistake
from chalk_online_store.writer.pace import Concurrency, WriteRate
from chalk_online_store.writer.pending import Pending, by_arrival, by_event_time
from chalk_online_store.writer.recovery import Recovery
from chalk_online_store.writer.replays import Replays
from chalk_online_store.writer.sending import Sender
from chalk_online_store.writer.settings import Writing
from chalk_online_store.writer.spool import Spool
from chalk_online_store.writer.stats import WriterStats
from chalk_online_store.writer.tickets import Priority, Submission, Ticket
from chalk_online_store.writer.window import Window

_MOST_ENCODED = 2048
"""Rows that are further on than the inbox, where the oldest ones may have to go."""

_ANY_TIME = 86400.0


def spool_for(
    core: Core, settings: Writing, path: str | Path | None, max_bytes: int
) -> Spool | None:
    """The spool of a writer to a store's table, if it is to have one.

    Raises `InvalidValue`, `SpoolError`.
    """
    check_instance(settings, Writing, "settings", InvalidValue)
    whole_number(max_bytes, "spool_bytes")
    if path is None:
        return None
    if settings.when_full == "shed_oldest":
        raise InvalidValue('A spool is there to lose nothing: when_full="block" or "raise".')
    return Spool(path, table=core.backend.identity, max_bytes=max_bytes)


class WriterCore:
    """A queue of rows, and the operations that bring them into the table.

    `run` works until `stop`; everything else may be used in any thread.
    """

    def __init__(
        self,
        core: Core,
        settings: Writing,
        *,
        spool: Spool | None = None,
        dead_letters: DeadLetters | None = None,
        tickets: type[Ticket] = Ticket,
        rng: random.Random | None = None,
    ) -> None:
        check_instance(settings, Writing, "settings", InvalidValue)
        check_callable(dead_letters, "dead_letters", "DeadLetterFile(path), or a function")
        rng = rng or random.Random()
        self.core = core
        self.settings = settings
        self.spool = spool
        self._tickets = tickets
        self.inbox = Inbox(settings.max_rows, settings.max_bytes)
        window = None
        if core.router is not None and len(core.router.writable) > 1:
            window = Window(seconds(settings.replay_window), settings.replay_bytes)
        self._window = window
        self.ledger = Ledger(self.inbox, window, dead_letters)
        by_event = settings.ordering == "event"
        self._pending = Pending(by_event_time if by_event else by_arrival)
        self._rate = WriteRate(settings.wcu_per_second)
        self._concurrency = Concurrency(settings.max_concurrency)
        self._sender = Sender(
            core,
            self.ledger,
            self._pending,
            ordering=settings.ordering,
            rate=self._rate,
            concurrency=self._concurrency,
            timeout=seconds(settings.write_timeout),
            rng=rng,
        )
        self.intake = Intake(
            core,
            self.ledger,
            self._pending,
            self._sender.wake,
            batch_age=seconds(settings.max_batch_age),
            spooled=spool is not None,
            kept=spool is not None or window is not None,
            most_encoded=_MOST_ENCODED if settings.when_full == "shed_oldest" else math.inf,
        )
        self._recovery = None
        if spool is not None and spool.newest:
            self._recovery = Recovery(
                core, self.ledger, self._pending, self._sender.wake, spool.newest
            )
        self._replays = None
        if window is not None and core.router is not None:
            self._replays = Replays(core, core.router, window, self.ledger, self._rate)
        self.draining = False
        self.stopped = False

    # --- handing over ----------------------------------------------------------------------

    def submission(
        self,
        schema: Namespace | type,
        rows: Iterable[Any],
        observed_at: ObservedAt,
        priority: Priority,
        now: Instant,
    ) -> Submission:
        """Rows as they are handed over. Raises `UnknownFeature`, `InvalidValue`, `StoreClosed`."""
        if self.draining:
            raise StoreClosed("This writer is closed; open another.")
        check_choice(priority, get_args(Priority), "priority")
        namespace = self.core.namespace(schema)
        copies = [
            dict(row) for row in rows_of(namespace, row_list(rows))
        ]  # The caller may use its own again.
        times = times_of(observed_at, len(copies)) or [now.wall] * len(copies)
        size = bytes_of(copies) / (len(copies) or 1)
        ticket = self._tickets(len(copies), size, now.monotonic, self.inbox.lock, self.intake.bell)
        return Submission(ticket, namespace, copies, times, priority)

    def offer(self, submission: Submission) -> bool:
        """Take rows in, if there is room; raises `QueueFull` where the policy says so."""
        ticket = submission.ticket
        size = ticket.row_bytes * ticket.rows
        shed: list[Submission] = []
        with self.inbox.lock:
            if not self.inbox.fits(ticket.rows, size):
                shed = self._make_room(ticket.rows, size)
                if not self.inbox.fits(ticket.rows, size):
                    return False
            self.inbox.put(submission)
            self.ledger.accept(ticket)
        if shed:
            error = QueueFull("Newer rows have taken the place of this one in a full queue.")
            self.ledger.shed(shed, error)
        if self.intake.asleep:
            self.intake.bell.ring()
        return True

    def _make_room(self, rows: int, size: float) -> list[Submission]:
        match self.settings.when_full:
            case "shed_oldest":
                return self.inbox.shed(rows, size)
            case "raise":
                raise self._full()
        return []

    def _full(self) -> QueueFull:
        return QueueFull(
            f"The writer has {self.inbox.rows:,} rows of about {self.inbox.bytes:,.0f} bytes under "
            f"way; it takes {self.inbox.max_rows:,} and {self.inbox.max_bytes:,}."
        )

    def wait_for_room(self, submission: Submission) -> Operation[None]:
        """Hand rows over as soon as there is room; raises `QueueFull` when that takes too long."""
        now: Instant = yield NOW
        deadline = now.monotonic + seconds(self.settings.block_timeout)
        self.intake.bell.ring()
        while True:
            seen = self.ledger.room.count
            if self.offer(submission):
                return
            now = yield NOW
            if now.monotonic >= deadline or self.draining:
                raise self._full()
            yield from self.ledger.room.wait(seen, deadline - now.monotonic)

    # --- waiting ---------------------------------------------------------------------------

    def flush(self, timeout: float | None) -> Operation[None]:
        """See `PersistenceWriter.flush`."""
        timeout = optional_timeout(timeout)
        now: Instant = yield NOW
        deadline = math.inf if timeout is None else now.monotonic + timeout
        if self._recovery is not None:
            yield from self._recovered(self._recovery, deadline)
        self.intake.bell.ring()
        for epoch in self.ledger.so_far():
            now = yield NOW
            left = min(max(0.0, deadline - now.monotonic), _ANY_TIME)
            try:
                yield Await(epoch.future(self.inbox.lock), left)
            except TimeoutError:
                raise self._late() from None

    def _recovered(self, recovery: Recovery, deadline: float) -> Operation[None]:
        while not recovery.done:
            seen = recovery.ended.count
            now: Instant = yield NOW
            if now.monotonic >= deadline:
                raise self._late()
            yield from recovery.ended.wait(seen, min(1.0, deadline - now.monotonic))

    def _late(self) -> RowsPending:
        rows = self.inbox.rows
        return RowsPending(f"{rows:,} rows are still pending; they go on.", rows)

    # --- working ---------------------------------------------------------------------------

    def run(self) -> Operation[None]:
        """Bring rows into the table until `stop`."""
        parts = [self.intake, self._recovery, self._replays]
        works = [_kept_going(part.run) for part in parts if part is not None]
        works += [_kept_going(self._sender.run) for _ in range(self._sender.workers)]
        yield All(works, len(works))

    def stop(self) -> None:
        """Let `run` end; what is under way is still waited for."""
        self.draining = self.stopped = True
        self._sender.stop()
        for part in (self.intake, self._recovery, self._replays):
            if part is not None:
                part.stopping = True
        self.ledger.room.ring()
        self.intake.bell.ring()
        if self._replays is not None:
            self._replays.bell.ring()

    def abandon(self, now: float) -> None:
        """After `run` has ended: give up what is not written, for want of a spool.

        What lies in the spool is taken up by the next process, the rest goes to the dead letters.
        Raises `RowsAbandoned`.
        """
        before = self.ledger.counts.dead
        error = StoreClosed("The writer was closed before this row was written.")
        self.ledger.refuse(self.intake.left(), error)
        for entry in self._pending.entries():
            if any(unit.parcel.id is None for unit in entry.units):
                self.ledger.failed(entry, error, now)
        if rows := self.ledger.counts.dead - before:
            raise RowsAbandoned(
                f"{rows} rows could not be written before the writer was closed; they are among "
                "the dead letters. Give it more time, or a spool.",
                rows,
            )

    # --- telling ---------------------------------------------------------------------------

    def stats(self, now: Instant) -> WriterStats:
        """See `PersistenceWriter.stats`."""
        inbox, counts, spool, window = self.inbox, self.ledger.counts, self.spool, self._window
        found = (self._pending.oldest, self.intake.oldest)
        oldest = min((since for since in found if since is not None), default=now.monotonic)
        with inbox.lock:
            accepted, written, dead = counts.accepted, counts.written, counts.dead
            pending, size = inbox.rows, round(inbox.bytes)
        return WriterStats(
            accepted=accepted,
            written=written,
            dead=dead,
            pending=pending,
            pending_bytes=size,
            queued=inbox.waiting + self.intake.stuck,
            waiting=self._pending.ready("live", "backfill"),
            oldest_seconds=now.monotonic - oldest,
            recovered=counts.recovered,
            batches=counts.batches,
            changes=counts.changes,
            superseded=counts.superseded,
            requests=counts.requests,
            requests_under_way=self._concurrency.under_way,
            retries=counts.retries,
            throttles=counts.throttles,
            wcu=counts.wcu,
            concurrency=int(self._concurrency.limit),
            wcu_per_second=self._rate.rate,
            replayed=counts.replayed,
            replay_bytes=window.bytes if window else 0,
            replay_owed=window.owing if window else 0,
            shortened=window.shortened if window else 0,
            undelivered=counts.failed_letters,
            spool_records=spool.records if spool else 0,
            spool_bytes=spool.size if spool else 0,
            spool_damaged=spool.damaged if spool else 0,
        )


def _kept_going(run: Callable[[], Operation[None]]) -> Operation[None]:
    """Begin again after a mistake of ours, so that nobody waits for ever for the others' sake."""
    while True:
        try:
            return (yield from run())
        except Exception as error:  # noqa: BLE001
            log_mistake("The persistence writer stumbled, and goes on", error)
            yield Sleep(1.0)
