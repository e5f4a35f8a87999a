"""What is done to a region, and when."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from benchmarks.chaos.settings import PREFERRED, STANDBY, Pace, RoutingOptions
from chalk_online_store.testing import (
    AcceptThenClose,
    Blackhole,
    DamagedCRC,
    Fault,
    ForgottenConnections,
    LateDuplicates,
    Latency,
    LocalGlobalTable,
    LostAnswer,
    Refused,
    Reset,
    ServerFault,
    Slowdown,
    SlowDrip,
    SwappedResponses,
    Throttling,
    Truncated,
    Unprocessed,
)

Act = Callable[[LocalGlobalTable], None]


class Step(NamedTuple):
    """Something that is done at a time, in seconds from the end of the warming."""

    at: float
    act: Act


def nothing(table: LocalGlobalTable) -> None:
    """There is nothing to do."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One fault. `ill` is the region that has it, the first of `regions` the preferred one.

    `prepare` makes what is then called healthy. Reads have to move within `moves` seconds, or,
    with `stays`, not at all. `every` is for a fault that comes and goes. All in seconds.
    """

    name: str
    title: str
    begin: Act = nothing
    end: Act = nothing
    prepare: Act = nothing
    ill: str = PREFERRED
    regions: tuple[str, ...] = (PREFERRED, STANDBY)
    home: str = PREFERRED
    moves: float | None = None
    reads_may_fail: bool = False
    stays: bool = False
    every: float | None = None
    lag: float = 0.02
    routing: RoutingOptions = field(default_factory=RoutingOptions)

    def steps(self, pace: Pace) -> Iterator[Step]:
        """What is done, in order."""
        at, on = pace.before, True
        while self.every and at < pace.healed:
            yield Step(at, self.begin if on else self.end)
            at, on = at + self.every, not on
        if not self.every:
            yield Step(at, self.begin)
        yield Step(pace.healed, self.end)


def _inject(*faults: Fault, share: float = 1.0) -> Act:
    def act(table: LocalGlobalTable) -> None:
        for fault in faults:
            table.region(PREFERRED).inject(fault, share=share)

    return act


def _clear(table: LocalGlobalTable) -> None:
    table.region(PREFERRED).clear()


def _fault(name: str, title: str, *faults: Fault, share: float = 1.0, **more: object) -> Scenario:
    return Scenario(name, title, _inject(*faults, share=share), _clear, **more)  # type: ignore[arg-type]


_BASE = 0.005
_TIMES = 10


def _both_take_time(table: LocalGlobalTable) -> None:
    for name in (PREFERRED, STANDBY):
        table.region(name).inject(Latency(_BASE))


def _well_but_for_the_base(table: LocalGlobalTable) -> None:
    _clear(table)
    table.region(PREFERRED).inject(Latency(_BASE))


def _order(*evacuated: str) -> Act:
    def act(table: LocalGlobalTable) -> None:
        from chalk_online_store import OnlineStore

        with OnlineStore.open(table.url(), schema=[]) as store:
            store.order_regions(evacuated=evacuated)

    return act


def _start_again(table: LocalGlobalTable) -> None:
    table.region(PREFERRED).engine.start()


_LAGGING = 0.5
SCENARIOS: Mapping[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario("healthy", "nothing, for comparison", stays=True),
        _fault("blackhole", "connections go silent", Blackhole(), moves=1.0),
        _fault("blackhole-connect", "silent, connects too", Blackhole(connect=True), moves=1.0),
        _fault("refused", "connects refused", Refused(), moves=0.1),
        _fault("reset", "connections reset", Reset(), moves=1.0),
        _fault("accept-close", "accepted, then closed", AcceptThenClose(0.001), moves=1.0),
        _fault("forgotten", "open connections forgotten", ForgottenConnections(), stays=True),
        _fault(
            "forgotten-silent",
            "open connections forgotten, silently",
            ForgottenConnections(silent=True),
        ),
        _fault("swapped", "responses swapped", SwappedResponses(0.05), moves=1.0),
        _fault("partly-swapped", "5 % of responses swapped", SwappedResponses(0.05), share=0.05),
        _fault("duplicates", "responses come twice", LateDuplicates()),
        _fault("truncated", "bodies truncated", Truncated(), moves=1.0),
        _fault("crc", "bodies damaged (CRC32)", DamagedCRC(), moves=1.0),
        _fault("lost-answer", "answers lost, writes done", LostAnswer(), moves=1.0),
        _fault("500", "HTTP 500", ServerFault(500), moves=1.0),
        _fault("503", "HTTP 503", ServerFault(503), moves=1.0),
        _fault("throttling", "all throttled", Throttling(), reads_may_fail=True, stays=True),
        _fault("unprocessed", "half of each batch unprocessed", Unprocessed(0.5), stays=True),
        _fault("drip", "bodies drip, 2 KB a second", SlowDrip(2_000.0), moves=1.0),
        Scenario(
            "brown-out",
            "ten times as slow",
            _inject(Slowdown(_TIMES), Latency(_BASE * (_TIMES - 1))),
            _well_but_for_the_base,
            _both_take_time,
            moves=1.0,
        ),
        _fault("flapping", "refused every other second", Refused(), every=1.0),
        _fault("partial", "30 % answer 503", ServerFault(503), share=0.3),
        Scenario(
            "kill",
            "engine killed (kill -9), started again",
            lambda table: table.region(PREFERRED).engine.kill(),
            _start_again,
            moves=1.0,
        ),
        Scenario(
            "region",
            "region and its replication lost",
            lambda table: table.lose(PREFERRED),
            lambda table: table.restore(PREFERRED),
            moves=1.0,
            lag=_LAGGING,
        ),
        Scenario(
            "standby",
            "the standby region lost",
            lambda table: table.lose(STANDBY),
            lambda table: table.restore(STANDBY),
            ill=STANDBY,
            stays=True,
        ),
        Scenario(
            "partition",
            "replication stops; the replica is read",
            lambda table: table.partition(PREFERRED, STANDBY),
            lambda table: table.heal(),
            ill=STANDBY,
            regions=(STANDBY, PREFERRED),
            lag=_LAGGING,
            routing=RoutingOptions(writes="home"),
            stays=True,
        ),
        Scenario(
            "max-lag",
            "the same, with max_lag of 3 s",
            lambda table: table.partition(PREFERRED, STANDBY),
            lambda table: table.heal(),
            ill=STANDBY,
            regions=(STANDBY, PREFERRED),
            lag=_LAGGING,
            routing=RoutingOptions(writes="home", max_lag=3.0),
        ),
        Scenario("evacuation", "evacuated by order, released", _order(PREFERRED), _order()),
    )
}
