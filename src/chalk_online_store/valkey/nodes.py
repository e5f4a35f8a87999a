"""Which node a request goes to: the primary, or where a route says that a read may go."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from chalk_online_store.backend import Call, RequestInfo, Route
from chalk_online_store.effects import NOW, Instant, Operation, Send
from chalk_online_store.errors import RequestError, RequestTimeout, ServerError
from chalk_online_store.valkey.commands import Keys, Reply, Request, read_generation
from chalk_online_store.valkey.resp import Command

_WRITES = frozenset(("EVALSHA", "EVAL", "SET", "DEL"))


class ReplicaOutOfStep(ServerError):
    """A replica shows another registry than the primary: it has not begun to copy it, or lags."""


class Nodes:
    """The nodes of one server: without a route there is the primary alone.

    `attempt_timeout`, in seconds, bounds each request to one of them.
    """

    def __init__(self, route: Route | None, attempt_timeout: float) -> None:
        self._route = route
        self._attempt_timeout = attempt_timeout

    def is_primary(self, region: str) -> bool:
        """Whether that is what a region is; "" leaves it to the route."""
        return self._route is None or region in ("", self._route.home)

    def attempt(
        self, request: Request, keys: Keys, strong: bool, call: Call
    ) -> Operation[list[Reply]]:
        """One request; with a route, to as many nodes as that decides. Raises `RequestError`.

        A `strong` one goes to the primary, as one that writes does: never to a replica.
        """
        now: Instant | None
        now, call.as_of = call.as_of, None
        if now is None:
            now = yield NOW
        if self._route is None:
            return (yield from self._send(request, call, "", call.deadline, now))
        name = str(request.commands[0][0])
        asked = RequestInfo(name, sum(map(len, request.commands)), name in _WRITES, strong)
        attempt = partial(self._ask, request, keys, asked, call)
        return (yield from self._route.attempt(attempt, asked, now, call))

    def _ask(
        self,
        request: Request,
        keys: Keys,
        asked: RequestInfo,
        call: Call,
        region: str,
        until: float,
    ) -> Operation[list[Reply]]:
        """Ask one node; raises where it does not answer as one that is well."""
        now: Instant = yield NOW
        if self.is_primary(region) or not keys.generation:
            replies = yield from self._send(request, call, region, until, now)
        else:
            # First: what is read after it is at least as new.
            commands: list[Command] = [("GET", keys.place), *request.commands]
            seen, *replies = yield from self._send(Request(commands), call, region, until, now)
            _check_generation(seen, keys)
        _check_health(replies, asked)
        return replies

    def _send(
        self, request: Request, call: Call, region: str, until: float, now: Instant
    ) -> Operation[list[Reply]]:
        left = until - now.monotonic
        if left <= 0:
            raise RequestTimeout("Valkey: no time was left before the call's deadline.")
        call.report.requests += 1
        replies: list[Reply] = yield Send(request, min(left, self._attempt_timeout), region)
        return replies


def _check_generation(seen: Reply, keys: Keys) -> None:
    """Refuse a replica without the registry that the keys are of: it would lack all of them."""
    if isinstance(seen, RequestError):
        raise seen
    if read_generation(seen) != keys.generation:
        raise ReplicaOutOfStep("Valkey: a replica is no copy of the primary yet, or not any more.")


def _check_health(replies: Sequence[Reply], asked: RequestInfo) -> None:
    """Raise what a server says that is not well; of a write, only where nothing was done."""
    ill = [each for each in replies if isinstance(each, RequestError) and each.engine_fault]
    if ill and (len(ill) == len(replies) or not asked.writes):
        raise ill[0]
