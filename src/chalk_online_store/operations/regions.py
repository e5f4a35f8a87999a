"""Probing the regions, heartbeats between them, and carrying orders to all of a fleet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from chalk_online_store.backend import Backend, Call
from chalk_online_store.codec.swaps import Swap
from chalk_online_store.effects import NOW, All, Instant, Operation
from chalk_online_store.errors import OnlineStoreError, RequestError, WriteConflict
from chalk_online_store.routing import items
from chalk_online_store.routing.items import Seen
from chalk_online_store.routing.orders import Orders
from chalk_online_store.routing.router import Router

PROBE_TIMEOUT = 1.0
"""Seconds that a probe in the background may take."""

BEAT_EVERY = 1_000_000
"""UTC us, about, between heartbeats of a region, by whichever process."""

_TRIES = 5


@dataclass(frozen=True, slots=True)
class RegionCheck:
    """What a real read of one region just said; `seconds` is how long it took."""

    name: str
    ok: bool
    seconds: float
    error: str = ""


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

    def health(self, call: Call) -> Operation[Health]:
        """See `OnlineStore.health`."""
        names = self._router.regions if self._router else ("",)
        checks: Sequence[RegionCheck] = yield All(
            [self._check(name, call.deadline) for name in names], len(names)
        )
        now: Instant = yield NOW
        reads = self._router.to_read(now) if self._router else names
        ok = any(check.ok and check.name in reads for check in checks)
        return Health(ok, checks[0].ok, tuple(checks))

    def _check(self, region: str, deadline: float) -> Operation[RegionCheck]:
        began: Instant = yield NOW
        error = ""
        try:
            yield from self._look(region, Call(deadline, region=region))
        except OnlineStoreError as failure:
            error = str(failure)
        ended: Instant = yield NOW
        return RegionCheck(region, not error, ended.monotonic - began.monotonic, error)

    def probe(self, region: str) -> Operation[None]:
        """Look at a region in the background, and let others see that it is written to."""
        now: Instant = yield NOW
        call = Call(now.monotonic + PROBE_TIMEOUT, region=region)
        try:
            seen = yield from self._look(region, call)
            if self.writing and self._router and self._router.routing.heartbeats:
                yield from self.beat(region, seen, call)
        except RequestError:
            return  # The router has heard of it.

    def _look(self, region: str, call: Call) -> Operation[Seen]:
        began: Instant = yield NOW
        found = yield from self._backend.list_partition(items.PARTITION, " ", call)
        now: Instant = yield NOW
        seen = items.read(found, self._backend.layout)
        router = self._router
        if router is not None:
            router.probed(region, now.monotonic - began.monotonic, now.monotonic)
            router.lag.saw(region, seen.beats, now.wall)
            if seen.orders is not None:
                router.order(seen.orders)
        return seen

    def beat(self, region: str, seen: Seen, call: Call) -> Operation[None]:
        """Write a region's heartbeat, unless that was done a moment ago."""
        now: Instant = yield NOW
        if now.wall - seen.beats.get(region, 0) < BEAT_EVERY:
            return
        item = items.beat(region, now.wall, self._backend.layout)
        # Where another process was faster, its heartbeat does as well.
        yield from self._backend.transact([Swap(seen.beat_items.get(region), item)], call)

    def order(self, orders: Orders, call: Call) -> Operation[dict[str, str]]:
        """Carry orders to every region; answers by region why it did not hear of them, or "".

        Raises `RequestError` where none did.
        """
        router = self._router
        assert router is not None  # Whoever gives orders has regions.
        tasks = [partial(self._order_in, name, orders, call.deadline) for name in router.regions]
        failures: list[RequestError | None] = yield All([task() for task in tasks], len(tasks))
        heard = dict(zip(router.regions, failures, strict=True))
        if None not in failures:
            raise next(failure for failure in failures if failure is not None)
        router.order(orders)
        return {name: str(failure or "") for name, failure in heard.items()}

    def _order_in(
        self, region: str, orders: Orders, deadline: float
    ) -> Operation[RequestError | None]:
        call = Call(deadline, region=region)
        item = items.order(orders, self._backend.layout)
        try:
            for _ in range(_TRIES):
                seen = yield from self._look(region, call)
                if seen.orders is not None and seen.orders.at >= orders.at:
                    return None  # It has come here by replication, or there is a later one.
                if (yield from self._backend.transact([Swap(seen.orders_item, item)], call)):
                    return None
        except RequestError as error:
            return error
        return WriteConflict(f"Others kept giving orders in {region}: give these again.")
