"""Tickets: what `submit` answers, and what is known of a row under way."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, Literal, Protocol, get_args

from chalk_online_store.arguments import check_choice, optional_timeout
from chalk_online_store.errors import OnlineStoreError, RowsPending, WriteFailed
from chalk_online_store.schema import Namespace
from chalk_online_store.writer.signal import OwnerLock

# --- What regions have acknowledged lately: kept, to be written again where a region is l ---
#
# AWS: a Global Table replicates asynchronously, usually within a second, without a guarantee. So
# what a region had acknowledged shortly before it was lost may be nowhere else.


class EncodedBatch:
    """Changes that were encoded, and spooled, together.

    `id` is that of its record in the spool; `body` is the record itself, where there is no spool
    but it may be needed again. `left` counts the rows that are not done, `regions` says when each
    region acknowledged some of them last, in seconds on the monotonic clock.
    """

    __slots__ = ("body", "id", "left", "regions")

    def __init__(self, left: int, body: bytes | None = None) -> None:
        self.id: int | None = None
        self.body = body
        self.left = left
        self.regions: dict[str, float] = {}

    @property
    def size(self) -> int:
        """Bytes that it takes in memory."""
        return len(self.body or b"")


class ReplayBuffer:
    """Parcels that are done, of the last `seconds`; at most `max_bytes` of them in memory."""

    def __init__(self, seconds: float, max_bytes: int) -> None:
        self._seconds = seconds
        self._max_bytes = max_bytes
        self._done: deque[tuple[float, EncodedBatch]] = deque()
        self._fresh: list[EncodedBatch] = []
        self._owed: dict[str, list[EncodedBatch]] = {}
        self._reasons: Counter[EncodedBatch] = Counter()
        self.bytes = 0
        self.shortened = 0
        """Parcels that were let go of too early, for want of memory."""

    def add(self, parcel: EncodedBatch, now: float) -> None:
        """A parcel is done, or was written again."""
        self._done.append((now, parcel))
        self._fresh.append(parcel)
        self._keep(parcel)

    def fresh(self) -> list[EncodedBatch]:
        """The parcels that were added since this was asked last."""
        fresh, self._fresh = self._fresh, []
        return fresh

    def give_back(self, parcels: Iterable[EncodedBatch]) -> None:
        """These parcels could not be looked at: `fresh` returns them again."""
        self._fresh += parcels

    def expire(self, now: float) -> list[EncodedBatch]:
        """The parcels that need not be kept any longer."""
        return list(self._expired(now - self._seconds))

    def _expired(self, before: float) -> Iterator[EncodedBatch]:
        while self._done and (self._done[0][0] < before or self.bytes > self._max_bytes):
            done_at, parcel = self._done.popleft()
            self.shortened += done_at >= before
            yield from self._let_go(parcel)

    def acknowledged(self, region: str, now: float) -> list[EncodedBatch]:
        """The parcels of which a region has acknowledged something lately."""
        since = now - self._seconds
        found = (parcel for _, parcel in self._done)
        return [parcel for parcel in found if parcel.regions.get(region, since) > since]

    def _keep(self, parcel: EncodedBatch) -> None:
        """There is one more reason to."""
        self.bytes += 0 if self._reasons[parcel] else parcel.size
        self._reasons[parcel] += 1

    def _let_go(self, parcel: EncodedBatch) -> Iterator[EncodedBatch]:
        """There is one reason less; gives the parcel where that was the last."""
        self._reasons[parcel] -= 1
        if not self._reasons[parcel]:
            del self._reasons[parcel]
            self.bytes -= parcel.size
            yield parcel

    # --- what a region is owed that is away ---

    def schedule_replay(self, region: str, parcels: Iterable[EncodedBatch]) -> None:
        """Keep parcels until a region is back and has them again."""
        pending_replay = self._owed.setdefault(region, [])
        for parcel in parcels:
            pending_replay.append(parcel)
            self._keep(parcel)

    @property
    def regions_to_replay(self) -> list[str]:
        """The regions that are owed something."""
        return list(self._owed)

    @property
    def replay_backlog(self) -> int:
        """How many parcels regions are owed."""
        return sum(map(len, self._owed.values()))

    def pending_replay(self, region: str) -> list[EncodedBatch]:
        """What a region is owed."""
        return self._owed[region]

    def settled(self, region: str) -> list[EncodedBatch]:
        """A region has what it was owed: the parcels that need not be kept any longer."""
        return [gone for parcel in self._owed.pop(region) for gone in self._let_go(parcel)]


Level = Literal["durable", "done"]
"""Kept on disk or in the table; or in the table or in the dead letters for good."""

Priority = Literal["live", "backfill"]

KEPT = 1
"""A row's state: it is on disk, or has ended."""
WRITTEN = 2
DEAD = 4
ENDED = WRITTEN | DEAD

_CHECK_SECONDS = 1.0
"""How often a waiting caller checks that the writer is still running."""


class RowCounter:
    """The number of rows of a submission that are still under way.

    Changed under the inbox's lock; read in any thread.
    """

    __slots__ = ("_waits", "left")

    def __init__(self, rows: int) -> None:
        self.left = rows
        self._waits: Future[None] | None = None

    def settle(self, left: int) -> None:
        """So many rows are left."""
        self.left = left
        if not left and self._waits is not None:
            _settle(self._waits)

    def future(self) -> Future[None]:
        """Settled when none is left; in any thread.

        Of two threads that ask at the same time for the first time, one may get a future that is
        never settled: a caller waits for a bounded time, and asks again.
        """
        waits = self._waits
        if waits is None:
            waits = self._waits = Future()
        if not self.left:  # Perhaps since before `settle` could see the future.
            _settle(waits)
        return waits


def _settle(future: Future[None]) -> None:
    with suppress(InvalidStateError):  # Another thread has settled it.
        future.set_result(None)


class Wakeable(Protocol):
    """The writer of a ticket."""

    def wake(self) -> bool:
        """Have waiting rows encoded now, and a worker that has died restarted.

        Returns False if the writer has ended. Raises `StoreClosed` in a fork of its process.
        """
        ...


class Ticket:
    """One submission: `rows` is how many it has, `written` and `dead` what became of them.

    `dead` ones were refused for good and are in the dead letters. A row that a newer one of the
    same entity has made superfluous is written when that one is.
    """

    __slots__ = (
        "_done",
        "_durable",
        "_errors",
        "_writer",
        "dead",
        "row_bytes",
        "rows",
        "since",
        "written",
    )

    def __init__(self, rows: int, row_bytes: float, since: float, writer: Wakeable) -> None:
        """`since` is when it was handed over, on the monotonic clock."""
        self.rows = rows
        self.since = since
        self.written = 0
        self.dead = 0
        self.row_bytes = row_bytes
        self._writer = writer
        self._errors: dict[int, OnlineStoreError] | None = None
        self._durable = RowCounter(rows)
        self._done = RowCounter(rows)

    @property
    def pending(self) -> int:
        """How many rows are neither written nor dead."""
        return self._done.left

    @property
    def durable(self) -> bool:
        """Whether no crash of this process can lose a row of it any more.

        They are on disk, where the writer has a spool, or else in the table.
        """
        return not self._durable.left

    @property
    def done(self) -> bool:
        """Whether every row is written or dead."""
        return not self._done.left

    @property
    def errors(self) -> dict[int, OnlineStoreError]:
        """The reasons of dead rows, by the position of each row in the submission."""
        return dict(self._errors or {})

    def wait(self, until: Level = "done", *, timeout: float | None = None) -> None:
        """Wait until every row is durable or done; for threads.

        Raises `WriteFailed` if rows are dead: its `failed` has the reasons by position. Raises
        `RowsPending` after `timeout` seconds (default: no limit), or if the writer was closed and
        the rows are left in its spool.
        """
        timeout = optional_timeout(timeout)
        counter = self._counter(until)
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while not self._is_over(counter, until):
            left = max(0.0, deadline - time.monotonic())
            try:
                counter.future().result(min(left, _CHECK_SECONDS))
            except TimeoutError:
                if left <= _CHECK_SECONDS:
                    raise self._late(until) from None

    def _is_over(self, counter: RowCounter, until: Level) -> bool:
        """Return True if no row is left to wait for. Raises as `wait` does."""
        if counter.left and not self._writer.wake() and counter.left:
            raise RowsPending(
                f"{counter.left} of {self.rows} rows are not {until}: their writer is closed. They "
                "are in its spool, from which the next writer continues.",
                counter.left,
            )
        if not counter.left and self._errors:
            failed = dict(self._errors)
            example = next(iter(failed.values()))
            raise WriteFailed(
                f"{len(failed)} of {self.rows} rows will never be written: {example} "
                "Their positions are in .failed.",
                failed,
            ) from example
        return not counter.left

    def _counter(self, until: Level) -> RowCounter:
        check_choice(until, get_args(Level), "until")
        return self._durable if until == "durable" else self._done

    def _late(self, until: Level) -> RowsPending:
        left = self._counter(until).left
        return RowsPending(f"{left} of {self.rows} rows are not {until} yet; they go on.", left)

    def future(self) -> Future[None]:
        """Settled when every row is written or dead."""
        return self._done.future()

    # --- counted by the writer, under its lock ---

    def kept(self, rows: int) -> None:
        """So many rows more are on disk, or have ended."""
        self._durable.settle(self._durable.left - rows)

    def ended(self, written: int, dead: int) -> None:
        """So many rows more are written, and so many dead."""
        self.written += written
        self.dead += dead
        self._done.settle(self._done.left - written - dead)

    def recount(self, states: bytearray) -> None:
        """Derive all counts from the state of each row."""
        self.written = sum(state & ENDED == WRITTEN for state in states)
        self.dead = sum(state & ENDED == DEAD for state in states)
        self._durable.settle(sum(not state for state in states))
        self._done.settle(self.rows - self.written - self.dead)

    def fail(self, position: int, error: OnlineStoreError) -> None:
        """The row at this position can never be written."""
        if self._errors is None:
            self._errors = {}
        self._errors[position] = error


class AsyncTicket(Ticket):
    """A `Ticket` that is awaited."""

    __slots__ = ()

    async def wait(  # type: ignore[override]
        self, until: Level = "done", *, timeout: float | None = None
    ) -> None:
        """As `Ticket.wait`, for asyncio."""
        timeout = optional_timeout(timeout)
        counter = self._counter(until)
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        reached: asyncio.Future[None] | None = None
        while not self._is_over(counter, until):
            left = max(0.0, deadline - time.monotonic())
            if reached is None:
                reached = asyncio.wrap_future(counter.future())
            done, _ = await asyncio.wait({reached}, timeout=min(left, _CHECK_SECONDS))
            if not done and left <= _CHECK_SECONDS:
                raise self._late(until)


class Submission:
    """Rows of one namespace, as they were handed over; `times` are their observed-at, UTC us.

    `states` says what became of each row: all counts of the writer can be derived from it. The rows
    of a record of an earlier process are None; `record_id` is its id in the spool then.

    `tried` is how often the rows were taken to be encoded: more than once after a fault.
    """

    __slots__ = (
        "namespace",
        "number",
        "priority",
        "record_id",
        "rows",
        "schema",
        "states",
        "ticket",
        "times",
        "tried",
    )

    def __init__(
        self,
        ticket: Ticket,
        namespace: str,
        rows: Sequence[Mapping[str, Any] | None],
        times: Sequence[int],
        priority: Priority,
        schema: Namespace | None = None,
    ) -> None:
        self.ticket = ticket
        self.namespace = namespace
        self.rows = rows
        self.times = times
        self.priority = priority
        self.schema = schema
        self.record_id: int | None = None
        self.number = -1
        self.tried = 0
        self.states = bytearray(len(rows))

    def pending(self) -> Sequence[int]:
        """The positions of rows that are neither written nor dead."""
        if not any(self.states):
            return range(len(self.states))
        return [position for position, state in enumerate(self.states) if not state & ENDED]


class PendingRow:
    """One row under way: it ends once all changes that it waits for have; of these, `left`.

    `row` is set for a dead one from the spool, of which only its changes are known otherwise.
    """

    __slots__ = ("error", "left", "parcel", "position", "row", "submission")

    def __init__(self, submission: Submission, position: int, parcel: EncodedBatch) -> None:
        self.submission = submission
        self.position = position
        self.parcel = parcel
        self.row = submission.rows[position]
        self.left = 0
        self.error: OnlineStoreError | None = None

    @property
    def has_ended(self) -> bool:
        """Return True if the row is written or dead."""
        return bool(self.submission.states[self.position] & ENDED)

    @classmethod
    def of_replay(cls, parcel: EncodedBatch) -> PendingRow:
        """A row that nobody waits for any more."""
        return cls(_NOBODY, 0, parcel)


class _NoWriter:
    def wake(self) -> bool:
        return False


_NOBODY = Submission(Ticket(0, 0.0, 0.0, _NoWriter()), "", [None], [0], "live")


# --- The bounded queue in front of a writer: rows as they were handed over -----------------


_PLAIN = 28
"""Bytes, about, of a number or its like."""

_ROW = 200
"""Bytes, about, of a row around its values."""


class Inbox:
    """Rows that wait to be encoded, and the bound of all rows under way. Thread-safe.

    `rows` and `bytes` are what was accepted and is not done: here and further on.
    """

    def __init__(self, max_rows: int, max_bytes: int) -> None:
        self.max_rows = max_rows
        self.max_bytes = max_bytes
        self.rows = 0
        self.bytes = 0.0
        self._waiting: dict[Priority, deque[Submission]] = {"live": deque(), "backfill": deque()}
        self.lock = OwnerLock()

    def fits(self, rows: int, size: float) -> bool:
        """Whether so much more is within the bounds; alone, anything is."""
        if not self.rows:
            return True
        return self.rows + rows <= self.max_rows and self.bytes + size <= self.max_bytes

    def put(self, submission: Submission) -> None:
        """Take rows in; called under the lock."""
        self._waiting[submission.priority].append(submission)

    def count(self, ticket: Ticket) -> None:
        """So many rows more are under way; called under the lock."""
        self.rows += ticket.rows
        self.bytes += ticket.row_bytes * ticket.rows

    def take(self, rows: int) -> list[Submission]:
        """The next submissions, of about so many rows; the live ones first."""
        taken: list[Submission] = []
        with self.lock:
            for waiting in self._waiting.values():
                while waiting and rows > 0:
                    taken.append(waiting.popleft())
                    taken[-1].tried += 1
                    rows -= len(taken[-1].rows)
        return taken

    def refill(self, submissions: Iterable[Submission]) -> None:
        """Let these wait, in their order, and no others; called under the lock."""
        for waiting in self._waiting.values():
            waiting.clear()
        for submission in submissions:
            self._waiting[submission.priority].append(submission)

    def shed(self, rows: int, size: float) -> list[Submission]:
        """Let the oldest go until so much fits, backfills first; called under the lock."""
        gone: list[Submission] = []
        for waiting in reversed(self._waiting.values()):
            while waiting and not self.fits(rows, size):
                gone.append(waiting.popleft())
                ticket = gone[-1].ticket
                self.release(ticket.pending, ticket.row_bytes)
        return gone

    def release(self, rows: int, row_bytes: float) -> None:
        """So many rows are done; called under the lock."""
        self.rows -= rows
        self.bytes = max(0.0, self.bytes - rows * row_bytes) if self.rows else 0.0

    @property
    def waiting(self) -> int:
        """How many rows wait to be encoded."""
        with self.lock:
            return sum(len(s.rows) for waiting in self._waiting.values() for s in waiting)

    @property
    def oldest(self) -> float | None:
        """When the oldest of these came, on the monotonic clock."""
        with self.lock:
            return min((w[0].ticket.since for w in self._waiting.values() if w), default=None)


def bytes_of(rows: Sequence[Mapping[str, Any]]) -> int:
    """How much memory rows take, about."""
    return sum(_ROW + sum(map(_bytes, row.values())) for row in rows)


def _bytes(value: Any) -> int:
    kind = type(value)
    if kind is float or kind is int or kind is bool or value is None:
        return _PLAIN
    if kind is str or kind is bytes:
        return _PLAIN + len(value)
    if kind is dict:
        return _ROW + sum(_bytes(k) + _bytes(v) for k, v in value.items())
    if kind in (list, tuple, set, frozenset):
        return _ROW + sum(map(_bytes, value))
    size = getattr(value, "nbytes", None)  # An array.
    return _PLAIN * 3 + (size if isinstance(size, int) else 0)
