"""Lag, writes, orders and fleets in virtual time, through many generated schedules."""

from __future__ import annotations

import math
import os
import random
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise

import pytest

from chalk_online_store import RegionState, RegistryUnavailable, Routing
from chalk_online_store.effects import NOW, Instant, Operation, Sleep
from tests.regions import FAULTS, Command, Done, Fault, Lag, Order, Regions, Sent
from tests.test_failover_simulated import DISTANCES, schedule

SCHEDULES = int(os.environ.get("CHALK_SCHEDULES", "150")) // 5
"""Generated schedules of each kind."""

HARD = ("refused", "silent", "errors", "damaged")
"""Faults with which a region answers nothing at all."""

PROBES = 1.5
"""By so much, at most, a process draws out the time between its probes."""


def names_of(rng: random.Random) -> list[str]:
    return rng.sample(list(DISTANCES), rng.choice((2, 2, 3)))


def distances(names: list[str]) -> dict[str, float]:
    return {name: DISTANCES[name] for name in names}


def lags_of(rng: random.Random, names: list[str], begins: float, until: float) -> list[Lag]:
    """Replication that is slow or cut for a while, perhaps in one direction alone."""
    lags = []
    for _ in range(rng.randint(1, 4)):
        source, target = rng.sample(names, 2)
        seconds = rng.choice((math.inf, rng.uniform(0.1, 2), rng.uniform(2, 30)))
        at = rng.uniform(begins, until)
        lags.append(Lag(source, target, seconds, at, at + rng.uniform(1, 25)))
    return lags


@pytest.mark.parametrize("seed", range(SCHEDULES))
def test_lag(seed: int) -> None:
    """Reads."""
    rng = random.Random(seed)
    names = names_of(rng)
    refuse = rng.random() < 0.5
    max_lag = rng.choice((2.0, 5.0))
    world = Regions(
        distances(names),
        Routing(
            max_lag=f"{max_lag}s",
            beyond_max_lag="refuse" if refuse else "avoid",
            probe_every="2s",
            return_after="3s",
            return_over="3s",
        ),
        [f._replace(begins=f.begins + 12, ends=f.ends + 12) for f in schedule(rng, names, 40.0)] if rng.random() < 0.6 else (),
        seed,
        lags=lags_of(rng, names, 12, 40),
    )
    world.fill(20)
    reads, writes = world.mixed_load(300, 0.2)
    for call in reads:
        assert call.ended <= call.began + world.timeout + 1e-9
        assert call.value is not False
        if call.behind == 0.0:
            assert call.lacks == 0, (call, "behind")
        if refuse and call.region:
            assert call.lacks <= max_lag + PROBES * 2 + 1, (call, names, world.faults, world.lags)
