"""Many reads under way at once, few requests: reads of single entities join into batches.

The first read of a group opens a batch, which is sent after a short window, or as soon as it is
full. Reads that begin meanwhile join it. A key is asked for once at a time: whoever wants one
that is on its way waits for it too, unless this process has written it since it was sent, or the
read is to be consistent. So a read still sees every write that returned before it began.

Interruptions. An exception of a signal handler can end the read that opened a batch before it has
handed the batch to the thread that sends it. So a batch counts only while the read that opened it,
or the operation that sends it, holds its lock (see `effects.SharedResult`). Reads that wait for a
key of a batch that has ended without it read the key by themselves.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from chalk_online_store._fork import reset_after_fork
from chalk_online_store.backend import Backend, Call, GroupKeys, RowOrError
from chalk_online_store.codec.shapes import Shape
from chalk_online_store.effects import Operation, SharedResult, Sleep, Spawn
from chalk_online_store.errors import (
    ConnectionFailed,
    OnlineStoreError,
    RequestError,
    RequestTimeout,
)
from chalk_online_store.report import Report
from chalk_online_store.tiers.waiting import await_shared

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
    opener: threading.Lock
    """Held by the read that opened it."""
    window: threading.Lock = field(default_factory=threading.Lock)
    """Held while others may join."""
    flight: threading.Lock = field(default_factory=threading.Lock)
    """Held while it is sent."""
    futures: dict[str, SharedResult[RowOrError]] = field(default_factory=dict)
    report: Report = field(default_factory=Report)
    closed: bool = False

    @property
    def is_lost(self) -> bool:
        """True if nobody sends it any more."""
        return not any(each.locked() for each in (self.opener, self.window, self.flight))


class Coalescer:
    """Reads items through a backend, as it does, but for the window (seconds). Thread-safe."""

    def __init__(self, backend: Backend, window: float) -> None:
        self._backend = backend
        self._window = window
        self.reset()
        reset_after_fork(self)

    def reset(self) -> None:
        """Forget what others have under way: batches of a parent fly there, not in its fork."""
        self._lock = threading.Lock()
        self._open: dict[_Kind, _Batch] = {}
        self._flying: dict[tuple[str, str], dict[_Kind, _Batch]] = {}

    def get(self, wanted: Sequence[GroupKeys], call: Call) -> Operation[list[list[RowOrError]]]:
        """See `backend.Backend.get`. What a batch cost is in the report of who opened it."""
        if max(len(want.pks) for want in wanted) > MOST_ENTITIES:
            return (yield from self._backend.get(wanted, call))
        boarding = _JoinedBatches(call)
        with boarding.opener:
            try:
                with self._lock:
                    futures = [self._join(want, boarding) for want in wanted]
                for batch in boarding.full:
                    yield Spawn(self._send(batch))
                for batch in boarding.opened:
                    yield Spawn(self._send_after_window(batch))
            except BaseException as error:
                for batch in boarding.opened:
                    if isinstance(error, RuntimeError):  # No thread could be begun.
                        self._fail(batch, error)
                    self._leave(batch)
                raise
            found = []
            for want, batches in zip(wanted, futures, strict=True):
                found.append((yield from self._results(want, batches, call)))
        for batch in boarding.opened:
            call.report.add(batch.report)
        return found

    def written(self, keys: Iterable[tuple[str, str]]) -> None:
        """Let nobody join a read of these items (pk, sk) that is on its way already."""
        with self._lock:
            for key in keys:
                self._flying.pop(key, None)

    # --- boarding: under the lock ----------------------------------------------------------

    def _join(self, want: GroupKeys, boarding: _JoinedBatches) -> list[_Batch]:
        kind = _Kind(want.sk, want.shape, boarding.call.consistent)
        return [self._join_sent_batch(kind, pk, boarding) for pk in want.pks]

    def _join_sent_batch(self, kind: _Kind, pk: str, boarding: _JoinedBatches) -> _Batch:
        batch = self._flying.get((pk, kind.sk), {}).get(kind)
        if batch is None or batch.is_lost:
            return self._join_open_batch(kind, pk, boarding)
        boarding.call.report.coalesced += 1
        return batch

    def _join_open_batch(self, kind: _Kind, pk: str, boarding: _JoinedBatches) -> _Batch:
        batch = self._open.get(kind)
        if batch is None or batch.is_lost or batch.closed:
            batch = _Batch(kind, boarding.call.deadline, boarding.opener)
            boarding.opened.append(batch)
            self._open[kind] = batch
        elif batch not in boarding.opened:
            boarding.call.report.coalesced += 1
        batch.deadline = max(batch.deadline, boarding.call.deadline)
        batch.futures.setdefault(pk, SharedResult())
        if len(batch.futures) == FULL:
            self._close(batch)
            boarding.full.append(batch)
        return batch

    def _close(self, batch: _Batch) -> None:
        """Nobody joins it any more, but whoever wants one of its keys may wait for that."""
        batch.closed = True
        if self._open.get(batch.kind) is batch:
            del self._open[batch.kind]
        if not batch.kind.consistent:
            for pk in batch.futures:
                self._flying.setdefault((pk, batch.kind.sk), {})[batch.kind] = batch

    # --- flying ----------------------------------------------------------------------------

    def _send_after_window(self, batch: _Batch) -> Operation[None]:
        with batch.window:
            with self._failing(batch):
                yield Sleep(self._window)
            with self._lock:
                if batch.closed:  # It was full before.
                    return
                self._close(batch)
            yield from self._send(batch)

    def _send(self, batch: _Batch) -> Operation[None]:
        kind, pks = batch.kind, list(batch.futures)
        call = Call(batch.deadline, kind.consistent, batch.report)
        with batch.flight, self._failing(batch):
            (found,) = yield from self._backend.get([GroupKeys(kind.sk, kind.shape, pks)], call)
            self._leave(batch)
            for pk, item in zip(pks, found, strict=True):
                batch.futures[pk].set_result(item)

    def _results(
        self, want: GroupKeys, batches: Sequence[_Batch], call: Call
    ) -> Operation[list[RowOrError]]:
        """What each batch brings; a `RequestTimeout` for what does not come before the deadline."""
        found: list[RowOrError] = []
        for pk, batch in zip(want.pks, batches, strict=True):
            try:
                found.append((yield from self._arrival(want, pk, batch, call)))
            except RequestError as error:
                if not error.retryable:
                    raise
                found.append(error)
        return found

    def _arrival(
        self, want: GroupKeys, pk: str, batch: _Batch, call: Call
    ) -> Operation[RowOrError]:
        """Await a key of a batch; read it alone if nobody sends the batch any more."""
        seat = batch.futures[pk]
        try:
            return (yield from await_shared(seat, call.deadline, lambda: batch.is_lost))
        except TimeoutError:
            if not batch.is_lost:
                message = "A read that joined others did not arrive in time."
                raise RequestTimeout(message) from None
        ((item,),) = yield from self._backend.get([GroupKeys(want.sk, want.shape, [pk])], call)
        return item

    @contextmanager
    def _failing(self, batch: _Batch) -> Iterator[None]:
        """Where a step of a batch fails, everyone who waits for the batch hears of it."""
        try:
            yield
        except BaseException as error:
            self._fail(batch, error)
            raise

    def _fail(self, batch: _Batch, error: BaseException) -> None:
        """Tell all who wait that nothing will come; a task's cancellation is its own."""
        if not isinstance(error, OnlineStoreError | RuntimeError):
            error = ConnectionFailed(f"A read was cut off: {type(error).__name__}.")
        self._leave(batch)
        for seat in batch.futures.values():
            seat.set_exception(error)

    def _leave(self, batch: _Batch) -> None:
        with self._lock:
            if not batch.closed:
                self._close(batch)
            for pk in batch.futures:
                key = (pk, batch.kind.sk)
                if self._flying.get(key, {}).get(batch.kind) is batch:
                    del self._flying[key][batch.kind]
                    if not self._flying[key]:
                        del self._flying[key]


@dataclass(eq=False, slots=True)
class _JoinedBatches:
    """The batches that one read has opened, and those that it has filled."""

    call: Call
    opener: threading.Lock = field(default_factory=threading.Lock)
    opened: list[_Batch] = field(default_factory=list)
    full: list[_Batch] = field(default_factory=list)
