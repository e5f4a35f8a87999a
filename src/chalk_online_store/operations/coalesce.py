"""Many reads under way at once, few requests: reads of single entities join into batches.

The first read of a group opens a batch, which is sent after a short window, or as soon as it is
full. Reads that begin meanwhile join it. A key is asked for once at a time: whoever wants one
that is on its way waits for it too, unless this process has written it since it was sent, or the
read is to be consistent. So a read still sees every write that returned before it began.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from chalk_online_store.backend import Backend, Call, Found, Wanted
from chalk_online_store.cache.forks import begin_anew_in_forks
from chalk_online_store.codec.shapes import Shape
from chalk_online_store.effects import NOW, Await, Instant, Operation, Sleep, Spawn
from chalk_online_store.errors import (
    ConnectionFailed,
    RequestError,
    RequestTimeout,
)
from chalk_online_store.report import Report

MOST_ENTITIES = 10
"""Entities of a read that joins others; a larger one is a batch already."""

FULL = 100
"""AWS: BatchGetItem takes 100 keys."""


class _Kind(NamedTuple):
    """What reads must have in common to share a request."""

    sk: str
    shape: Shape
    consistent: bool


@dataclass(eq=False)
class _Batch:
    """Keys that are asked for together, and who waits for them."""

    kind: _Kind
    deadline: float
    seats: dict[str, Future[Found]] = field(default_factory=dict)
    report: Report = field(default_factory=Report)
    closed: bool = False


class Coalescer:
    """Reads items through a backend, as it does, but for the window (seconds). Thread-safe."""

    def __init__(self, backend: Backend, window: float) -> None:
        self._backend = backend
        self._window = window
        self.begin_anew()
        begin_anew_in_forks(self)

    def begin_anew(self) -> None:
        """Forget what others have under way: batches of a parent fly there, not in its fork."""
        self._lock = threading.Lock()
        self._open: dict[_Kind, _Batch] = {}
        self._flying: dict[tuple[str, str], dict[_Kind, Future[Found]]] = {}

    def get(self, wanted: Sequence[Wanted], call: Call) -> Operation[list[list[Found]]]:
        """See `backend.Backend.get`. What a batch cost is in the report of who opened it."""
        if max(len(want.pks) for want in wanted) > MOST_ENTITIES:
            return (yield from self._backend.get(wanted, call))
        boarding = _Boarding(call)
        with self._lock:
            seats = [self._take_seats(want, boarding) for want in wanted]
        for batch in boarding.full:
            yield from self._spawn(batch, self._fly(batch))
        for batch in boarding.opened:
            yield from self._spawn(batch, self._fly_later(batch))
        found = []
        for futures in seats:
            found.append((yield from _arrivals(futures, call)))
        for batch in boarding.opened:
            call.report.add(batch.report)
        return found

    def written(self, keys: Iterable[tuple[str, str]]) -> None:
        """Let nobody join a read of these items (pk, sk) that is on its way already."""
        with self._lock:
            for key in keys:
                self._flying.pop(key, None)

    # --- boarding: under the lock ----------------------------------------------------------

    def _take_seats(self, want: Wanted, boarding: _Boarding) -> list[Future[Found]]:
        kind = _Kind(want.sk, want.shape, boarding.call.consistent)
        return [self._flying_seat(kind, pk, boarding) for pk in want.pks]

    def _flying_seat(self, kind: _Kind, pk: str, boarding: _Boarding) -> Future[Found]:
        seat = self._flying.get((pk, kind.sk), {}).get(kind)
        if seat is None:
            return self._free_seat(kind, pk, boarding)
        boarding.call.report.coalesced += 1
        return seat

    def _free_seat(self, kind: _Kind, pk: str, boarding: _Boarding) -> Future[Found]:
        batch = self._open.get(kind)
        if batch is None:
            batch = self._open[kind] = _Batch(kind, boarding.call.deadline)
            boarding.opened.append(batch)
        elif batch not in boarding.opened:
            boarding.call.report.coalesced += 1
        batch.deadline = max(batch.deadline, boarding.call.deadline)
        seat = batch.seats.setdefault(pk, Future())
        if len(batch.seats) == FULL:
            self._close(batch)
            boarding.full.append(batch)
        return seat

    def _close(self, batch: _Batch) -> None:
        """Nobody joins it any more, but whoever wants one of its keys may wait for that."""
        batch.closed = True
        del self._open[batch.kind]
        if not batch.kind.consistent:
            for pk, seat in batch.seats.items():
                self._flying.setdefault((pk, batch.kind.sk), {})[batch.kind] = seat

    # --- flying ----------------------------------------------------------------------------

    def _spawn(self, batch: _Batch, flight: Operation[None]) -> Operation[None]:
        with self._cutting_off(batch):
            yield Spawn(flight)

    def _fly_later(self, batch: _Batch) -> Operation[None]:
        with self._cutting_off(batch):
            yield Sleep(self._window)
        with self._lock:
            if batch.closed:  # It was full before.
                return
            self._close(batch)
        yield from self._fly(batch)

    def _fly(self, batch: _Batch) -> Operation[None]:
        kind, pks = batch.kind, list(batch.seats)
        call = Call(batch.deadline, kind.consistent, batch.report)
        with self._cutting_off(batch):
            (found,) = yield from self._backend.get([Wanted(kind.sk, kind.shape, pks)], call)
        self._leave(batch)
        for pk, item in zip(pks, found, strict=True):
            batch.seats[pk].set_result(item)

    @contextmanager
    def _cutting_off(self, batch: _Batch) -> Iterator[None]:
        """Where a step of a batch fails, everyone who waits for the batch hears of it."""
        try:
            yield
        except BaseException as error:
            self._cut_off(batch, error)
            raise

    def _cut_off(self, batch: _Batch, error: BaseException) -> None:
        """Tell all who wait that nothing will come; a task's cancellation is its own."""
        if not isinstance(error, Exception):
            error = ConnectionFailed(f"A read was cut off: {type(error).__name__}.")
        self._leave(batch)
        for seat in batch.seats.values():
            seat.set_exception(error)

    def _leave(self, batch: _Batch) -> None:
        with self._lock:
            if not batch.closed:
                self._close(batch)
            for pk, seat in batch.seats.items():
                key = (pk, batch.kind.sk)
                if self._flying.get(key, {}).get(batch.kind) is seat:
                    del self._flying[key][batch.kind]
                    if not self._flying[key]:
                        del self._flying[key]


@dataclass(eq=False, slots=True)
class _Boarding:
    """The batches that one read has opened, and those that it has filled."""

    call: Call
    opened: list[_Batch] = field(default_factory=list)
    full: list[_Batch] = field(default_factory=list)


def _arrivals(seats: Sequence[Future[Found]], call: Call) -> Operation[list[Found]]:
    """What each future brings; a `RequestTimeout` for what does not come before the deadline."""
    found: list[Found] = []
    for seat in seats:
        now: Instant = yield NOW
        try:
            item: Found = yield Await(seat, call.deadline - now.monotonic)
        except TimeoutError:
            item = RequestTimeout("A read that joined others did not arrive in time.")
        except RequestError as error:
            if not error.retryable:
                raise
            item = error
        found.append(item)
    return found
