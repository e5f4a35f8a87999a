"""What `PersistenceWriter` and `AsyncPersistenceWriter` both are."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from inspect import GEN_CLOSED, getgeneratorstate
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
    InvalidStore,
    InvalidValue,
    OnlineStoreError,
    QueueFull,
    RowsAbandoned,
    RowsPending,
    StoreClosed,
    WriterFailed,
)
from chalk_online_store.operations.core import Core
from chalk_online_store.operations.times import ObservedAt, times_of_rows
from chalk_online_store.schema import Namespace, seconds
from chalk_online_store.schema.instances import rows_of
from chalk_online_store.writer.intake import Intake, OnInvalid, RowValidator
from chalk_online_store.writer.ledger import DeadLetters, Ledger
from chalk_online_store.writer.pending import Pending, by_arrival, by_event_time
from chalk_online_store.writer.recovery import Recovery, Replays
from chalk_online_store.writer.sending import Concurrency, Sender, WriteRate
from chalk_online_store.writer.settings import WriterStats, Writing, log_mistake
from chalk_online_store.writer.signal import Signal, StopFlag
from chalk_online_store.writer.spool import Spool
from chalk_online_store.writer.tickets import (
    Inbox,
    Priority,
    ReplayBuffer,
    Submission,
    Ticket,
    bytes_of,
)

# --- The parts that bring rows into the table, from one fault to the next ------------------
#
# A fault is an exception that nothing expects: after it, queues and batches may be in any state. So
# all parts end, and a new pipeline begins with what the ledger has as pending.


_MOST_ENCODED = 2048
"""Rows that are further on than the inbox, where the oldest ones may have to go."""

_WATCH_SECONDS = 5.0


class Pipeline:
    """Encodes rows, has them spooled, and sends them. Used in the writer's loop alone."""

    def __init__(
        self,
        core: Core,
        settings: Writing,
        ledger: Ledger,
        bell: Signal,
        rate: WriteRate,
        rng: random.Random,
        *,
        is_spooled: bool,
        is_replayed: bool,
    ) -> None:
        """`bell` wakes the intake; `is_replayed` says that records are needed without a spool."""
        self.stop_flag = StopFlag()
        self._bell = bell
        self._stopped = Signal()
        by_event = settings.ordering == "event"
        self.pending = Pending(by_event_time if by_event else by_arrival)
        self.concurrency = Concurrency(settings.max_concurrency)
        self.sender = Sender(
            core,
            ledger,
            self.pending,
            self.stop_flag,
            ordering=settings.ordering,
            rate=rate,
            concurrency=self.concurrency,
            timeout=seconds(settings.write_timeout),
            rng=rng,
        )
        self.intake = Intake(
            core,
            ledger,
            self.pending,
            self.sender.wake,
            bell,
            self.stop_flag,
            batch_age=seconds(settings.max_batch_age),
            spooled=is_spooled,
            kept=is_spooled or is_replayed,
            most_encoded=_MOST_ENCODED if settings.when_full == "shed_oldest" else math.inf,
        )

    def stop(self) -> None:
        """Let all parts end; what is under way is still waited for."""
        self.stop_flag.is_set = True
        self._bell.notify()
        self.sender.wake_all()
        self._stopped.notify()

    def guard(self, run: Callable[[], Operation[None]]) -> Operation[None]:
        """Run one part. A fault of one ends all of them, since they share what it was changing."""
        try:
            yield from run()
        except BaseException:
            self.stop()
            raise

    def watch(self, parts: Sequence[Operation[None]]) -> Operation[None]:
        """End all parts if one has ended before them, which `guard` can have missed."""
        while not self.stop_flag.is_set:
            seen = self._stopped.count
            if any(getgeneratorstate(part) == GEN_CLOSED for part in parts):
                self.stop()
            yield from self._stopped.wait(seen, _WATCH_SECONDS)


_CHECK_SECONDS = 1.0
"""How often a flush checks that the writer is still running."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
"""Seconds between a fault and the next pipeline: doubled with each fault in a row."""


def check_store(store: object, kind: type, writer: str, other: str) -> None:
    """Raise `InvalidStore` unless a store is of the kind that a writer takes."""
    if not isinstance(store, kind):
        given = type(store).__name__
        hint = "" if "OnlineStore" not in given else f" Use {other} for this store."
        raise InvalidStore(f"{writer}: expected an open {kind.__name__}; got {given}.{hint}")


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

    `run` works until `stop`; everything else may be used in any thread. `revive` begins `run`
    again if it has ended before; it may raise `WriterFailed`.
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
        revive: Callable[[], None] = lambda: None,
    ) -> None:
        check_instance(settings, Writing, "settings", InvalidValue)
        check_callable(dead_letters, "dead_letters", "DeadLetterFile(path), or a function")
        self.core = core
        self.settings = settings
        self.spool = spool
        self._tickets = tickets
        self._rng = rng or random.Random()
        self._revive = revive
        self._validator = RowValidator()
        self.bell = Signal()
        self.inbox = Inbox(settings.max_rows, settings.max_bytes)
        window = None
        if core.router is not None and len(core.router.writable) > 1:
            window = ReplayBuffer(seconds(settings.replay_window), settings.replay_bytes)
        self._window = window
        self.ledger = Ledger(self.inbox, window, dead_letters)
        self._rate = WriteRate(settings.wcu_per_second)
        self._recovery = None
        if spool is not None and spool.newest and not spool.foreign:
            self._recovery = Recovery(core, self.ledger, spool.ids(), self)
        self._replays = None
        if window is not None and core.router is not None:
            self._replays = Replays(core, core.router, window, self.ledger, self._rate)
        self._pipeline = self._new_pipeline()
        self.draining = False
        self.stopped = False
        self.ended = False
        self._is_forked = False

    def _new_pipeline(self) -> Pipeline:
        return Pipeline(
            self.core,
            self.settings,
            self.ledger,
            self.bell,
            self._rate,
            self._rng,
            is_spooled=self.spool is not None,
            is_replayed=self._window is not None,
        )

    # --- handing over ----------------------------------------------------------------------

    def submission(
        self,
        schema: Namespace | type,
        rows: Iterable[Any],
        observed_at: ObservedAt,
        priority: Priority,
        now: Instant,
        on_invalid: OnInvalid = "raise",
    ) -> Submission:
        """Rows as they are handed over.

        Raises `UnknownFeature`, `InvalidKey`, `InvalidValue`, `StoreClosed`.
        """
        if self.draining:
            raise StoreClosed("This writer is closed; open another.")
        check_choice(priority, get_args(Priority), "priority")
        check_choice(on_invalid, get_args(OnInvalid), "on_invalid")
        namespace = self.core.namespace(schema)
        named, own = rows_of(namespace, row_list(rows))
        copies = [dict(row) for row in named]  # The caller may use its own again.
        if on_invalid == "raise":
            self._validator.check(namespace, copies)
        times = times_of_rows(observed_at, len(copies), own, now.wall)
        size = bytes_of(copies) / (len(copies) or 1)
        ticket = self._tickets(len(copies), size, now.monotonic, self)
        return Submission(ticket, namespace.name, copies, times, priority, namespace)

    def offer(self, submission: Submission) -> bool:
        """Take rows in, if there is room; raises `QueueFull` where the policy says so."""
        try:
            return self._offer(submission)
        except OnlineStoreError:  # Nothing was taken in.
            raise
        except BaseException:
            self.inbox.lock.free()
            self._pipeline.stop()  # The next one begins with what the ledger has.
            raise

    def _offer(self, submission: Submission) -> bool:
        ticket = submission.ticket
        if not ticket.rows:
            return True
        size = ticket.row_bytes * ticket.rows
        shed: list[Submission] = []
        with self.inbox.lock:
            if not self.inbox.fits(ticket.rows, size):
                shed = self._make_room(ticket.rows, size)
                if not self.inbox.fits(ticket.rows, size):
                    return False
            self.ledger.accept(submission)
            self.inbox.put(submission)
        if shed:
            error = QueueFull("Newer rows have taken the place of this one in a full queue.")
            self.ledger.shed(shed, error)
        if self._pipeline.intake.asleep:
            self.bell.notify()
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
        while True:
            seen = self.ledger.room.count
            if self.offer(submission):
                return
            self.wake()
            now = yield NOW
            if now.monotonic >= deadline or self.draining:
                raise self._full()
            left = min(_CHECK_SECONDS, deadline - now.monotonic)
            yield from self.ledger.room.wait(seen, left)

    # --- waiting ---------------------------------------------------------------------------

    def wake(self) -> bool:
        """Have waiting rows encoded now, and a worker that has died restarted.

        Returns False if the writer has ended. Raises `StoreClosed` in a fork of its process.
        """
        if self._is_forked:
            raise StoreClosed("These rows were submitted before the fork, to the parent process.")
        if self.ended:
            return False
        self.bell.notify()
        with suppress(WriterFailed):  # There may be a thread at the next check.
            self._revive()
        return True

    def flush(self, timeout: float | None) -> Operation[None]:
        """See `PersistenceWriter.flush`."""
        timeout = optional_timeout(timeout)
        now: Instant = yield NOW
        deadline = math.inf if timeout is None else now.monotonic + timeout
        if self._recovery is not None:
            yield from self._recovered(self._recovery, deadline)
        # The last one first: most of the others have ended by the time that it has.
        for submission in reversed(self.ledger.unfinished()):
            yield from self._finished(submission.ticket, deadline)

    def _finished(self, ticket: Ticket, deadline: float) -> Operation[None]:
        while not ticket.done:
            if not self.wake():
                raise self._late()
            now: Instant = yield NOW
            left = max(0.0, deadline - now.monotonic)
            try:
                yield Await(ticket.future(), min(left, _CHECK_SECONDS))
            except TimeoutError:
                if left <= _CHECK_SECONDS:
                    raise self._late() from None

    def _recovered(self, recovery: Recovery, deadline: float) -> Operation[None]:
        while not recovery.done:
            seen = recovery.ended.count
            now: Instant = yield NOW
            if now.monotonic >= deadline or not self.wake():
                raise self._late()
            left = min(_CHECK_SECONDS, deadline - now.monotonic)
            yield from recovery.ended.wait(seen, left)

    def _late(self) -> RowsPending:
        rows = self.inbox.rows
        return RowsPending(f"{rows:,} rows are still pending; they go on.", rows)

    # --- working ---------------------------------------------------------------------------

    def run(self) -> Operation[None]:
        """Bring rows into the table until `stop`, also after faults.

        Raises what is no `Exception`, such as `SystemExit`; it can be run again after that.
        """
        fault: Exception | None = None
        pause = _FIRST_PAUSE
        while True:
            written = self.ledger.counts.written
            try:
                yield from self._run_pipeline(fault, pause)
                fault = None
            except Exception as error:  # noqa: BLE001 - rows must survive what nobody foresaw.
                fault = error
            if self.stopped:
                return
            advances = self.ledger.counts.written > written
            pause = _FIRST_PAUSE if advances else min(_LONGEST_PAUSE, 2 * pause)

    def _run_pipeline(self, fault: Exception | None, pause: float) -> Operation[None]:
        if fault is not None:
            yield Sleep(pause)
            log_mistake("The persistence writer has failed, and begins again", fault)
        pipeline = self._rebuild()
        if self.stopped:
            return
        parts: list[Callable[[], Operation[None]]] = [pipeline.intake.run]
        parts += [pipeline.sender.run] * pipeline.sender.workers
        if self._recovery is not None and not self._recovery.done:
            recover = partial(self._recovery.run, pipeline.pending, pipeline.sender.wake)
            parts.append(partial(recover, pipeline.stop_flag))
        works = [pipeline.guard(part) for part in parts]
        works.append(pipeline.watch(list(works)))
        if self._replays is not None:
            works.append(_kept_going(partial(self._replays.run, pipeline.stop_flag)))
        yield All(works, len(works))

    def _rebuild(self) -> Pipeline:
        """A pipeline that begins with what is pending by the ledger's account."""
        self._pipeline.stop()
        pipeline = self._new_pipeline()
        with self.inbox.lock:
            pending = self.ledger.recount()
            self.inbox.refill(each for each in pending if each.record_id is None)
            if self._recovery is not None:
                self._recovery.restart(pending)
            self.ledger.keep_until_written(pending)
        self._pipeline = pipeline
        return pipeline

    def stop(self) -> None:
        """Let `run` end; what is under way is still waited for."""
        self.draining = self.stopped = True
        self._pipeline.stop()
        self.ledger.room.notify()
        if self._replays is not None:
            self._replays.bell.notify()

    def leave_to_parent(self) -> None:
        """In a fork: what is pending is the parent's, and nothing here may write it."""
        self._is_forked = self.draining = self.stopped = True
        self._pipeline.stop_flag.is_set = True

    def abandon(self) -> None:
        """After `run` has ended: give up what is not written, for want of a spool.

        What lies in the spool is taken up by the next process, the rest goes to the dead letters.
        Raises `RowsAbandoned`.
        """
        error = StoreClosed("The writer was closed before this row was written.")
        is_spooled = self.spool is not None and self.spool.is_intact
        with self.inbox.lock:
            self.ledger.recount()
        lost = self.ledger.counts.failed_letters
        rows = self.ledger.abandon(error, is_spooled=is_spooled)
        self.ended = True
        undelivered = self.ledger.counts.failed_letters
        if rows or undelivered:
            raise RowsAbandoned(_abandoned(rows, undelivered), rows + lost)

    # --- telling ---------------------------------------------------------------------------

    def stats(self, now: Instant) -> WriterStats:
        """See `PersistenceWriter.stats`."""
        inbox, counts, spool, window = self.inbox, self.ledger.counts, self.spool, self._window
        pipeline = self._pipeline
        found = (pipeline.pending.oldest, pipeline.intake.oldest)
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
            queued=inbox.waiting + pipeline.intake.stuck,
            waiting=pipeline.pending.ready("live", "backfill"),
            oldest_seconds=now.monotonic - oldest,
            recovered=counts.recovered,
            batches=counts.batches,
            changes=counts.changes,
            superseded=counts.superseded,
            requests=counts.requests,
            requests_under_way=pipeline.concurrency.under_way,
            retries=counts.retries,
            throttles=counts.throttles,
            wcu=counts.wcu,
            concurrency=int(pipeline.concurrency.limit),
            wcu_per_second=self._rate.rate,
            replayed=counts.replayed,
            replay_bytes=window.bytes if window else 0,
            replay_owed=window.replay_backlog if window else 0,
            shortened=window.shortened if window else 0,
            undelivered=counts.failed_letters,
            spool_records=spool.records if spool else 0,
            spool_bytes=spool.size if spool else 0,
            spool_damaged=spool.damaged if spool else 0,
        )


def _kept_going(run: Callable[[], Operation[None]]) -> Operation[None]:
    """Begin again after a fault of a part that has no part in the account of rows."""
    while True:
        try:
            return (yield from run())
        except Exception as error:  # noqa: BLE001 - rows go on being written without it.
            log_mistake("Replays have failed, and begin again", error)
            yield Sleep(1.0)


def _abandoned(rows: int, undelivered: int) -> str:
    said = []
    if rows:
        said.append(
            f"{rows:,} rows could not be written before the writer was closed; they are dead "
            "letters. Give it more time, or a spool."
        )
    if undelivered:
        said.append(
            f"{undelivered:,} dead letters could not be delivered, as the sink has failed. The log "
            "has the reason."
        )
    return " ".join(said)
