"""From changes to the table: in batches, as many at once as it takes, again where one fails."""

from __future__ import annotations

import math
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
from chalk_online_store.retry import RetryPolicy, raise_delay
from chalk_online_store.routing.settings import HedgeBudget
from chalk_online_store.writer.ledger import Ledger
from chalk_online_store.writer.pending import Entry, Pending
from chalk_online_store.writer.settings import LOG, log_mistake
from chalk_online_store.writer.signal import Signal, StopFlag

# --- How fast a writer may go: write units a second, requests at once, and when to try ag ---
#
# Every time is given: seconds on the monotonic clock.


_DECREASE = 0.7
_A_SECOND = 1.0
_SLOWEST = 1.0
"""WCU a second: throttles do not lower the rate below this."""

_RESOLUTION = 1e-6
"""Seconds."""

_RECOVERY = 30.0
"""Seconds, about, from nothing to the full rate."""


class WriteRate:
    """A token bucket of write units, lowered by throttles.

    `ceiling` is in WCU a second; None for none, until a throttle tells of one. Additive increase,
    multiplicative decrease: D.-M. Chiu and R. Jain, "Analysis of the Increase and Decrease
    Algorithms for Congestion Avoidance in Computer Networks", 1989. Units are spent as they are
    estimated, and settled once the engine has told: the bucket may owe.

    The bucket begins empty. A full one would allow a second's units at once, and a process that
    starts many short writers, as a task of Spark does, would exceed the rate by that much each
    time. With `prepaid` units are saved up before they are spent, nothing is reserved for live
    rows, and `debt` says how long to wait at the end: such writers keep the rate together when
    they run one after the other.
    """

    def __init__(self, ceiling: float | None, *, prepaid: bool = False) -> None:
        self._ceiling = math.inf if ceiling is None else ceiling
        self.rate = self._ceiling
        self._prepaid = prepaid and self.rate < math.inf
        self._level = -self.most if self._prepaid else 0.0
        self._at: float | None = None
        self._slowed_at = -math.inf
        self._increase = 0.0 if self.rate == math.inf else self.rate / _RECOVERY
        self._second = _Second()

    def wait(self, now: float, backfill: bool) -> float:
        """Seconds until something may be sent; 0 for now.

        Backfills leave half of the bucket to live rows, and all of it for a second after a
        throttle.
        """
        if not self.bounded:
            return 0.0
        self._refill(now)
        held_back = self._slowed_at + _A_SECOND - now if backfill else 0.0
        reserve = self.rate / 2 if backfill and not self._prepaid else 0.0
        missing = reserve - self._level
        return max(0.0, held_back, (missing + 1e-9) / self.rate if missing >= 0 else 0.0)

    @property
    def bounded(self) -> bool:
        """Whether there is a rate to keep."""
        return self.rate < math.inf

    @property
    def most(self) -> float:
        """WCU that may be sent in one go: a tenth of a second's."""
        return self.rate / 10

    def debt(self, now: float) -> float:
        """Seconds until all that was sent is paid for; 0 if nothing bounds the rate."""
        if not self.bounded or not self._prepaid:
            return 0.0
        self._refill(now)
        seconds = (-self.most - self._level) / self.rate
        # A wait that is smaller than the clock's resolution would never end.
        return seconds if seconds > _RESOLUTION else 0.0

    def _refill(self, now: float) -> None:
        passed = 0.0 if self._at is None else max(0.0, now - self._at)
        self._at = now
        self.rate = min(self._ceiling, self.rate + self._increase * passed)
        self._level = min(self.rate, self._level + self.rate * passed)

    def spend(self, units: float) -> None:
        """So many units are sent, by estimate."""
        if self.bounded:
            self._level -= units

    def settle(self, estimated: float, consumed: float, throttled: bool, now: float) -> None:
        """What was sent has consumed this; whether the engine asked for a slower pace."""
        if consumed and self.bounded:
            self._level -= consumed - estimated
        self._second.count(consumed or estimated, now)
        if throttled and now - self._slowed_at >= _A_SECOND:
            self._slow(now)

    def _slow(self, now: float) -> None:
        """At most once a second: what is under way then is throttled for the same reason."""
        self._slowed_at = now
        base = self._second.units(now) if self.rate == math.inf else self.rate
        if self._increase == 0.0:
            self._increase = max(_SLOWEST, base) / _RECOVERY
            self._at = now
        self.rate = max(_SLOWEST, min(base, self.rate) * _DECREASE)
        self._level = min(self._level, 0.0)


class _Second:
    """How many units went out in the last whole second, about."""

    def __init__(self) -> None:
        self._began = -math.inf
        self._now = 0.0
        self._last = 0.0

    def count(self, units: float, now: float) -> None:
        if now - self._began >= _A_SECOND:
            self._last = self._now if now - self._began < 2 * _A_SECOND else 0.0
            self._now, self._began = 0.0, now
        self._now += units

    def units(self, now: float) -> float:
        return max(self._last, self._now)


class Concurrency:
    """How many requests may be under way: by TCP Vegas' rule, from what they take.

    L. Brakmo, S. O'Malley and L. Peterson, "TCP Vegas", 1994: with `n` under way, of which each
    takes `t` where the quickest took `b`, about `n * (1 - b / t)` are waiting in a queue. There
    should be a few.
    """

    _FEW, _MANY = 3.0, 6.0
    _FORGET = 1.0001

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = float(min(8, most))
        self.under_way = 0
        self._quickest = math.inf

    @property
    def free(self) -> int:
        """How many more may begin."""
        return max(0, int(self.limit) - self.under_way)

    def began(self, requests: int) -> None:
        """So many have begun."""
        self.under_way += requests

    def ended(self, requests: int, took: float, well: bool) -> None:
        """They have ended, together, after so many seconds."""
        busy = self.under_way >= self.limit - requests
        self.under_way -= requests
        if not well:
            self.limit = max(1.0, self.limit * _DECREASE)
            return
        self._quickest = min(self._quickest * self._FORGET, took)
        queued = self.limit * (1 - self._quickest / took) if took > 0 else 0.0
        if queued < self._FEW and busy:
            self.limit = min(float(self.most), self.limit + 1)
        elif queued > self._MANY:
            self.limit = max(1.0, self.limit - 1)


class Retries:
    """When a writer may send again after failures.

    As long as everything fails, one batch at a time is tried, after jittered backoff. Where only
    some fail, each retry takes a token of which successes bring a few: with none left, it waits.
    """

    def __init__(self, policy: RetryPolicy, rng: random.Random) -> None:
        self._policy = policy
        self._rng = rng
        self._budget = HedgeBudget(0.2, 100)
        self._failures = 0
        self.not_before = 0.0
        self.ill = False
        """Whether the last that was tried has failed altogether."""

    def succeeded(self, changes: int) -> None:
        """So many changes are in the table."""
        for _ in range(changes):
            self._budget.earn()
        self.ill, self._failures = False, 0

    def failed(
        self, changes: int, wholly: bool, now: float, retry_after: float | None = None
    ) -> None:
        """So many changes of a batch have failed, or all of them.

        `retry_after` is how many seconds AWS asks to wait, if it does.
        """
        spent = [self._budget.take() for _ in range(changes)]
        if not wholly and all(spent) and retry_after is None:
            return
        self.ill = self.ill or wholly
        ceiling = min(self._policy.cap, self._policy.base * 2.0**self._failures)
        self._failures = min(self._failures + 1, 30)
        self.not_before = now + raise_delay(self._rng.uniform(0, ceiling), retry_after)


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
