"""Retries, deadlines and partial batches, in virtual time: the traps other clients fell into."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalk_online_store import (
    AccessDenied,
    ConnectionFailed,
    Feature,
    InvalidCredentials,
    Namespace,
    OnlineStoreError,
    RegistryUnavailable,
    RequestError,
    RequestTimeout,
    Status,
    TableNotFound,
    WriteFailed,
    features,
)
from chalk_online_store.codec.shapes import MOST_PROJECTED
from chalk_online_store.drivers.simulated import Reply, SimulatedDriver
from chalk_online_store.dynamodb.messages import Response
from chalk_online_store.effects import All, Instant, Now, Operation, Send, Sleep
from tests.fakes import SimulatedStore, answer, refusal
from tests.helpers import stress


@features
class User:
    id: int
    a: int


def store_of(count: int) -> SimulatedStore:
    """A store with that many users, `a` being ten times the id."""
    store = SimulatedStore([User])
    store.write(User, [{"id": i, "a": i * 10} for i in range(count)])
    store.driver.sent.clear()
    return store


def always(operation: str, reply: Reply) -> Any:
    """A fault that answers every request of an operation with a reply."""
    return lambda asked, body, now: reply if asked == operation else None


def first(times: int, operation: str, reply: Reply) -> Any:
    """A fault that answers the first requests of an operation with a reply."""
    counter = itertools.count(1)
    return lambda asked, body, now: reply if asked == operation and next(counter) <= times else None


@settings(max_examples=stress(20))
@given(at_most=st.integers(1, 100), count=st.integers(2, 250))
def test_unprocessed_keys_are_asked_again_until_none_is_left(at_most: int, count: int) -> None:
    """However little of a batch is processed at a time, every key is answered, none twice."""
    store = store_of(count)
    store.table.read_at_most = at_most
    rows = store.read(User, range(count), timeout=1000)
    assert rows.column("a") == [i * 10 for i in range(count)]


def test_keys_unprocessed_at_the_deadline_are_failed_one_by_one() -> None:
    """What was read is served, what was not is failed, and what is not there is missing."""
    store = store_of(10)
    store.table.fault = lambda operation, body, now: (
        None if operation != "BatchGetItem" or now < 1 else refusal("ThrottlingException")
    )
    store.table.read_at_most = 4
    store.driver.now = 0.99
    rows = store.read(User, range(12), timeout=3)
    statuses = rows.statuses("a")
    assert statuses[:4] == [Status.HIT] * 4
    assert set(statuses[4:]) == {Status.FAILED}
    assert store.driver.now < 0.99 + 3
    assert rows.report.retries > 3


def test_backoff_grows_and_is_jittered() -> None:
    """Under a lasting throttle the waits grow up to the cap, and no two are alike."""
    store = store_of(2)
    store.table.fault = always("BatchGetItem", refusal("ProvisionedThroughputExceededException"))
    store.read(User, [0, 1], timeout=60)
    times = [time for time, _ in store.sent("BatchGetItem")]
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert len(set(waits)) == len(waits)
    assert max(waits) <= 2.01
    assert sum(waits[-5:]) > sum(waits[:5])
    assert len(waits) < 100


def test_progress_starts_the_backoff_over() -> None:
    """A batch that is cut off by its size, not by a throttle, loses little time."""
    store = store_of(100)
    store.table.read_at_most = 10
    rows = store.read(User, range(100))
    assert rows.report.failed == 0
    assert store.driver.now < 2


@pytest.mark.parametrize(
    "reply",
    [
        refusal("InternalServerError", 500),
        refusal("ServiceUnavailable", 503),
        refusal("ThrottlingException"),
        refusal("RequestLimitExceeded"),
        Reply(error=ConnectionFailed("reset")),
        Reply(after=1e9),
        Reply(Response(200, {"x-amz-crc32": "1"}, b"{}")),
        Reply(Response(200, {}, b'{"Responses":')),
        Reply(Response(502, {}, b"<html>")),
    ],
)
def test_what_can_pass_is_tried_again(reply: Reply) -> None:
    """Server errors, throttles, resets, timeouts, damaged and cut-off answers are retried."""
    store = store_of(2)
    store.table.fault = first(2, "BatchGetItem", reply)
    rows = store.read(User, [0, 1], timeout=30)
    assert rows.column("a") == [0, 10]
    assert rows.report.retries == 2


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("AccessDeniedException", AccessDenied),
        ("ResourceNotFoundException", TableNotFound),
        ("UnrecognizedClientException", InvalidCredentials),
        ("InvalidSignatureException", InvalidCredentials),
    ],
)
@pytest.mark.parametrize("operation", ["GetItem", "BatchGetItem"])
def test_what_cannot_pass_is_raised_at_once(
    name: str, error: type[OnlineStoreError], operation: str
) -> None:
    """Errors that no retry mends are raised after one request, with AWS's reason in their text."""
    store = store_of(2)
    store.table.fault = always(operation, refusal(name))
    with pytest.raises(error, match="simulated") as raised:
        store.read(User, [0] if operation == "GetItem" else [0, 1])
    assert f"{name}: secret-message." in str(raised.value)
    assert len(store.driver.sent) == 1


def test_expired_credentials_are_renewed_once() -> None:
    """An expired token is renewed and the request sent again; if that fails too, it is raised."""
    store = store_of(1)
    store.table.fault = first(1, "GetItem", refusal("ExpiredTokenException"))
    assert store.read(User, [0]).column("a") == [0]
    assert [send.request.renew for _, send in store.driver.sent] == [False, True]


def test_nothing_is_sent_past_the_deadline() -> None:
    """A call without time sends nothing, and no attempt may outlast its call."""
    store = store_of(2)
    assert store.read(User, [0, 1], timeout=0).statuses("a") == [Status.FAILED] * 2
    assert store.driver.sent == []
    store.table.fault = always("BatchGetItem", Reply(after=1e9))
    start = store.driver.now
    rows = store.read(User, [0, 1], timeout=4)
    assert isinstance(rows._found[0][0], RequestTimeout)
    assert store.driver.now == pytest.approx(start + 4)


@pytest.mark.parametrize("at_most", [1, 7, 24])
def test_unprocessed_items_are_sent_again_alone(at_most: int) -> None:
    """A bulk write repeats what was left, nothing else, until all of it is in the table."""
    store = store_of(0)
    store.table.write_at_most = at_most
    report = store.write(User, [{"id": i, "a": i} for i in range(60)], timeout=1000)
    assert report.items_written == 60
    sent = [
        request["PutRequest"]["Item"]["pk"]["S"]
        for _, body in store.sent("BatchWriteItem")
        for request in body["RequestItems"]["simulated"]
    ]
    assert store.read(User, range(60)).column("a") == list(range(60))
    assert len(set(sent)) == 60
    assert report.unprocessed == len(sent) - 60


def test_rows_not_written_at_the_deadline_are_named() -> None:
    """A write that runs out of time raises, and names the positions of just the rows it lost."""
    store = store_of(1)
    store.table.fault = lambda operation, body, now: (
        refusal("ThrottlingException")
        if operation == "BatchWriteItem" and "a:30" in str(body)
        else None
    )
    with pytest.raises(WriteFailed) as failed:
        store.write(User, [{"id": i, "a": i} for i in range(50)], timeout=2)
    assert sorted(failed.value.failed) == list(range(25, 50))
    assert isinstance(failed.value.failed[30], RequestError)
    assert store.read(User, [24]).column("a") == [24]


def test_an_item_that_was_never_sent_is_not_taken_for_written() -> None:
    """An engine that leaves items that it was not sent is not understood, and nothing is lost."""
    store = store_of(0)
    foreign = {"PutRequest": {"Item": {"pk": {"S": "x"}, "sk": {"S": "y"}}}}

    def leave_foreign(operation: str, body: dict[str, Any], now: float) -> Any:
        if operation != "BatchWriteItem":
            return None
        return answer(200, {"UnprocessedItems": {"simulated": [foreign]}})

    store.table.fault = leave_foreign
    with pytest.raises((WriteFailed, RequestError)):
        store.write(User, [{"id": i, "a": i} for i in range(3)], timeout=1)


@pytest.mark.parametrize("count", [1, MOST_PROJECTED, MOST_PROJECTED + 1])
def test_a_projection_fits_into_an_expression(count: int) -> None:
    """A part of a wide group is projected as long as AWS's 4 KB can name it; then it is not."""
    wide = Namespace("wide", int, tuple(Feature(f"f{i}", int) for i in range(2 * count + 2)))
    store = SimulatedStore([wide])
    store.write(wide, [{"id": i} | {f.name: 1 for f in wide.features} for i in range(2)])
    names = [feature.name for feature in wide.features[:count]]
    assert store.read(wide, [0, 1], names).to_pylist() == [dict.fromkeys(names, 1)] * 2
    ((_, body),) = store.sent("BatchGetItem")
    expression = body["RequestItems"]["simulated"].get("ProjectionExpression")
    assert (expression is None) is (count > MOST_PROJECTED)
    assert len(expression or "") <= 4096


def test_plans_do_not_pile_up() -> None:
    """Reads whose max_staleness differs from call to call do not fill the memory."""
    store = store_of(1)
    for seconds in range(3000):
        store.read(User, [0], max_staleness={"a": f"{seconds}s"})
    assert len(store.core._prepared) <= 1024


def test_a_batch_never_names_an_item_twice() -> None:
    """Duplicate keys are read once; duplicate rows are written one after the other."""
    store = store_of(3)
    store.read(User, [1, 1, 2, 1])
    store.write(User, [{"id": 1, "a": i} for i in range(3)])
    ((_, read),) = store.sent("BatchGetItem")
    assert len(read["RequestItems"]["simulated"]["Keys"]) == 2
    assert [len(b["RequestItems"]["simulated"]) for _, b in store.sent("BatchWriteItem")] == [1] * 3
    assert store.read(User, [1]).column("a") == [2]


def test_batches_keep_to_the_limits_of_dynamodb() -> None:
    """Reads go by at most 100 keys, bulk writes by at most 25 items."""
    store = store_of(230)
    store.read(User, range(230))
    store.write(User, [{"id": i, "a": i} for i in range(60)])
    reads = [len(b["RequestItems"]["simulated"]["Keys"]) for _, b in store.sent("BatchGetItem")]
    writes = [len(b["RequestItems"]["simulated"]) for _, b in store.sent("BatchWriteItem")]
    assert (sorted(reads), sorted(writes)) == ([30, 100, 100], [10, 25, 25])


def test_batches_are_under_way_together_up_to_the_cap() -> None:
    """Batches of one call overlap in time, though never more than the backend's concurrency."""
    store = store_of(2)
    store.table.fault = lambda operation, body, now: (
        answer(200, {"Responses": {"simulated": []}}, after=1)
        if operation == "BatchGetItem"
        else None
    )
    start = store.driver.now
    store.read(User, range(2000))
    assert store.driver.now - start == pytest.approx(2)  # 20 batches, 16 at a time
    assert len(store.sent("BatchGetItem")) == 20


def test_a_retry_sends_the_very_same_bytes() -> None:
    """Values are encoded once, outside the retry loop."""
    store = store_of(1)
    store.table.fault = first(3, "UpdateItem", refusal("InternalServerError", 500))
    store.write(User, [{"id": 1, "a": 1}], ordering="event")
    bodies = [s.request.body for _, s in store.driver.sent if s.request.operation == "UpdateItem"]
    assert len(bodies) == 4
    assert all(body is bodies[0] for body in bodies)


def test_a_writer_says_when_it_cannot_register() -> None:
    """Without the registry, new features are refused as such, while known ones go on."""
    store = SimulatedStore([User])
    store.table.fault = always("TransactWriteItems", refusal("InternalServerError", 500))
    with pytest.raises(RegistryUnavailable, match="user"):
        store.write(User, [{"id": 1, "a": 1}], timeout=2)
    known = store_of(1)
    known.table.fault = always("TransactWriteItems", refusal("InternalServerError", 500))
    known.table.fault = always("Query", refusal("InternalServerError", 500))
    known.write(User, [{"id": 1, "a": 5}])
    assert known.read(User, [1]).column("a") == [5]


def overtaken(operation: str, body: dict[str, Any], now: float) -> Reply | None:
    """Refuse the first action of a transaction: another process was faster."""
    if operation != "TransactWriteItems":
        return None
    reasons = [{"Code": "None"} for _ in body["TransactItems"]]
    reasons[0] = {"Code": "ConditionalCheckFailed"}
    return refusal("TransactionCanceledException", CancellationReasons=reasons)


def test_who_is_overtaken_steps_back_and_tries_again() -> None:
    """Between attempts to register lies a new reading and a growing, random wait."""
    store = SimulatedStore([User])
    times_overtaken = itertools.count(1)
    store.table.fault = lambda operation, body, now: (
        overtaken(operation, body, now)
        if operation == "TransactWriteItems" and next(times_overtaken) <= 6
        else None
    )
    report = store.write(User, [{"id": 1, "a": 1}], timeout=100)
    times = [time for time, _ in store.sent("TransactWriteItems")]
    waits = [after - before for before, after in itertools.pairwise(times)]
    assert report.retries == 6
    assert len(store.sent("Query")) == 8  # At first, after each attempt that failed, at the end.
    assert len(set(waits)) == 6
    assert 0.2 < max(waits) < 0.85  # the sixth is 0.8 s at most, and the requests take time
    assert store.read(User, [1]).column("a") == [1]


def test_who_is_always_overtaken_gives_up_at_the_deadline() -> None:
    """Registering is bounded by the call's deadline, past which nothing is sent."""
    store = SimulatedStore([User])
    store.table.fault = overtaken
    with pytest.raises(RegistryUnavailable, match="other processes"):
        store.write(User, [{"id": 1, "a": 1}], timeout=20)
    assert 10 < store.driver.now <= 20
    assert len(store.sent("TransactWriteItems")) < 30


@features(name="user")
class Wider:
    id: int
    a: int
    b: int


def test_known_features_are_served_while_the_registry_is_away() -> None:
    """A reader that looks for new features in vain spends a share of its time, and now and then."""
    known, store = store_of(1), SimulatedStore([Wider])
    store.table.items = known.table.items
    assert store.read(Wider, [0])[0].to_dict() == {"a": 0, "b": None}
    store.driver.now += 10
    store.table.fault = always("Query", refusal("InternalServerError", 500))
    start = store.driver.now
    assert store.read(Wider, [0], timeout=8)[0].to_dict() == {"a": 0, "b": None}
    assert store.driver.now - start < 3
    asked = len(store.sent("Query"))
    assert store.read(Wider, [0])[0]["a"] == 0
    assert len(store.sent("Query")) == asked
    with pytest.raises(RegistryUnavailable, match="user"):
        store.write(Wider, [{"id": 0, "a": 1, "b": 1}], timeout=2)


def test_a_process_that_never_read_the_registry_says_so() -> None:
    """Without any map nothing can be read or written; what no retry mends keeps its own class."""
    for reply, error in (
        (refusal("InternalServerError", 500), RegistryUnavailable),
        (refusal("AccessDeniedException"), AccessDenied),
    ):
        store = SimulatedStore([User])
        store.table.fault = always("Query", reply)
        with pytest.raises(error):
            store.read(User, [1], timeout=2)
        with pytest.raises(error):
            store.write(User, [{"id": 1, "a": 1}], timeout=2)


def test_the_simulated_driver_runs_operations_side_by_side() -> None:
    """Sleeps overlap in virtual time, results keep their order, the first error is raised."""

    def sleeper(seconds: float) -> Operation[float]:
        yield Sleep(seconds)
        now: Instant = yield Now()
        return now.monotonic

    def all_of(limit: int, *seconds: float) -> Operation[list[float]]:
        times: list[float] = yield All([sleeper(s) for s in seconds], limit)
        return times

    assert SimulatedDriver(lambda send, now: Reply()).run(all_of(3, 3, 1, 2)) == [3, 1, 2]
    assert SimulatedDriver(lambda send, now: Reply()).run(all_of(1, 3, 1, 2)) == [3, 4, 6]

    def failing(text: str, seconds: float) -> Operation[None]:
        yield Sleep(seconds)
        raise ValueError(text)

    def catching() -> Operation[str]:
        try:
            yield All([failing("first", 2), failing("second", 1)], 2)
        except ValueError as error:
            return str(error)
        return "none"

    assert SimulatedDriver(lambda send, now: Reply()).run(catching()) == "first"


def test_a_simulated_timeout_takes_its_time() -> None:
    """A reply that comes after the attempt's timeout is a timeout, at just that moment."""

    def asking() -> Operation[Any]:
        return (yield Send("ping", 0.5))

    driver = SimulatedDriver(lambda send, now: Reply("pong", after=1))
    with pytest.raises(RequestTimeout):
        driver.run(asking())
    assert driver.now == 0.5
