"""Shadow reads: a share of reads is repeated in the other store, and the results are compared.

Problem. A comparison must not delay or fail the caller's read. It must not report differences that
last for a moment only: a write that has reached one of the stores, an old value in a cache, a value
that becomes stale between the two reads.

Approach. A sampled read leaves its keys and its result in a bounded queue. One worker (a thread, or
a task) reads the same keys from the shadow store and compares. Values that differ are read again
from both stores, strongly consistent, `recheck_after` seconds later. A difference counts if both
stores return the same results as before. If one of them returns something else, the value was
written meanwhile, and it is read once more, up to `_MAX_RECHECKS` times; then it is unsettled.

Invariants.
- Keys in the queue, and of values that are to be read again, are at most `max_queued_keys`.
- A read that was sampled is counted once: as compared, failed or dropped.
- Only one worker runs. It ends when nothing is left to do, and the next sampled read begins
  another one. It also does if the worker is lost: with an event loop that was closed before its
  tasks had ended.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

from chalk_online_store.codec.values import moment
from chalk_online_store.effects import Sleep
from chalk_online_store.errors import ReadFailed
from chalk_online_store.logs import event
from chalk_online_store.migration.comparing import DifferenceKind, difference_of
from chalk_online_store.migration.report import (
    SIDES,
    Difference,
    DualSettings,
    FeatureComparison,
    ReadLatency,
    Side,
    other_side,
)
from chalk_online_store.migration.steps import Steps, Store
from chalk_online_store.operations.rows import Answer, Rows, Status
from chalk_online_store.report import Report
from chalk_online_store.schema import Namespace

LOG = logging.getLogger("chalk_online_store.migration")

_MAX_KEYS_PER_READ = 1000
"""Keys of one read that are compared at most."""

_MAX_RECHECKS = 3

_POLL_SECONDS = 0.05
"""How often a worker that waits for a recheck looks for new reads."""

_LATENCIES_KEPT = 1000

Pair = tuple[Answer, Answer]
"""The results of the serving store and of the shadow store for one feature of one entity."""


@dataclass(slots=True)
class ShadowRead:
    """A read to be compared: its arguments, and the rows from the serving store.

    `is_alone` is False for one of several reads of a call, which share its report and its time.
    `differing` has, by position of the key and feature, the results that differed the last time.
    """

    schema: Any
    namespace: Namespace
    names: Sequence[str]
    options: Mapping[str, Any]
    serving: Side
    keys: Sequence[Any]
    rows: Rows[Any] | None
    start: int = 0
    is_alone: bool = True
    differing: dict[tuple[int, str], Pair] = field(default_factory=dict)
    rechecks: int = 0
    due: float = 0.0


class ShadowReads:
    """The queue, the worker's operation, and the counts of what was compared. Thread-safe."""

    def __init__(self, stores: Mapping[Side, Store], settings: DualSettings) -> None:
        self._stores = stores
        self._settings = settings
        self.closed = False
        self.is_worker_lost: Callable[[], bool] = lambda: False
        self.renew()

    def renew(self) -> None:
        """Have an empty queue, no worker and no counts; also in a forked child."""
        self._lock = threading.Lock()
        self._new: deque[ShadowRead] = deque()
        self._rechecks: deque[ShadowRead] = deque()
        self._pending_keys = 0
        self._is_working = False
        self._reported: set[tuple[str, DifferenceKind]] = set()
        self._are_failing = False
        self.reset()

    def reset(self) -> None:
        """Set all counts to 0."""
        with self._lock:
            self.sampled = self.compared = self.dropped = self.failed = 0
            self.errors: dict[str, int] = {}
            self.cost = {side: Report() for side in SIDES}
            self._features: dict[str, dict[str, int]] = {}
            self._samples: list[Difference] = []
            self._seconds: dict[Side, deque[float]] = {
                side: deque(maxlen=_LATENCIES_KEPT) for side in SIDES
            }

    # --- the caller's part -----------------------------------------------------------------

    def count_call(self, serving: Side, report: Report, seconds: float | None) -> None:
        """Count what a sampled call cost, and how long it took if that can be compared."""
        with self._lock:
            self.cost[serving].add(report)
            if seconds is not None:
                self._seconds[serving].append(seconds)

    def offer(self, read: ShadowRead) -> bool:
        """Queue a read; return True if the caller has to begin a worker."""
        count = len(read.keys)
        with self._lock:
            self.sampled += 1
            if self.closed or self._pending_keys + count > self._settings.max_queued_keys:
                self.dropped += 1
                return False
            self._pending_keys += count
            self._new.append(read)
            begins = self.is_idle
            self._is_working = True
            return begins

    def close(self) -> None:
        """Compare nothing more: what is in the queue counts as dropped."""
        with self._lock:
            self.closed = True
            self.dropped += len(self._new)
            for read in self._rechecks:
                self._count_all(read, "unsettled")
            self._new.clear()
            self._rechecks.clear()
            self._pending_keys = 0

    @property
    def is_idle(self) -> bool:
        """True if no worker compares."""
        return not self._is_working or self.is_worker_lost()

    def worker_failed(self) -> None:
        """Let the next sampled read begin a worker, since this one could not begin."""
        self._is_working = False

    # --- the worker's part -----------------------------------------------------------------

    def work(self) -> Steps[None]:
        """Compare until nothing is left to do."""
        done = False
        try:
            while not done:
                read = self._take()
                if read is not None:
                    yield from self._compare(read)
                    continue
                wait = self._wait()
                if wait is None:
                    done = True
                else:
                    yield Sleep(wait)
        finally:
            if not done:  # Cancelled, with its event loop for example.
                self._is_working = False

    def _take(self) -> ShadowRead | None:
        with self._lock:
            if self._rechecks and self._rechecks[0].due <= time.monotonic():
                return self._rechecks.popleft()
            return self._new.popleft() if self._new else None

    def _wait(self) -> float | None:
        """Seconds until there may be more to do; None if the worker is to end."""
        with self._lock:
            if self._new:
                return 0.0
            if not self._rechecks:
                self._is_working = False
                return None
            return min(max(self._rechecks[0].due - time.monotonic(), 0.0), _POLL_SECONDS)

    def _compare(self, read: ShadowRead) -> Steps[None]:
        """Compare one read. Counts its keys out of the queue, whatever happens."""
        keys, again = len(read.keys), None
        try:
            if read.rechecks:
                again = yield from self._recheck(read)
            else:
                again = yield from self._first_check(read)
        except Exception as error:  # noqa: BLE001 - it must not end the worker; it is counted.
            self._count_failure(read, error)
        except BaseException:  # A cancelled worker leaves no read uncounted.
            with self._lock:
                self._count_unfinished(read)
            raise
        finally:
            with self._lock:
                if not self.closed:
                    self._pending_keys -= keys - (0 if again is None else len(again.keys))
                    if again is not None:
                        self._rechecks.append(again)
                elif again is not None:
                    self._count_all(again, "unsettled")

    def _first_check(self, read: ShadowRead) -> Steps[ShadowRead | None]:
        assert read.rows is not None
        shadow_side, began = other_side(read.serving), time.monotonic()
        shadow: Rows[Any] = yield self._reading(shadow_side, read, read.options)
        with self._lock:
            if read.is_alone:
                self._seconds[shadow_side].append(time.monotonic() - began)
            self.cost[shadow_side].add(shadow.report)
        pairs = {
            (index, name): (read.rows.answer(read.start + index, name), shadow.answer(index, name))
            for name in read.names
            for index in range(len(read.keys))
        }
        equal, failed, differing = self._split(pairs)
        if pairs and len(failed) == len(pairs):
            raise ReadFailed("No value could be read from one of the two stores.")
        with self._lock:
            self._count(read.namespace, equal, "equal")
            self._count(read.namespace, failed, "failed")
            self.compared += 1
            self._are_failing = False
        return self._again(read, differing)

    def _recheck(self, read: ShadowRead) -> Steps[ShadowRead | None]:
        options = {**read.options, "consistent": True}
        found: dict[Side, Rows[Any]] = {}
        for side in (read.serving, other_side(read.serving)):
            found[side] = yield self._reading(side, read, options)
            with self._lock:
                self.cost[side].add(found[side].report)
        serving, shadow = found[read.serving], found[other_side(read.serving)]
        pairs = {
            (index, name): (serving.answer(index, name), shadow.answer(index, name))
            for index, name in read.differing
        }
        equal, failed, differing = self._split(pairs)
        changed: dict[tuple[int, str], Pair] = {}
        for place, pair in differing.items():
            if _is_same(pair, read.differing[place]):
                self._confirm(read, place, pair)
            else:
                changed[place] = pair
        with self._lock:
            self._count(read.namespace, equal, "equal")
            self._count(read.namespace, failed, "failed")
            if read.rechecks >= _MAX_RECHECKS:
                self._count(read.namespace, changed, "unsettled")
                return None
        return self._again(read, changed)

    def _reading(self, side: Side, read: ShadowRead, options: Mapping[str, Any]) -> Any:
        return partial(
            self._stores[side].read,
            read.schema,
            read.keys,
            read.names,
            timeout=self._settings.shadow_timeout,
            **options,
        )

    def _split(
        self, pairs: Mapping[tuple[int, str], Pair]
    ) -> tuple[list[tuple[int, str]], list[tuple[int, str]], dict[tuple[int, str], Pair]]:
        """Return the places of equal and of failed values, and the results that differ."""
        equal: list[tuple[int, str]] = []
        failed: list[tuple[int, str]] = []
        differing: dict[tuple[int, str], Pair] = {}
        for place, pair in pairs.items():
            if Status.FAILED in (pair[0].status, pair[1].status):
                failed.append(place)
            elif self._difference(pair) is None:
                equal.append(place)
            else:
                differing[place] = pair
        return equal, failed, differing

    def _difference(self, pair: Pair) -> DifferenceKind | None:
        settings = self._settings
        return difference_of(*pair, settings.tolerance, settings.observed_at_tolerance)

    def _again(
        self, read: ShadowRead, differing: Mapping[tuple[int, str], Pair]
    ) -> ShadowRead | None:
        """Return the read of the entities that differ, to be repeated; None if there are none."""
        if not differing:
            return None
        indexes = sorted({index for index, _ in differing})
        places = {index: place for place, index in enumerate(indexes)}
        names = {name for _, name in differing}
        return ShadowRead(
            read.schema,
            read.namespace,
            [name for name in read.names if name in names],
            read.options,
            read.serving,
            [read.keys[index] for index in indexes],
            None,
            differing={(places[index], name): pair for (index, name), pair in differing.items()},
            rechecks=read.rechecks + 1,
            due=time.monotonic() + self._settings.recheck_after,
        )

    # --- counting --------------------------------------------------------------------------

    def _count(
        self, namespace: Namespace, places: Iterable[tuple[int, str]], what: str, by: int = 1
    ) -> None:
        """Count values; the caller holds the lock."""
        for _, name in places:
            full_name = namespace.full_name(namespace.feature(name))
            counts = self._features.setdefault(full_name, {})
            counts[what] = counts.get(what, 0) + by

    def _count_all(self, read: ShadowRead, what: str) -> None:
        self._count(read.namespace, read.differing, what)

    def _count_unfinished(self, read: ShadowRead) -> None:
        if read.rechecks:
            self._count_all(read, "unsettled")
        else:
            self.dropped += 1

    def _count_failure(self, read: ShadowRead, error: Exception) -> None:
        name = type(error).__name__
        with self._lock:
            self.errors[name] = self.errors.get(name, 0) + 1
            if read.rechecks:
                self._count_all(read, "failed")
            else:
                self.failed += 1
            is_first, self._are_failing = not self._are_failing, True
        if is_first:
            said = event("migration.shadow_reads_failed", error=error)
            LOG.warning("Shadow reads fail and are not compared: %s.", name, extra=said)

    def _confirm(self, read: ShadowRead, place: tuple[int, str], pair: Pair) -> None:
        kind = self._difference(pair)
        assert kind is not None
        index, name = place
        full_name = read.namespace.full_name(read.namespace.feature(name))
        serving, shadow = pair
        with self._lock:
            self._count(read.namespace, [place], kind.value)
            if len(self._samples) < self._settings.max_samples:
                self._samples.append(
                    Difference(
                        full_name,
                        kind,
                        read.serving,
                        serving.status,
                        shadow.status,
                        None if serving.observed_at is None else moment(serving.observed_at),
                        None if shadow.observed_at is None else moment(shadow.observed_at),
                        read.keys[index] if self._settings.keep_keys else None,
                    )
                )
            is_first = (full_name, kind) not in self._reported
            self._reported.add((full_name, kind))
        if is_first:
            said = event("migration.difference", feature=full_name, kind=kind.value)
            LOG.warning(
                "The two stores differ in %s (%s); further differences are in the report only.",
                full_name,
                kind.value,
                extra=said,
            )

    def features(self) -> dict[str, FeatureComparison]:
        """Return the counts by the full name of a feature."""
        with self._lock:
            names = [each.name for each in fields(FeatureComparison)]
            return {
                name: FeatureComparison(*(counts.get(what, 0) for what in names))
                for name, counts in sorted(self._features.items())
            }

    def samples(self) -> tuple[Difference, ...]:
        """Return some confirmed differences."""
        with self._lock:
            return tuple(self._samples)

    def latency(self) -> dict[Side, ReadLatency]:
        """Return how long the latest compared reads took."""
        with self._lock:
            kept = {side: sorted(seconds) for side, seconds in self._seconds.items()}
        return {side: _latency(seconds) for side, seconds in kept.items()}


def shadow_read_of(
    schema: Any,
    namespace: Namespace,
    rows: Rows[Any],
    options: Mapping[str, Any],
    serving: Side,
    start: float,
    *,
    is_alone: bool,
) -> ShadowRead:
    """Return what is compared of a read: up to 1,000 keys, beginning at the fraction `start`."""
    count = len(rows.keys)
    first = int(start * max(count - _MAX_KEYS_PER_READ + 1, 1))
    keys = list(rows.keys[first : first + _MAX_KEYS_PER_READ])
    return ShadowRead(
        schema, namespace, rows.features, options, serving, keys, rows, first, is_alone
    )


def _is_same(pair: Pair, before: Pair) -> bool:
    """Return True if both stores have returned the same results again."""
    return all(difference_of(now, then) is None for now, then in zip(pair, before, strict=True))


def _latency(seconds: Sequence[float]) -> ReadLatency:
    if not seconds:
        return ReadLatency()
    at: Iterator[float] = (
        seconds[min(int(len(seconds) * share), len(seconds) - 1)] for share in (0.5, 0.99)
    )
    return ReadLatency(len(seconds), *at)
