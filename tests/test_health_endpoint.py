"""The health endpoint, asked as servers ask ASGI and WSGI apps."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple
from wsgiref.types import WSGIApplication
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from chalk_online_store import AsyncOnlineStore, InvalidSchema, InvalidValue, OnlineStore
from chalk_online_store.integrations import health
from chalk_online_store.integrations.health import ASGIApp, Message
from chalk_online_store.operations.regions import Health
from chalk_online_store.testing import LocalGlobalTable

EAST, WEST = "us-east-1", "us-west-2"
MOMENT = 5.0
"""Seconds that a region is given: one that refuses is asked until then."""

AWAY = {"ConnectionFailed", "RequestTimeout"}
"""Which of them, depends on when the last attempt began."""


@pytest.fixture(scope="module")
def table() -> Iterator[LocalGlobalTable]:
    with LocalGlobalTable() as found:
        yield found


@pytest.fixture(autouse=True)
def restored(request: pytest.FixtureRequest) -> Iterator[None]:
    """Regions that a test has lost are back for the next one."""
    yield
    if "table" in request.fixturenames:
        for name in (EAST, WEST):
            request.getfixturevalue("table").restore(name)


class Got(NamedTuple):
    """A response."""

    code: int
    headers: dict[str, str]
    body: bytes

    @property
    def said(self) -> Any:
        return json.loads(self.body)


def get(app: WSGIApplication, method: str = "GET") -> Got:
    """Ask a WSGI app, with somebody watching that both keep to PEP 3333."""
    environ: dict[str, Any] = {"REQUEST_METHOD": method, "QUERY_STRING": ""}
    setup_testing_defaults(environ)
    started: list[Any] = []

    def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        started.append((status, headers))
        return lambda data: None

    answer = validator(app)(environ, start)
    body = b"".join(answer)
    answer.close()  # type: ignore[attr-defined] # the validator's own
    ((status, headers),) = started
    return Got(int(status.split()[0]), dict(headers), body)


async def fetch(app: ASGIApp, method: str = "GET") -> Got:
    """Ask an ASGI app as a server does."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await app({"type": "http", "method": method, "path": "/"}, receive, send)
    start, body = sent
    assert (start["type"], body["type"]) == ("http.response.start", "http.response.body")
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    return Got(start["status"], headers, body["body"])


Ask = Callable[..., Got]


@pytest.fixture(params=["wsgi", "asgi"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Opens a store at a URL, asks its endpoint once, and closes it."""

    def by_wsgi(url: str, method: str = "GET", **options: Any) -> Got:
        with OnlineStore.open(url, []) as store:
            return get(health.wsgi(store, **options), method)

    def by_asgi(url: str, method: str = "GET", **options: Any) -> Got:
        async def run() -> Got:
            async with AsyncOnlineStore.open(url, []) as store:
                return await fetch(health.asgi(store, **options), method)

        return asyncio.run(run())

    return by_wsgi if request.param == "wsgi" else by_asgi


def test_an_embedded_store_is_healthy(ask: Ask) -> None:
    """SQLite has one region without a name; the answer is JSON that nobody may keep."""
    got = ask("sqlite://")
    assert got.code == 200
    ((region),) = got.said["regions"]
    assert (got.said["status"], region["name"], region["ok"]) == ("ok", "", True)
    headers = {name.lower(): value for name, value in got.headers.items()}
    assert headers["content-type"] == "application/json"
    assert headers["cache-control"] == "no-store"
    assert headers["content-length"] == str(len(got.body))


def test_head_has_no_body(ask: Ask) -> None:
    """HEAD answers as GET does, with the same length of a body that is not there."""
    got = ask("sqlite://", "HEAD", require="preferred")
    assert (got.code, got.body) == (200, b"")
    assert int({k.lower(): v for k, v in got.headers.items()}["content-length"]) > 10


def test_other_methods_are_refused(ask: Ask) -> None:
    """Whoever posts is told what is allowed."""
    got = ask("sqlite://", "POST")
    assert got.code == 405
    assert {k.lower(): v for k, v in got.headers.items()}["allow"] == "GET, HEAD"


def test_two_regions_that_answer(ask: Ask, table: LocalGlobalTable) -> None:
    """Where every region answers, all is well, and what each is used for is told."""
    got = ask(table.url(), require="preferred")
    assert (got.code, got.said["status"]) == (200, "ok")
    assert [(r["name"], r["state"], r["reads"], r["writes"]) for r in got.said["regions"]] == [
        (EAST, "healthy", True, True),
        (WEST, "healthy", False, False),
    ]


def test_a_lost_preferred_region(ask: Ask, table: LocalGlobalTable) -> None:
    """A store that serves from elsewhere is degraded: healthy for "any", not for "preferred"."""
    table.lose(EAST, "refused")
    any_one = ask(table.url(), timeout=MOMENT)
    preferred = ask(table.url(), require="preferred", timeout=MOMENT)
    assert (any_one.code, any_one.said["status"]) == (200, "degraded")
    assert (preferred.code, preferred.said["status"]) == (503, "degraded")
    east, west = preferred.said["regions"]
    assert not east["ok"]
    assert east["reason"] in AWAY
    assert (west["ok"], west["reason"]) == (True, "")


def test_a_lost_second_region(ask: Ask, table: LocalGlobalTable) -> None:
    """Losing a region that is not preferred is told, but fails no check."""
    table.lose(WEST, "refused")
    got = ask(table.url(), require="preferred", timeout=MOMENT)
    assert (got.code, got.said["status"]) == (200, "degraded")


def test_all_regions_lost(ask: Ask, table: LocalGlobalTable) -> None:
    """Where no region answers the store is down, and no error's text is told."""
    table.lose(EAST, "refused")
    table.lose(WEST, "refused")
    got = ask(table.url(), timeout=MOMENT)
    assert (got.code, got.said["status"]) == (503, "down")
    assert b"127.0.0.1" not in got.body
    assert {r["reason"] for r in got.said["regions"]} <= AWAY


def test_a_closed_store_is_down() -> None:
    """A closed store is answered for, and by the class of the error alone."""
    store = OnlineStore.open("sqlite://", [])
    store.close()
    got = get(health.wsgi(store))
    assert (got.code, got.said) == (
        503,
        {"status": "down", "regions": [], "reason": "StoreClosed"},
    )

    async def run() -> Got:
        closed = AsyncOnlineStore.open("sqlite://", [])
        await closed.close()
        return await fetch(health.asgi(closed))

    assert asyncio.run(run())[::2] == got[::2]


class Counting:
    """Counts the reads of a store's health."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.reads = 0
        self.begun, self.gate = asyncio.Event(), asyncio.Event()
        self.regions = store.regions

    def health(self, *, timeout: float | None = 2.0) -> Health:
        self.reads += 1
        found: Health = self._store.health(timeout=timeout)
        return found


class AsyncCounting(Counting):
    """The same for asyncio, and each read waits for the gate."""

    async def health(self, *, timeout: float | None = 2.0) -> Health:  # type: ignore[override]
        self.reads += 1
        self.begun.set()
        await self.gate.wait()
        found: Health = await self._store.health(timeout=timeout)
        return found


def test_a_flood_of_checks_is_one_read_in_threads() -> None:
    """Threads that ask at once, and whoever asks within `cache`, share one read."""
    with OnlineStore.open("sqlite://", []) as store, ThreadPoolExecutor(8) as pool:
        counting: Any = Counting(store)
        app = health.wsgi(counting, cache="1h")
        answers = list(pool.map(lambda _: get(app), range(50)))
        assert {got.code for got in answers} == {200}
        assert counting.reads == 1


def test_no_cache_is_a_read_each() -> None:
    """With cache="0s" whoever comes later has a read of its own."""
    with OnlineStore.open("sqlite://", []) as store:
        counting: Any = Counting(store)
        app = health.wsgi(counting, cache="0s")
        assert [get(app).code for _ in range(3)] == [200] * 3
        assert counting.reads == 3


def test_tasks_that_ask_at_once_share_a_read_even_if_the_first_hangs_up() -> None:
    """One read serves all who ask meanwhile, though the one that began it is cancelled."""

    async def run() -> None:
        async with AsyncOnlineStore.open("sqlite://", []) as store:
            counting: Any = AsyncCounting(store)
            app = health.asgi(counting, cache="0s")
            first, *others = [asyncio.create_task(fetch(app)) for _ in range(20)]
            await counting.begun.wait()
            first.cancel()
            counting.gate.set()
            answers = await asyncio.gather(*others)
            assert {got.code for got in answers} == {200}
            assert counting.reads == 1
            await fetch(app)
            assert counting.reads == 2

    asyncio.run(run())


def test_a_read_that_a_dead_loop_left_behind() -> None:
    """An event loop that ended during a read does not keep the next one from reading."""
    app: ASGIApp | None = None

    async def abandon() -> None:
        nonlocal app
        app = health.asgi(stuck)
        asyncio.create_task(fetch(app))  # noqa: RUF006 - it is abandoned
        await stuck.begun.wait()

    async def again() -> Got:
        stuck.gate.set()
        assert app is not None
        return await fetch(app)

    loop = asyncio.new_event_loop()
    stuck: Any = AsyncCounting(AsyncOnlineStore.open("sqlite://", []))
    loop.run_until_complete(abandon())
    try:
        assert asyncio.run(again()).code == 200
    finally:
        pending = asyncio.all_tasks(loop)
        for task in pending:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        loop.run_until_complete(stuck._store.close())
        loop.close()


def test_a_bug_is_answered_for() -> None:
    """Whatever goes wrong, a load balancer is told 503, and no text of it."""

    class Broken:
        def health(self, *, timeout: float) -> Health:
            raise ZeroDivisionError("secret")

    broken: Any = Broken()
    got = get(health.wsgi(broken))
    assert got.code == 503
    assert got.said["reason"] == "ZeroDivisionError"
    assert b"secret" not in got.body


async def converse(app: ASGIApp, scope: str, *messages: str) -> list[str]:
    """What an ASGI app sends, having received these."""
    waiting, sent = list(messages), []

    async def receive() -> Message:
        return {"type": waiting.pop(0)}

    async def send(message: Message) -> None:
        sent.append(message["type"])

    await app({"type": scope}, receive, send)
    return sent


def test_a_server_may_start_the_app_by_itself() -> None:
    """Lifespan is acknowledged, a websocket closed, and nothing is read for either."""
    stuck: Any = AsyncCounting(AsyncOnlineStore.open("sqlite://", []))
    app = health.asgi(stuck)
    started = converse(app, "lifespan", "lifespan.startup", "lifespan.shutdown")
    assert asyncio.run(started) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert asyncio.run(converse(app, "websocket")) == ["websocket.close"]
    assert stuck.reads == 0
    asyncio.run(stuck._store.close())


def test_options_that_are_none() -> None:
    """Wrong options are refused when the app is made, not at the first check."""
    with OnlineStore.open("sqlite://", []) as store:
        wrong: Any = "all"
        with pytest.raises(InvalidValue, match="require"):
            health.wsgi(store, require=wrong)
        with pytest.raises(InvalidValue, match="cache"):
            health.wsgi(store, cache="infinity")
        with pytest.raises(InvalidSchema):
            health.wsgi(store, cache="soon")
