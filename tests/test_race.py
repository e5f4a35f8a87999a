"""A race has one winner, and nothing of the others goes on: alike in every driver."""

from __future__ import annotations

import math
from typing import Any

import pytest

from chalk_online_store.drivers.simulated import Reply, SimulatedDriver
from chalk_online_store.effects import All, Operation, Race, Send, Sleep
from chalk_online_store.errors import ConnectionFailed


class Legs:
    """Makes legs of a race, and notes what becomes of them."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def leg(self, name: str, seconds: float, fails: bool = False) -> Operation[str]:
        """Send a request that is answered with its name, or fails, after that time."""
        self.log.append(f"{name} begins")
        try:
            answer: str = yield Send((name, seconds, fails), 60.0, name)
        except GeneratorExit:
            self.log.append(f"{name} is closed")
            raise
        self.log.append(f"{name} has its answer")
        return answer


def handler(send: Send, now: float) -> Reply:
    """Plays the engine."""
    name, seconds, fails = send.request
    return Reply(name, ConnectionFailed(name) if fails else None, seconds)


def race(stagger: float, *legs: Operation[Any]) -> Operation[Any]:
    return (yield Race(legs, stagger))


def test_simulated_legs_begin_and_end_at_their_times() -> None:
    """The second leg begins after the stagger, wins, and the first one's answer never comes."""
    legs = Legs()
    driver = SimulatedDriver(handler)
    result = driver.run(race(1.0, legs.leg("a", 10), legs.leg("b", 2), legs.leg("c", 9)))
    assert result == "b"
    assert driver.now == 3
    assert [(time, send.to) for time, send in driver.sent] == [(0, "a"), (1, "b"), (2, "c")]
    assert sorted(legs.log[3:]) == ["a is closed", "b has its answer", "c is closed"]


def test_a_simulated_leg_begins_at_once_when_the_others_have_raised() -> None:
    """A failure does not wait for the stagger, and the stagger counts anew from there."""
    legs = Legs()
    driver = SimulatedDriver(handler)
    operations = legs.leg("a", 1, True), legs.leg("b", 100), legs.leg("c", 1)
    assert driver.run(race(5.0, *operations)) == "c"
    assert [time for time, _ in driver.sent] == [0, 1, 6]
    assert driver.now == 7


def test_a_decided_simulated_race_takes_no_more_time() -> None:
    """Neither a stagger that was not needed nor a loser's sleep moves the clock."""

    def sleeper() -> Operation[str]:
        yield Sleep(3600.0)
        return "late"

    legs = Legs()
    driver = SimulatedDriver(handler)
    assert driver.run(race(30.0, legs.leg("a", 1))) == "a"
    assert driver.run(race(0.0, sleeper(), legs.leg("b", 1))) == "b"
    assert driver.now == 2


def test_simulated_races_and_groups_nest() -> None:
    """Races side by side have a winner each, and a lost leg takes along all that it began."""
    legs = Legs()

    def group(prefix: str, seconds: float) -> Operation[list[str]]:
        operations = [
            race(0.5, legs.leg(f"{prefix}{i}", seconds), legs.leg(f"{prefix}{i}'", 1))
            for i in range(2)
        ]
        answers: list[str] = yield All(operations, 2)
        return answers

    driver = SimulatedDriver(handler)
    assert driver.run(race(0.25, group("a", 100), group("b", 1))) == ["b0", "b1"]
    assert driver.now == 1.25
    closed = sorted(line.split()[0] for line in legs.log if line.endswith("closed"))
    assert closed == ["a0", "a0'", "a1", "a1'", "b0'", "b1'"]


@pytest.mark.parametrize("stagger", [0.0, 1.0, math.inf])
def test_the_first_exception_is_raised_by_a_simulated_race(stagger: float) -> None:
    """When nobody wins, the error of the first leg is told, whenever it came."""
    legs = Legs()
    operations = [legs.leg(name, seconds, True) for name, seconds in (("a", 3), ("b", 1))]
    with pytest.raises(ConnectionFailed, match="a"):
        SimulatedDriver(handler).run(race(stagger, *operations))
