"""Both transports against servers that misbehave: each failure ends in the right class."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import ssl
import struct
import sys
import threading
import time
import warnings
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Self, TypeVar

import pytest
from benchmarks.certificate import self_signed
from benchmarks.reference_http import AiohttpTransport, Urllib3Transport

from chalk_online_store.dynamodb.credentials import Endpoint
from chalk_online_store.dynamodb.http import AsyncHttpTransport, HttpTransport
from chalk_online_store.dynamodb.messages import Request, Response
from chalk_online_store.dynamodb.signing import Credentials, Signer
from chalk_online_store.errors import (
    ConnectionFailed,
    InvalidCredentials,
    RequestError,
    RequestTimeout,
    StoreClosed,
)

HOST = "127.0.0.1"
OLD = Credentials("AKIDOLD", "old-secret", "old-token")
NEW = Credentials("AKIDNEW", "new-secret")
GET = Request("GetItem", b'{"TableName":"t","Key":{"pk":{"S":"a-private-key"}}}')

T = TypeVar("T")
Behaviour = Callable[[socket.socket], None]
NewLoop = Callable[[], asyncio.AbstractEventLoop]


# --- servers -------------------------------------------------------------------------------


class Server:
    """Hands each connection to a behaviour, in its own thread, and counts them."""

    def __init__(self, behaviour: Behaviour, tls: ssl.SSLContext | None = None) -> None:
        self._behaviour = behaviour
        self._tls = tls
        self._listener = socket.create_server((HOST, 0))
        self._open: list[socket.socket] = []
        self.connections = 0
        self.port: int = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept)
        self._threads = [self._accepting]

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http{'s' if self._tls else ''}://{HOST}:{self.port}"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            if self._tls is None:
                self._behaviour(connection)
            else:
                with self._tls.wrap_socket(connection, server_side=True) as secured:
                    self._open.append(secured)
                    self._behaviour(secured)

    def __enter__(self) -> Self:
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        for listener_or_connection in (self._listener, *self._open):
            with suppress(OSError):
                listener_or_connection.shutdown(socket.SHUT_RDWR)
            listener_or_connection.close()
        for thread in self._threads:
            thread.join(60)


def received(connection: socket.socket) -> bytes:
    """One whole request; raises `ConnectionError` when there is none."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += some(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(headers_of(head).get("content-length", 0))
    while len(body) < length:
        body += some(connection)
    return head + b"\r\n\r\n" + body


def some(connection: socket.socket) -> bytes:
    piece = connection.recv(2**16)
    if not piece:
        raise ConnectionError
    return piece


def headers_of(head: bytes) -> dict[str, str]:
    lines = head.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


def answer(body: bytes = b"{}", status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def always(data: bytes) -> Behaviour:
    """Answers every request with the same bytes."""

    def behave(connection: socket.socket) -> None:
        while True:
            received(connection)
            connection.sendall(data)

    return behave


def once(data: bytes) -> Behaviour:
    """Answers one request with these bytes, then closes the connection."""

    def behave(connection: socket.socket) -> None:
        received(connection)
        connection.sendall(data)

    return behave


def reset(connection: socket.socket) -> None:
    """Resets the connection instead of answering."""
    received(connection)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def silent(connection: socket.socket) -> None:
    """Reads requests and never answers."""
    while True:
        received(connection)


def until_the_end(ended: threading.Event) -> Behaviour:
    """Never answers, and tells when the connection has ended."""

    def behave(connection: socket.socket) -> None:
        try:
            silent(connection)
        finally:
            ended.set()

    return behave


def silent_after(data: bytes) -> Behaviour:
    """Sends this, and nothing more, but keeps the connection open."""

    def behave(connection: socket.socket) -> None:
        received(connection)
        connection.sendall(data)
        received(connection)

    return behave


def dripping(data: bytes) -> Behaviour:
    """Answers byte by byte, each in good time, all of them much too late."""

    def behave(connection: socket.socket) -> None:
        received(connection)
        for position in range(len(data)):
            connection.sendall(data[position : position + 1])
            time.sleep(0.05)

    return behave


def forgetful(connection: socket.socket) -> None:
    """Answers one request, then closes the connection when the next one arrives."""
    received(connection)
    connection.sendall(answer())
    received(connection)


# --- clients -------------------------------------------------------------------------------


@dataclass
class Source:
    """Credentials that are there at once, of either kind of source."""

    found: Credentials = OLD

    def current(self, *_: float) -> Credentials:
        """The credentials in hand."""
        return self.found

    def refresh(self, *_: float) -> Credentials:
        """Others from now on."""
        self.found = NEW
        return self.found


class AsyncSource:
    """The same for tasks."""

    def __init__(self) -> None:
        self._source = Source()

    async def current_async(self, *within: float) -> Credentials:
        """The credentials in hand."""
        return self._source.current(*within)

    async def refresh_async(self, *within: float) -> Credentials:
        """Others from now on."""
        return self._source.refresh(*within)


class Leadable:
    """What clients of every kind share."""

    transport: HttpTransport | AsyncHttpTransport

    def lead_to(self, port: int) -> None:
        """Connect to this machine instead, whatever the URL says."""
        self.transport._target.host, self.transport._target.port = HOST, port


class Blocking(Leadable):
    """The transport for threads."""

    kind: Any = HttpTransport
    transport: HttpTransport

    def __init__(self, url: str, **options: Any) -> None:
        source: Any = Source()
        self.transport = self.kind(Endpoint("us-east-1", url), source, **options)

    def send(self, request: Request = GET, timeout: float = 10) -> Response:
        """Send a request."""
        return self.transport.send(request, timeout)

    def warm(self, connections: int, timeout: float = 10) -> int:
        """Open connections."""
        return self.transport.warm(connections, timeout)

    def pause(self, seconds: float) -> None:
        """Let time pass."""
        time.sleep(seconds)

    def close_transport(self) -> None:
        """Close the transport."""
        self.transport.close()

    close = close_transport


class Awaiting(Leadable):
    """The transport for tasks, on an event loop of its own."""

    kind: Any = AsyncHttpTransport
    transport: AsyncHttpTransport

    @staticmethod
    def new_loop() -> asyncio.AbstractEventLoop:
        """One of asyncio's own."""
        return asyncio.new_event_loop()

    def __init__(self, url: str, **options: Any) -> None:
        source: Any = AsyncSource()
        self.transport = self.kind(Endpoint("us-east-1", url), source, **options)
        self._runner = asyncio.Runner(loop_factory=self.new_loop)

    def send(self, request: Request = GET, timeout: float = 10) -> Response:
        """Send a request."""
        return self._runner.run(self.transport.send(request, timeout))

    def warm(self, connections: int, timeout: float = 10) -> int:
        """Open connections."""
        return self._runner.run(self.transport.warm(connections, timeout))

    def pause(self, seconds: float) -> None:
        """Let time pass, with the event loop running."""
        self._runner.run(asyncio.sleep(seconds))

    def close_transport(self) -> None:
        """Close the transport alone."""
        self._runner.run(self.transport.close())

    def close(self) -> None:
        """Close the transport and the loop."""
        self.close_transport()
        self._runner.close()


class AwaitingOnUvloop(Awaiting):
    """The same on uvloop."""

    @staticmethod
    def new_loop() -> asyncio.AbstractEventLoop:
        """One of uvloop's."""
        uvloop = pytest.importorskip("uvloop")
        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        return loop


class OnUrllib3(Blocking):
    """The reference for threads."""

    kind = Urllib3Transport


class OnAiohttp(Awaiting):
    """The reference for tasks."""

    kind = AiohttpTransport


Client = Blocking | Awaiting
KINDS = {"threads": Blocking, "tasks": Awaiting, "uvloop": AwaitingOnUvloop}
REFERENCES = {"urllib3": OnUrllib3, "aiohttp": OnAiohttp}

by_references_too = pytest.mark.parametrize(
    "connect", (KINDS | REFERENCES).values(), ids=[*KINDS, *REFERENCES], indirect=True
)
"""What any client of HTTP has to make of an answer, other people's libraries do alike."""


@pytest.fixture(params=KINDS.values(), ids=list(KINDS))
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., Client]]:
    """Make clients of every kind, and close them."""
    made: list[Client] = []

    def make(url: str, **options: Any) -> Client:
        made.append(request.param(url, **options))
        return made[-1]

    yield make
    for client in made:
        client.close()


Connect = Callable[..., Client]


@pytest.fixture(params=[Awaiting, AwaitingOnUvloop], ids=["asyncio", "uvloop"])
def new_loop(request: pytest.FixtureRequest) -> NewLoop:
    """Make event loops of either kind."""
    made: NewLoop = request.param.new_loop
    return made


def run(scenario: Coroutine[Any, Any, T], new_loop: NewLoop) -> T:
    """What `asyncio.run` does, on an event loop of that kind."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(scenario)


def tasks_transport(url: str, **options: Any) -> AsyncHttpTransport:
    source: Any = AsyncSource()
    return AsyncHttpTransport(Endpoint("us-east-1", url), source, **options)


# --- answers -------------------------------------------------------------------------------


@by_references_too
@pytest.mark.parametrize("status", ["200 OK", "301 Moved", "400 Bad Request", "500 Oops"])
def test_every_status_is_an_answer(connect: Connect, status: str) -> None:
    """Whatever the engine says is handed on, nothing is followed, retried or raised."""
    data = answer(b'{"a": 1}', status, "X-Amz-Crc32: 17", "Location: /elsewhere")
    with Server(always(data)) as server:
        response = connect(server.url).send()
    assert response.status == int(status[:3])
    assert response.body == b'{"a": 1}'
    assert response.headers == {
        "content-length": "8",
        "x-amz-crc32": "17",
        "location": "/elsewhere",
    }
    assert server.connections == 1


@by_references_too
@pytest.mark.parametrize(
    "data",
    [
        answer(b"packed", "200 OK", "Content-Encoding: gzip"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\npac\r\n3\r\nked\r\n0\r\n\r\n",
    ],
    ids=["encoded", "chunked"],
)
def test_a_body_is_handed_on_as_it_came(connect: Connect, data: bytes) -> None:
    """Chunks are put together, and nothing is unpacked: the checksum is of what was sent."""
    with Server(always(data)) as server:
        assert connect(server.url).send().body == b"packed"


@pytest.mark.parametrize("interim", ["100 Continue", "102 Processing", "103 Early Hints"])
def test_interim_answers_are_passed_over(connect: Connect, interim: str) -> None:
    """What a proxy says meanwhile is no answer, and costs no connection."""
    data = f"HTTP/1.1 {interim}\r\nX-Amz-Crc32: 1\r\n\r\n".encode() * 2 + answer(b"final")
    with Server(always(data)) as server:
        client = connect(server.url)
        for _ in range(2):
            response = client.send()
            assert (response.status, response.body) == (200, b"final")
            assert response.headers == {"content-length": "5"}
    assert server.connections == 1


@by_references_too
@pytest.mark.parametrize("header", ["Connection: close", "CONNECTION: Close"])
def test_a_connection_that_the_engine_will_close_is_not_kept(connect: Connect, header: str) -> None:
    """An engine that announces the end need not carry it out before the next request."""
    with Server(always(answer(b"{}", "200 OK", header))) as server:
        client = connect(server.url)
        client.send()
        client.send()
    assert server.connections == 2


def test_a_connection_with_more_than_was_asked_for_is_not_kept(connect: Connect) -> None:
    """A second answer to one request is never taken for the answer to the next one."""
    with Server(always(answer(b"first") + answer(b"second"))) as server:
        client = connect(server.url)
        assert client.send().body == b"first"
        assert client.send().body == b"first"
    assert server.connections == 2


def test_a_connection_that_speaks_unasked_is_not_used_again(connect: Connect) -> None:
    """What arrives while nobody asks is never taken for an answer."""

    def behave(connection: socket.socket) -> None:
        received(connection)
        connection.sendall(answer(b"asked"))
        time.sleep(0.05)
        connection.sendall(answer(b"unasked"))
        received(connection)

    with Server(behave) as server:
        client = connect(server.url)
        assert client.send().body == b"asked"
        client.pause(0.1)
        assert client.send().body == b"asked"
    assert server.connections == 2


@by_references_too
def test_what_arrives_is_what_was_signed(connect: Connect) -> None:
    """The server can compute the same signature from the request that it gets."""
    requests: list[bytes] = []

    def behave(connection: socket.socket) -> None:
        requests.append(received(connection))
        connection.sendall(answer())

    with Server(behave) as server:
        connect(server.url).send()
    head, _, body = requests[0].partition(b"\r\n\r\n")
    headers = headers_of(head)
    sent_at = datetime.strptime(headers["x-amz-date"] + "+0000", "%Y%m%dT%H%M%SZ%z")
    signed = Signer("us-east-1", server.url).sign(OLD, "GetItem", body, sent_at.timestamp())
    assert head.startswith(b"POST / HTTP/1.1\r\n")
    assert body == GET.body
    assert headers["host"] == f"{HOST}:{server.port}"
    assert headers["accept-encoding"] == "identity"
    assert headers.items() >= headers_of(b"\r\n" + signed.rstrip().encode()).items()


@pytest.mark.parametrize(
    "url",
    [
        "http://[2001:DB8::1]",
        "http://[::1]:8000",
        "http://a:80",
        "http://LocalHost:8000",
        "http://localhost.:8000",
    ],
)
def test_the_host_is_sent_as_it_was_signed(connect: Connect, url: str) -> None:
    """Brackets, capitals, a final dot, and the protocol's own port go the same way in both."""
    hosts: list[str] = []

    def behave(connection: socket.socket) -> None:
        hosts.append(headers_of(received(connection))["host"])
        connection.sendall(answer())

    with Server(behave) as server:
        client = connect(url)
        client.lead_to(server.port)
        client.send()
    assert hosts == [Signer("us-east-1", url).host]


@by_references_too
@pytest.mark.parametrize("size", [2**20, 2**20 + 1, 5 * 2**20])
def test_large_bodies_arrive_whole(connect: Connect, size: int) -> None:
    """Megabytes go both ways, without a warning."""

    def behave(connection: socket.socket) -> None:
        _, _, body = received(connection).partition(b"\r\n\r\n")
        connection.sendall(answer(body[::-1]))

    body = os.urandom(size)
    with Server(behave) as server:
        response = connect(server.url).send(Request("BatchWriteItem", body))
    assert response.body == body[::-1]


def test_renewal_is_asked_of_the_source(connect: Connect) -> None:
    """A request that is sent again after an expired token carries new credentials."""
    heads: list[str] = []

    def behave(connection: socket.socket) -> None:
        while True:
            heads.append(str(headers_of(received(connection))))
            connection.sendall(answer())

    with Server(behave) as server:
        client = connect(server.url)
        client.send()
        client.send(replace(GET, renew=True))
        client.send()
    assert [OLD.access_key in head and "old-token" in head for head in heads] == [
        True,
        False,
        False,
    ]
    assert [NEW.access_key in head for head in heads] == [False, True, True]


# --- kept connections ----------------------------------------------------------------------


@by_references_too
def test_connections_are_kept(connect: Connect) -> None:
    """Requests one after the other go over one connection."""
    with Server(always(answer())) as server:
        client = connect(server.url)
        for _ in range(5):
            client.send()
    assert server.connections == 1


@by_references_too
def test_an_error_status_keeps_the_connection(connect: Connect) -> None:
    """A throttle must not cost a new connection as well."""
    with Server(always(answer(b"{}", "400 Bad Request"))) as server:
        client = connect(server.url)
        client.send()
        client.send()
    assert server.connections == 1


def test_a_connection_closed_while_idle_is_replaced(connect: Connect) -> None:
    """At worst one request fails in a way that may be retried; the retry has a new connection."""
    with Server(once(answer())) as server:
        client = connect(server.url)
        client.send()
        time.sleep(0.05)
        with suppress(ConnectionFailed):
            client.send()
        time.sleep(0.05)
        with suppress(ConnectionFailed):
            client.send()
    assert server.connections >= 2


def test_a_connection_closed_on_arrival_is_not_used_again(connect: Connect) -> None:
    """A request that finds its kept connection closed is sent again, on a new connection."""
    with Server(forgetful) as server:
        client = connect(server.url)
        for _ in range(3):
            assert client.send().status == 200
    assert server.connections == 3


# --- connections in advance ----------------------------------------------------------------


def test_warm_connections_are_there_and_are_used(connect: Connect) -> None:
    """They are opened before any request, and requests then open no others."""
    with Server(always(answer())) as server:
        client = connect(server.url)
        assert client.warm(3) == 3
        assert client.warm(3) == client.warm(2) == 3
        client.pause(0.05)
        assert server.connections == 3
        client.send()
    assert server.connections == 3


def test_no_more_are_warmed_than_are_kept(connect: Connect) -> None:
    """The pool's size bounds what is opened in advance."""
    with Server(always(answer())) as server:
        client = connect(server.url, pool_size=2)
        assert client.warm(5) == 2
        client.pause(0.05)
    assert server.connections == 2


def test_warming_gets_credentials(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without credentials learns so when it starts, not at its first request."""

    def fail(*_: object) -> None:
        raise InvalidCredentials("none")

    monkeypatch.setattr(Source, "current", fail)
    with Server(always(answer())) as server, pytest.raises(InvalidCredentials):
        connect(server.url).warm(1)
    assert server.connections == 0


def test_warming_fails_as_sending_does(connect: Connect) -> None:
    """No listener, no time, and a closed store are told as at any request."""
    with socket.create_server((HOST, 0)) as unused:
        port = unused.getsockname()[1]
    client = connect(f"http://{HOST}:{port}")
    with pytest.raises(ConnectionFailed) as raised:
        client.warm(2)
    assert_text_is_safe(raised.value, port)
    with pytest.raises(RequestTimeout):
        client.warm(2, timeout=0)
    client.close_transport()
    with pytest.raises(StoreClosed):
        client.warm(2)


# --- failures ------------------------------------------------------------------------------

ECHO = b"a-private-key old-secret old-token"


@pytest.mark.parametrize(
    "behaviour",
    [
        reset,
        once(b""),
        once(b"HTTP/1.1 200 OK\r\nContent-Le"),
        once(b"HTTP/1.1 200 OK\r\n\r\n"),
        once(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + ECHO),
        once(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"),
        once(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"),
        once(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"),
        once(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz " + ECHO + b"\r\n\r\n"),
        once(ECHO + b"\r\n\r\n"),
        once(b"HTTP/1.1 " + ECHO + b"\r\n\r\n"),
        once(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n"),
        once(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n" + ECHO),
        once(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n" + ECHO),
        once(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n" + ECHO),
        once(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
        once(b"HTTP/1.1 100 Continue\r\n\r\n"),
        silent_after(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n" + ECHO),
        silent_after(b"HTTP/1.1 200 OK\r\nContent-Length: %b\r\n\r\n" % (b"9" * 5000)),
        silent_after(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000),
        once(b"\x00\x01\x02" + ECHO),
        once(b"\x16\x03\x01\x00\x05hello"),
    ],
    ids=[
        "reset",
        "closed",
        "headers cut",
        "no length",
        "body cut",
        "body missing",
        "chunk cut",
        "chunks cut",
        "chunk nonsense",
        "no status line",
        "no status",
        "endless header",
        "no chunks",
        "negative length",
        "two lengths",
        "another protocol",
        "interim only",
        "nonsense length",
        "endless length",
        "header that never ends",
        "binary",
        "tls",
    ],
)
def test_a_broken_answer_is_a_failed_connection(connect: Connect, behaviour: Behaviour) -> None:
    """Whatever a connection breaks with, it may be retried, and the text gives nothing away."""
    with Server(behaviour) as server:
        client = connect(server.url)
        with pytest.raises(ConnectionFailed) as raised:
            client.send()
        assert raised.value.retryable
        assert_text_is_safe(raised.value, server.port)
        with pytest.raises(ConnectionFailed):
            client.send()
    assert server.connections == 2


def test_a_refused_connection_is_a_failed_connection(connect: Connect) -> None:
    """Where nobody listens, the text says so."""
    with socket.create_server((HOST, 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(ConnectionFailed, match=r"refused|Connect call failed") as raised:
        connect(f"http://{HOST}:{port}").send()
    assert_text_is_safe(raised.value, port)


@pytest.mark.parametrize("connect", [Blocking, Awaiting], indirect=True)  # uvloop asks libuv.
def test_an_unknown_name_is_a_failed_connection(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that cannot be resolved may be resolvable later."""

    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(ConnectionFailed, match=r"nowhere\.invalid failed: Name or service"):
        connect("http://nowhere.invalid").send()


@pytest.mark.parametrize("connect", [Blocking, Awaiting], indirect=True)  # uvloop asks libuv.
def test_every_address_of_a_name_is_tried(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address where nobody listens does not hide one where somebody does."""
    with socket.create_server((HOST, 0)) as unused:
        closed = unused.getsockname()[1]
    with Server(always(answer())) as server:
        found = [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (HOST, port))
            for port in (closed, closed, server.port)
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        assert connect(f"http://two.invalid:{server.port}").send().status == 200
        found.pop()
        with pytest.raises(ConnectionFailed, match=r"refused|Connect call failed"):
            connect(f"http://two.invalid:{server.port}").send()


def test_a_name_that_is_none_is_a_failed_connection(connect: Connect) -> None:
    """A host that no resolver would take, since a part of it is too long, fails likewise."""
    with pytest.raises(ConnectionFailed):
        connect(f"http://{'a' * 64}.invalid").send()


@pytest.mark.parametrize(
    "behaviour",
    [silent, dripping(answer(b"x" * 1000)), dripping(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1000)],
    ids=["silent", "dripping body", "dripping headers"],
)
def test_time_is_up_in_time(connect: Connect, behaviour: Behaviour) -> None:
    """A server that says nothing, or too little at a time, costs the timeout and no more."""
    with Server(behaviour) as server:
        client = connect(server.url)
        began = time.monotonic()
        with pytest.raises(RequestTimeout) as raised:
            client.send(timeout=0.2)
        assert 0.15 < time.monotonic() - began < 20  # A drip takes 50 seconds.
        assert_text_is_safe(raised.value, server.port)
        with pytest.raises(RequestTimeout):
            client.send(timeout=0.1)  # Enough to be accepted, by a busy machine too.
    assert server.connections == 2, "a connection whose answer is still to come must not be kept"


def test_a_request_that_is_given_up_closes_its_connection(connect: Connect) -> None:
    """The engine learns that nobody waits any more, and no socket is left to pile up."""
    ended = threading.Event()
    with Server(until_the_end(ended)) as server:
        client = connect(server.url)
        with pytest.raises(RequestTimeout):
            client.send(timeout=0.1)
        client.pause(0.05)
        assert ended.wait(60)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ignores what its queue is full for")
def test_connecting_has_its_own_timeout(connect: Connect) -> None:
    """A host that does not even accept is given up long before the request's time is."""
    with socket.create_server((HOST, 0), backlog=0) as listener, waiting_at(listener):
        client = connect(f"http://{HOST}:{listener.getsockname()[1]}", connect_timeout=0.1)
        began = time.monotonic()
        with pytest.raises(RequestTimeout):
            client.send(timeout=60)
        assert time.monotonic() - began < 20


@pytest.mark.parametrize("timeout", [0, -1, 1e-9])
def test_no_time_means_no_request(connect: Connect, timeout: float) -> None:
    """Without time nothing is sent, rather than something for ever."""
    with Server(always(answer())) as server, pytest.raises(RequestTimeout):
        connect(server.url).send(timeout=timeout)
    assert server.connections == 0


def test_failures_of_the_source_pass_through(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without credentials nothing is sent, and the caller is told why."""

    def fail(*_: object) -> None:
        raise InvalidCredentials("none")

    monkeypatch.setattr(Source, "current", fail)
    with pytest.raises(InvalidCredentials):
        connect("http://127.0.0.1:1").send()


# --- TLS -----------------------------------------------------------------------------------


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1, and its key, that nobody has signed but itself."""
    return self_signed(tmp_path / "bundle.pem")


def secured(bundle: Path) -> Server:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(bundle)
    return Server(always(answer()), context)


@pytest.mark.parametrize("variable", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
def test_the_named_authorities_are_trusted(
    connect: Connect, bundle: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """As with botocore, the environment can name whom to trust."""
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    monkeypatch.setenv(variable, str(bundle))
    with secured(bundle) as server:
        client = connect(server.url)
        assert client.send().status == 200
        assert client.send().status == 200
    assert server.connections == 1


def test_other_authorities_are_not_trusted(
    connect: Connect, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate of an unknown authority fails the connection."""
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    refused = pytest.raises(ConnectionFailed, match="CERTIFICATE_VERIFY_FAILED")
    with secured(bundle) as server, refused:
        connect(server.url).send()


def test_a_certificate_for_another_host_is_not_accepted(
    connect: Connect, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trusted authority is not enough: the name has to be right."""
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
    with secured(bundle) as server, pytest.raises(ConnectionFailed, match="localhost"):
        connect(f"https://localhost:{server.port}").send()


def test_a_bundle_that_is_not_there_is_found_at_once(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong path in the environment is told before anything is sent, with the path."""
    monkeypatch.setenv("AWS_CA_BUNDLE", "/nowhere.pem")
    with pytest.raises(ConnectionFailed, match=r"/nowhere\.pem"):
        connect("https://127.0.0.1:1")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_next_handshake_is_a_short_one(
    connect: Connect, bundle: Path, monkeypatch: pytest.MonkeyPatch, version: ssl.TLSVersion
) -> None:
    """A connection takes up the TLS session of the one before, as the server sees it."""
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
    reused: list[bool | None] = []

    def behave(connection: socket.socket) -> None:
        assert isinstance(connection, ssl.SSLSocket)
        reused.append(connection.session_reused)
        once(answer())(connection)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(bundle)
    with Server(behave, context) as server:
        client = connect(server.url)
        for _ in range(3):
            assert client.send().status == 200
            client.pause(0.05)
    assert reused == [False, True, True]


def test_a_session_ticket_is_no_end(
    connect: Connect, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What TLS 1.3 sends after a handshake does not make an unused connection look broken."""
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
    with secured(bundle) as server:
        client = connect(server.url)
        assert client.warm(1) == 1
        client.pause(0.05)
        assert client.send().status == 200
    assert server.connections == 1


@pytest.mark.parametrize("size", [2**14, 2**17 + 1, 5 * 2**20])
def test_large_bodies_arrive_whole_over_tls(
    connect: Connect, bundle: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """No record stays behind in the TLS layer, and megabytes go both ways."""
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))

    def behave(connection: socket.socket) -> None:
        while True:
            _, _, body = received(connection).partition(b"\r\n\r\n")
            connection.sendall(answer(body[::-1]))

    body = os.urandom(size)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(bundle)
    with Server(behave, context) as server:
        client = connect(server.url)
        for _ in range(2):
            assert client.send(Request("BatchWriteItem", body)).body == body[::-1]
    assert server.connections == 1


# --- closing, threads, processes, event loops ----------------------------------------------


def test_a_closed_transport_says_so(connect: Connect) -> None:
    """After `close`, which may be called twice, nothing is sent."""
    with Server(always(answer())) as server:
        client = connect(server.url)
        client.send()
        for _ in range(2):
            client.close_transport()
        with pytest.raises(StoreClosed):
            client.send()
    assert server.connections == 1


def test_more_threads_than_connections_do_not_wait() -> None:
    """A small pool costs connections, not time."""
    meeting = threading.Barrier(8)

    def behave(connection: socket.socket) -> None:
        received(connection)
        meeting.wait(60)  # Passes only when all requests are here at once.
        connection.sendall(answer())

    with Server(behave) as server:
        client = Blocking(server.url, pool_size=2)
        threads = [threading.Thread(target=client.send) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        client.close()
    assert server.connections == 8
    assert not meeting.broken


def test_more_tasks_than_connections_wait_within_their_time(new_loop: NewLoop) -> None:
    """Tasks share a small pool, and one that gets no connection in time says so."""

    async def scenario(url: str) -> list[object]:
        transport = tasks_transport(url, pool_size=1)
        found = await asyncio.gather(
            *(transport.send(GET, timeout) for timeout in (0.5, 0.1, 0.1)), return_exceptions=True
        )
        await transport.close()
        return list(found)

    with Server(silent) as server:
        assert {type(found) for found in run(scenario(server.url), new_loop)} == {RequestTimeout}
    assert server.connections == 1


def test_each_task_has_its_own_time(new_loop: NewLoop) -> None:
    """Tasks at once time out in the order of their deadlines, not of their requests."""
    late: list[float] = []

    async def scenario(url: str) -> None:
        transport = tasks_transport(url)

        async def give_up(after: float) -> None:
            with pytest.raises(RequestTimeout):
                await transport.send(GET, after)
            late.append(after)

        await asyncio.gather(*map(give_up, (0.3, 0.1, 0.2)))
        await transport.close()

    with Server(silent) as server:
        run(scenario(server.url), new_loop)
    assert late == [0.1, 0.2, 0.3]


def test_tasks_under_way_fail_when_the_transport_is_closed(new_loop: NewLoop) -> None:
    """Neither a request that was sent nor one that waits for a connection hangs or is cancelled."""

    async def scenario(url: str) -> list[object]:
        transport = tasks_transport(url, pool_size=1)
        sending = [asyncio.create_task(transport.send(GET, 10)) for _ in range(3)]
        await asyncio.sleep(0.1)
        await transport.close()
        return list(await asyncio.gather(*sending, return_exceptions=True))

    with Server(silent) as server:
        assert {type(found) for found in run(scenario(server.url), new_loop)} == {ConnectionFailed}


def test_a_task_that_waits_for_credentials_hears_of_the_close(new_loop: NewLoop) -> None:
    """What was closed meanwhile is not opened again by a request that was late to start."""
    ready = asyncio.Event()

    class SlowSource(AsyncSource):
        async def current_async(self, *within: float) -> Credentials:
            await ready.wait()
            return await super().current_async(*within)

    async def scenario() -> None:
        source: Any = SlowSource()
        transport = AsyncHttpTransport(Endpoint("us-east-1", "http://127.0.0.1:1"), source)
        sending = asyncio.create_task(transport.send(GET, 10))
        await asyncio.sleep(0)
        await transport.close()
        ready.set()
        await sending

    with pytest.raises(StoreClosed):
        run(scenario(), new_loop)


def test_a_cancelled_request_closes_its_connection_in_time(new_loop: NewLoop) -> None:
    """Whoever cancels requests that are never answered does not gather open sockets."""
    began, ended = threading.Event(), threading.Event()

    def behave(connection: socket.socket) -> None:
        connection.recv(1, socket.MSG_PEEK)  # Not earlier: a connection without a request is kept.
        began.set()
        until_the_end(ended)(connection)

    async def scenario(url: str) -> bool:
        transport = tasks_transport(url)
        sending = asyncio.create_task(transport.send(GET, 2))
        await asyncio.to_thread(began.wait, 30)
        sending.cancel()
        heard = await asyncio.to_thread(ended.wait, 30)
        await transport.close()
        return heard

    with Server(behave) as server:
        assert run(scenario(server.url), new_loop)


def test_a_cancelled_request_takes_its_connection_along(new_loop: NewLoop) -> None:
    """The answer to a cancelled request is never taken for the answer to the next one."""

    def behave(connection: socket.socket) -> None:
        body = received(connection).partition(b"\r\n\r\n")[2]
        if body == b"slow":
            time.sleep(0.2)
        connection.sendall(answer(body))

    async def scenario(url: str) -> bytes:
        transport = tasks_transport(url, pool_size=1)
        slow = asyncio.create_task(transport.send(Request("GetItem", b"slow"), 10))
        await asyncio.sleep(0.1)
        slow.cancel()
        response = await transport.send(Request("GetItem", b"quick"), 10)
        await transport.close()
        assert slow.cancelled()
        return response.body

    with Server(behave) as server:
        assert run(scenario(server.url), new_loop) == b"quick"
    assert server.connections == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_has_connections_of_its_own() -> None:
    """Parent and child never speak on one connection, and neither closes the other's."""
    with Server(always(answer())) as server:
        client = Blocking(server.url)
        client.send()
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            os._exit(0 if client.send().status == client.send().status == 200 else 1)
        assert os.waitpid(child, 0)[1] == 0
        client.send()
        client.close()
    assert server.connections == 2


def test_a_transport_outlives_its_event_loop(new_loop: NewLoop) -> None:
    """A client made once, in a module, works on one event loop after another."""
    with Server(always(answer())) as server:
        transport = tasks_transport(server.url)
        with abandoned_connections():
            for _ in range(3):
                assert run(transport.send(GET, 10), new_loop).status == 200
            run(transport.close(), new_loop)
    assert server.connections == 3


def test_two_event_loops_do_not_disturb_each_other(new_loop: NewLoop) -> None:
    """Loops in two threads keep a connection each, and one of them can close both."""
    with Server(always(answer())) as server:
        transport = tasks_transport(server.url)

        async def use() -> None:
            for _ in range(5):
                await transport.send(GET, 10)

        with running_loop(new_loop()) as other:
            elsewhere = asyncio.run_coroutine_threadsafe(use(), other)
            with asyncio.Runner(loop_factory=new_loop) as runner:
                runner.run(use())
                elsewhere.result(10)
                assert server.connections == 2
                runner.run(transport.close())


# --- help ----------------------------------------------------------------------------------


def assert_text_is_safe(error: RequestError, port: int) -> None:
    """The text names the endpoint, and nothing of what was sent or read."""
    assert f"{HOST}:{port}" in str(error)
    assert not any(hidden in str(error) for hidden in ("private", "secret", "token", "AKID"))
    shown = error.__context__ is not None and not error.__suppress_context__
    assert not shown, "a traceback would show the HTTP library's own text"


@contextmanager
def waiting_at(listener: socket.socket) -> Iterator[None]:
    """Fill the queue of a listener that never accepts."""
    waiting = [socket.socket() for _ in range(4)]
    for one in waiting:
        one.setblocking(False)
        one.connect_ex(listener.getsockname())
    yield
    for one in waiting:
        one.close()


@contextmanager
def running_loop(loop: asyncio.AbstractEventLoop) -> Iterator[asyncio.AbstractEventLoop]:
    """Run an event loop in another thread."""
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join(60)
    loop.close()


@contextmanager
def abandoned_connections() -> Iterator[None]:
    """Let asyncio warn of what its loops left open: here, that is the point."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "unclosed", ResourceWarning)
        yield
        gc.collect()
