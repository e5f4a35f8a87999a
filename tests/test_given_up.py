"""Requests that are given up: what losers of races leave on their connections."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import pytest
from benchmarks.certificate import self_signed

from chalk_online_store.drivers.aio import AsyncDriver
from chalk_online_store.drivers.sync import SyncDriver
from chalk_online_store.dynamodb.credentials import Endpoint
from chalk_online_store.dynamodb.http import AsyncHttpTransport, HttpTransport
from chalk_online_store.dynamodb.messages import Request
from chalk_online_store.effects import All, Operation, Race, Send
from tests.test_http import (
    HOST,
    KINDS,
    AsyncSource,
    Awaiting,
    Blocking,
    Server,
    Source,
    answer,
    received,
    waiting_at,
)

# --- servers -------------------------------------------------------------------------------


class Echo:
    """Answers each request with its own body; "quick" only once `after` has what it holds back."""

    def __init__(self, after: Held | None = None) -> None:
        self._after = after
        self.seen: list[bytes] = []

    def __call__(self, connection: socket.socket) -> None:
        """Serve one connection."""
        while True:
            _, _, body = received(connection).partition(b"\r\n\r\n")
            self.seen.append(body)
            self.respond(connection, body)

    def respond(self, connection: socket.socket, body: bytes) -> None:
        """Answer one request."""
        if self._after is not None:
            assert self._after.holds.wait(60)
            self._after.holds.clear()
        connection.sendall(answer(body))


class Held(Echo):
    """Answers "held" only when it is let go, and "bad" then badly."""

    def __init__(self) -> None:
        super().__init__()
        self.holds = threading.Event()
        self.let_go = threading.Event()
        self.answered = threading.Event()
        self.ended = 0

    def __call__(self, connection: socket.socket) -> None:
        """Serve one connection, and note its end."""
        try:
            super().__call__(connection)
        finally:
            self.ended += 1

    def respond(self, connection: socket.socket, body: bytes) -> None:
        """Answer one request, sooner or later."""
        if body not in (b"held", b"bad"):
            super().respond(connection, body)
            return
        self.holds.set()
        self.let_go.wait(60)
        connection.sendall(b"nonsense" if body == b"bad" else answer(body))
        self.answered.set()

    def release(self) -> None:
        """Answer what was held; it is on the client's side then."""
        self.let_go.set()
        assert self.answered.wait(60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go.set()


@contextmanager
def two_servers(tls: ssl.SSLContext | None = None) -> Iterator[tuple[Held, Server, Server]]:
    """One that holds answers back, and one that answers once the first one does."""
    slow = Held()
    with Server(slow, tls) as a, Server(Echo(slow), tls) as b, slow:
        yield slow, a, b


def until(condition: Callable[[], bool]) -> None:
    """Wait for a server's thread."""
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never came true")


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A certificate that clients trust."""
    path = self_signed(tmp_path / "bundle.pem")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(path))
    return path


def tls_of(bundle: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(bundle)
    return context


@pytest.fixture(params=[False, True], ids=["plain", "TLS"])
def tls(request: pytest.FixtureRequest, bundle: Path) -> ssl.SSLContext | None:
    """Each test is made in plain text and over TLS."""
    return tls_of(bundle) if request.param else None


# --- clients -------------------------------------------------------------------------------


class Threads:
    """A driver of threads, over a transport for each region."""

    def __init__(self, urls: dict[str, str], **options: Any) -> None:
        source: Any = Source()
        self.driver = SyncDriver(
            {to: HttpTransport(Endpoint(to, url), source, **options) for to, url in urls.items()}
        )

    def run(self, operation: Operation[Any]) -> Any:
        """Run an operation."""
        return self.driver.run(operation)

    def pause(self, seconds: float) -> None:
        """Let time pass."""
        time.sleep(seconds)

    def close(self) -> None:
        """Close the driver."""
        self.driver.close()


class Tasks:
    """A driver of tasks, on an event loop of its own."""

    def __init__(self, kind: type[Awaiting], urls: dict[str, str], **options: Any) -> None:
        source: Any = AsyncSource()
        self._driver = AsyncDriver(
            {
                to: AsyncHttpTransport(Endpoint(to, url), source, **options)
                for to, url in urls.items()
            }
        )
        self._runner = asyncio.Runner(loop_factory=kind.new_loop)

    def run(self, operation: Operation[Any]) -> Any:
        """Run an operation."""
        return self._runner.run(self._driver.run(operation))

    def pause(self, seconds: float) -> None:
        """Let time pass, with the event loop running."""
        self._runner.run(asyncio.sleep(seconds))

    def close(self) -> None:
        """Close the driver and the loop."""
        with suppress(RuntimeError):  # It was closed before.
            self._runner.get_loop()
            self._runner.run(self._driver.close())
            self._runner.close()


Client = Threads | Tasks
Connect = Callable[..., Client]


@pytest.fixture(params=KINDS.values(), ids=list(KINDS))
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Make drivers of every kind, for the URLs of regions, and close them."""
    with ExitStack() as stack:

        def make(urls: dict[str, str], **options: Any) -> Client:
            kind = request.param
            made = Threads(urls, **options) if kind is Blocking else Tasks(kind, urls, **options)
            stack.callback(made.close)
            return made

        yield make


def ask(to: str, body: bytes, timeout: float = 30.0) -> Operation[bytes]:
    """The answer of a region, which is the body."""
    response = yield Send(Request("GetItem", body), timeout, to)
    found: bytes = response.body
    return found


def hedged(body: bytes, timeout: float = 30.0) -> Operation[bytes]:
    """What a answers, or b at once where that is held back."""
    found: bytes = yield Race([ask("a", body, timeout), ask("b", b"quick")], 0.0)
    return found


# --- connections that come back ------------------------------------------------------------


def test_a_losers_connection_is_used_again(connect: Connect, tls: ssl.SSLContext | None) -> None:
    """Once the late answer has come, the next request goes over the same connection."""
    with two_servers(tls) as (slow, a, b):
        client = connect({"a": a.url, "b": b.url})
        for _ in range(3):
            assert client.run(hedged(b"held")) == b"quick"
            slow.release()
            client.pause(0.05)
            assert client.run(ask("a", b"next")) == b"next"
            slow.let_go.clear()
            slow.answered.clear()
        assert (a.connections, b.connections) == (1, 1)


def test_a_late_answer_is_given_to_nobody(connect: Connect, tls: ssl.SSLContext | None) -> None:
    """While one is to come its connection carries nothing else, and then its answer is gone."""
    with two_servers(tls) as (slow, a, b):
        client = connect({"a": a.url, "b": b.url})
        assert client.run(hedged(b"held")) == b"quick"
        assert client.run(ask("a", b"1")) == b"1"
        slow.release()
        client.pause(0.05)
        bodies = [b"%d" % i for i in range(9)]

        def main() -> Operation[list[bytes]]:
            answers: list[bytes] = yield All([ask("a", body) for body in bodies], 2)
            return answers

        assert client.run(main()) == bodies
        assert a.connections == 2


def test_a_losers_connection_is_closed_in_time(connect: Connect) -> None:
    """An answer that has not come by the request's own deadline is waited for no longer."""
    with two_servers() as (slow, a, b):
        client = connect({"a": a.url, "b": b.url})
        assert client.run(hedged(b"held", 0.5)) == b"quick"
        client.pause(0.6)
        assert client.run(ask("a", b"next")) == b"next"
        client.pause(0.01)
        slow.let_go.set()
        until(lambda: slow.ended == 1)
        assert a.connections == 2


def test_a_bad_late_answer_harms_nobody(connect: Connect) -> None:
    """Whatever is wrong with it, the connection is closed and another one opened."""
    with two_servers() as (slow, a, b):
        client = connect({"a": a.url, "b": b.url})
        assert client.run(hedged(b"bad")) == b"quick"
        slow.release()
        client.pause(0.05)
        assert client.run(ask("a", b"next")) == b"next"
        assert client.run(ask("a", b"again")) == b"again"
        assert a.connections == 2


def test_losers_take_no_more_than_the_pool(connect: Connect) -> None:
    """However many answers are still to come, the oldest are given up for new connections."""
    with two_servers() as (slow, a, b):
        client = connect({"a": a.url, "b": b.url}, pool_size=2)
        for _ in range(5):
            assert client.run(hedged(b"held")) == b"quick"
        client.pause(0.05)
        slow.let_go.set()
        until(lambda: slow.ended == 3)
        assert a.connections == 5


def test_closing_ends_what_was_given_up(connect: Connect) -> None:
    """A driver that is closed leaves no connection that waits for a late answer."""
    with two_servers() as (slow, a, b):
        client = connect({"a": a.url, "b": b.url})
        assert client.run(hedged(b"held")) == b"quick"
        client.close()
        slow.let_go.set()
        until(lambda: slow.ended == 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_does_not_wait_for_its_parents_answers() -> None:
    """What was given up before a fork is the parent's, and still good there."""
    with two_servers() as (slow, a, b):
        client = Threads({"a": a.url, "b": b.url})
        assert client.run(hedged(b"held")) == b"quick"
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            slow.let_go.set()  # This process's own.
            os._exit(0 if client.run(ask("a", b"child")) == b"child" else 1)
        assert os.waitpid(child, 0)[1] == 0
        slow.release()
        assert client.run(ask("a", b"parent")) == b"parent"
        client.close()
        assert a.connections == 2


# --- connections that do not come about ----------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ignores what its queue is full for")
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_who_does_not_accept_is_passed_by(connect: Connect, bundle: Path, scheme: str) -> None:
    """A host that does not even accept keeps no other leg from winning, in one thread or task."""
    threads = threading.active_count()
    with (
        socket.create_server((HOST, 0), backlog=0) as listener,
        waiting_at(listener),
        Server(Echo(), tls_of(bundle) if scheme == "https" else None) as b,
    ):
        url = f"{scheme}://{HOST}:{listener.getsockname()[1]}"
        client = connect({"a": url, "b": b.url}, connect_timeout=20)
        began = time.monotonic()

        def main() -> Operation[list[bytes]]:
            answers: list[bytes] = yield All([hedged(b"1") for _ in range(5)], 5)
            return answers

        assert client.run(hedged(b"1")) == b"quick"
        assert client.run(main()) == [b"quick"] * 5
        assert time.monotonic() - began < 10
        if isinstance(client, Threads):
            assert threading.active_count() == threads + 1 + b.connections


class Hesitant(Server):
    """A server of TLS that begins to shake hands when it is let go."""

    let_go = threading.Event()

    def _serve(self, connection: socket.socket) -> None:
        self.let_go.wait(60)
        super()._serve(connection)

    @property
    def greeted(self) -> int:
        """How many handshakes came to their end."""
        return sum(isinstance(each, ssl.SSLSocket) for each in self._open)


def test_a_handshake_that_hangs_is_passed_by(connect: Connect, bundle: Path) -> None:
    """It costs the race nothing, and what is agreed on later is good for other requests."""
    let_go = Hesitant.let_go = threading.Event()
    echo = Echo()
    with Hesitant(echo, tls_of(bundle)) as a, Server(Echo(), tls_of(bundle)) as b:
        client = connect({"a": a.url, "b": b.url}, connect_timeout=20)
        assert client.run(hedged(b"1")) == b"quick"
        assert client.run(hedged(b"2")) == b"quick"
        let_go.set()

        def all_came_about() -> bool:
            assert client.run(ask("a", b"3")) == b"3"
            client.pause(0)
            return a.greeted == a.connections

        until(all_came_about)
        assert 2 <= a.connections <= 3
        assert set(echo.seen) == {b"3"}, "what nobody waits for any more was sent all the same"
