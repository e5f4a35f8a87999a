"""Any nesting of races and groups comes to the same in every driver, at the same times.

asyncio and poll(2) run in virtual time here too: whoever waits for a while moves the clock.
"""

from __future__ import annotations

import asyncio
import math
import select
import selectors
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalk_online_store.drivers import polling
from chalk_online_store.drivers.aio import AsyncDriver
from chalk_online_store.drivers.simulated import Reply, SimulatedDriver
from chalk_online_store.drivers.sync import SyncDriver
from chalk_online_store.effects import NOW, All, Effect, Instant, Operation, Race, Send, Sleep

# --- trees ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tree:
    """An operation: it sleeps, then asks for its parts, if any, all of them or as a race."""

    rest: int
    fails: bool
    group: str
    stagger: int | float
    parts: Sequence[Tree]

    @property
    def size(self) -> int:
        """How many operations it has."""
        return 1 + sum(part.size for part in self.parts)


def trees() -> st.SearchStrategy[Tree]:
    """Trees of a dozen operations at most."""
    rest, fails = st.integers(0, 3), st.booleans()
    stagger = st.sampled_from([0, 1, 2, math.inf])
    leaves = st.builds(Tree, rest, fails, st.just("none"), st.just(0), st.just(()))
    return st.recursive(
        leaves,
        lambda parts: st.builds(
            Tree,
            rest,
            fails,
            st.sampled_from(["all", "race"]),
            stagger,
            st.lists(parts, min_size=1, max_size=3),
        ),
        max_leaves=6,
    ).filter(lambda tree: tree.size <= MOST)


class Run:
    """One run of a tree, and what happened when."""

    def __init__(self) -> None:
        self.log: list[tuple[float, str]] = []
        self._numbers = count()

    def operation(self, tree: Tree) -> Operation[str]:
        """The tree as an operation. No two of its times are the same: each adds its own dust."""
        number = next(self._numbers)
        dust = 8.0**number
        parts = [self.operation(part) for part in tree.parts]
        stagger = tree.stagger and tree.stagger * FAR + 2 * dust
        return self._named(f"{number}", tree, tree.rest * FAR + dust, stagger, parts)

    def _named(
        self, name: str, tree: Tree, rest: float, stagger: float, parts: list[Operation[str]]
    ) -> Operation[str]:
        yield from self._note(f"{name} begins")
        try:
            yield Sleep(rest)
            found = (yield _effect(tree.group, stagger, parts)) if parts else ""
            yield from self._note(f"{name} ends")
        except GeneratorExit:
            self.log.append((-1.0, f"{name} is closed"))
            raise
        if tree.fails:
            raise KeyError(name)
        return f"{name}{found}"

    def _note(self, what: str) -> Operation[None]:
        now: Instant = yield NOW
        self.log.append((now.monotonic, what))


MOST = 12
"""Operations of a tree."""

FAR = 8.0 ** (MOST + 1)
"""Seconds, more than all dust together; a double still holds them exactly, dust and all."""


def _effect(group: str, stagger: float, parts: list[Operation[str]]) -> Effect:
    return All(parts, 2) if group == "all" else Race(parts, stagger)


# --- virtual time --------------------------------------------------------------------------


class Clock:
    """The time that passes for who asks for it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let it pass."""
        self.now += max(0.0, seconds)


class Selector(selectors.SelectSelector):
    """Has nothing to watch but what wakes the event loop, which nobody does."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[Any]:
        """Let the time pass."""
        assert timeout is not None
        self._clock.sleep(timeout)
        return []


class Poll:
    """As `select.poll`, where nothing is ever ready."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def register(self, fd: int, direction: int) -> None:
        """Watch it in vain."""

    def poll(self, milliseconds: float) -> list[Any]:
        """Let the time pass."""
        self._clock.sleep(milliseconds / 1000)
        return []


@contextmanager
def virtual() -> Iterator[Clock]:
    """Have this process see another clock."""
    clock = Clock()
    for_ever = 1e18
    with (
        mock.patch.object(time, "monotonic", clock),
        mock.patch.object(time, "sleep", clock.sleep),
        mock.patch.object(select, "poll", return_value=Poll(clock)),
        mock.patch.object(polling, "LONGEST_WAIT", for_ever),
        mock.patch.object(asyncio.base_events, "MAXIMUM_SELECT_TIMEOUT", for_ever),
    ):
        yield clock


def run_simulated(operation: Operation[str]) -> str:
    return SimulatedDriver(lambda send, now: Reply()).run(operation)


def run_sync(operation: Operation[str]) -> str:
    with virtual():
        return SyncDriver({}).run(operation)


def run_async(operation: Operation[str]) -> str:
    with virtual() as clock:
        loop = asyncio.SelectorEventLoop(Selector(clock))
        loop._clock_resolution = 0.5  # type: ignore[attr-defined] # of the least dust, which is 1
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            return runner.run(AsyncDriver({}).run(operation))


def outcome(run: Callable[[Operation[str]], str], tree: Tree) -> tuple[str, list[Any]]:
    """The result of a tree, or its failure, and everything that happened."""
    made = Run()
    try:
        result = run(made.operation(tree))
    except KeyError as error:
        result = f"fails: {error}"
    return result, sorted(made.log)


@given(trees())
def test_drivers_agree_on_any_tree(tree: Tree) -> None:
    """Every driver gives the same result, begins and ends everything at the same times."""
    expected = outcome(run_simulated, tree)
    assert outcome(run_sync, tree) == expected
    assert outcome(run_async, tree) == expected


class Silent:
    """A transport, and all of its exchanges, that brings no answer, and can be interrupted."""

    wake_at = math.inf

    def __init__(self, clock: Clock, interruption: BaseException | None = None) -> None:
        self._clock = clock
        self._interruption = interruption

    def begin(self, request: Any, timeout: float) -> Silent:
        """A request under way."""
        return self

    def sockets(self) -> list[tuple[int, int]]:
        """Nobody polls it."""
        return []

    def advance(self) -> Any:
        """Nothing has come."""

    def wait(self, until: float) -> None:
        """Let the time pass."""
        if self._interruption is not None:
            raise self._interruption
        self._clock.now = until

    def abort(self) -> None:
        """Nothing to give back."""


def one_leg(seconds: float, log: list[str]) -> Operation[str]:
    """Ask for an answer that does not come, or sleep."""
    try:
        yield Sleep(seconds) if seconds else Send("request", 60.0)
    except GeneratorExit:
        log.append("closed")
        raise
    return "slept"


def test_a_thread_begins_the_second_leg_in_time() -> None:
    """What the first leg has waited alone counts for the stagger."""
    log: list[str] = []
    with virtual() as clock:
        transport: Any = Silent(clock)
        operations = one_leg(0, log), one_leg(1, log), one_leg(0, log)
        assert SyncDriver({"": transport}).run(_racing(5.0, *operations)) == "slept"
    assert clock.now == 6
    assert log == ["closed"]


def test_an_interrupted_thread_closes_the_first_leg() -> None:
    """Ctrl-C while the first leg is alone ends it as well as the race."""
    log: list[str] = []
    transport: Any = Silent(Clock(), KeyboardInterrupt())
    driver = SyncDriver({"": transport})
    with pytest.raises(KeyboardInterrupt) as raised:
        driver.run(_racing(5.0, one_leg(0, log), one_leg(1, log)))
    assert raised.traceback  # Which would keep the leg alive, if it was not closed.
    assert log == ["closed"]


def _racing(stagger: float, *operations: Operation[str]) -> Operation[str]:
    result: str = yield Race(operations, stagger)
    return result
