"""A health endpoint for load balancers, as an ASGI or a WSGI app without any framework.

    from chalk_online_store.integrations import health

    app.router.routes.append(Route("/healthz", health.asgi(store)))  # FastAPI, Starlette
    DispatcherMiddleware(app, {"/healthz": health.wsgi(store)})      # Flask

(`app.mount` of Starlette would redirect /healthz to /healthz/, which a load balancer may take for
ill health.)

Each answer stands on a real read of every region, `store.health()`; what is asked within `cache`,
or while a read is under way, shares one, so that a flood of checks costs no units. It is 200
where the store can serve, else 503, with JSON such as

    {"status": "degraded", "regions": [{"name": "us-east-1", "ok": false, "seconds": 1.0,
     "reason": "RequestTimeout", "state": "down", "reads": false, "writes": false, "orders": ""},
     …]}

`status` is "ok" where every region answers, "degraded" where the store can serve without some,
and "down" where it cannot. It can where a region that may be read answers, whatever `require`
says. Of errors only the names of their classes are told.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import msgspec

from chalk_online_store._fork import reset_after_fork
from chalk_online_store.arguments import timeout_seconds
from chalk_online_store.errors import InvalidValue
from chalk_online_store.schema import Duration, microseconds

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from chalk_online_store.async_store import AsyncOnlineStore
    from chalk_online_store.operations.regions import Health
    from chalk_online_store.routing.router import RegionStatus
    from chalk_online_store.store import OnlineStore

Require: TypeAlias = Literal["any", "preferred"]

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]

_LINES = {200: "200 OK", 405: "405 Method Not Allowed", 503: "503 Service Unavailable"}


def asgi(
    store: AsyncOnlineStore,
    *,
    require: Require = "any",
    cache: Duration = "1s",
    timeout: float = 2.0,
) -> ASGIApp:
    """An ASGI app that answers every path with the health of a store.

    It is healthy where a region that may be read answers, or, with `require="preferred"`, where
    the first region of its URL does: for a load balancer that shall move the traffic to the
    servers of another region. `timeout`, in seconds, bounds a read. A store that is closed is
    down, once `cache` is over. Raises `InvalidValue`, `InvalidSchema`.
    """
    return _AsyncEndpoint(store, _Judge(require, cache), timeout_seconds(timeout))


def wsgi(
    store: OnlineStore,
    *,
    require: Require = "any",
    cache: Duration = "1s",
    timeout: float = 2.0,
) -> WSGIApplication:
    """As `asgi`, a WSGI app."""
    return _Endpoint(store, _Judge(require, cache), timeout_seconds(timeout))


# --- what both share -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Answer:
    """A response; `at` is when what it says was known, by the monotonic clock."""

    code: int
    body: bytes
    at: float

    def headers(self) -> list[tuple[str, str]]:
        more = [("Allow", "GET, HEAD")] if self.code == 405 else []
        return [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(self.body))),
            ("Cache-Control", "no-store"),
            *more,
        ]


_REFUSED = _Answer(405, b"{}", 0.0)


class _Judge:
    """Turns what was read into answers, and tells how long they hold."""

    def __init__(self, require: Require, cache: Duration) -> None:
        if require not in get_args(Require):
            raise InvalidValue('require= is "any" or "preferred".')
        exact = microseconds(cache, "cache")
        if exact is None:
            raise InvalidValue('cache= is a time such as "1s".')
        self._require = require
        self._seconds = exact / 1e6
        self._latest: _Answer | None = None

    def known(self, asked_at: float) -> _Answer | None:
        """The latest answer, if it is young enough, or younger than the question."""
        latest = self._latest
        if latest is not None and latest.at > asked_at - self._seconds:
            return latest
        return None

    def judge(self, health: Health, status: Sequence[RegionStatus]) -> _Answer:
        """The answer by what every region said."""
        serves = health.ok if self._require == "any" else health.preferred_ok
        well = serves and all(check.ok for check in health.regions)
        more = {each.name: each for each in status}
        regions = []
        for check in health.regions:
            found = {"name": check.name, "ok": check.ok, "seconds": check.seconds}
            regions.append(found | {"reason": check.reason} | _routed(more.get(check.name)))
        state = "ok" if well else "degraded" if health.ok else "down"
        return self._keep(200 if serves else 503, {"status": state, "regions": regions})

    def fail(self, error: Exception) -> _Answer:
        """The answer where nothing could be read, as from a store that is closed."""
        return self._keep(503, {"status": "down", "regions": [], "reason": type(error).__name__})

    def _keep(self, code: int, body: dict[str, Any]) -> _Answer:
        self._latest = _Answer(code, msgspec.json.encode(body), time.monotonic())
        return self._latest


def _routed(status: RegionStatus | None) -> dict[str, Any]:
    if status is None:
        return {}
    return {
        "state": status.state,
        "reads": status.reads,
        "writes": status.writes,
        "orders": status.orders,
    }


# --- WSGI ----------------------------------------------------------------------------------


class _Endpoint:
    def __init__(self, store: OnlineStore, judge: _Judge, timeout: float) -> None:
        self._store = store
        self._judge = judge
        self._timeout = timeout
        self.reset()
        reset_after_fork(self)

    def reset(self) -> None:
        """Have a lock of one's own."""
        self._reading = threading.Lock()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        answer = self._answer() if method in ("GET", "HEAD") else _REFUSED
        start_response(_LINES[answer.code], answer.headers())
        return [] if method == "HEAD" else [answer.body]

    def _answer(self) -> _Answer:
        asked_at = time.monotonic()
        with self._reading:  # Whoever waits here shares what the one before has read.
            return self._judge.known(asked_at) or self._read()

    def _read(self) -> _Answer:
        try:
            health = self._store.health(timeout=self._timeout)
            return self._judge.judge(health, self._store.regions())
        except Exception as error:  # noqa: BLE001 - a load balancer is answered, whatever happens
            return self._judge.fail(error)


# --- ASGI ----------------------------------------------------------------------------------


class _AsyncEndpoint:
    def __init__(self, store: AsyncOnlineStore, judge: _Judge, timeout: float) -> None:
        self._store = store
        self._judge = judge
        self._timeout = timeout
        self._reading: asyncio.Task[_Answer] | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._respond(scope["method"], send)
        elif scope["type"] == "lifespan":
            await _acknowledge(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})

    async def _respond(self, method: str, send: Send) -> None:
        answer = await self._answer() if method in ("GET", "HEAD") else _REFUSED
        headers = [(k.lower().encode(), v.encode()) for k, v in answer.headers()]
        await send({"type": "http.response.start", "status": answer.code, "headers": headers})
        body = b"" if method == "HEAD" else answer.body
        await send({"type": "http.response.body", "body": body})

    async def _answer(self) -> _Answer:
        known = self._judge.known(time.monotonic())
        if known is not None:
            return known
        if not self._is_reading():
            self._reading = asyncio.create_task(self._read())
        assert self._reading is not None
        # Whoever asked first may hang up: others wait for the same read.
        return await asyncio.shield(self._reading)

    def _is_reading(self) -> bool:
        """Whether a read is under way, in this event loop: another one may be no more."""
        task = self._reading
        return bool(task and not task.done() and task.get_loop() is asyncio.get_running_loop())

    async def _read(self) -> _Answer:
        try:
            health = await self._store.health(timeout=self._timeout)
            return self._judge.judge(health, self._store.regions())
        except Exception as error:  # noqa: BLE001 - a load balancer is answered, whatever happens
            return self._judge.fail(error)


async def _acknowledge(receive: Receive, send: Send) -> None:
    """A server that starts this app by itself waits for a word."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
