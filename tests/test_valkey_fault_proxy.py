"""The proxy before a Valkey server does what it is told to bytes, in both directions."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable

import pytest

from chalk_online_store.testing import (
    AcceptThenClose,
    Blackhole,
    EngineNotStarted,
    Fault,
    FaultProxy,
    ForgottenConnections,
    LateDuplicates,
    Latency,
    LostAnswer,
    LostRequest,
    Refused,
    Reset,
    Slowdown,
    SlowDrip,
    SwappedResponses,
    Throttling,
    Truncated,
    Valkey,
    ValkeyFaultProxy,
)

VALUE = b"x" * 1000
ANSWER = b"$1000\r\n" + VALUE + b"\r\n"


def packed(*commands: tuple[object, ...]) -> bytes:
    """Commands as clients send them."""
    texts: list[bytes] = []
    for command in commands:
        texts.append(b"*%d\r\n" % len(command))
        for word in command:
            text = word if isinstance(word, bytes) else str(word).encode()
            texts.append(b"$%d\r\n%b\r\n" % (len(text), text))
    return b"".join(texts)


class Client:
    """A connection, and what comes over it."""

    def __init__(self, port: int | None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port or 0), timeout=5)

    def __del__(self) -> None:
        if hasattr(self, "socket"):
            self.socket.close()

    def ask(self, *commands: tuple[object, ...], until: int) -> bytes:
        """Send commands, and give so many bytes of the answer, or what comes before its end."""
        self.socket.sendall(packed(*commands))
        return self.read(until)

    def read(self, until: int) -> bytes:
        """So many bytes, or what comes before the end; raises for a reset."""
        found = b""
        while len(found) < until and (some := self.socket.recv(until - len(found))):
            found += some
        return found


@pytest.fixture
def client(valkey: Valkey, valkey_fault_proxy: ValkeyFaultProxy) -> Client:
    """A client through the proxy; the key "value" has a value."""
    Client(valkey.port).ask(("SET", "value", VALUE), ("DEL", "other"), until=7)
    return Client(valkey_fault_proxy.port)


GET = ("GET", "value")


def test_without_faults_everything_comes_through(
    client: Client, valkey_fault_proxy: ValkeyFaultProxy
) -> None:
    """Requests of many commands and of megabytes are answered, and counted by their first one."""
    many = [("SET", "other", b"y" * 1_000_000), *[GET] * 500]
    answer = client.ask(*many, until=5 + 500 * len(ANSWER))
    assert answer == b"+OK\r\n" + 500 * ANSWER
    assert client.ask(GET, until=len(ANSWER)) == ANSWER
    stats = valkey_fault_proxy.stats()
    assert stats.requests["GET"] == 1
    assert stats.connections == 1


@pytest.mark.parametrize("after", [0, 3, 700])
def test_an_answer_that_is_cut(
    client: Client, valkey_fault_proxy: ValkeyFaultProxy, after: int
) -> None:
    """So many bytes of it come, and then a reset; a shorter answer is whole."""
    with valkey_fault_proxy.fault(Reset(after)):
        if after > 7:
            assert client.ask(("PING",), until=7) == b"+PONG\r\n"
        assert client.ask(GET, until=after) == ANSWER[:after]
        with pytest.raises(ConnectionResetError):
            client.read(1)
    assert Client(valkey_fault_proxy.port).ask(GET, until=len(ANSWER)) == ANSWER


def test_a_request_that_is_cut(
    valkey: Valkey, client: Client, valkey_fault_proxy: ValkeyFaultProxy
) -> None:
    """Of several commands those take effect that have arrived whole, also on a new connection."""
    first = ("INCR", "other")
    for count, sender in enumerate((client, Client(valkey_fault_proxy.port)), 1):
        lost = LostRequest(len(packed(first)) + 5)
        with valkey_fault_proxy.fault(lost), pytest.raises(ConnectionResetError):
            sender.ask(first, ("SET", "other", 9), until=1)
        asked = Client(valkey.port)
        deadline = time.monotonic() + 120
        while (found := asked.ask(("GET", "other"), until=7)) != b"$1\r\n%d\r\n" % count:
            assert time.monotonic() < deadline, found


def test_an_answer_that_is_lost(
    valkey: Valkey, client: Client, valkey_fault_proxy: ValkeyFaultProxy
) -> None:
    """The command takes effect, and the connection ends without a word of it."""
    with valkey_fault_proxy.fault(LostAnswer(), operations={"INCR"}):
        assert client.ask(GET, until=len(ANSWER)) == ANSWER
        assert client.ask(("INCR", "other"), until=4) == b""
    assert Client(valkey.port).ask(("GET", "other"), until=7) == b"$1\r\n1\r\n"


def test_an_answer_that_ends_early(client: Client, valkey_fault_proxy: ValkeyFaultProxy) -> None:
    """A part of it comes, then the end."""
    with valkey_fault_proxy.fault(Truncated(0.5)):
        found = client.ask(GET, until=len(ANSWER))
    assert found == ANSWER[: len(ANSWER) // 2]


@pytest.mark.parametrize("fault", [Latency(0.1), Latency(0, 0.1), Slowdown(3), SlowDrip(10_000)])
def test_slow_answers_are_whole(
    client: Client, valkey_fault_proxy: ValkeyFaultProxy, fault: Fault
) -> None:
    """However slowly it comes, the answer is that of the server, and as late as was said."""
    with valkey_fault_proxy.fault(fault):
        began = time.monotonic()
        assert client.ask(GET, GET, until=2 * len(ANSWER)) == 2 * ANSWER
        took = time.monotonic() - began
    if fault in (Latency(0.1), SlowDrip(10_000)):
        assert took > 0.09
    assert valkey_fault_proxy.stats().faulted == {type(fault).__name__: 1}


def test_silence(client: Client, valkey_fault_proxy: ValkeyFaultProxy) -> None:
    """What is swallowed is never answered, the connection stays open, and others are well."""
    with valkey_fault_proxy.fault(Blackhole(), operations={"GET"}):
        client.socket.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.ask(GET, until=1)
        assert Client(valkey_fault_proxy.port).ask(("PING",), until=7) == b"+PONG\r\n"
    with pytest.raises(TimeoutError):
        client.ask(GET, until=1)
    assert Client(valkey_fault_proxy.port).ask(GET, until=len(ANSWER)) == ANSWER


def test_nobody_listens(client: Client, valkey_fault_proxy: ValkeyFaultProxy) -> None:
    """Open connections are reset and new ones refused, until the fault ends."""
    with valkey_fault_proxy.fault(Refused()):
        with pytest.raises(ConnectionResetError):
            client.read(1)
        with pytest.raises(ConnectionRefusedError):
            Client(valkey_fault_proxy.port)
    assert Client(valkey_fault_proxy.port).ask(GET, until=len(ANSWER)) == ANSWER


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux drops a SYN")
def test_a_host_that_is_gone(valkey_fault_proxy: ValkeyFaultProxy) -> None:
    """Connects are not answered at all, however often it goes."""
    for _ in range(25):
        with valkey_fault_proxy.fault(Blackhole(connect=True)), socket.socket() as caller:
            caller.settimeout(0.05)
            with pytest.raises(TimeoutError):
                caller.connect(("127.0.0.1", valkey_fault_proxy.port or 0))


def test_a_server_that_ends_ends_the_connection() -> None:
    """When the server is gone, so is the proxy's connection, and new ones are reset."""
    with Valkey() as server, ValkeyFaultProxy(server) as proxy:
        client = Client(proxy.port)
        assert client.ask(("PING",), until=7) == b"+PONG\r\n"
        server.kill()
        assert client.read(1) == b""
        with pytest.raises(ConnectionResetError):
            Client(proxy.port).read(1)


def test_what_no_proxy_can_do(valkey: Valkey, fault_proxy: FaultProxy) -> None:
    """Faults that are not of its kind, and targets, are refused; it has no URL before its start."""
    with pytest.raises(ValueError, match="LostRequest"):
        fault_proxy.inject(LostRequest())
    for target in ("http://127.0.0.1:1", "valkeys://127.0.0.1:1"):
        with pytest.raises(ValueError, match="valkey://"):
            ValkeyFaultProxy(target)
    with pytest.raises(ValueError, match="after"):
        LostRequest(-1)
    with pytest.raises(EngineNotStarted):
        ValkeyFaultProxy(valkey).url()
    with ValkeyFaultProxy(valkey.url()) as proxy, pytest.raises(ValueError, match="Throttling"):
        proxy.inject(Throttling())


# --- connections and responses that are not what they seem ---------------------------------


@pytest.mark.parametrize("reset", [False, True])
def test_connections_are_accepted_then_closed(
    client: Client, valkey_fault_proxy: ValkeyFaultProxy, reset: bool
) -> None:
    """Open connections and new ones end before an answer, until the fault ends."""
    connects: list[Callable[[], Client]] = [lambda: client, lambda: Client(valkey_fault_proxy.port)]
    with valkey_fault_proxy.fault(AcceptThenClose(reset=reset)):
        for connect in connects:
            if reset:
                with pytest.raises(ConnectionResetError):
                    connect().read(1)  # The reset may come before `connect` has returned.
            else:
                assert connect().read(1) == b""
    assert Client(valkey_fault_proxy.port).ask(GET, until=len(ANSWER)) == ANSWER


def test_garbage_may_come_before_the_end(valkey_fault_proxy: ValkeyFaultProxy) -> None:
    """The bytes of `garbage` arrive, then the end."""
    with valkey_fault_proxy.fault(AcceptThenClose(garbage=50)):
        assert len(Client(valkey_fault_proxy.port).read(100)) == 50


def test_connections_are_forgotten(client: Client, valkey_fault_proxy: ValkeyFaultProxy) -> None:
    """An open connection is reset at its next request, also after `clear`; new ones work."""
    assert client.ask(GET, until=len(ANSWER)) == ANSWER
    valkey_fault_proxy.inject(ForgottenConnections())
    valkey_fault_proxy.clear()
    with pytest.raises(ConnectionResetError):
        client.ask(GET, until=1)
    assert Client(valkey_fault_proxy.port).ask(GET, until=len(ANSWER)) == ANSWER


def test_connections_are_forgotten_silently(
    client: Client, valkey_fault_proxy: ValkeyFaultProxy
) -> None:
    """With `silent`, requests on an open connection are never answered; new ones work."""
    client.ask(GET, until=len(ANSWER))
    valkey_fault_proxy.inject(ForgottenConnections(silent=True))
    client.socket.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.ask(GET, until=1)
    assert Client(valkey_fault_proxy.port).ask(GET, until=len(ANSWER)) == ANSWER


def test_two_responses_are_swapped(client: Client, valkey_fault_proxy: ValkeyFaultProxy) -> None:
    """The responses to two requests in flight go to each other's connections; one alone stays."""
    other = Client(valkey_fault_proxy.port)
    with valkey_fault_proxy.fault(SwappedResponses(wait=5)):
        client.socket.sendall(packed(GET))
        other.socket.sendall(packed(("EXISTS", "value")))
        assert client.read(4) == b":1\r\n"
        assert other.read(len(ANSWER)) == ANSWER
    with valkey_fault_proxy.fault(SwappedResponses(wait=0.01)):
        assert client.ask(GET, until=len(ANSWER)) == ANSWER


def test_a_response_comes_twice(client: Client, valkey_fault_proxy: ValkeyFaultProxy) -> None:
    """The duplicate arrives by itself, or before the next response."""
    with valkey_fault_proxy.fault(LateDuplicates(0.05)):
        assert client.ask(GET, until=2 * len(ANSWER)) == 2 * ANSWER
    with valkey_fault_proxy.fault(LateDuplicates(60)):
        assert client.ask(("EXISTS", "value"), until=4) == b":1\r\n"
        found = client.ask(GET, until=4 + len(ANSWER))
        assert found == b":1\r\n" + ANSWER
