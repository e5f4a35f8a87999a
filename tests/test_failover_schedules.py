"""Lag, writes, orders, fleets and the registry in virtual time, through generated schedules."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from itertools import pairwise

import pytest

from chalk_online_store import RegionState, RegistryUnavailable, Routing
from chalk_online_store.routing.commands import RegionCommands
from tests.helpers import stress
from tests.regions import Command, Done, Fault, Lag, Regions, Sent
from tests.test_failover_simulated import DISTANCES, schedule

SCHEDULES = stress(6)
"""Generated schedules of each kind; thousands at a desk."""

HARD = ("refused", "silent", "errors", "damaged")
"""Faults with which a region gives no good answer at all."""

DETECTION = 1.0
"""Seconds after the beginning of such a fault until no write can fail because of it."""

FLEET = 30
AT_ONCE = 0.5
"""The processes of a fleet, and the share of them that may switch within half a second."""

HEARD = 4.0
"""Seconds in which a region that is well again is known to answer."""

DRAWN_OUT = 1.5
"""By so much, at most, a process draws out the times of its routing."""

many = pytest.mark.parametrize("seed", range(SCHEDULES))


def some_regions(rng: random.Random) -> dict[str, float]:
    """Two regions or three, in any order, with their distances."""
    return {name: DISTANCES[name] for name in rng.sample(list(DISTANCES), rng.choice((2, 2, 3)))}


def lags_of(rng: random.Random, regions: dict[str, float]) -> list[Lag]:
    """Replication that is slow or cut for a while, perhaps in one direction alone."""
    lags = []
    for _ in range(rng.randint(1, 4)):
        seconds = rng.choice((math.inf, rng.uniform(0.1, 2), rng.uniform(2, 30)))
        begins = rng.uniform(12, 40)
        source, target = rng.sample(list(regions), 2)
        lags.append(Lag(source, target, seconds, begins, begins + 25 * rng.random()))
    return lags


def later(faults: list[Fault], seconds: float) -> list[Fault]:
    return [
        fault._replace(begins=fault.begins + seconds, ends=fault.ends + seconds) for fault in faults
    ]


def faults_in(world: Regions, begins: float, ends: float) -> list[Fault]:
    """What was wrong anywhere between two times."""
    return [fault for fault in world.faults if fault.begins < ends and begins < fault.ends]


def some_region_is_well(world: Regions, call: Done) -> bool:
    """One that was well throughout a call, and long enough before for that to be known."""
    ill = {fault.region for fault in faults_in(world, call.began - HEARD, call.ended)}
    return len(ill) < len(world.distances)


def check_end(world: Regions, call: Done) -> None:
    """It ended in time, and what it says is so."""
    assert call.ended <= call.began + world.timeout + 1e-9
    assert call.value is not False
    assert (call.value is None) == bool(call.error or call.failed)


# --- lag -----------------------------------------------------------------------------------


@many
def test_lag_is_never_understated(seed: int) -> None:
    """What is told is at least what was missing at the last look, and max_lag holds for that."""
    rng = random.Random(seed)
    regions = some_regions(rng)
    max_lag, beyond = rng.choice((2, 5)), rng.choice(("avoid", "refuse"))
    routing = Routing(max_lag=max_lag, beyond_max_lag=beyond, return_after="3s", return_over="3s")  # type: ignore[arg-type] # rng.choice gives a str
    faults = later(schedule(rng, list(regions), 40), 12) if rng.random() < 0.6 else []
    world = Regions(regions, routing, faults, seed, lags=lags_of(rng, regions))
    world.fill(20)
    for call in world.mixed_load(300, 0.2)[0]:
        check_end(world, call)
        if call.lacks is not None:
            assert call.behind is None or 0 < call.behind >= call.lacks
            assert beyond == "avoid" or call.lacks <= max_lag
        if beyond == "avoid" and some_region_is_well(world, call):
            assert call.value, call.error
        if call.region and not faults_in(world, call.began - HEARD, call.ended):
            assert call.looked > call.began - DRAWN_OUT * max_lag / 2 - 0.2


# --- writes --------------------------------------------------------------------------------


def may_move(before: Sent, after: Sent, order: list[str]) -> bool:
    """Whether writes have a reason to go elsewhere: their region is down, or one is back."""
    back = order.index(after.written) < order.index(before.written)
    healthy = after.states[after.written] == RegionState.HEALTHY
    return after.states[before.written] == RegionState.DOWN or (back and healthy)


@many
def test_writes_stay_where_they_are_well(seed: int) -> None:
    """They are where it is said at once, move for a reason alone, and fail soon or not at all."""
    rng = random.Random(seed)
    regions = some_regions(rng)
    mode, home = rng.choice(("one-region", "one-region", "home")), rng.choice(list(regions))
    routing = Routing(writes=mode, return_after="3s", return_over="3s")  # type: ignore[arg-type]
    world = Regions(regions, routing, schedule(rng, list(regions), 40), seed, home=home)
    world.fill(20)
    for call in world.mixed_load(200, 0.2)[1]:
        check_end(world, call)
        wrong = faults_in(world, call.began - HEARD, call.ended)
        hard = all(fault.kind in HARD for fault in wrong)
        if call.error and mode == "one-region" and hard and some_region_is_well(world, call):
            assert any(call.began < fault.begins + DETECTION for fault in wrong), (call, wrong)
        assert not call.error or wrong
    sent = [each for each in world.sent if each.what == "BatchWriteItem"]
    if mode == "home":
        assert {each.to for each in sent} == {home}
    for before, after in pairwise(sent):
        assert before.written == after.written or may_move(before, after, list(regions))


# --- orders --------------------------------------------------------------------------------


def some_command(rng: random.Random, at: float, regions: list[str]) -> Command:
    """One of what an operator can order."""
    some = tuple(rng.sample(regions, rng.randint(1, len(regions) - 1)))
    kinds: list[Callable[[], Command]] = [
        lambda: Command(at, pinned=some[0]),
        lambda: Command(at, drained=some),
        lambda: Command(at, evacuated=some),
        lambda: Command(at),
    ]
    return rng.choice(kinds)()


def check_obeyed(world: Regions) -> None:
    """Each request that is no look at a region goes where orders let it go.

    That is, those that hold since the beginning of the call that it may belong to.
    """
    held, since = RegionCommands(), 0.0
    for each in world.sent:
        if each.orders != held:
            held, since = each.orders, each.at
        if each.what != "keeping" and each.at > since + world.timeout:
            assert each.to not in held.evacuated
            assert held.pinned in ("", each.to)


@many
def test_orders_are_obeyed_and_taken_back(seed: int) -> None:
    """Nothing is asked of who is evacuated, all of who is pinned; and after a release as before."""
    rng = random.Random(seed)
    regions = some_regions(rng)
    commands = [
        some_command(rng, at, list(regions)) for at in sorted(rng.uniform(2, 30) for _ in range(4))
    ]
    faults = schedule(rng, list(regions), 30) if rng.random() < 0.5 else []
    routing = Routing(return_after="3s", return_over="3s")
    world = Regions(regions, routing, faults, seed)
    world.fill(20)
    reads, writes = world.mixed_load(160, 0.2, commands)
    for call in reads + writes:
        check_end(world, call)
        assert not call.error or faults
    check_obeyed(world)
    world.faults = ()
    world.mixed_load(20, 0.2, [Command(0.5)])
    world.driver.now += 400
    world.load(300, 0.2)
    first = next(iter(regions))
    back = [call for calls in world.mixed_load(40, 0.2) for call in calls]
    assert all(call.value for call in back)
    assert {call.region for call in back if not call.hedges} == {first}


# --- fleets --------------------------------------------------------------------------------


def most_at_once(times: list[float], within: float) -> int:
    """How many of these times lie within so many seconds of each other."""
    return max(sum(begins <= time < begins + within for time in times) for begins in times)


@pytest.mark.parametrize("seed", range(max(1, SCHEDULES // 30)))
def test_a_fleet_does_not_return_as_one(seed: int) -> None:
    """Of 30 processes that see a region flap, few switch at once, and none often."""
    rng = random.Random(seed)
    kind, beat = rng.choice(HARD), rng.uniform(2, 7)
    faults = [
        Fault("east", kind, begins, begins + beat)
        for begins in (2 + 2 * n * beat for n in range(4))
    ]
    returns: list[float] = []
    wholly: list[float] = []
    for process in range(FLEET):
        regions = {"east": 0.005, "west": 0.03}
        routing = Routing(return_after="5s", return_over="5s")
        world = Regions(regions, routing, faults, FLEET * seed + process)
        world.fill(20)
        world.load(300, 0.3)
        own = world.times_of("east", RegionState.RETURNING)
        assert own
        assert all(after - before >= 5 for before, after in pairwise(own))
        returns += own
        wholly += world.times_of("east", RegionState.HEALTHY)
    assert most_at_once(returns, 0.5) <= FLEET * AT_ONCE
    assert most_at_once(wholly, 0.5) <= FLEET * AT_ONCE


# --- the registry --------------------------------------------------------------------------


@many
def test_known_features_do_without_the_home_region(seed: int) -> None:
    """While that is away an unknown one is refused in time, and known ones read and written."""
    rng = random.Random(seed)
    regions = some_regions(rng)
    home = rng.choice(list(regions))
    world = Regions(regions, Routing(return_after="3s", return_over="3s"), (), seed, home=home)
    world.fill(20)
    world.mixed_load(20, 0.2)
    begins = world.driver.now
    world.faults = [Fault(home, rng.choice(HARD), begins, begins + 12)]
    unknown: list[Done] = []
    reads, writes = world.mixed_load(50, 0.2, unknown=unknown)
    for call in reads + writes + unknown:
        check_end(world, call)
    assert all(isinstance(call.error, RegistryUnavailable) for call in unknown)
    assert all(call.value for call in reads)
    assert all(call.value or call.began < begins + DETECTION for call in writes)
    world.driver.now = begins + 12
    world.mixed_load(5, 0.2, unknown=unknown)
    assert unknown[-1].value
