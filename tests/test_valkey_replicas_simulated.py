"""A primary and its replicas in virtual time, through generated schedules of what can go wrong."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Literal

import pytest

from chalk_online_store import Hedging, RegionState, Routing
from chalk_online_store.testing import Valkey
from tests.helpers import stress
from tests.regions import ERRORS, REFUSED, SILENT, Done, Fault
from tests.valkey_nodes import DEMOTED, EMPTY, FAULTS, PRIMARY, Nodes

SCHEDULES = stress(10)
"""Generated schedules; thousands at a desk."""

DISTANCES = {PRIMARY: 0.001, "replica-1": 0.003, "replica-2": 0.006}
KNOWN = 4.0
"""Seconds in which a node that is well again is known to answer."""


@pytest.fixture
def worlds(valkey: Valkey) -> Iterator[Any]:
    """Makes worlds, and closes what they hold."""
    made: list[Nodes] = []

    def make(order: list[str], **options: Any) -> Nodes:
        distances = {name: DISTANCES[name] for name in order}
        made.append(Nodes(distances, server=valkey, **options))
        made[-1].fill(20)
        return made[-1]

    yield make
    for world in made:
        world.transport.close()


def some_faults(rng: random.Random, nodes: list[str], until: float) -> list[Fault]:
    """Some that overlap; some come again and again."""
    faults = []
    for _ in range(rng.randint(1, 5)):
        node = rng.choice(nodes)
        kinds = [kind for kind in FAULTS if kind != (EMPTY if node == PRIMARY else DEMOTED)]
        kind, begins = rng.choice(kinds), rng.uniform(1, until / 2)
        if rng.random() < 0.3:
            beats = rng.uniform(0.2, 3)
            faults += [
                Fault(node, kind, begins + 2 * n * beats, begins + (2 * n + 1) * beats)
                for n in range(4)
            ]
        else:
            faults.append(Fault(node, kind, begins, begins + rng.uniform(0.1, until / 2)))
    return faults


def is_well(world: Nodes, node: str, call: Done, before: float = 0.0) -> bool:
    """Whether a node had nothing to complain of during a call's time, and so long before."""
    return not any(
        f.region == node and f.begins < call.began + world.timeout and call.began - before < f.ends
        for f in world.faults
    )


@pytest.mark.parametrize("seed", range(SCHEDULES))
def test_whatever_happens(worlds: Any, seed: int) -> None:
    """Reads succeed where a node is well, writes where the primary is, and none goes elsewhere.

    Nothing that was acknowledged is lost, no known row is missing, and hedges are in bounds.
    """
    rng = random.Random(seed)
    replicas = rng.choice((["replica-1"], ["replica-1", "replica-2"]))
    order = rng.choice(([PRIMARY, *replicas], [*replicas, PRIMARY]))
    hedging = rng.choice((None, Hedging(), Hedging(percentile=0.5, budget=0.2)))
    reads: Literal["ordered", "nearest"] = "nearest" if rng.random() < 0.3 else "ordered"
    routing = Routing(reads=reads, hedging=hedging, return_after="3s", return_over="3s")
    world: Nodes = worlds(order, routing=routing, seed=seed)
    world.faults = faults = some_faults(rng, order, 20.0)
    read, written = world.mixed_load(200, 0.1)
    for call in read + written:
        assert call.ended <= call.began + world.timeout + 1e-9
        assert call.value is not False
        assert (call.value is None) == bool(call.error or call.failed)
    for call in read:
        if any(is_well(world, node, call, KNOWN) for node in order):
            assert call.value, (call, faults)
    for call in written:
        assert call.region in ("", PRIMARY)
        if is_well(world, PRIMARY, call):
            assert call.value, (call, faults)
    assert not world.misled
    share, burst = (hedging.budget, hedging.burst) if hedging else (0, 0)
    assert sum(c.hedges for c in read) <= burst + share * sum(c.requests for c in read)
    assert not world.lost()
    assert world.acknowledged
    world.driver.now += 400
    world.load(200, 0.2)
    back = world.load(30, 0.2)
    assert all(call.value for call in back)
    expected = PRIMARY if reads == "nearest" else order[0]
    assert [call.region for call in back if not call.hedges].count(expected) > 15


@pytest.mark.parametrize("kind", [REFUSED, SILENT, ERRORS, EMPTY])
def test_a_replica_that_is_not_well(worlds: Any, kind: str) -> None:
    """It is down after some failures, and returns after its time, gradually."""
    routing = Routing(hedging=None, return_after="5s", return_over="5s")
    world: Nodes = worlds(["replica-1", PRIMARY], routing=routing)
    world.faults = [Fault("replica-1", kind, 1, 11)]
    calls = world.load(400, 0.1)
    assert all(call.value for call in calls)
    (down,) = world.times_of("replica-1", RegionState.DOWN)
    (returning,) = world.times_of("replica-1", RegionState.RETURNING)
    (healthy,) = world.times_of("replica-1", RegionState.HEALTHY)
    assert 1 <= down < 2.5
    assert 11 + 5 <= returning <= 11 + 7.5 + 2.5
    assert returning + 5 <= healthy <= returning + 8
    regions = [call.region for call in calls if call.began > healthy]
    assert set(regions) == {"replica-1"}


@pytest.mark.parametrize("kind", [REFUSED, SILENT, ERRORS, DEMOTED])
def test_a_primary_that_is_not_well(worlds: Any, kind: str) -> None:
    """No write goes elsewhere meanwhile, however long it lasts; then they succeed at once."""
    world: Nodes = worlds([PRIMARY, "replica-1"], routing=Routing(hedging=None))
    world.faults = [Fault(PRIMARY, kind, 1, 11)]
    reads, writes = world.mixed_load(150, 0.1)
    assert all(call.value for call in reads)
    assert not any(call.value for call in writes if 1 <= call.began < 9.5)
    assert all(call.value for call in writes if call.began > 11)
    assert not world.misled
    assert not world.lost()
