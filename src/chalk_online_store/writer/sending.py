"""From changes to the table: in batches, as many at once as it takes, again where one fails."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence

from chalk_online_store.backend import Call
from chalk_online_store.codec.namespaces import NamespaceCodec, Planned
from chalk_online_store.effects import NOW, Instant, Operation
from chalk_online_store.errors import (
    ItemTooLarge,
    OnlineStoreError,
    RequestError,
    RequestRefused,
    WriteFailed,
)
from chalk_online_store.logs import event
from chalk_online_store.operations.core import Core
from chalk_online_store.operations.write import Ordering
from chalk_online_store.report import Report
from chalk_online_store.retry import RetryPolicy
from chalk_online_store.writer.ledger import Ledger
from chalk_online_store.writer.logs import LOG, log_mistake
from chalk_online_store.writer.pending import Entry, Pending
from chalk_online_store.writer.rate import Concurrency, Retries, WriteRate
from chalk_online_store.writer.signal import Signal, StopFlag

_UPDATES = 16
"""Conditional writes of a batch: so many requests, which a backend has under way at once."""

_PUTS = 25
"""AWS: BatchWriteItem takes 25 items."""

_IDLE = 5.0
_RETRY = RetryPolicy(base=0.1, cap=5.0)
_REFUSALS = (ItemTooLarge, RequestRefused)


class Sender:
    """Sends what is pending, by as many workers as it may have requests under way."""

    def __init__(
        self,
        core: Core,
        ledger: Ledger,
        pending: Pending,
        stop: StopFlag,
        *,
        ordering: Ordering,
        rate: WriteRate,
        concurrency: Concurrency,
        timeout: float,
        rng: random.Random,
    ) -> None:
        self._core = core
        self._ledger = ledger
        self._pending = pending
        self._work = Signal()
        self._ordering = ordering
        self.rate = rate
        self.concurrency = concurrency
        self._retries = Retries(_RETRY, rng)
        self._timeout = timeout
        self._stop = stop

    @property
    def workers(self) -> int:
        """How many have to run to have as many requests under way as is allowed."""
        return -(-self.concurrency.most // (_UPDATES if self._ordering == "event" else 1))

    def run(self) -> Operation[None]:
        """One worker, until it is told to stop."""
        while not self._stop.is_set:
            seen = self._work.count
            now: Instant = yield NOW
            batch, wait = self._next(now.monotonic)
            if batch:
                yield from self._send(batch)
            else:
                yield from self._work.wait(seen, wait)

    def wake(self, besides: int = 0) -> None:
        """There may be something to do: wake as many workers as can do it, besides so many."""
        ready, free = self._pending.ready("live", "backfill"), self.concurrency.free
        if ready and free:
            batches = -(-ready // self._most)
            self._work.notify(min(batches, free // self._requests(self._most)) - besides)

    def wake_all(self) -> None:
        """Wake all workers, since they are to stop."""
        self._work.notify()

    # --- choosing --------------------------------------------------------------------------

    def _next(self, now: float) -> tuple[list[Entry], float]:
        """A batch to send now, or for how many seconds to wait unless something happens."""
        if now < self._retries.not_before:
            return [], self._retries.not_before - now
        if not self.concurrency.free or (self._retries.ill and self.concurrency.under_way):
            return [], _IDLE
        waits = [_IDLE]
        for priority in ("live", "backfill"):
            if not self._pending.ready(priority):
                continue
            wait = self.rate.wait(now, priority == "backfill")
            if not wait:
                return self._pending.take(priority, self._most, self.rate.most), 0.0
            waits.append(wait)
        return [], min(waits)

    @property
    def _most(self) -> int:
        return min(_UPDATES, self.concurrency.free) if self._ordering == "event" else _PUTS

    def _requests(self, changes: int, replay: bool = False) -> int:
        """How many requests so many changes take."""
        return changes if self._ordering == "event" or replay else 1

    def _by_event(self, batch: Sequence[Entry]) -> bool:
        return self._ordering == "event" or batch[0].replay

    # --- sending ---------------------------------------------------------------------------

    def _send(self, batch: Sequence[Entry]) -> Operation[None]:
        requests = self._requests(len(batch), batch[0].replay)
        estimated = sum(entry.cost for entry in batch) if self.rate.bounded else 0.0
        self.concurrency.began(requests)
        self.rate.spend(estimated)
        began: Instant = yield NOW
        call = Call(began.monotonic + self._timeout, replay=batch[0].replay, retries=False)
        failed = yield from self._write(batch, call)
        ended: Instant = yield NOW
        now, report = ended.monotonic, call.report
        self.concurrency.ended(requests, now - began.monotonic, well=not failed)
        self.rate.settle(estimated, report.wcu, report.throttles > 0, now)
        self._account(report)
        self._settle(batch, failed, report.regions, now)
        self.wake(besides=1)

    def _write(self, batch: Sequence[Entry], call: Call) -> Operation[dict[int, OnlineStoreError]]:
        """What failed, by its position."""
        planned = [(position, entry.change) for position, entry in enumerate(batch)]
        ordering: Ordering = "event" if self._by_event(batch) else "arrival"
        try:
            yield from self._apply(batch[-1].codec, planned, ordering, call)
        except WriteFailed as error:
            return dict(error.failed)
        except OnlineStoreError as error:  # Of all: nothing is known of any.
            return dict.fromkeys(range(len(batch)), error)
        except Exception as error:  # noqa: BLE001 - rows must not be lost by what we did not foresee.
            log_mistake("A batch could not be sent; its rows wait", error)
            return dict.fromkeys(range(len(batch)), RequestError(type(error).__name__))
        return {}

    def _apply(
        self, codec: NamespaceCodec, planned: Sequence[Planned], ordering: Ordering, call: Call
    ) -> Operation[Report]:
        writing = self._core.apply(codec, planned, ordering, call)
        watcher = self._core.watcher
        return writing if watcher is None else watcher.watch("write", codec.namespace, writing)

    def _settle(
        self,
        batch: Sequence[Entry],
        failed: Mapping[int, OnlineStoreError],
        regions: Iterable[str],
        now: float,
    ) -> None:
        done = [entry for position, entry in enumerate(batch) if position not in failed]
        for entry in done:
            self._pending.done(entry)
        self._ledger.done(done, regions, now)
        if done:
            self._retries.succeeded(len(done))
        if failed:
            self._settle_failed(batch, failed, now)

    def _settle_failed(
        self, batch: Sequence[Entry], failed: Mapping[int, OnlineStoreError], now: float
    ) -> None:
        faults = 0
        for position, error in failed.items():
            entry = batch[position]
            if not isinstance(error, _REFUSALS):
                faults += 1
            elif len(batch) == 1 or self._by_event(batch):
                self._pending.done(entry)
                self._ledger.failed(entry, error, now)
                continue
            else:  # It may be another one's fault.
                entry.alone = True
            self._pending.put_back(entry)
            self._ledger.counts.retries += 1
        if faults:
            self._slow_down(faults, faults == len(batch), list(failed.values()), now)

    def _slow_down(
        self, faults: int, wholly: bool, causes: Sequence[OnlineStoreError], now: float
    ) -> None:
        if wholly and not self._retries.ill:
            said = event("writer.stuck", error=causes[0])
            LOG.warning("Nothing can be written now; rows wait: %s", causes[0], extra=said)
        asked = [cause.retry_after or 0 for cause in causes if isinstance(cause, RequestError)]
        self._retries.failed(faults, wholly, now, max(asked, default=0) or None)

    def _account(self, report: Report) -> None:
        counts = self._ledger.counts
        counts.batches += 1
        counts.changes += report.items_written + report.superseded
        counts.superseded += report.superseded
        counts.requests += report.requests
        counts.throttles += report.throttles
        counts.wcu += report.wcu
