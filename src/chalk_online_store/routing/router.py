"""Which regions a request may go to, and in which order."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

from chalk_online_store._fork import reset_after_fork
from chalk_online_store.effects import Instant
from chalk_online_store.errors import InvalidValue, RequestError, RequestTimeout, StaleConnection
from chalk_online_store.routing.commands import RegionCommands
from chalk_online_store.routing.health import RegionHealth, RegionState
from chalk_online_store.routing.replication import STOPPED_AFTER_SECONDS, Lag, ReplicationMonitor
from chalk_online_store.routing.settings import HedgeBudget, Routing
from chalk_online_store.schema import seconds

NEARER = 0.7
"""By so much of its distance another region has to be nearer, to be preferred to the present."""

_PROBE_AN_ILL_ONE = 1.0
"""Seconds, about, between the probes of a region that is not well."""

_LEAST_PATIENCE = 0.25
_FIRST_PATIENCE = 1.0
_PATIENCE = 10.0
"""A region has so many times the high percentile of its latency, while there is another one."""

_ENOUGH = 1.5
_FAIR = 3.0
"""Only a region that had so many times that, or `_LEAST_PATIENCE`, has failed by being late."""

_USABLE, _SLOW, _DRAINED, _RECOVERING, _DOWN = range(5)
_WRITABLE = (RegionState.HEALTHY, RegionState.SLOW, RegionState.RETURNING, RegionState.DOWN)

OnChange = Callable[["RegionHealth"], None]
OnReplication = Callable[[str, str, bool], None]
"""Called with a region, the source of its writes, and True if their replication has stopped."""


@dataclass(frozen=True, slots=True)
class RegionStatus:
    """One region, as this process sees it; times in seconds, None for what is not known yet.

    `behind` says, for each other region, how far the replication from there may be behind.
    `not_replicated_from` names the other regions whose writes have stopped arriving here: what is
    read here is old. `hedges` counts the requests that were sent here because the first answer took
    long, `failovers` those that were answered here after another region had failed.
    """

    name: str
    state: RegionState
    reason: str
    for_seconds: float
    reads: bool
    writes: bool
    orders: str
    probe_seconds: float | None
    behind: dict[str, float | None]
    hedges: int = 0
    failovers: int = 0
    not_replicated_from: tuple[str, ...] = ()


class Router:
    """The regions of one store, their health, and what an operator has ordered. Thread-safe.

    `regions` are in the order of preference; `home` is the one that the registry is written in.
    With a `single_writer`, that one alone takes writes, whatever happens: the others are copies
    of it that can only be read, such as a server's replicas. `on_change` is called, outside of any
    lock, for each region whose state has changed, and `on_replication` for each pair of regions
    between which replication has stopped or resumed.
    """

    def __init__(
        self,
        regions: Sequence[str],
        home: str,
        routing: Routing | None = None,
        rng: random.Random | None = None,
        on_change: OnChange = lambda region: None,
        *,
        single_writer: bool = False,
    ) -> None:
        self.regions = tuple(regions)
        self.home = home
        self.single_writer = single_writer
        self.routing = routing or Routing()
        self.lag = Lag()
        self.orders = RegionCommands()
        self._drained_at: dict[str, int] = {}
        self._rng = rng or random.Random()
        self.on_change = on_change
        self.on_replication: OnReplication = lambda region, source, stopped: None
        self.health = {name: RegionHealth(name, self.routing, self._rng) for name in regions}
        hedging = self.routing.hedging
        self.hedges = HedgeBudget(hedging.budget, hedging.burst) if hedging else None
        self._max_lag = None if self.routing.max_lag is None else seconds(self.routing.max_lag)
        self._return_over = seconds(self.routing.return_over)
        self._probe_every = seconds(self.routing.probe_every)
        if self._max_lag is not None:
            self._probe_every = min(self._probe_every, self._max_lag / 2)
        self._replication = ReplicationMonitor(max(STOPPED_AFTER_SECONDS, 4 * self._probe_every))
        self._probe_at = dict.fromkeys(regions, 0.0)
        self._next_probe = 0.0
        self._preferred = self.regions[:1] if self.routing.reads == "local" else self.regions
        at_home = single_writer or self.routing.writes == "home"
        self._written = home if at_home else self.regions[0]
        self._calm = self._max_lag is None
        self.reset()
        reset_after_fork(self)

    def reset(self) -> None:
        """Have a lock of one's own."""
        self._lock = threading.Lock()

    # --- choosing --------------------------------------------------------------------------

    def to_read(self, now: Instant) -> Sequence[str]:
        """The regions that a read may ask, the best first; empty where none may be asked."""
        if self._calm:
            return self._preferred
        with self._lock:
            ticked = self._tick(now.monotonic)
            ranked = [(self._rank(name, now), name) for name in self._preferred]
        self._tell_of(ticked)
        allowed = [entry for entry in ranked if entry[0] is not None]
        return [name for _, name in sorted(allowed, key=lambda entry: entry[0] or 0)]

    def to_write(self, now: Instant) -> str:
        """The region that writes go to, and strong reads."""
        if not self._calm:
            with self._lock:
                ticked = self._tick(now.monotonic)
                if self.health[self._written].state is RegionState.DOWN:
                    self._changed()  # Another one may answer by now.
            self._tell_of(ticked)
        return self._written

    @property
    def written(self) -> str:
        """The region that writes go to, as far as is known by now."""
        return self._written

    def may_have_lost_writes(self, region: str) -> bool:
        """Return True if a region is unhealthy or evacuated: it may not have replicated all."""
        return (
            region in self.orders.evacuated or self.health[region].state is not RegionState.HEALTHY
        )

    @property
    def writable(self) -> Sequence[str]:
        """The regions that take writes."""
        return (self.home,) if self.single_writer else self.regions

    def _choose_written(self) -> str:
        orders = self.orders
        if self.single_writer:
            return self.home
        if orders.pinned or self.routing.writes == "home":
            return orders.pinned or self.home
        order = self._preferred if self.routing.writes == "any-region" else self.regions
        usable = [name for name in order if name not in orders.evacuated] or list(order)
        fresh = [name for name in usable if not self._is_stale(name)]
        # Writes to a region that no longer replicates would split the data: they stay.
        usable = fresh or ([self._written] if self._written in usable else usable)
        usable.sort(key=lambda name: name in orders.drained)
        for name in usable:
            # Back only to one that has all of its reads back: else writes would go to and fro.
            state = self.health[name].state
            if state is RegionState.HEALTHY or (
                name == self._written and state is not RegionState.DOWN
            ):
                return name
        return min(usable, key=self._last_resort_rank)

    def _last_resort_rank(self, name: str) -> tuple[int, bool, bool]:
        """How little hope there is of writing to a region, where none is healthy."""
        health = self.health[name]
        moves = health.recovering and name != self._written
        return _WRITABLE.index(health.state), not health.recovering, moves

    def _rank(self, name: str, now: Instant) -> int | None:
        """How good a region is for a read now, the least the best; None where it is none."""
        orders, health = self.orders, self.health[name]
        if orders.pinned:
            return _USABLE if name == orders.pinned else None
        if name in orders.evacuated:
            return None
        if self._is_behind(name):
            return None if self.routing.beyond_max_lag == "refuse" else _DRAINED
        if health.state is RegionState.DOWN:
            return _RECOVERING if health.recovering else _DOWN
        if self._is_stale(name):
            return _DRAINED
        if health.state is RegionState.SLOW:
            return _SLOW if self._is_better_one(name) else _USABLE
        share = health.share(now.monotonic)
        if name in orders.drained:
            passed = now.wall - self._drained_at[name]
            share = min(share, 1 - passed / 1e6 / self._return_over)
        return _USABLE if share >= 1 or self._rng.random() < share else _DRAINED

    def _is_better_one(self, slow: str) -> bool:
        """Whether another region, however far, answers sooner than a slow one does now."""
        now = self.health[slow].latest
        others = (health for name, health in self.health.items() if name != slow and health.well)
        return any(
            now is None or other.distance is None or other.distance < now for other in others
        )

    def _is_behind(self, name: str) -> bool:
        if self._max_lag is None:
            return False
        behind = self.behind(name)
        return behind is not None and behind > self._max_lag

    def _is_stale(self, name: str) -> bool:
        """Return True if a region has stopped receiving the writes that are made elsewhere."""
        stopped = self._replication.stopped
        return bool(stopped) and any((name, source) in stopped for source in self._sources(name))

    def may_hedge_to(self, name: str) -> bool:
        """Return True if a region is healthy enough, and its data current enough, for a hedge."""
        return self.health[name].well and not self._is_stale(name)

    def _tick(self, now: float) -> Sequence[RegionHealth]:
        """The regions whose state the passing of time has changed."""
        states = {name: health.state for name, health in self.health.items()}
        for health in self.health.values():
            health.tick(now)
        ticked = [health for name, health in self.health.items() if health.state != states[name]]
        if ticked:
            self._changed()
        return ticked

    def _tell_of(self, changed: Sequence[RegionHealth]) -> None:
        for health in changed:
            self.on_change(health)

    def _changed(self) -> None:
        """See whether there is anything to weigh up: mostly there is not."""
        well = all(health.state is RegionState.HEALTHY for health in self.health.values())
        self._calm = (
            well
            and self.orders == RegionCommands(at=self.orders.at)
            and self._max_lag is None
            and not self._replication.stopped
        )
        # Now, also where nothing is written: so that whoever writes next is with the others.
        before, self._written = self._written, self._choose_written()
        if self._written != before:
            self.lag.left(before)

    # --- patience --------------------------------------------------------------------------

    def attempt_timeout(self, region: str, kind: Hashable, left: float, others: int) -> float:
        """Seconds to wait for a region while `others` have not been asked yet.

        `left` is what is left until the deadline: each of them gets its part. While a region is
        not well, there is always another chance to keep time for.
        """
        if not self.health[region].well and len(self.regions) > 1:
            others = max(1, others)
        if not others:
            return left
        high = self.health[region].latency(kind).high
        share = left / (1 + others)
        if high is None:
            return min(share, _FIRST_PATIENCE)
        share = max(share, high * _ENOUGH)  # With less, none of them could answer.
        return min(left, share, max(_LEAST_PATIENCE, high * _PATIENCE))

    def _time_share(self, region: str, kind: Hashable) -> float:
        high = self.health[region].latency(kind).high
        return _LEAST_PATIENCE if high is None else min(_LEAST_PATIENCE, high * _FAIR)

    def hedge_after(self, region: str, kind: Hashable) -> float | None:
        """Seconds after which a read is asked again; None where it is not, or not yet known."""
        return None if self.hedges is None else self.health[region].latency(kind).high

    # --- learning --------------------------------------------------------------------------

    def answered(
        self, region: str, generation: int, kind: Hashable, took: float, now: float
    ) -> None:
        """See `RegionHealth.answered`."""
        with self._lock:
            health = self.health[region]
            before = health.generation
            health.answered(generation, kind, took, now)
        self._tell(health, before)

    def lost_hedge(
        self, region: str, generation: int, kind: Hashable, took: float, now: float
    ) -> None:
        """See `RegionHealth.overtaken`."""
        with self._lock:
            health = self.health[region]
            before = health.generation
            health.lost_hedge(generation, kind, took, now)
        self._tell(health, before)

    def raised(
        self,
        region: str,
        generation: int,
        kind: Hashable,
        error: RequestError,
        given: float,
        now: float,
    ) -> None:
        """A request to a region ended with an error: the region's failure, or its refusal.

        A region that was given hardly any time did not fail. A connection that was lost while it
        was idle says nothing about the region, neither good nor bad.
        """
        if isinstance(error, StaleConnection):
            return
        if isinstance(error, RequestTimeout) and given < self._time_share(region, kind):
            return
        with self._lock:
            health = self.health[region]
            before = health.generation
            # While it is down, a refusal is no sign that it accepts requests again.
            if error.engine_fault or (error.regional and not health.well):
                health.failed(generation, type(error).__name__, now)
            else:
                health.refused(generation, now)
        self._tell(health, before)

    def refused_alone(self, region: str, generation: int, error: RequestError, now: float) -> None:
        """A region refused a request that another region has accepted: a failure of its own."""
        with self._lock:
            health = self.health[region]
            before = health.generation
            health.failed(generation, type(error).__name__, now)
        self._tell(health, before)

    def delayed(self, region: str) -> None:
        """A connection that was lost while it was idle has delayed a request to a region."""
        with self._lock:
            self.health[region].delayed()

    def _tell(self, health: RegionHealth, before: int) -> None:
        if health.generation == before:
            return
        with self._lock:
            self._changed()
            if not health.well:  # See soon whether it is so for others than the caller, too.
                self._probe_at[health.name] = self._next_probe = 0.0
        self.on_change(health)

    def hedged(self, region: str) -> None:
        """Count a request that is sent to a region because the first answer takes long."""
        with self._lock:
            self.health[region].hedges += 1

    def failed_over(self, region: str) -> None:
        """Count a request that a region answered after another had failed."""
        with self._lock:
            self.health[region].failovers += 1

    # --- probes ----------------------------------------------------------------------------

    def due(self, now: float) -> Sequence[str]:
        """The regions to probe now; whoever asks probes them."""
        if now < self._next_probe:
            return ()
        with self._lock:
            due = [name for name, at in self._probe_at.items() if at <= now]
            for name in due:
                self._probe_at[name] = now + self._pause(self.health[name])
            self._next_probe = min(self._probe_at.values())
        return due

    def _pause(self, health: RegionHealth) -> float:
        every = self._probe_every
        if not health.well:
            every = min(every, _PROBE_AN_ILL_ONE)
        return every * self._rng.uniform(0.5, 1.5)

    def probed(self, region: str, took: float) -> None:
        """A region was probed, and answered."""
        with self._lock:
            self.health[region].probed(took)
            if self.routing.reads == "nearest":
                self._prefer_nearest()

    def _prefer_nearest(self) -> None:
        def distance(name: str) -> float:
            found = self.health[name].distance
            if found is None:
                return float("inf")
            return found * NEARER if name == self._preferred[0] else found

        self._preferred = tuple(sorted(self.regions, key=distance))
        self._changed()

    # --- orders and lag --------------------------------------------------------------------

    def check(self, orders: RegionCommands) -> None:
        """Refuse orders that cannot be carried out; raises `InvalidValue`."""
        orders.check(self.regions)
        if self.single_writer and self.home in orders.evacuated:
            raise InvalidValue(
                f"{self.home!r} alone takes writes, and cannot be evacuated: drain it of its "
                "reads, or have another one promoted."
            )

    def order(self, orders: RegionCommands) -> None:
        """Do as an operator says, unless there is a later order already."""
        with self._lock:
            if orders.at > self.orders.at:
                # What other orders add does not begin a drain anew.
                at = self._drained_at
                self._drained_at = {n: at.get(n, orders.at) for n in orders.drained}
                self.orders = orders
                self._changed()

    def behind(self, region: str) -> float | None:
        """Seconds by which what a region shows may be behind what was written; None if unknown."""
        anywhere = self.routing.writes == "any-region"
        if region == self._written == self.home and self.lag.settled and not anywhere:
            return 0.0  # So it almost always is.
        sources = self._sources(region)
        if not sources:
            return 0.0
        found = [self.lag.behind(region, source) for source in sources]
        known = [behind for behind in found if behind is not None]
        return max(known) if known else None

    def _sources(self, region: str) -> set[str]:
        """The other regions whose writes a region should have received."""
        sources = {self.home, self._written, *self.lag.may_lack(region)}
        if self.routing.writes == "any-region":
            sources.update(self.regions)
        sources.discard(region)
        return sources

    def saw(self, region: str, beats: Mapping[str, int], now: Instant) -> None:
        """A region showed these heartbeats (UTC us), by the region that each was written in."""
        reached = {
            name: now.wall - int((now.monotonic - health.reached_at) * 1e6)
            for name, health in self.health.items()
            if health.reached_at > -math.inf
        }
        with self._lock:
            self.lag.saw(region, beats, now.wall, reached)
            before = self._replication.saw(region, beats, now.monotonic)
            stopped = self._replication.stopped
            if stopped != before:
                self._changed()
        for target, source in sorted(stopped ^ before):
            self.on_replication(target, source, (target, source) in stopped)

    # --- telling ---------------------------------------------------------------------------

    def status(self, now: Instant) -> list[RegionStatus]:
        """Every region, in the order of preference."""
        reads, writes = self.to_read(now), self.to_write(now)
        return [
            RegionStatus(
                name=name,
                state=health.state,
                reason=health.reason,
                for_seconds=max(0.0, now.monotonic - health.since),
                reads=name in reads[:1],
                writes=name == writes,
                orders=self._ordered(name),
                probe_seconds=health.latest,
                behind={
                    source: self.lag.behind(name, source)
                    for source in self.writable
                    if source != name
                },
                hedges=health.hedges,
                failovers=health.failovers,
                not_replicated_from=tuple(
                    source
                    for source in self.writable
                    if (name, source) in self._replication.stopped
                ),
            )
            for name, health in self.health.items()
        ]

    def _ordered(self, name: str) -> str:
        orders = self.orders
        lists = {"drained": orders.drained, "evacuated": orders.evacuated}
        found = [what for what, names in lists.items() if name in names]
        return "pinned" if name == orders.pinned else (found[0] if found else "")
