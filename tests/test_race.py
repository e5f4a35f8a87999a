"""A race has one winner, and nothing of the others goes on: alike in every driver."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import pytest

from chalk_online_store.drivers.aio import AsyncDriver
from chalk_online_store.drivers.simulated import Reply, SimulatedDriver
from chalk_online_store.effects import NOW, All, Await, Effect, Operation, Race, Send, Sleep
from chalk_online_store.errors import ConnectionFailed
from tests.test_drivers import every_driver

LONG = 60.0
"""Seconds of a stagger or a request that no test waits for."""


class Legs:
    """Makes legs of a race, and notes what becomes of them."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def leg(self, name: str, request: Any) -> Operation[str]:
        """Send a request, and answer with the name."""
        self.log.append(f"{name} begins")
        try:
            yield Send(request, LONG)
        except GeneratorExit:
            self.log.append(f"{name} is closed")
            raise
        except ConnectionFailed:
            self.log.append(f"{name} fails")
            raise ConnectionFailed(name) from None
        finally:
            self.log.append(f"{name} ends")
        return name

    @property
    def closed(self) -> list[str]:
        """The names of those that were closed before they had an end of their own."""
        return sorted(line.split()[0] for line in self.log if line.endswith("closed"))


def race(stagger: float, *legs: Operation[Any]) -> Operation[Any]:
    return (yield Race(legs, stagger))


def all_of(*operations: Operation[Any]) -> Operation[list[Any]]:
    results: list[Any] = yield All(operations, len(operations))
    return results


# --- in every driver -----------------------------------------------------------------------


@every_driver
@pytest.mark.parametrize("stagger", [LONG, math.inf])
def test_the_first_leg_wins(run: Any, stagger: float) -> None:
    """A leg whose time has not come when the race is decided never begins."""
    legs = Legs()
    assert run(race(stagger, legs.leg("a", 1), legs.leg("b", 2))) == "a"
    assert legs.log == ["a begins", "a ends"]


@every_driver
@pytest.mark.parametrize("stagger", [0.0, 0.02])
def test_the_second_leg_wins(run: Any, stagger: float) -> None:
    """After the stagger another leg begins; when it wins, the first one is closed by then."""
    legs = Legs()
    assert run(race(stagger, legs.leg("a", "stall"), legs.leg("b", 2))) == "b"
    assert sorted(legs.log[-3:]) == ["a ends", "a is closed", "b ends"]


@every_driver
def test_the_third_leg_wins(run: Any) -> None:
    """Each leg begins a stagger after the one before it, and all losers are closed."""
    legs = Legs()
    stalling = [legs.leg(name, "stall") for name in "ab"]
    assert run(race(0.02, *stalling, legs.leg("c", 3))) == "c"
    assert legs.closed == ["a", "b"]


@every_driver
@pytest.mark.parametrize("stagger", [LONG, math.inf])
def test_the_next_leg_begins_at_once_when_all_have_raised(run: Any, stagger: float) -> None:
    """Nobody waits for the stagger once nothing is under way, neither after two failures."""
    legs = Legs()
    failing = [legs.leg(name, "fail") for name in "ab"]
    assert run(race(stagger, *failing, legs.leg("c", 3))) == "c"
    assert legs.log[:4] == ["a begins", "a fails", "a ends", "b begins"]


@every_driver
def test_a_failure_beside_others_decides_nothing(run: Any) -> None:
    """Where one has raised and another one is under way, the race goes on as it was."""
    legs = Legs()
    operations = legs.leg("a", "stall"), legs.leg("b", "fail"), legs.leg("c", 3)
    assert run(race(0.02, *operations)) == "c"
    assert legs.closed == ["a"]


@every_driver
@pytest.mark.parametrize("stagger", [0.0, LONG, math.inf])
def test_when_all_raise_the_first_exception_is_raised(run: Any, stagger: float) -> None:
    """The error of the first leg by position is thrown into the asker."""
    legs = Legs()

    def main() -> Operation[str]:
        try:
            yield Race([legs.leg(name, "fail") for name in "abc"], stagger)
        except ConnectionFailed as error:
            return str(error)
        return "nothing"

    assert run(main()) == "a"
    assert sorted(line for line in legs.log if "fails" in line) == ["a fails", "b fails", "c fails"]


@every_driver
def test_legs_that_ask_for_nothing(run: Any) -> None:
    """A leg may have its result, or its failure, without ever waiting."""

    def at_once(result: Any) -> Operation[Any]:
        yield NOW
        if isinstance(result, Exception):
            raise result
        return result

    assert run(race(LONG, at_once("a"), at_once("b"))) == "a"
    assert run(race(LONG, at_once(KeyError("a")), at_once("b"))) == "b"
    with pytest.raises(KeyError, match="a"):
        run(race(0.0, at_once(KeyError("a")), at_once(KeyError("b"))))


WAITS: dict[str, Callable[[Legs], Effect]] = {
    "time": lambda legs: Sleep(LONG),
    "a future": lambda legs: Await(Future(), LONG),
    "all": lambda legs: All([legs.leg("x", "stall"), legs.leg("y", "stall")], 2),
    "another race": lambda legs: Race([legs.leg("x", "stall"), legs.leg("y", "stall")], 0.0),
}


@every_driver
@pytest.mark.parametrize("effect_of", WAITS.values(), ids=list(WAITS))
def test_whatever_a_loser_waits_for_is_given_up(
    run: Any, effect_of: Callable[[Legs], Effect]
) -> None:
    """A loser that sleeps, or waits for others, is closed, and so are all whom it waits for."""
    legs = Legs()

    def loser() -> Operation[Any]:
        try:
            return (yield effect_of(legs))
        except GeneratorExit:
            legs.log.append("loser is closed")
            raise

    assert run(race(0.05, loser(), legs.leg("b", 2))) == "b"
    begun = [line.split()[0] for line in legs.log if line.endswith("begins")]
    assert legs.closed == sorted({"loser", *begun} - {"b"})


@every_driver
def test_races_side_by_side(run: Any) -> None:
    """Each of several races at once has a winner of its own, and those may race again."""
    legs = Legs()

    def hedged(name: str) -> Operation[str]:
        return race(0.01, legs.leg(f"{name}1", "stall"), legs.leg(f"{name}2", 2))

    assert run(all_of(*map(hedged, "ab"))) == ["a2", "b2"]
    assert run(race(LONG, all_of(*map(hedged, "cd")), legs.leg("e", 1))) == ["c2", "d2"]
    assert legs.closed == ["a1", "b1", "c1", "d1"]


@every_driver
def test_what_a_loser_raises_is_unheard(run: Any) -> None:
    """A leg that fails while it is closed disturbs nobody."""

    def clumsy() -> Operation[Any]:
        try:
            yield Sleep(LONG)
        finally:
            raise KeyError

    assert run(race(0.02, clumsy(), Legs().leg("b", 2))) == "b"
    assert run(race(0.02, Legs().leg("a", "stall"), clumsy(), Legs().leg("c", 2))) == "c"


class Stop(BaseException):
    """Something that is meant for the whole process, as KeyboardInterrupt is."""


@every_driver
@pytest.mark.parametrize("position", [0, 1])
def test_what_is_no_exception_ends_the_race(run: Any, position: int) -> None:
    """It comes to the asker at once, whatever else might still win."""
    legs = Legs()

    def stopping() -> Operation[Any]:
        yield Sleep(0.05)
        raise Stop

    operations = [legs.leg("a", "stall"), legs.leg("c", "stall")]
    operations.insert(position, stopping())
    with pytest.raises(Stop):
        run(race(0.0, *operations))
    assert legs.closed == ["a", "c"]


# --- on asyncio ----------------------------------------------------------------------------


def sleeping(seconds: float, result: Any, log: list[Any] | None = None) -> Operation[Any]:
    """Sleep and answer, or raise what would be the answer; note what is closed."""
    try:
        yield Sleep(seconds)
    except GeneratorExit:
        if log is not None:
            log.append(result)
        raise
    if isinstance(result, Exception):
        raise result
    return result


def running(scenario: Callable[[AsyncDriver], Awaitable[None]]) -> None:
    """Run a scenario, after which no task may be left."""

    async def main() -> None:
        await scenario(AsyncDriver({}))
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


@pytest.mark.parametrize("first", ["a", KeyError("a")], ids=["leading", "failed"])
def test_a_cancelled_task_takes_all_legs_along(first: Any) -> None:
    """Whether the first leg is still under way or has raised, every other one is closed."""

    async def scenario(driver: AsyncDriver) -> None:
        closed: list[Any] = []
        quick = 0.0 if isinstance(first, Exception) else LONG
        legs = [sleeping(quick, first, closed), *(sleeping(LONG, name, closed) for name in "bc")]
        task = asyncio.create_task(driver.run(race(0.0, *legs)))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sorted(closed) == (["b", "c"] if quick == 0 else ["a", "b", "c"])

    running(scenario)


def test_no_leg_begins_once_the_race_is_decided() -> None:
    """Also where it takes a while to give up the first leg's request."""
    begun: list[Any] = []

    class Slow:
        async def send(self, request: Any, timeout: float) -> Any:
            begun.append(request)
            if request == "a":
                try:
                    await asyncio.sleep(LONG)
                finally:
                    await asyncio.sleep(0.1)
            return request

    def leg(name: str) -> Operation[Any]:
        return (yield Send(name, LONG))

    transport: Any = Slow()
    driver = AsyncDriver({"": transport})
    assert asyncio.run(driver.run(race(0.01, *map(leg, "abc")))) == "b"
    assert begun == ["a", "b"]


@pytest.mark.parametrize("order", ["before", "after"])
def test_a_cancellation_is_not_lost_to_a_winner(order: str) -> None:
    """Where a task is cancelled as another leg interrupts it, it is cancelled."""

    async def scenario(driver: AsyncDriver) -> None:
        def winner() -> Operation[Any]:
            yield Sleep(0.01)
            if order == "before":
                task.cancel()
            else:
                asyncio.get_running_loop().call_soon(task.cancel)
            return "b"

        task = asyncio.create_task(driver.run(race(0.0, sleeping(LONG, "a"), winner())))
        with pytest.raises(asyncio.CancelledError):
            await task

    running(scenario)


def test_a_timeout_around_a_race_means_what_it_says() -> None:
    """An interrupted leg leaves no trace in its task, and a time that is up ends the race."""

    async def scenario(driver: AsyncDriver) -> None:
        task = asyncio.current_task()
        assert task is not None
        async with asyncio.timeout(LONG):
            assert await driver.run(race(0.0, sleeping(LONG, "a"), sleeping(0.0, "b"))) == "b"
            assert task.cancelling() == 0
            await asyncio.sleep(0.01)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await driver.run(race(0.0, sleeping(LONG, "a"), sleeping(LONG, "b")))
        assert task.cancelling() == 0

    running(scenario)


def test_a_leg_has_the_context_of_its_asker() -> None:
    """Races share a timer, and yet no leg sees the context variables of another race."""
    variable: ContextVar[str] = ContextVar("variable")

    def leg() -> Operation[str]:
        yield NOW
        return variable.get()

    async def scenario(driver: AsyncDriver) -> None:
        async def ask(name: str) -> str:
            variable.set(name)
            found: str = await driver.run(race(0.01, sleeping(LONG, "a"), leg()))
            return found

        assert await asyncio.gather(*map(ask, "xyz")) == list("xyz")

    running(scenario)


def test_event_loops_in_threads_share_a_driver() -> None:
    """Each loop has a timer of its own for the races that it runs."""
    driver = AsyncDriver({})

    async def ask(number: int) -> int:
        found: int = await driver.run(race(0.001, sleeping(LONG, -1), sleeping(0.001, number)))
        return found

    async def main(thread: int) -> list[int]:
        return list(await asyncio.gather(*(ask(thread + i) for i in range(100))))

    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda thread: asyncio.run(main(thread)), (0, 1000, 2000)))
    assert found == [list(range(thread, thread + 100)) for thread in (0, 1000, 2000)]


# --- in virtual time -----------------------------------------------------------------------


def handler(send: Send, now: float) -> Reply:
    """Plays the engine: a request is its name and the seconds that its answer takes."""
    name, seconds = send.request
    return Reply(name, after=seconds)


def asking(name: str, seconds: float) -> Operation[str]:
    """Send one request to the region of that name."""
    answer: str = yield Send((name, seconds), LONG, name)
    return answer


def test_simulated_legs_begin_at_their_times() -> None:
    """What was sent is told with when and where to; the time of losers does not pass."""
    driver = SimulatedDriver(handler)
    assert driver.run(race(1.0, asking("a", 10), asking("b", 2), asking("c", 9))) == "b"
    assert driver.now == 3
    assert [(time, send.to) for time, send in driver.sent] == [(0, "a"), (1, "b"), (2, "c")]


def test_the_stagger_counts_from_the_leg_before() -> None:
    """After a failure the next leg begins at once, and the one after it a stagger later."""
    driver = SimulatedDriver(handler)
    legs = sleeping(1.0, KeyError("a")), asking("b", 100), asking("c", 1)
    assert driver.run(race(5.0, *legs)) == "c"
    assert [time for time, _ in driver.sent] == [1, 6]
    assert driver.now == 7


def test_a_decided_simulated_race_takes_no_more_time() -> None:
    """Neither a stagger that was not needed nor a loser's sleep moves the clock."""
    driver = SimulatedDriver(handler)
    assert driver.run(race(30.0, asking("a", 1), asking("b", 1))) == "a"
    assert driver.run(race(0.0, sleeping(3600.0, "late"), asking("b", 1))) == "b"
    assert driver.now == 2
