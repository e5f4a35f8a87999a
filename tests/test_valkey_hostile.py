"""Servers that answer nonsense, close or are silent: calls end in time, by our errors."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chalk_online_store import AsyncOnlineStore, OnlineStore, Status, features
from chalk_online_store.errors import (
    ConnectionFailed,
    MalformedResponse,
    OnlineStoreError,
    RequestError,
    RequestTimeout,
)
from chalk_online_store.testing import AcceptThenClose, Latency, Valkey, ValkeyFaultProxy
from chalk_online_store.valkey.commands import Request
from chalk_online_store.valkey.resp import ReplyReader
from chalk_online_store.valkey.transport import (
    AsyncClusterTransport,
    AsyncValkeyTransport,
    ClusterTransport,
    ValkeyTransport,
)
from chalk_online_store.valkey.transport.blocking import BlockingConnection
from chalk_online_store.valkey.urls import ValkeyTarget
from tests.contract.conftest import AnyStore

STRESS = int(os.environ.get("CHALK_STRESS", "1"))

MGET = Request([("MGET", "a", "b")])
Answer = Callable[[socket.socket, bytes], None]


@features
class User:
    id: int
    a: int


ROWS: list[dict[str, Any]] = [{"id": key, "a": key} for key in range(20)]


class Server:
    """Listens, and answers each request as it is told to."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        for each in self._sockets:
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self._sockets.append(sock)
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := sock.recv(65536):
                self._answer(sock, data)


@contextlib.contextmanager
def carriers(port: int, *, clustered: bool = False, **options: Any) -> Iterator[list[Any]]:
    """A function for either kind of transport, which sends a request."""
    target = ValkeyTarget((("127.0.0.1", port),), clustered=clustered, **options)
    blocking = (ClusterTransport if clustered else ValkeyTransport)(target)
    polled = (AsyncClusterTransport if clustered else AsyncValkeyTransport)(target)
    with asyncio.Runner() as runner:
        yield [
            blocking.send,
            lambda request, timeout: runner.run(polled.send(request, timeout)),
        ]
        blocking.close()
        runner.run(polled.close())


REPLIES = {
    "a long string": b"$999999999999\r\nabc",
    "a long array": b"*1000000000\r\n",
    "deep arrays": b"*1\r\n" * 1000,
    "another count": b"*1\r\n$1\r\na\r\n$1\r\n0\r\n",
    "another type": b"+OK\r\n$1\r\n0\r\n",
    "numbers": b"*2\r\n:1\r\n:2\r\n$1\r\n0\r\n",
    "arrays": b"*2\r\n*0\r\n*0\r\n$1\r\n0\r\n",
    "a push message": b">2\r\n$7\r\nmessage\r\n$1\r\na\r\n",
    "another protocol": b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    "no text": b"-\xff\xfe\r\n" * 2 + b"\0\xff\r\n",
    "another number": b"*2\r\n$1\r\n1\r\n$1\r\n2\r\n$3\r\nabc\r\n-ERR x\r\n",
}


@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("name", REPLIES)
def test_replies_of_another_form_raise_our_errors(name: str, clustered: bool) -> None:
    """A reply that is not the asked one is a `MalformedResponse`, and no reply is returned."""
    with (
        Server(lambda sock, data: sock.sendall(REPLIES[name] + b"+OK\r\n")) as server,
        carriers(server.port, clustered=clustered) as sends,
    ):
        for send in sends:
            with pytest.raises(MalformedResponse):
                send(MGET, 20)


def test_an_endless_reply_ends_at_its_limit() -> None:
    """A response larger than its request allows is refused before the deadline."""

    def flood(sock: socket.socket, data: bytes) -> None:
        sock.sendall(b"*2\r\n$60000000\r\n")
        while True:
            sock.sendall(bytes(1 << 20))

    with Server(flood) as server, carriers(server.port) as sends:
        for send in sends:
            with pytest.raises(MalformedResponse):
                send(MGET, 60)


def trickle(sock: socket.socket, data: bytes) -> None:
    """Send a reply a byte at a time."""
    for _ in range(1000):
        sock.sendall(b"+")
        time.sleep(0.02)


def test_a_trickle_ends_at_the_deadline() -> None:
    """Bytes that arrive all the time do not move the deadline."""
    with Server(trickle) as server, carriers(server.port) as sends:
        for send in sends:
            began = time.monotonic()
            with pytest.raises(RequestTimeout):
                send(MGET, 0.3)
            assert time.monotonic() - began < 8


class Endless:
    """A socket that always has one more byte, and takes only one."""

    def __init__(self) -> None:
        self._here, self._there = socket.socketpair()

    def fileno(self) -> int:
        return self._here.fileno()

    def recv(self, size: int) -> bytes:
        return b"1"

    def send(self, data: bytes) -> int:
        return 1

    def close(self) -> None:
        self._here.close()
        self._there.close()


def test_bytes_without_a_pause_end_at_the_deadline() -> None:
    """A peer that is ready all the time, so that nobody has to wait for it, ends no later."""
    connection = BlockingConnection(Endless())  # type: ignore[arg-type]
    reader = ReplyReader(1, 1 << 60)
    reader.feed(b"$%d\r\n" % (1 << 59))
    with pytest.raises(TimeoutError):
        connection.receive(reader, time.monotonic() + 0.1, time.monotonic() + 0.1)
    with pytest.raises(TimeoutError):
        connection.send(bytes(1 << 26), time.monotonic() + 0.1)
    connection.close()


def test_the_reason_for_a_closed_connection_is_told() -> None:
    """An error that precedes the end of a connection is what the call fails with."""

    def refuse(sock: socket.socket, data: bytes) -> None:
        sock.sendall(b"-ERR max number of clients reached\r\n")
        sock.shutdown(socket.SHUT_RDWR)

    with Server(refuse) as server, carriers(server.port) as sends:
        for send in sends:
            with pytest.raises(ConnectionFailed) as raised:
                send(MGET, 20)
            assert "max number of clients" in raised.value.engine_message


@pytest.mark.parametrize(
    "moved",
    [
        b"-MOVED\r\n",
        b"-MOVED 1 nowhere\r\n",
        b"-MOVED x a:b\r\n",
        b"-ASK 1 a:999999\r\n",
        b"-MOVED 1 127.0.0.1:70000\r\n",
    ],
)
def test_a_redirection_to_nowhere_is_refused(moved: bytes) -> None:
    """A `MOVED` without an address raises no `ValueError`."""

    def answer(sock: socket.socket, data: bytes) -> None:
        if b"SLOTS" in data:
            port = sock.getsockname()[1]
            slots = b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:%d\r\n" % port
            sock.sendall(slots + _number(data))
        else:
            sock.sendall(moved * 2 + (b"-ERR x\r\n" if b"SETINFO" in data else b""))

    with Server(answer) as server, carriers(server.port, clustered=True) as sends:
        for send in sends:
            (reply,) = send(Request([("GET", "a")]), 20)
            assert isinstance(reply, RequestError)


def _number(data: bytes) -> bytes:
    """The reply to the `ECHO` at the end of a request, and to what follows."""
    start = data.index(b"ECHO\r\n") + len(b"ECHO\r\n")
    size = int(data[start + 1 : data.index(b"\r\n", start)])
    end = data.index(b"\r\n", start) + 2 + size + 2
    return data[start:end] + (b"+OK\r\n" if b"SETINFO" in data else b"")


# --- calls that end ------------------------------------------------------------------------

FAULTS = [
    AcceptThenClose(),
    AcceptThenClose(within=0.003),
    AcceptThenClose(within=0.003, reset=True),
    AcceptThenClose(within=0.003, garbage=30),
]


@pytest.mark.parametrize("fault", FAULTS, ids=repr)
def test_calls_end_while_connections_are_closed_and_all_succeed_afterwards(
    valkey: Valkey, fault: Any
) -> None:
    """Against a listener that accepts and closes, each call ends; then 100 of 100 succeed."""

    async def main(proxy: ValkeyFaultProxy) -> None:
        url = proxy.url("closed:")
        async with AsyncOnlineStore.open(url, [User], timeout=0.5) as store:
            await store.write(User, ROWS, timeout=20)
            with OnlineStore.open(url, [User], timeout=0.5) as blocking:
                assert blocking.read(User, [1], timeout=20)[0]["a"] == 1
                with proxy.fault(fault):
                    calls = [store.read(User, [key % 20]) for key in range(100 * STRESS)]
                    await asyncio.wait_for(asyncio.gather(*calls), 60)
                    for key in range(4 * STRESS):
                        await asyncio.to_thread(blocking.read, User, [key % 20])
                again = [store.read(User, [key % 20], timeout=20) for key in range(100)]
                found = await asyncio.gather(*again)
                assert {rows[0].status("a") for rows in found} == {Status.HIT}
                assert blocking.read(User, [1], timeout=20)[0]["a"] == 1
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            assert tasks == set()

    descriptors = len(list(Path("/dev/fd").iterdir()))
    with ValkeyFaultProxy(valkey) as proxy:
        asyncio.run(main(proxy))
    assert len(list(Path("/dev/fd").iterdir())) <= descriptors + 4


@pytest.mark.parametrize("kind", [OnlineStore, AsyncOnlineStore])
def test_a_lost_answer_to_a_script_is_our_error(kind: Any, valkey: Valkey) -> None:
    """While a new script is slow to answer, a write fails by an `OnlineStoreError`."""
    with Valkey() as server, ValkeyFaultProxy(server) as proxy, asyncio.Runner() as runner:
        store = AnyStore(kind.open(proxy.url(), [User], timeout=0.7), runner)
        with proxy.fault(Latency(5), operations={"EVAL"}), pytest.raises(OnlineStoreError):
            store.write(User, ROWS)
        store.close()


def test_a_server_that_never_knows_a_script_does_not_keep_a_call(valkey: Valkey) -> None:
    """`NOSCRIPT` to a script that was sent along is retried with backoff, and ends in time."""
    count = 0

    def answer(sock: socket.socket, data: bytes) -> None:
        nonlocal count
        count += 1
        names = [name for name in (b"GET", b"ZRANGEBYLEX", b"EVAL") if b"\r\n%b\r\n" % name in data]
        replies = {b"GET": b"$-1\r\n", b"ZRANGEBYLEX": b"*0\r\n", b"EVAL": b"-NOSCRIPT x\r\n"}
        sock.sendall(b"".join(replies[name] for name in names) or b"-NOSCRIPT x\r\n")
        sock.sendall(_number(data))

    with (
        Server(answer) as server,
        OnlineStore.open(f"valkey://127.0.0.1:{server.port}", [User], timeout=1) as store,
        pytest.raises(OnlineStoreError),
    ):
        store.write(User, ROWS)
    assert count < 200


def test_random_bytes_never_raise_another_error() -> None:
    """Whatever a peer sends, a request fails by a `RequestError`."""
    rng = random.Random(7)

    def answer(sock: socket.socket, data: bytes) -> None:
        parts = [rng.choice((b"*2\r\n", b"$1\r\na\r\n", b":1\r\n", b"-E\r\n", b"\r\n", b"\xff"))]
        parts += rng.choices((b"$-1\r\n", b"*0\r\n", b"*-1\r\n", b"$0\r\n\r\n", b"+\r\n"), k=3)
        sock.sendall(b"".join(parts))
        sock.shutdown(socket.SHUT_RDWR)

    with Server(answer) as server, carriers(server.port) as sends:
        for _ in range(50 * STRESS):
            for send in sends:
                with pytest.raises(RequestError):
                    send(MGET, 20)
