"""The router in virtual time, through many generated schedules of what can go wrong."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from chalk_online_store import Hedging, RegionState, Routing
from tests.helpers import stress
from tests.regions import (
    FAULTS,
    Done,
    Fault,
    Regions,
)

SCHEDULES = stress(25)
"""Generated schedules."""

DISTANCES = {"east": 0.005, "west": 0.03, "far": 0.06}
QUICK = Routing(return_after="5s", return_over="5s")


def schedule(rng: random.Random, regions: list[str], until: float) -> list[Fault]:
    """Outages, brown-outs and flapping, of any regions, perhaps at once."""
    faults = []
    for _ in range(rng.randint(1, 4)):
        region, kind = rng.choice(regions), rng.choice(FAULTS)
        begins = rng.uniform(1, until / 2)
        if rng.random() < 0.3:  # Flapping.
            beats = rng.uniform(0.2, 3)
            faults += [
                Fault(region, kind, begins + 2 * n * beats, begins + (2 * n + 1) * beats)
                for n in range(4)
            ]
        else:
            faults.append(Fault(region, kind, begins, begins + rng.uniform(0.1, until / 3)))
    return faults


def well_throughout(world: Regions, call: Done, until: float) -> bool:
    """Whether some region had nothing at all to complain of during a call, and before."""
    return any(
        not any(
            f.region == region and f.begins < call.began + until and call.began < f.ends
            for f in world.faults
        )
        for region in world.distances
    )


@pytest.mark.parametrize("seed", range(SCHEDULES))
def test_whatever_happens(seed: int) -> None:
    """Calls end in time, invent nothing, succeed where a region is well, and hedge in bounds."""
    rng = random.Random(seed)
    names = rng.sample(list(DISTANCES), rng.choice((2, 2, 3)))
    until = rng.choice((20.0, 60.0))
    world = Regions(
        {name: DISTANCES[name] for name in names},
        Routing(
            reads=rng.choice(("ordered", "nearest")),
            hedging=rng.choice((None, Hedging(), Hedging(percentile=0.5, budget=0.2))),
            return_after="5s",
            return_over="5s",
        ),
        schedule(rng, names, until),
        seed,
    )
    world.fill(20)
    every = rng.choice((0.02, 0.1, 0.5))
    count = min(int(until / every), 400)
    calls = world.load(count, every)
    assert len(calls) == count
    for call in calls:
        assert call.ended <= call.began + world.timeout + 1e-9
        assert call.value is not False
        assert (call.value is None) == bool(call.error or call.failed)
        if well_throughout(world, call, world.timeout):
            assert call.value is True, (call, world.faults)
    hedging = world.routing.hedging
    share, burst = (hedging.budget, hedging.burst) if hedging else (0, 0)
    assert sum(call.hedges for call in calls) <= burst + share * sum(c.requests for c in calls)
    world.faults = ()
    world.driver.now += 400  # What was lost by relapsing is a longer wait, of minutes at most.
    back = world.load(300, 0.2)
    assert all(call.value for call in back)
    nearest = min(names, key=lambda name: DISTANCES[name])
    preferred = nearest if world.routing.reads == "nearest" else names[0]
    assert Counter(call.region for call in back[-20:]).most_common(1)[0][0] == preferred
    for name in names:  # However its faults come and go, it returns only once it was well.
        returns = world.changes.count((name, RegionState.RETURNING))
        assert returns <= 1 + world.driver.now / 5.0
