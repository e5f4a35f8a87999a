"""Probing the regions, heartbeats between them, and carrying orders to all of a fleet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chalk_online_store.backend import Backend, Call
from chalk_online_store.codec.changes import ConditionalWrite
from chalk_online_store.effects import NOW, All, Instant, Operation, Sleep
from chalk_online_store.errors import OnlineStoreError, RequestError, WriteConflict
from chalk_online_store.routing import items
from chalk_online_store.routing.commands import RegionCommands
from chalk_online_store.routing.items import Seen
from chalk_online_store.routing.router import Router

PROBE_TIMEOUT = 1.0
"""Seconds that a probe in the background may take."""

BEAT_EVERY = 1_000_000
"""UTC us, about, between heartbeats of a region, by whichever process."""

_TRIES = 5

_SHORTEST_PAUSE = 0.02
_PAUSE_SHARE = 0.1
"""Seconds between looks for a heartbeat, and their share of the time that has passed: so a lag
is measured to about a tenth, in a few dozen reads."""


@dataclass(frozen=True, slots=True)
class RegionCheck:
    """What a real read of one region just said; `seconds` is how long it took.

    Where it failed, `error` says why, and `reason` is the name of the error's class.
    `search_error` says why the region's endpoint for vector searches does not answer; it is empty
    if that answers, and for a store whose schema has no vector index. `ok` is about reads alone.
    """

    name: str
    ok: bool
    seconds: float
    error: str = ""
    reason: str = ""
    search_error: str = ""


@dataclass(frozen=True, slots=True)
class MeasuredLag:
    """How long a heartbeat took from one region to another, in seconds.

    None where it did not arrive in time, or where `reason`, the name of an error's class, says
    why it could not be measured.
    """

    source: str
    target: str
    seconds: float | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Health:
    """Whether this store can serve, by a real read of every region.

    `ok` says that some region that may be read answered, `preferred_ok` that the first one did.
    """

    ok: bool
    preferred_ok: bool
    regions: tuple[RegionCheck, ...]


class RegionKeeper:
    """Looks after the regions of one store; without a router there is one, which has no name."""

    def __init__(self, backend: Backend, router: Router | None) -> None:
        self._backend = backend
        self._router = router
        self.writing = False
        """Whether this process writes, and so may write heartbeats."""

    def health(self, call: Call, *, searches: bool = False) -> Operation[Health]:
        """See `OnlineStore.health`. With `searches`, endpoints for searches are asked as well."""
        names = self._router.regions if self._router else ("",)
        checks: Sequence[RegionCheck] = yield All(
            [self._check(name, call.deadline, searches) for name in names], len(names)
        )
        now: Instant = yield NOW
        reads = self._router.to_read(now) if self._router else names
        ok = any(check.ok and check.name in reads for check in checks)
        return Health(ok, checks[0].ok, tuple(checks))

    def _check(self, region: str, deadline: float, searches: bool) -> Operation[RegionCheck]:
        began: Instant = yield NOW
        error, reason = "", ""
        try:
            yield from self._look(region, Call(deadline, region=region))
        except OnlineStoreError as failure:
            error, reason = str(failure), type(failure).__name__
        ended: Instant = yield NOW
        search_error = ""
        if searches:
            try:
                yield from self._backend.check_search(Call(deadline, region=region))
            except OnlineStoreError as failure:
                search_error = str(failure)
        seconds = ended.monotonic - began.monotonic
        return RegionCheck(region, not reason, seconds, error, reason, search_error)

    def probe(self, region: str) -> Operation[None]:
        """Look at a region in the background, and let others see that it is written to."""
        now: Instant = yield NOW
        call = Call(now.monotonic + PROBE_TIMEOUT, region=region)
        try:
            seen = yield from self._look(region, call)
            if self.writing and self._takes_heartbeats(region):
                yield from self.beat(region, seen, call)
        except RequestError:
            return  # The router has heard of it.

    def _takes_heartbeats(self, region: str) -> bool:
        router = self._router
        return router is not None and router.routing.heartbeats and region in router.writable

    def _look(self, region: str, call: Call) -> Operation[Seen]:
        began: Instant = yield NOW
        found = yield from self._backend.list_partition(items.PARTITION, " ", call)
        now: Instant = yield NOW
        seen = items.read(found, self._backend.layout)
        router = self._router
        if router is not None:
            router.probed(region, now.monotonic - began.monotonic)
            router.saw(region, seen.beats, now)
            if seen.orders is not None:
                router.order(seen.orders)
        return seen

    def beat(self, region: str, seen: Seen, call: Call) -> Operation[None]:
        """Write a region's heartbeat, unless that was done a moment ago."""
        now: Instant = yield NOW
        if now.wall - seen.beats.get(region, 0) < BEAT_EVERY:
            return
        # Where another process was faster, its heartbeat does as well.
        yield from self._write_beat(region, now.wall, seen, call)

    def _write_beat(self, region: str, at: int, seen: Seen, call: Call) -> Operation[bool]:
        """Write a heartbeat in the place of the one that was seen; False where that is gone."""
        item = items.beat(region, at, self._backend.layout)
        swap = ConditionalWrite(seen.beat_items.get(region), item)
        return (yield from self._backend.transact([swap], call))

    def measure_lag(self, regions: Sequence[str], within: float) -> Operation[list[MeasuredLag]]:
        """Measure the replication between regions, each to each other, by one item from each.

        Writes a heartbeat in each that takes writes, and reads the others until it is there, for
        at most `within` seconds after it was written. That takes a WCU a region, and an RCU a read.
        """
        writable = regions if self._router is None else self._router.writable
        written = [name for name in regions if name in writable]
        sources = [self._measure_from(source, regions, within) for source in written]
        found: list[list[MeasuredLag]] = yield All(sources, max(1, len(sources)))
        return [each for of_one in found for each in of_one]

    def _measure_from(
        self, source: str, regions: Sequence[str], within: float
    ) -> Operation[list[MeasuredLag]]:
        """Each source begins its own count: one that hardly answers delays no other."""
        targets = [name for name in regions if name != source]
        began: Instant = yield NOW
        try:
            beat = yield from self._write_heartbeats(
                source, Call(began.monotonic + within, region=source)
            )
        except RequestError as error:
            return [MeasuredLag(source, name, None, type(error).__name__) for name in targets]
        now: Instant = yield NOW
        arrivals = [
            self._wait_for_heartbeat(source, name, beat, now.monotonic, within) for name in targets
        ]
        found: list[MeasuredLag] = yield All(arrivals, max(1, len(arrivals)))
        return found

    def _write_heartbeats(self, source: str, call: Call) -> Operation[int]:
        """Write a heartbeat that is newer than the one that is there, whoever's clock is ahead."""
        for _ in range(_TRIES):
            seen = yield from self._look(source, call)
            now: Instant = yield NOW
            at = max(now.wall, seen.beats.get(source, 0) + 1)
            if (yield from self._write_beat(source, at, seen, call)):
                return at
        raise WriteConflict(f"Others kept writing heartbeats in {source}.")

    def _wait_for_heartbeat(
        self, source: str, target: str, beat: int, written: float, within: float
    ) -> Operation[MeasuredLag]:
        """Read a region until it shows a heartbeat at least as new as `beat`."""
        call = Call(written + within, region=target)
        try:
            while True:
                seen = yield from self._look(target, call)
                now: Instant = yield NOW
                passed = now.monotonic - written
                if seen.beats.get(source, 0) >= beat:
                    return MeasuredLag(source, target, passed)
                pause = max(_SHORTEST_PAUSE, passed * _PAUSE_SHARE)
                if passed + pause >= within:
                    return MeasuredLag(source, target, None)
                yield Sleep(pause)
        except RequestError as error:
            return MeasuredLag(source, target, None, type(error).__name__)

    def order(self, orders: RegionCommands, call: Call) -> Operation[dict[str, str]]:
        """Carry orders to every region; answers by region why it did not hear of them, or "".

        Regions that take no writes hear by replication, and are not in the answer. Raises
        `RequestError` where none did.
        """
        router = self._router
        assert router is not None  # Whoever gives orders has regions.
        tasks = [self._order_in(name, orders, call.deadline) for name in router.writable]
        failures: list[RequestError | None] = yield All(tasks, len(tasks))
        heard = dict(zip(router.writable, failures, strict=True))
        if None not in failures:
            raise next(failure for failure in failures if failure is not None)
        router.order(orders)
        return {name: str(failure or "") for name, failure in heard.items()}

    def _order_in(
        self, region: str, orders: RegionCommands, deadline: float
    ) -> Operation[RequestError | None]:
        call = Call(deadline, region=region)
        item = items.order(orders, self._backend.layout)
        try:
            for _ in range(_TRIES):
                seen = yield from self._look(region, call)
                if seen.orders is not None and seen.orders.at >= orders.at:
                    return None  # It has come here by replication, or there is a later one.
                if (
                    yield from self._backend.transact(
                        [ConditionalWrite(seen.orders_item, item)], call
                    )
                ):
                    return None
        except RequestError as error:
            return error
        return WriteConflict(f"Others kept giving orders in {region}: give these again.")
