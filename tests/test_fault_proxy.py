"""The fault proxy does to requests and answers what it is told, and to nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from chalk_online_store import OnlineStore, Status, features, testing
from chalk_online_store.dynamodb import responses as answers
from chalk_online_store.dynamodb.credentials import Endpoint
from chalk_online_store.dynamodb.http import AsyncHttpTransport, HttpTransport
from chalk_online_store.dynamodb.messages import Request, Response
from chalk_online_store.dynamodb.signing import Credentials
from chalk_online_store.errors import (
    ChecksumMismatch,
    ConnectionFailed,
    InvalidCredentials,
    RequestError,
    RequestTimeout,
    ServerError,
    Throttled,
    WriteFailed,
)
from chalk_online_store.testing import (
    AcceptThenClose,
    Blackhole,
    ClockSkew,
    DamagedCRC,
    Dynoxide,
    EngineNotStarted,
    Fault,
    FaultProxy,
    ForgottenConnections,
    LateDuplicates,
    Latency,
    LostAnswer,
    Refused,
    Reset,
    ServerFault,
    Slowdown,
    SlowDrip,
    SwappedResponses,
    Throttling,
    Truncated,
    Unprocessed,
    create_table,
)

HOST = "127.0.0.1"
KEYS: list[dict[str, Any]] = [{"pk": {"S": f"a{i}"}, "sk": {"S": "b"}} for i in range(40)]

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux drops a SYN")


@features
class User:
    """What the stores of these tests keep."""

    id: int
    visits: int


# --- what sends ----------------------------------------------------------------------------


class Source:
    """Credentials that are there at once, for threads."""

    def current(self, *_: float) -> Credentials:
        """Made up."""
        return Credentials("local", "local")

    refresh = current


class AsyncSource:
    """The same for tasks."""

    async def current_async(self, *_: float) -> Credentials:
        """Made up."""
        return Credentials("local", "local")

    refresh_async = current_async


class Blocking:
    """The transport for threads."""

    def __init__(self, url: str) -> None:
        source: Any = Source()
        self._transport = HttpTransport(Endpoint("us-east-1", url), source)

    def send(self, request: Request, timeout: float) -> Response:
        """Send a request."""
        return self._transport.send(request, timeout)

    def close(self) -> None:
        """Close the transport."""
        self._transport.close()


class Awaiting:
    """The transport for tasks."""

    def __init__(self, url: str) -> None:
        source: Any = AsyncSource()
        self._transport = AsyncHttpTransport(Endpoint("us-east-1", url), source)
        self._runner = asyncio.Runner()

    def send(self, request: Request, timeout: float) -> Response:
        """Send a request."""
        return self._runner.run(self._transport.send(request, timeout))

    def close(self) -> None:
        """Close the transport and the loop."""
        self._runner.run(self._transport.close())
        self._runner.close()


Client = Blocking | Awaiting


@pytest.fixture(params=[Blocking, Awaiting])
def client(request: pytest.FixtureRequest, fault_proxy: FaultProxy) -> Iterator[Client]:
    """Either transport, through the proxy."""
    client: Client = request.param(fault_proxy.endpoint_url)
    yield client
    client.close()


@pytest.fixture
def table(dynoxide: Dynoxide) -> str:
    """A table of the test's own, with an item for each of `KEYS`."""
    name = f"proxied-{uuid.uuid4()}"
    create_table(dynoxide.endpoint_url, name)
    client = Blocking(dynoxide.endpoint_url)
    for start in (0, 20):
        puts = [{"PutRequest": {"Item": key}} for key in KEYS[start : start + 20]]
        ask(client, "BatchWriteItem", {"RequestItems": {name: puts}})
    client.close()
    return name


@pytest.fixture
def store(fault_proxy: FaultProxy, table: str) -> Iterator[OnlineStore]:
    """A store on that table, through the proxy, that has registered its features."""
    url = fault_proxy.url(table) + "&read_timeout=0.5"
    with OnlineStore.open(url, schema=[User], session=fault_proxy.session()) as store:
        store.write(User, [{"id": 0, "visits": 0}])
        yield store


def ask(client: Client, operation: str, body: dict[str, Any], timeout: float = 10) -> Any:
    """Send a request; what its answer says, or the library's error."""
    response = client.send(Request(operation, json.dumps(body).encode()), timeout)
    answers.read(response, answers.transacted, operation)
    return json.loads(response.body)


def get(client: Client, table: str, timeout: float = 10) -> Any:
    return ask(client, "GetItem", {"TableName": table, "Key": KEYS[0]}, timeout)["Item"]


def batch_get(client: Client, table: str, **options: Any) -> Any:
    return ask(client, "BatchGetItem", {"RequestItems": {table: {"Keys": KEYS, **options}}})


def connected(proxy: FaultProxy, timeout: float = 0.3) -> socket.socket:
    assert proxy.port is not None
    return socket.create_connection((HOST, proxy.port), timeout)


# --- each fault, and what the library makes of it --------------------------------------------


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Blackhole(), RequestTimeout),
        pytest.param(Blackhole(connect=True), RequestTimeout, marks=linux),
        (Refused(), ConnectionFailed),
        (Reset(), ConnectionFailed),
        (Reset(after=1), ConnectionFailed),
        (Truncated(), ConnectionFailed),
        (Truncated(keep=0), ConnectionFailed),
        (LostAnswer(), ConnectionFailed),
        (Latency(60), RequestTimeout),
        (Slowdown(1_000_000), RequestTimeout),
        (SlowDrip(1), RequestTimeout),
        (DamagedCRC(), ChecksumMismatch),
        (ServerFault(), ServerError),
        (ServerFault(503), ServerError),
        (Throttling(), Throttled),
        (ClockSkew(600), InvalidCredentials),
        (ClockSkew(-600), InvalidCredentials),
    ],
    ids=str,
)
def test_a_fault_is_of_its_class(
    client: Client, fault_proxy: FaultProxy, table: str, fault: Fault, error: type[RequestError]
) -> None:
    """Each fault comes out of the real transports as the right error, and ends with `clear`."""
    fault_proxy.inject(fault)
    with pytest.raises(RequestError) as raised:
        get(client, table, timeout=0.3 if error is RequestTimeout else 10)
    assert type(raised.value) is error
    fault_proxy.clear()
    assert get(client, table) == KEYS[0]


@pytest.mark.parametrize(
    "fault",
    [
        Latency(0.01, jitter=0.01),
        Slowdown(2),
        SlowDrip(5000),
        ClockSkew(200),
        Unprocessed(),
        Reset(after=100_000),
        SwappedResponses(wait=0.01),
    ],
    ids=str,
)
def test_a_mild_fault_leaves_the_answer_whole(
    client: Client, fault_proxy: FaultProxy, table: str, fault: Fault
) -> None:
    """What only slows, or does not concern an operation, changes nothing of the answer."""
    with fault_proxy.fault(fault):
        assert get(client, table) == KEYS[0]
    assert list(fault_proxy.stats().faulted) == [type(fault).__name__]


def test_latency_is_added(fault_proxy: FaultProxy, table: str) -> None:
    """An answer comes no earlier than the latency says."""
    client = Blocking(fault_proxy.endpoint_url)
    with fault_proxy.fault(Latency(0.1)), fault_proxy.fault(Latency(0.1)):
        assert seconds(lambda: get(client, table)) >= 0.2
    client.close()


def test_a_slowdown_multiplies_the_time_of_the_engine() -> None:
    """An engine that takes 50 ms takes four times that with a factor of 4."""
    with SlowEngine() as engine, FaultProxy(engine.url) as proxy:
        client = Blocking(proxy.endpoint_url)
        with proxy.fault(Slowdown(4)):
            assert seconds(lambda: ask(client, "GetItem", {})) >= 0.2
        client.close()


def test_a_slow_body_comes_at_its_rate(fault_proxy: FaultProxy, table: str) -> None:
    """A body takes the time that its length and the rate say."""
    client = Blocking(fault_proxy.endpoint_url)
    size = len(json.dumps(batch_get(client, table), separators=(",", ":")))
    with fault_proxy.fault(SlowDrip(size * 5)):
        assert seconds(lambda: batch_get(client, table)) >= 0.15
    client.close()


def test_a_request_without_an_answer_took_effect(
    client: Client, fault_proxy: FaultProxy, table: str
) -> None:
    """The answer of a write can be lost, and the write is done all the same."""
    item = {"pk": {"S": "lost"}, "sk": {"S": "b"}}
    with fault_proxy.fault(LostAnswer()), pytest.raises(ConnectionFailed):
        ask(client, "PutItem", {"TableName": table, "Item": item})
    assert ask(client, "GetItem", {"TableName": table, "Key": item})["Item"] == item


@pytest.mark.parametrize("fault", [Throttling(), ServerFault(), ClockSkew(600)], ids=str)
def test_a_refused_request_takes_no_effect(
    client: Client, fault_proxy: FaultProxy, table: str, fault: Fault
) -> None:
    """What DynamoDB refuses does not reach the engine."""
    item = {"pk": {"S": "refused"}, "sk": {"S": "b"}}
    with fault_proxy.fault(fault), pytest.raises(RequestError):
        ask(client, "PutItem", {"TableName": table, "Item": item})
    assert "Item" not in ask(client, "GetItem", {"TableName": table, "Key": item})


@pytest.mark.parametrize(
    ("skew", "message"),
    [
        (600, "Signature expired: {0} is now earlier than {1} ({2} - 5 min.)"),
        (-600, "Signature not yet current: {0} is still later than {1} ({2} + 5 min.)"),
    ],
)
def test_a_skewed_clock_is_told_as_aws_tells_it(
    client: Client, fault_proxy: FaultProxy, table: str, skew: int, message: str
) -> None:
    """The refusal has AWS's words and times, and `Date` is the clock of the engine."""
    fault_proxy.inject(ClockSkew(skew))
    response = client.send(Request("GetItem", b"{}"), 10)
    told = json.loads(response.body)["message"]
    signed, edge, now = re.findall(r"\d{8}T\d{6}Z", told)
    assert told == message.format(signed, edge, now)
    date = parsedate_to_datetime(response.headers["date"])
    assert date.strftime("%Y%m%dT%H%M%SZ") == now
    assert abs(date.timestamp() - time.time() - skew) < 60


# --- batches that leave a part ------------------------------------------------------------------


def test_unprocessed_keys_have_the_right_form(
    client: Client, fault_proxy: FaultProxy, table: str
) -> None:
    """Each key is answered or left, never both; what is left can be sent as it is."""
    options = {"ProjectionExpression": "#p", "ExpressionAttributeNames": {"#p": "pk"}}
    with fault_proxy.fault(Unprocessed(0.25)):
        told = batch_get(client, table, **options)
    left = told["UnprocessedKeys"]
    assert len(left[table]["Keys"]) == 10
    assert {name: left[table][name] for name in options} == options
    rest = ask(client, "BatchGetItem", {"RequestItems": left})
    assert rest["UnprocessedKeys"] == {}
    found = [item["pk"]["S"] for part in (told, rest) for item in part["Responses"][table]]
    assert sorted(found) == sorted(key["pk"]["S"] for key in KEYS)


def test_unprocessed_items_have_the_right_form(
    client: Client, fault_proxy: FaultProxy, table: str
) -> None:
    """Puts and deletes that are left were not done, and can be sent as they are."""
    deletes = [{"DeleteRequest": {"Key": key}} for key in KEYS[:20]]
    with fault_proxy.fault(Unprocessed(0.5)):
        told = ask(client, "BatchWriteItem", {"RequestItems": {table: deletes}})
    left = told["UnprocessedItems"]
    assert len(left[table]) == 10
    assert all(request in deletes for request in left[table])
    assert len(batch_get(client, table)["Responses"][table]) == 30
    ask(client, "BatchWriteItem", {"RequestItems": left})
    assert len(batch_get(client, table)["Responses"][table]) == 20


def test_a_batch_that_is_left_wholly_is_a_throttle(
    client: Client, fault_proxy: FaultProxy, table: str
) -> None:
    """DynamoDB refuses a batch of which it can do nothing."""
    with fault_proxy.fault(Unprocessed(1)), pytest.raises(Throttled):
        batch_get(client, table)


def test_a_batch_of_one_is_done(client: Client, fault_proxy: FaultProxy, table: str) -> None:
    """A part of a batch is always done, so that repeating it comes to an end."""
    with fault_proxy.fault(Unprocessed(0.9)):
        told = ask(client, "BatchGetItem", {"RequestItems": {table: {"Keys": KEYS[:1]}}})
    assert told["Responses"][table] == KEYS[:1]


# --- the store on top ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [ServerFault(), Throttling(), Reset(), LostAnswer(), Truncated(), DamagedCRC()],
    ids=str,
)
def test_a_store_outlasts_what_hits_a_part(
    store: OnlineStore, fault_proxy: FaultProxy, fault: Fault
) -> None:
    """With a third of its requests failing, a store serves and writes all the same."""
    with fault_proxy.fault(fault, share=0.3):
        store.write(User, [{"id": i, "visits": i} for i in range(20)], timeout=30)
        rows = store.read(User, range(20), timeout=30)
    assert [row["visits"] for row in rows] == list(range(20))


def test_a_store_asks_again_for_unprocessed_keys(
    store: OnlineStore, fault_proxy: FaultProxy
) -> None:
    """No key is lost when every batch leaves a part of it."""
    store.write(User, [{"id": i, "visits": i} for i in range(100)])
    with fault_proxy.fault(Unprocessed(0.5)):
        rows = store.read(User, range(100), timeout=30)
    assert [row["visits"] for row in rows] == list(range(100))
    assert rows.report.retries > 0


@pytest.mark.parametrize("fault", [Blackhole(), Refused(), Throttling(), ServerFault()], ids=str)
def test_a_store_tells_what_failed(
    store: OnlineStore, fault_proxy: FaultProxy, fault: Fault
) -> None:
    """When nothing comes through, reads are `failed` and writes raise: nothing is made up."""
    with fault_proxy.fault(fault):
        assert store.read(User, [0], timeout=0.3)[0].status("visits") is Status.FAILED
        with pytest.raises(WriteFailed):
            store.write(User, [{"id": 0, "visits": 1}], timeout=0.3)
    assert store.read(User, [0])[0]["visits"] == 0


# --- which requests are hit --------------------------------------------------------------------


def test_only_the_named_operations_are_hit(
    client: Client, fault_proxy: FaultProxy, table: str
) -> None:
    """A fault of BatchGetItem leaves GetItem alone."""
    with fault_proxy.fault(Throttling(), operations={"BatchGetItem"}):
        assert get(client, table) == KEYS[0]
        with pytest.raises(Throttled):
            batch_get(client, table)


def test_a_share_is_drawn_by_the_seed(dynoxide: Dynoxide, table: str) -> None:
    """About the share is hit, and the same requests with the same seed."""
    first, second = (hits(dynoxide, table, seed=7) for _ in range(2))
    assert first == second
    assert 15 <= sum(first) <= 45
    assert hits(dynoxide, table, seed=8) != first


def hits(engine: Dynoxide, table: str, seed: int) -> list[bool]:
    with FaultProxy(engine, seed=seed) as proxy:
        client = Blocking(proxy.endpoint_url)
        with proxy.fault(Throttling(), share=0.5):
            outcomes = [fails(lambda: get(client, table), Throttled) for _ in range(60)]
        client.close()
        assert proxy.stats().faulted == {"Throttling": sum(outcomes)}
    return outcomes


def fails(call: Callable[[], object], error: type[Exception]) -> bool:
    try:
        call()
    except error:
        return True
    return False


def test_a_block_ends_its_own_fault_only(
    client: Client, fault_proxy: FaultProxy, table: str
) -> None:
    """Faults that overlap do not end each other."""
    with fault_proxy.fault(Throttling()):
        with fault_proxy.fault(Throttling()):
            pass
        with pytest.raises(Throttled):
            get(client, table)
    assert get(client, table) == KEYS[0]


def test_several_faults_are_in_force_at_once(
    client: Client, fault_proxy: FaultProxy, table: str
) -> None:
    """A damaged answer can be late as well."""
    with fault_proxy.fault(DamagedCRC()), fault_proxy.fault(Latency(0.1)):
        began = time.perf_counter()
        with pytest.raises(ChecksumMismatch):
            get(client, table)
        assert time.perf_counter() - began >= 0.1


def test_statistics_count_operations_faults_and_connections(
    fault_proxy: FaultProxy, table: str
) -> None:
    """Requests are counted by operation, hits by fault, and open connections as they are."""
    client = Blocking(fault_proxy.endpoint_url)
    get(client, table)
    with fault_proxy.fault(DamagedCRC()), pytest.raises(ChecksumMismatch):
        batch_get(client, table)
    stats = fault_proxy.stats()
    assert stats.requests == {"GetItem": 1, "BatchGetItem": 1}
    assert stats.faulted == {"DamagedCRC": 1}
    assert stats.connections == 1
    client.close()
    eventually(lambda: fault_proxy.stats().connections == 0)


@pytest.mark.parametrize(
    "make",
    [
        lambda proxy: proxy.inject(Latency(1), share=1.5),
        lambda proxy: proxy.inject(Refused(), share=0.5),
        lambda proxy: proxy.inject(Blackhole(connect=True), operations={"GetItem"}),
        lambda _: Latency(-1),
        lambda _: Slowdown(0.5),
        lambda _: Truncated(1),
        lambda _: SlowDrip(0),
        lambda _: ServerFault(404),
        lambda _: Unprocessed(2),
        lambda _: FaultProxy("https://dynamodb.us-east-1.amazonaws.com"),
    ],
)
def test_what_cannot_be_is_refused(
    fault_proxy: FaultProxy, make: Callable[[FaultProxy], object]
) -> None:
    """Nonsense is a `ValueError`, before anything is injected."""
    with pytest.raises(ValueError):  # noqa: PT011 - each has words of its own
        make(fault_proxy)


# --- connections -----------------------------------------------------------------------------


@linux
def test_connects_hang_and_heal_on_the_same_port(fault_proxy: FaultProxy) -> None:
    """With `connect`, a connect gets no answer; afterwards it succeeds on the same port."""
    with fault_proxy.fault(Blackhole(connect=True)), pytest.raises(TimeoutError):
        connected(fault_proxy)
    connected(fault_proxy).close()


def test_refused_resets_what_is_open_and_keeps_the_port(fault_proxy: FaultProxy) -> None:
    """Open connections get an RST, connects are refused, and nobody else can take the port."""
    with connected(fault_proxy, timeout=10) as before, fault_proxy.fault(Refused()):
        with pytest.raises(ConnectionResetError):
            before.recv(1)
        with pytest.raises(ConnectionRefusedError):
            connected(fault_proxy)
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind((HOST, fault_proxy.port))
    connected(fault_proxy).close()


@pytest.mark.parametrize("reset", [False, True])
def test_connections_are_accepted_and_then_closed(fault_proxy: FaultProxy, reset: bool) -> None:
    """Open and new connections end as the fault says, and new ones work after `clear`."""
    fault = AcceptThenClose(within=0.05, reset=reset, garbage=0 if reset else 7)
    before = connected(fault_proxy, timeout=10)
    connects: list[Callable[[], socket.socket]] = [
        lambda: before,
        lambda: connected(fault_proxy, timeout=10),
    ]
    with fault_proxy.fault(fault):
        for connect in connects:
            if reset:  # It may come before `connect` has returned.
                with pytest.raises(ConnectionResetError), connect() as sock:
                    sock.recv(1)
            else:
                with connect() as sock:
                    assert len(everything(sock)) == 7
    with connected(fault_proxy, timeout=0.1) as sock, pytest.raises(TimeoutError):
        sock.recv(1)


@pytest.mark.parametrize(
    "fault",
    [AcceptThenClose(), AcceptThenClose(within=0.01, reset=True), AcceptThenClose(garbage=100)],
    ids=str,
)
def test_a_connection_that_is_closed_at_once_has_failed(
    fault_proxy: FaultProxy, table: str, fault: Fault
) -> None:
    """A request on a connection that was accepted and closed fails, and the next one succeeds."""
    client = Blocking(fault_proxy.endpoint_url)
    with fault_proxy.fault(fault), pytest.raises(ConnectionFailed):
        get(client, table)
    assert get(client, table) == KEYS[0]
    client.close()


@pytest.mark.parametrize("silent", [False, True])
def test_open_connections_are_forgotten_and_new_ones_work(
    fault_proxy: FaultProxy, table: str, silent: bool
) -> None:
    """A forgotten connection answers bytes by an RST or not at all, also after `clear`."""
    with connected(fault_proxy, timeout=10) as before:
        before.sendall(raw_request(table))
        assert before.recv(2**16).startswith(b"HTTP/1.1 200")
        fault_proxy.inject(ForgottenConnections(silent))
        with connected(fault_proxy, timeout=10) as after:
            after.sendall(raw_request(table))
            assert after.recv(2**16).startswith(b"HTTP/1.1 200")
        fault_proxy.clear()
        before.sendall(raw_request(table))
        before.settimeout(0.2 if silent else 10)
        with pytest.raises(TimeoutError if silent else ConnectionResetError):
            before.recv(1)


def test_responses_of_two_connections_are_swapped(fault_proxy: FaultProxy, table: str) -> None:
    """Two requests in flight get each other's response; a third one gets its own."""
    one, two = (connected(fault_proxy, timeout=20) for _ in range(2))
    with fault_proxy.fault(SwappedResponses(wait=10)), one, two:
        one.sendall(raw_request(table, KEYS[1]))
        two.sendall(raw_request(table, KEYS[2]))
        assert b'"a2"' in one.recv(2**16)
        assert b'"a1"' in two.recv(2**16)
    with connected(fault_proxy, timeout=10) as sock, fault_proxy.fault(SwappedResponses(0.01)):
        sock.sendall(raw_request(table, KEYS[3]))
        assert b'"a3"' in sock.recv(2**16)


def test_responses_come_twice_before_the_next_one(fault_proxy: FaultProxy, table: str) -> None:
    """The duplicate of a response precedes the response to the next request."""
    with connected(fault_proxy, timeout=10) as sock, fault_proxy.fault(LateDuplicates(0.01)):
        last = raw_request(table, KEYS[2], b"Connection: close\r\n")
        sock.sendall(raw_request(table, KEYS[1]) + last)
        answered = everything(sock)
    assert re.findall(rb'"(a\d)"', answered) == [b"a1", b"a1", b"a2", b"a2"]


@pytest.mark.parametrize("fault", [SwappedResponses(), LateDuplicates()], ids=str)
@pytest.mark.parametrize("keys", [1, 10])
def test_responses_out_of_step_invent_nothing(
    store: OnlineStore, fault_proxy: FaultProxy, fault: Fault, keys: int
) -> None:
    """Reads at once through a proxy that confuses responses give right values or fail."""
    store.write(User, [{"id": i, "visits": i * 7} for i in range(40)])
    found: set[str] = set()

    def reads(seed: int) -> None:
        for turn in range(5):
            ids = [(seed * 11 + turn * 3 + i) % 40 for i in range(keys)]
            for id_, row in zip(ids, store.read(User, ids, timeout=1), strict=True):
                wrong = row.status("visits") is Status.HIT and row["visits"] != id_ * 7
                found.add("wrong" if wrong else row.status("visits").value)

    with fault_proxy.fault(fault, share=0.5, operations={"GetItem", "BatchGetItem"}):
        threads = [Thread(target=reads, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert "hit" in found
    assert found <= {"hit", "failed"}


def test_a_reset_comes_after_so_many_bytes(fault_proxy: FaultProxy, table: str) -> None:
    """The part of the answer that was asked for comes, then an RST."""
    with connected(fault_proxy, timeout=10) as sock, fault_proxy.fault(Reset(after=12)):
        sock.sendall(raw_request(table))
        assert sock.recv(100) == b"HTTP/1.1 200"
        with pytest.raises(ConnectionResetError):
            sock.recv(1)


def test_a_truncated_answer_promises_its_whole_length(fault_proxy: FaultProxy, table: str) -> None:
    """The head tells the length of the body of which a part comes."""
    with connected(fault_proxy, timeout=10) as sock, fault_proxy.fault(Truncated(0.5)):
        sock.sendall(raw_request(table))
        head, _, body = everything(sock).partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    assert len(body) == length // 2


def test_a_request_under_way_falls_into_a_blackhole(
    client: Client, fault_proxy: FaultProxy, table: str
) -> None:
    """A request from before the blackhole gets no answer either."""
    fault_proxy.inject(Latency(0.2))
    outcome: list[bool] = []
    waiting = Thread(
        target=lambda: outcome.append(fails(lambda: get(client, table, 1), RequestTimeout))
    )
    waiting.start()
    eventually(lambda: fault_proxy.stats().requests.get("GetItem") == 1)
    fault_proxy.inject(Blackhole())
    waiting.join()
    assert outcome == [True]


def test_requests_on_one_connection_are_answered_in_order(
    fault_proxy: FaultProxy, table: str
) -> None:
    """Pipelined requests get their answers one after the other, also where the first is late."""
    with connected(fault_proxy, timeout=10) as sock, fault_proxy.fault(Latency(0.05)):
        sock.sendall(raw_request(table) + raw_request(table, KEYS[1], b"Connection: close\r\n"))
        answered = everything(sock)
    assert answered.count(b"HTTP/1.1 200 OK") == 2
    assert answered.index(b'"a0"') < answered.index(b'"a1"')


def test_a_chunked_request_is_understood(fault_proxy: FaultProxy, table: str) -> None:
    """A body in chunks reaches the engine whole."""
    head, _, body = raw_request(table, KEYS[2], b"Connection: close\r\n").partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.startswith(b"Content-Length")]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:9], body[9:], b""))
    with connected(fault_proxy, timeout=10) as sock:
        sock.sendall(b"\r\n".join([*lines, b"Transfer-Encoding: chunked\r\n\r\n"]) + chunks)
        assert b'"a2"' in everything(sock)


def test_what_is_not_http_ends_the_connection(fault_proxy: FaultProxy) -> None:
    """Garbage is not kept waiting."""
    with connected(fault_proxy, timeout=10) as sock:
        sock.sendall(b"what is this\r\n\r\n")
        assert everything(sock) == b""


def test_an_engine_that_is_away_breaks_connections(tmp_path: Path) -> None:
    """When the engine is killed the proxy answers nothing; when it is back, so is the proxy."""
    with Dynoxide(tmp_path / "table.db") as engine, FaultProxy(engine) as proxy:
        create_table(engine.endpoint_url, "behind-a-proxy")
        client = Blocking(proxy.endpoint_url)
        ask(client, "DescribeTable", {"TableName": "behind-a-proxy"})
        engine.kill()
        with pytest.raises(ConnectionFailed):
            ask(client, "DescribeTable", {"TableName": "behind-a-proxy"})
        engine.start()
        ask(client, "DescribeTable", {"TableName": "behind-a-proxy"})
        client.close()


def raw_request(table: str, key: dict[str, Any] = KEYS[0], headers: bytes = b"") -> bytes:
    body = json.dumps({"TableName": table, "Key": key}).encode()
    signature = "AWS4-HMAC-SHA256 Credential=a/20250101/b/dynamodb/aws4_request, "
    lines = [
        "POST / HTTP/1.1",
        f"Host: {HOST}",
        "X-Amz-Target: DynamoDB_20120810.GetItem",
        "X-Amz-Date: 20250101T000000Z",
        "Content-Type: application/x-amz-json-1.0",
        f"Authorization: {signature}SignedHeaders=host, Signature=c",
        f"Content-Length: {len(body)}\r\n",
    ]
    return "\r\n".join(lines).encode() + headers + b"\r\n" + body


def everything(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(2**16), b""))


# --- the process -----------------------------------------------------------------------------


def test_a_proxy_comes_back_on_its_port(dynoxide: Dynoxide) -> None:
    """`stop` closes the port and every connection; `start` takes the port again."""
    with FaultProxy(dynoxide) as proxy:
        endpoint = proxy.endpoint_url
        with connected(proxy, timeout=10) as open_one:
            eventually(lambda: proxy.stats().connections == 1)
            proxy.stop()
            proxy.stop()
            with pytest.raises(ConnectionResetError):
                open_one.recv(1)
        with pytest.raises(ConnectionRefusedError):
            connected(proxy)
        with pytest.raises(EngineNotStarted, match="not running"):
            proxy.stats()
        assert proxy.start() is proxy
        assert proxy.start().endpoint_url == endpoint
        connected(proxy).close()


@linux
def test_a_proxy_listens_on_one_address_only(fault_proxy: FaultProxy) -> None:
    """Other machines cannot reach it: it is bound to 127.0.0.1."""
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.2", fault_proxy.port)) != 0


def test_a_taken_port_is_told(dynoxide: Dynoxide) -> None:
    """What the process cannot do is an error here."""
    proxy = FaultProxy(dynoxide)
    proxy.port = dynoxide.port
    with pytest.raises(EngineNotStarted, match="in use"):
        proxy.start()
    proxy.stop()


def test_the_process_imports_little() -> None:
    """It knows nothing of this library and of boto3, which would take a second to import."""
    script = Path(testing.__file__).with_name("world")
    imported = subprocess.run(
        [sys.executable, "-X", "importtime", str(script)],
        input="",
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    assert "world.proxy" in imported
    assert "chalk_online_store" not in imported
    assert "boto" not in imported


PROGRAM = """
from chalk_online_store.testing import FaultProxy
proxy = FaultProxy("http://127.0.0.1:9").start()
print(proxy.pid, proxy.port, flush=True)
"""


def test_the_process_ends_with_the_interpreter() -> None:
    """A program that ends without `stop` leaves no process."""
    printed = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True
    ).stdout
    eventually(lambda: is_gone(int(printed.split()[0])))


def test_the_process_ends_when_its_parent_is_killed() -> None:
    """After SIGKILL of the program, its proxy is gone."""
    command = [sys.executable, "-c", PROGRAM + "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        pid, port = map(int, program.stdout.readline().split())
        assert not is_gone(pid)
        program.kill()
    eventually(lambda: is_gone(pid))
    with socket.socket() as probe:
        assert probe.connect_ex((HOST, port)) != 0


def test_a_fork_does_not_stop_the_proxy_of_its_parent() -> None:
    """A child process that inherits the object and exits leaves the proxy alone."""
    script = PROGRAM + (
        "import os, sys\n"
        "if os.fork() == 0:\n"
        "    sys.exit()\n"
        "os.wait()\n"
        "assert proxy.stats().connections == 0\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)


def test_a_killed_process_is_told(dynoxide: Dynoxide) -> None:
    """When the proxy's own process dies, the next order says so, and stopping is harmless."""
    with FaultProxy(dynoxide) as proxy:
        os.kill(proxy.pid, 9)
        with pytest.raises(EngineNotStarted, match="has ended"):
            proxy.stats()


def is_gone(pid: int) -> bool:
    """Whether a process has ended, be it reaped or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return fails(lambda: os.kill(pid, 0), ProcessLookupError)


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


class SlowEngine:
    """Answers everything after 50 ms, with a checksum."""

    def __init__(self) -> None:
        self._server = HTTPServer((HOST, 0), _Slow)
        self.url = f"http://{HOST}:{self._server.server_port}"

    def __enter__(self) -> SlowEngine:
        self._thread = Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Slow(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(0.05)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.send_header("x-amz-crc32", str(zlib.crc32(b"{}")))
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Say nothing."""
