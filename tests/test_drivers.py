"""The three drivers perform the same operations alike."""

from __future__ import annotations

import asyncio
import select
import socket
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import pytest

from chalk_online_store.drivers.aio import AsyncDriver, InThread
from chalk_online_store.drivers.simulated import Reply, SimulatedDriver
from chalk_online_store.drivers.sync import SyncDriver
from chalk_online_store.effects import (
    NOW,
    All,
    Await,
    Effect,
    Instant,
    Operation,
    Send,
    Sleep,
    Spawn,
)
from chalk_online_store.errors import ConnectionFailed, RequestTimeout


class Echo:
    """A transport that answers what it is sent, "stall" only at its end, and fails on "fail"."""

    def __init__(self) -> None:
        self.closed = False
        self.ends = threading.Event()
        self.at_once = 0
        self.most_at_once = 0
        self._lock = threading.Lock()

    def send(self, request: Any, timeout: float) -> Any:
        """The request itself."""
        with self._lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        self.ends.wait(60 if request == "stall" else 0.01)
        with self._lock:
            self.at_once -= 1
        if request == "fail":
            raise ConnectionFailed(request)
        return request

    def warm(self, connections: int, timeout: float) -> int:
        """It has none."""
        return 0

    def close(self) -> None:
        """Remember it."""
        self.closed = True


def run_sync(operation: Operation[Any]) -> Any:
    echo = Echo()
    driver = SyncDriver({"": echo}, max_threads=4)
    try:
        return driver.run(operation)
    finally:
        echo.ends.set()
        driver.close()


class EchoExchange:
    """One request to an `EchoOverSockets`: a socket with an answer in it, after a while."""

    def __init__(self, request: Any, timeout: float, answers: bool) -> None:
        self._request = request
        self._socket, there = socket.socketpair()
        self._socket.setblocking(False)
        self.wake_at = time.monotonic() + timeout
        self._there = there
        if request == "trickle":
            there.send(b"x")
        if answers:
            threading.Timer(0.01, there.shutdown, [socket.SHUT_RDWR]).start()

    def sockets(self) -> list[tuple[int, int]]:
        """The socket, for reading."""
        return [(self._socket.fileno(), select.POLLIN)]

    def advance(self) -> Any:
        """The request itself, once the other end is closed."""
        if time.monotonic() >= self.wake_at:
            self.abort()
            raise RequestTimeout("late")
        if self._request == "trickle":  # There is always more to read, never the end.
            return None
        try:
            self._socket.recv(1)
        except BlockingIOError:
            return None
        self.abort()
        if self._request == "fail":
            raise ConnectionFailed(self._request)
        return self._request

    def wait(self, until: float) -> None:
        """Wait for the other end to be closed."""
        seconds = max(0.0, min(until, self.wake_at) - time.monotonic())
        select.select([self._socket], [], [], seconds)

    def abort(self) -> None:
        """Close the socket."""
        self._socket.close()
        self._there.close()


class EchoOverSockets(Echo):
    """Answers any number of requests in one thread; "stall" never."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[int] = set()

    def begin(self, request: Any, timeout: float) -> EchoExchange:
        """A request under way."""
        self.threads.add(threading.get_ident())
        return EchoExchange(request, timeout, request not in ("stall", "trickle"))


def run_together(operation: Operation[Any]) -> Any:
    transport = EchoOverSockets()
    driver = SyncDriver({"": transport}, max_threads=2)
    try:
        return driver.run(operation)
    finally:
        driver.close()
        assert transport.threads <= {threading.get_ident()}


async def run_here(operation: Operation[Any]) -> Any:
    echo = Echo()
    driver = AsyncDriver({"": InThread(echo)})
    try:
        return await driver.run(operation)
    finally:
        echo.ends.set()
        await driver.close()


def run_async(operation: Operation[Any]) -> Any:
    return asyncio.run(run_here(operation))


def run_on_uvloop(operation: Operation[Any]) -> Any:
    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run_here(operation))


def run_simulated(operation: Operation[Any]) -> Any:
    def handler(send: Send, now: float) -> Reply:
        request = send.request
        return (
            Reply(error=ConnectionFailed(request))
            if request == "fail"
            else Reply(request, after=3600 if request == "stall" else 0.01)
        )

    return SimulatedDriver(handler).run(operation)


every_driver = pytest.mark.parametrize(
    "run", [run_sync, run_together, run_async, run_on_uvloop, run_simulated]
)


def ask(request: Any) -> Operation[Any]:
    """Send one request."""
    return (yield Send(request, 1.0))


def ask_all(requests: list[Any], limit: int) -> Operation[list[Any]]:
    """Send requests at once."""
    answers: list[Any] = yield All([ask(request) for request in requests], limit)
    return answers


@every_driver
def test_results_keep_their_order(run: Any) -> None:
    """What runs at once is answered in the order in which it was asked."""
    assert run(ask_all(list(range(20)), 5)) == list(range(20))
    assert run(ask_all([], 5)) == []


@every_driver
def test_operations_at_once_may_run_others_at_once(run: Any) -> None:
    """More nested work than there are threads still comes to its end."""

    def nested() -> Operation[list[Any]]:
        answers: list[Any] = yield All([ask_all([i, i + 1, i + 2], 3) for i in range(6)], 6)
        return answers

    assert run(nested()) == [[i, i + 1, i + 2] for i in range(6)]


@every_driver
def test_the_others_end_before_an_error_is_raised(run: Any) -> None:
    """One failure neither stops what runs beside it nor is it lost."""
    ended = []

    def noted(request: Any) -> Operation[None]:
        yield Send(request, 1.0)
        ended.append(request)

    def main() -> Operation[str]:
        try:
            yield All([noted("a"), noted("fail"), noted("b")], 3)
        except ConnectionFailed as error:
            return str(error)
        return "nothing"

    assert run(main()) == "fail"
    assert sorted(ended) == ["a", "b"]


@every_driver
def test_an_operation_sees_time_pass(run: Any) -> None:
    """Both clocks go on by at least what an operation sleeps."""

    def main() -> Operation[tuple[float, float]]:
        before: Instant = yield NOW
        yield Sleep(0.05)
        after: Instant = yield NOW
        return after.monotonic - before.monotonic, (after.wall - before.wall) / 1e6

    assert all(0.045 <= passed < 5 for passed in run(main()))


@every_driver
def test_an_operation_waits_for_what_another_one_settles(run: Any) -> None:
    """A spawned operation goes on beside its parent, whose wait ends as the future is settled."""
    future: Future[str] = Future()

    def beside() -> Operation[None]:
        future.set_result((yield Send("answer", 1.0)))

    def main() -> Operation[list[str]]:
        yield Spawn(beside())
        first: str = yield Await(future, 5.0)
        again: str = yield Await(future, 5.0)
        return [first, again]

    assert run(main()) == ["answer", "answer"]


@every_driver
def test_a_wait_fails_as_its_future_does(run: Any) -> None:
    """The exception of a future is thrown into whoever waits for it."""
    future: Future[str] = Future()
    future.set_exception(ValueError("fail"))

    def main() -> Operation[str]:
        try:
            yield Await(future, 5.0)
        except ValueError as error:
            return str(error)
        return "nothing"

    assert run(main()) == "fail"


@every_driver
def test_a_wait_ends_in_time(run: Any) -> None:
    """A future that nobody settles fails the wait alone, and stays as it is for others."""
    future: Future[str] = Future()

    def main() -> Operation[str]:
        try:
            yield Await(future, 0.01)
        except TimeoutError:
            return "late"
        return "nothing"

    assert run(main()) == "late"
    assert not future.done()


@every_driver
def test_what_a_spawned_operation_raises_is_its_own(run: Any) -> None:
    """An exception that nobody waits for disturbs nobody."""

    def beside() -> Operation[None]:
        yield Send("fail", 1.0)

    def main() -> Operation[str]:
        yield Spawn(beside())
        yield Sleep(0.05)
        return "unharmed"

    assert run(main()) == "unharmed"


def test_a_timeout_that_does_not_come_to_pass_takes_no_virtual_time() -> None:
    """The simulated clock stands where the last thing happened, not where a wait would end."""
    future: Future[str] = Future()
    future.set_result("x")

    def main() -> Operation[str]:
        answer: str = yield Await(future, 3600.0)
        return answer

    driver = SimulatedDriver(lambda send, now: Reply())
    assert driver.run(main()) == "x"
    assert driver.now == 0


@every_driver
def test_any_number_of_operations_may_end_at_once(run: Any) -> None:
    """Operations that ask for nothing, and those that fail at once, need no depth of calls."""

    def idle(i: int) -> Operation[int]:
        yield NOW
        if i % 2:
            raise KeyError(i)
        return i

    def harmless(i: int) -> Operation[int]:
        try:
            return (yield from idle(i))
        except KeyError:
            return -i

    def main() -> Operation[list[int]]:
        found: list[int] = yield All([harmless(i) for i in range(3000)], 3)
        return found

    assert run(main()) == [-i if i % 2 else i for i in range(3000)]


def test_one_thread_waits_for_many_answers() -> None:
    """Requests go out together, sleepers wake beside them, and each has a deadline of its own."""

    def sleeper() -> Operation[float]:
        before: Instant = yield NOW
        yield Sleep(0.02)
        after: Instant = yield NOW
        return after.monotonic - before.monotonic

    def late() -> Operation[str]:
        try:
            yield Send("stall", 0.03)
        except RequestTimeout:
            return "late"
        return "nothing"

    def main() -> Operation[list[Any]]:
        found: list[Any] = yield All([late(), sleeper(), *(ask(i) for i in range(20))], 30)
        return found

    first, slept, *answers = run_together(main())
    assert (first, answers) == ("late", list(range(20)))
    assert slept >= 0.02


def test_a_busy_socket_starves_nobody() -> None:
    """While one socket is always ready, sleepers wake and silent requests time out all the same."""
    ended: list[Any] = []

    def noted(name: str, effect: Effect) -> Operation[None]:
        with suppress(RequestTimeout):
            yield effect
        ended.append(name)

    def main() -> Operation[None]:
        busy = noted("busy", Send("trickle", 0.3))
        silent = noted("silent", Send("stall", 0.1))
        yield All([busy, silent, noted("asleep", Sleep(0.02))], 3)

    run_together(main())
    assert ended == ["asleep", "silent", "busy"]


def test_no_more_at_once_than_the_limit() -> None:
    """The threads of one call never exceed its limit, nor does a busy pool stop it."""
    transport = Echo()
    driver = SyncDriver({"": transport}, max_threads=16)
    driver.run(ask_all(list(range(30)), 3))
    driver.close()
    assert 1 < transport.most_at_once <= 3
    assert transport.closed


class Stalled:
    """An async transport that answers only once it is let go."""

    def __init__(self) -> None:
        self.asked = 0
        self.busy = asyncio.Event()
        """Set once three requests wait."""
        self.stall = True

    async def send(self, request: Any, timeout: float) -> Any:
        """The request itself, unless it stalls."""
        self.asked += 1
        if self.asked == 3:
            self.busy.set()
        if self.stall:
            await asyncio.Event().wait()
        return request

    async def warm(self, connections: int, timeout: float) -> int:
        """It has none."""
        return 0

    async def close(self) -> None:
        """Nothing to give back."""


def test_a_cancelled_call_leaves_nothing_behind() -> None:
    """Cancelling a task is thrown into every operation under way, and the driver goes on."""
    cleaned = []

    def careful(request: int) -> Operation[Any]:
        try:
            return (yield Send(request, 1.0))
        finally:
            cleaned.append(request)

    def main() -> Operation[Any]:
        return (yield All([careful(i) for i in range(4)], 3))

    async def scenario() -> None:
        transport = Stalled()
        driver = AsyncDriver({"": transport})
        task = asyncio.create_task(driver.run(main()))
        await transport.busy.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sorted(cleaned) == [0, 1, 2]
        assert len(asyncio.all_tasks()) == 1
        transport.stall = False
        assert await driver.run(ask("again")) == "again"

    asyncio.run(scenario())


# --- several regions -----------------------------------------------------------------------


class Region:
    """A transport of either kind, made for one region."""

    def __init__(self, idle: int | Exception = 0, close_fails: bool = False) -> None:
        self._idle = idle
        self._close_fails = close_fails
        self.closed = False
        self.sent: list[Any] = []

    def send(self, request: Any, timeout: float) -> Any:
        """Note it."""
        self.sent.append(request)

    def warm(self, connections: int, timeout: float) -> int:
        """What it was made with."""
        if isinstance(self._idle, Exception):
            raise self._idle
        return self._idle

    def close(self) -> None:
        """Note it, and fail."""
        self.closed = True
        if self._close_fails:
            raise OSError("it does not want to")


def do_sync(method: str, regions: Mapping[str, Region], *arguments: Any) -> Any:
    return getattr(SyncDriver(regions), method)(*arguments)


def do_async(method: str, regions: Mapping[str, Region], *arguments: Any) -> Any:
    async def main() -> Any:
        driver = AsyncDriver({to: InThread(region) for to, region in regions.items()})
        return await getattr(driver, method)(*arguments)

    return asyncio.run(main())


both = pytest.mark.parametrize("do", [do_sync, do_async])


@both
def test_a_request_goes_to_the_region_that_it_names(do: Any) -> None:
    """Each region has a transport of its own, also for what runs at once."""
    regions = {"": Region(), "a": Region(), "b": Region()}

    def asked(request: str, to: str) -> Operation[None]:
        yield Send(request, 1.0, to)

    def main() -> Operation[None]:
        yield Send("1", 1.0)
        yield from asked("2", "a")
        yield All([asked("3", "b"), asked("4", "")], 2)

    do("run", regions, main())
    assert {to: region.sent for to, region in regions.items()} == {
        "": ["1", "4"],
        "a": ["2"],
        "b": ["3"],
    }


@both
def test_regions_are_warmed_together(do: Any) -> None:
    """Connections are counted in all; a region that is away fails it only where all are."""
    assert do("warm", {"a": Region(2), "b": Region(3)}, 3, 1.0) == 5
    assert do("warm", {"a": Region(ConnectionFailed("away")), "b": Region(3)}, 3, 1.0) == 3
    away = {"a": Region(ConnectionFailed("away")), "b": Region(RequestTimeout("late"))}
    with pytest.raises(ConnectionFailed, match="away"):
        do("warm", away, 3, 1.0)
    with pytest.raises(KeyError):  # That is no state of a region.
        do("warm", {"a": Region(KeyError("bug")), "b": Region(3)}, 3, 1.0)


@both
def test_every_region_is_closed(do: Any) -> None:
    """One that cannot be closed does not keep the others open, and is told."""
    regions = {"a": Region(), "b": Region(close_fails=True), "c": Region()}
    with pytest.raises(OSError, match="does not want to"):
        do("close", regions)
    assert all(region.closed for region in regions.values())
