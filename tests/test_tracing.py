"""Spans of calls and requests: complete, each under its own parent, and without keys or values."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from chalk_online_store import (
    AsyncOnlineStore,
    MissingDependency,
    OnlineStore,
    PersistenceWriter,
    ReadRequest,
    WriteFailed,
    features,
)
from chalk_online_store.drivers.simulated import Reply, SimulatedDriver
from chalk_online_store.dynamodb.messages import Request, Response
from chalk_online_store.effects import All, Operation, Race, Send, Spawn
from chalk_online_store.errors import Throttled
from chalk_online_store.integrations.opentelemetry import instrument
from chalk_online_store.integrations.opentelemetry.requests import describe, tell
from chalk_online_store.integrations.opentelemetry.tracing import CANCELLED
from chalk_online_store.operations.core import Core
from chalk_online_store.operations.hooks import CallHook
from chalk_online_store.testing import Dynoxide, Valkey, create_table
from chalk_online_store.valkey import commands as valkey
from chalk_online_store.valkey.resp import Command
from tests.fakes import SimulatedStore, refusal

SECRET = "a-secret-value"
KEY = 987_654_321


@features
class User:
    id: int
    name: str
    count: int


class Spans:
    """Spans and metrics of what is instrumented with their providers."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.meter_provider = MeterProvider([self._reader])

    def of(self, store: Any) -> None:
        """Instrument a store."""
        instrument(store, tracer_provider=self.tracer_provider, meter_provider=self.meter_provider)

    def take(self) -> list[ReadableSpan]:
        """The spans that have ended since."""
        found = list(self._exporter.get_finished_spans())
        self._exporter.clear()
        return found

    def points(self, metric: str) -> list[Any]:
        """The points of a metric."""
        data = self._reader.get_metrics_data()
        assert data is not None
        return [
            point
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for found in scope.metrics
            if found.name == metric
            for point in found.data.data_points
        ]


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
def url(dynoxide: Dynoxide) -> str:
    """A table of its own."""
    table = f"traced-{uuid.uuid4().hex}"
    create_table(dynoxide.endpoint_url, table, region="us-east-1")
    return f"dynamodb:///{table}?region=us-east-1&endpoint_url={dynoxide.endpoint_url}"


def short(name: str) -> str:
    """A span's name, without what is random in a table's."""
    return re.sub(r"traced-\w+", "traced", name)


def tree(found: list[ReadableSpan]) -> dict[str, list[str]]:
    """The names of what is below each call."""
    names = {span.context.span_id: short(span.name) for span in found if span.context}
    calls: dict[str, list[str]] = {short(span.name): [] for span in found if span.parent is None}
    for span in found:
        if span.parent is not None:
            calls.setdefault(names[span.parent.span_id], []).append(short(span.name))
    return calls


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_a_read_and_a_write_are_spans_with_their_requests(url: str, spans: Spans) -> None:
    """A call has what it cost, a request what the conventions for database clients ask for."""
    with OnlineStore.open(url, [User]) as store:
        store.write(User, [{"id": i, "name": SECRET, "count": i} for i in range(200)])
        spans.of(store)
        rows = store.read(User, range(200))
        found = spans.take()
    assert tree(found) == {"read user": ["BatchGetItem traced"] * 2}
    (call,) = [span for span in found if span.parent is None]
    said = attributes(call)
    assert (said["db.operation.name"], said["chalk.namespace"]) == ("read", "user")
    assert (said["chalk.rows"], said["chalk.requests"]) == (200, 2)
    assert said["chalk.rcu"] == rows.report.rcu > 0
    assert call.kind is SpanKind.INTERNAL
    consumed = 0.0
    for request in found:
        if request is call:
            continue
        said = attributes(request)
        assert request.kind is SpanKind.CLIENT
        assert said["db.system.name"] == "aws.dynamodb"
        assert said["db.operation.name"] == "BatchGetItem"
        assert short(said["db.collection.name"]) == "traced"
        assert said["db.operation.batch.size"] == 100
        assert said["server.address"] == "127.0.0.1"
        assert isinstance(said["server.port"], int)
        (capacity,) = said["aws.dynamodb.consumed_capacity"]
        consumed += json.loads(capacity)["CapacityUnits"]
    assert consumed == rows.report.rcu


def test_a_read_of_several_namespaces_is_one_span(url: str, spans: Spans) -> None:
    """A call of several requests has the rows of all, and what they cost together."""
    with OnlineStore.open(url, [User]) as store:
        store.write(User, [{"id": 1, "name": SECRET, "count": 1}])
        spans.of(store)
        found = store.read_many(ReadRequest(User, [1, 2]), ReadRequest(User, [3]))
        taken = spans.take()
    assert tree(taken) == {"read_many": ["BatchGetItem traced"]}
    (call,) = [span for span in taken if span.parent is None]
    said = attributes(call)
    assert (said["chalk.rows"], said["chalk.requests"]) == (3, 1)
    assert said["chalk.rcu"] == found[0].report.rcu > 0


@pytest.mark.parametrize("engine", ["sqlite", "dynoxide", "valkey"])
def test_nothing_of_what_is_stored_is_in_a_span(
    engine: str, request: pytest.FixtureRequest, spans: Spans
) -> None:
    """Neither keys nor values are in a name, an attribute or an event, whatever goes wrong."""
    where = "sqlite://"
    if engine == "dynoxide":
        where = request.getfixturevalue("url")
    elif engine == "valkey":
        server: Valkey = request.getfixturevalue("valkey")
        where = server.url("traced:")
    with OnlineStore.open(where, [User]) as store:
        spans.of(store)
        store.write(User, [{"id": KEY, "name": SECRET, "count": 1}])
        store.read(User, [KEY])
        store.delete(User, [KEY])
        with pytest.raises(Exception, match="count"):
            store.write(User, [{"id": KEY, "name": SECRET, "count": SECRET}])
        store.drop(User, ["count"])
    found = spans.take()
    assert {span.name.partition(" ")[0] for span in found} >= {"write", "read", "delete", "drop"}
    text = "".join(span.to_json() for span in found)
    assert SECRET not in text
    assert str(KEY) not in text


def test_an_error_is_told_by_its_class(spans: Spans) -> None:
    """A call that fails has the status of an error, and its requests those of their answers."""
    simulated = SimulatedStore([User])
    watcher_of(spans, simulated.core)
    simulated.table.fault = lambda operation, body, now: (
        refusal("ThrottlingException") if operation == "BatchWriteItem" else None
    )
    with pytest.raises(WriteFailed):
        simulated.write(User, [{"id": 1, "name": "a", "count": 1}] * 1, ordering="arrival")
    found = spans.take()
    (call,) = [span for span in found if span.name == "write user"]
    assert call.status.status_code is StatusCode.ERROR
    assert attributes(call)["error.type"] == "WriteFailed"
    throttled = [span for span in found if span.name.startswith("BatchWriteItem")]
    assert len(throttled) > 1
    assert {attributes(span)["error.type"] for span in throttled} == {Throttled.__name__}
    assert {attributes(span)["db.response.status_code"] for span in throttled} == {"400"}
    (failed,) = [
        point.attributes
        for point in spans.points("db.client.operation.duration")
        if point.attributes["db.operation.name"] == "BatchWriteItem"
    ]
    assert (failed["error.type"], failed["db.response.status_code"]) == ("Throttled", "400")


def test_a_call_that_fails_has_cost_something_too(spans: Spans) -> None:
    """Throttles, retries and rows that fail are counted where a write ends in an error."""
    simulated = SimulatedStore([User])
    watcher_of(spans, simulated.core)
    simulated.table.fault = lambda operation, body, now: (
        refusal("ThrottlingException") if operation == "BatchWriteItem" else None
    )
    with pytest.raises(WriteFailed) as raised:
        simulated.write(User, [{"id": 1, "name": "a", "count": 1}], ordering="arrival")
    report = raised.value.report
    assert report.throttles > report.retries > 0
    assert report.failed == 1
    for name in ("throttles", "retries", "failed", "requests"):
        counted = sum(point.value for point in spans.points(f"chalk.online_store.call.{name}"))
        assert counted == getattr(report, name)
    (call,) = [attributes(span) for span in spans.take() if span.name == "write user"]
    assert call["chalk.throttles"] == report.throttles


@pytest.mark.parametrize(
    ("commands", "name"),
    [
        ([("GET", "a")], "GET"),
        ([("GET", "a"), (b"GET", "b")], "PIPELINE GET"),
        ([("GET", "a"), ("MGET", "b")], "PIPELINE"),
    ],
)
def test_a_pipeline_is_named_as_the_conventions_have_it(commands: list[Command], name: str) -> None:
    """Commands that go out together are a batch, which has their name if they share one."""
    described = describe(valkey.Request(commands))
    assert described is not None
    assert described.operation == name
    assert described.more.get("db.operation.batch.size", 1) == len(commands)


@pytest.mark.parametrize(
    "body",
    [
        b'{"ConsumedCapacity":[{"CapacityUnits":2.5,"TableName":"t"}],"Responses":{"t":[%s]}}',
        b'{"Responses":{"t":[%s]},"ConsumedCapacity" : [ {"TableName":"t","CapacityUnits": 2.5} ]}',
        b'{"Item":%s,"ConsumedCapacity":{"CapacityUnits":2.5,"TableName":"t"}}',
        b'{"ConsumedCapacity":{"TableName":"t","CapacityUnits":25e-1},"Item":%s}',
    ],
)
def test_capacity_is_found_wherever_it_is_and_nothing_else_is(body: bytes) -> None:
    """Whatever an item says of capacity, what was consumed is what the answer says of itself."""
    said = {'"ConsumedCapacity":{"CapacityUnits":7}': {"S": '"CapacityUnits":9'}}
    item = json.dumps(said | {"CapacityUnits": {"N": "8"}}).encode()
    found, error = tell(Request("Any", b"{}"), Response(200, {}, body % item))
    assert ([json.loads(each) for each in found["aws.dynamodb.consumed_capacity"]], error) == (
        [{"CapacityUnits": 2.5}],
        "",
    )


def watcher_of(spans: Spans, core: Core) -> CallHook:
    """A store in virtual time, which has no transports, instrumented."""
    spans.of(SimpleNamespace(core=core, driver=SimpleNamespace(transports={})))
    assert core.watcher is not None
    return core.watcher


def test_parents_are_right_among_threads(url: str, spans: Spans) -> None:
    """Each request is below the call that made it, and each call below the span of its caller."""
    tracer = spans.tracer_provider.get_tracer("caller")
    with OnlineStore.open(url, [User]) as store:
        store.write(User, [{"id": i, "name": "a", "count": i} for i in range(150)])
        spans.of(store)

        def read(number: int) -> int:
            with tracer.start_as_current_span(f"caller {number}") as span:
                store.read(User, range(150))
                return span.get_span_context().span_id

        with ThreadPoolExecutor(8) as pool:
            callers = list(pool.map(read, range(20)))
        found = spans.take()
    assert_families(found, callers)


def assert_families(found: list[ReadableSpan], callers: list[int]) -> None:
    calls = {s.context.span_id: s for s in found if s.name == "read user" and s.context}
    assert sorted(s.parent.span_id for s in calls.values() if s.parent) == sorted(callers)
    requests = [s.parent.span_id for s in found if s.name.startswith("BatchGet") and s.parent]
    assert sorted(requests) == sorted([*calls] * 2)


def test_parents_are_right_among_tasks(url: str, spans: Spans) -> None:
    """The same for asyncio."""
    tracer = spans.tracer_provider.get_tracer("caller")

    async def use() -> list[int]:
        async with AsyncOnlineStore.open(url, [User]) as store:
            await store.write(User, [{"id": i, "name": "a", "count": i} for i in range(150)])
            spans.of(store)

            async def read(number: int) -> int:
                with tracer.start_as_current_span(f"caller {number}") as span:
                    await store.read(User, range(150))
                    return span.get_span_context().span_id

            return await asyncio.gather(*map(read, range(20)))

    callers = asyncio.run(use())
    assert_families(spans.take(), callers)


def asking(name: str) -> Operation[Any]:
    """One request."""
    return (yield Send(Request(name, b'{"TableName":"t"}'), 60.0))


def test_a_leg_that_is_given_up_ends_its_span(spans: Spans) -> None:
    """Of a race, the request that lost is a span that says so; the one that won is as any."""

    def play(send: Send, now: float) -> Reply:
        slow = send.request.operation == "Query"
        return Reply(Response(200, {}, b"{}"), after=5.0 if slow else 0.1)

    def contest() -> Operation[Any]:
        return (yield Race([asking("Query"), asking("GetItem")], 0.01))

    watcher = watcher_of(spans, SimulatedStore([User]).core)
    SimulatedDriver(play).run(watcher.watch("read", User, contest()))
    found = {span.name: attributes(span) for span in spans.take()}
    assert found["Query t"][CANCELLED] is True
    assert CANCELLED not in found["GetItem t"]
    assert CANCELLED not in found["read user"]


def test_what_is_begun_apart_is_below_the_call_that_began_it(spans: Spans) -> None:
    """Requests of spawned and of joined operations have the call for their parent."""

    def several() -> Operation[None]:
        yield Spawn(asking("Query"))
        yield All([asking("GetItem"), asking("GetItem")], 2)

    watcher = watcher_of(spans, SimulatedStore([User]).core)
    answer = Reply(Response(200, {}, b"{}"), after=0.1)
    SimulatedDriver(lambda send, now: answer).run(watcher.watch("read", User, several()))
    assert tree(spans.take()) == {"read user": ["Query t", "GetItem t", "GetItem t"]}


def test_a_call_that_is_cancelled_ends_its_spans(url: str, spans: Spans) -> None:
    """A task that is cancelled leaves no span open."""

    async def use() -> None:
        async with AsyncOnlineStore.open(url, [User]) as store:
            await store.write(User, [{"id": 1, "name": "a", "count": 1}])
            spans.of(store)
            reading = asyncio.create_task(store.read(User, range(100)))
            await asyncio.sleep(0)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading

    asyncio.run(use())
    found = spans.take()
    assert found
    assert all(attributes(span)[CANCELLED] for span in found)


def test_a_writer_in_the_background_is_traced(url: str, spans: Spans) -> None:
    """What a persistence writer sends is a write of the store's, with its requests."""
    with OnlineStore.open(url, [User]) as store:
        spans.of(store)
        with PersistenceWriter(store) as writer:
            writer.submit(User, [{"id": 1, "name": "a", "count": 1}]).wait(timeout=60)
    assert tree(spans.take())["write user"] == ["UpdateItem traced"]


@pytest.mark.parametrize("kind", [OnlineStore, AsyncOnlineStore])
def test_where_a_request_goes_is_told(kind: Any, url: str, valkey: Valkey, spans: Spans) -> None:
    """The region of a table that has one, the server of each; a new script is no error."""

    async def use() -> None:
        async with AsyncOnlineStore.open(where, [User]) as store:
            spans.of(store)
            await store.write(User, [{"id": 1, "name": "a", "count": 1}])

    valkey.ask("SCRIPT", "FLUSH")
    where = f"{url}&shared_cache={valkey.url(f'{uuid.uuid4().hex}:')}&shared_cache_timeout=2"
    if kind is OnlineStore:
        with OnlineStore.open(where, [User]) as store:
            spans.of(store)
            store.write(User, [{"id": 1, "name": "a", "count": 1}])
    else:
        asyncio.run(use())
    found = spans.take()
    requests = [attributes(span) for span in found if span.kind is SpanKind.CLIENT]
    of_table = [said for said in requests if said["db.system.name"] == "aws.dynamodb"]
    assert {said["cloud.region"] for said in of_table} == {"us-east-1"}
    assert {short(said["db.collection.name"]) for said in of_table} == {"traced"}
    assert "TransactWriteItems" in {said["db.operation.name"] for said in of_table}
    of_cache = [said for said in requests if said["db.system.name"] == "redis"]
    assert {said["server.port"] for said in of_cache} == {valkey.port}
    assert "EVAL" in {said["db.operation.name"] for said in of_cache}
    assert not any("error.type" in attributes(span) for span in found)
    (call,) = [attributes(span) for span in found if span.name == "write user"]
    assert call["cloud.region"] == "us-east-1"


def test_a_shared_cache_and_its_table_are_two_systems(
    url: str, valkey: Valkey, spans: Spans
) -> None:
    """A read through a shared cache shows what went to which."""
    with OnlineStore.open(f"{url}&shared_cache={valkey.url('traced:')}", [User]) as store:
        store.write(User, [{"id": 1, "name": "a", "count": 1}])
        spans.of(store)
        store.read(User, [1])
        found = [attributes(span).get("db.system.name") for span in spans.take()]
    assert found[:3] == ["redis", "aws.dynamodb", "redis"]
    assert found[-1] is None  # The call's own.


def test_durations_are_measured(url: str, spans: Spans) -> None:
    """Both histograms have the attributes of the conventions, in seconds, with their buckets."""
    with OnlineStore.open(url, [User]) as store:
        spans.of(store)
        report = store.write(User, [{"id": 1, "name": "a", "count": 1}], ordering="arrival")
        store.read(User, [1])
    requests = {
        point.attributes["db.operation.name"]: point
        for point in spans.points("db.client.operation.duration")
    }
    get = requests["GetItem"]
    assert (get.count, short(get.attributes["db.collection.name"])) == (1, "traced")
    assert get.explicit_bounds == (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
    assert 0 < get.sum < 10
    assert sum(point.value for point in spans.points("chalk.online_store.call.wcu")) == report.wcu
    calls = spans.points("chalk.online_store.call.duration")
    assert {point.attributes["chalk.namespace"] for point in calls} == {"user"}


def test_a_store_that_is_not_instrumented_has_no_spans(spans: Spans) -> None:
    """Each store is instrumented for itself."""
    with OnlineStore.open("sqlite://", [User]) as one, OnlineStore.open("sqlite://", [User]) as two:
        spans.of(one)
        two.write(User, [{"id": 1, "name": "a", "count": 1}])
        assert spans.take() == []


def test_without_the_api_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is named with the way to get it."""
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", None)
    with OnlineStore.open("sqlite://", [User]) as store, pytest.raises(MissingDependency):
        instrument(store)
