"""A response counts only for the request that it answers, in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from chalk_online_store import OnlineStoreError, Status, features
from chalk_online_store.backend import Call
from chalk_online_store.codec.changes import ConditionalWrite
from chalk_online_store.codec.layout import ItemKey, TableLayout
from chalk_online_store.codec.raw_items import RawItemShape
from chalk_online_store.drivers.simulated import Reply, SimulatedDriver
from chalk_online_store.dynamodb import responses as answers
from chalk_online_store.dynamodb.backend import DynamoDBBackend
from chalk_online_store.dynamodb.matching import Matcher
from chalk_online_store.dynamodb.messages import Response
from chalk_online_store.errors import (
    ConditionFailed,
    MalformedResponse,
    RequestError,
    ResponseMismatch,
)
from tests.fakes import SimulatedStore, answer, refusal

TABLE = "features"
KEY = {"pk": {"S": "u1"}, "sk": {"S": "a"}}
OTHER = {"pk": {"S": "u2"}, "sk": {"S": "a"}}
OTHER_SK = {"pk": {"S": "u1"}, "sk": {"S": "b"}}
TOTAL = {"TableName": TABLE, "CapacityUnits": 0.5}
INDEXES = {**TOTAL, "Table": {"CapacityUnits": 1.0}}
OTHER_TABLE = {**TOTAL, "TableName": "another"}
ONE = ItemKey("u1", "a")


@features
class User:
    id: int
    a: int


# --- what an engine can answer to each operation ----------------------------------------------


def batch(found: list[Any], left: list[Any] | None = None, table: str = TABLE) -> dict[str, Any]:
    unprocessed = {table: {"Keys": left}} if left else {}
    return {
        "Responses": {table: found},
        "UnprocessedKeys": unprocessed,
        "ConsumedCapacity": [{**TOTAL, "TableName": table}],
    }


def page(*items: Any, **more: Any) -> dict[str, Any]:
    return {"Items": list(items), "Count": len(items), "ConsumedCapacity": TOTAL, **more}


def unwritten(*items: Any, table: str = TABLE) -> dict[str, Any]:
    left = {table: [{"PutRequest": {"Item": item}} for item in items]} if items else {}
    return {"UnprocessedItems": left, "ConsumedCapacity": [TOTAL]}


GET_FOUND = {"Item": KEY, "ConsumedCapacity": TOTAL}
GET_MISSING = {"ConsumedCapacity": TOTAL}
WRITTEN = {"ConsumedCapacity": INDEXES}
TRANSACTED = {"ConsumedCapacity": [TOTAL]}

RIGHT: dict[str, list[dict[str, Any]]] = {
    "GetItem": [GET_FOUND, GET_MISSING],
    "BatchGetItem": [batch([KEY, OTHER]), batch([KEY], [OTHER]), batch([]), batch([OTHER, KEY])],
    "Query": [page(KEY), page(), page(KEY, LastEvaluatedKey=KEY)],
    "list": [page(KEY), page(), page(KEY, LastEvaluatedKey=KEY)],
    "Scan": [page(KEY, OTHER), page(), page(LastEvaluatedKey=OTHER)],
    "UpdateItem": [WRITTEN],
    "BatchWriteItem": [unwritten(), unwritten(KEY), unwritten(KEY, OTHER)],
    "TransactWriteItems": [TRANSACTED, {"ConsumedCapacity": []}, {}],
}

RIGHT["items"] = RIGHT["BatchGetItem"]

WRONG: dict[str, list[dict[str, Any]]] = {
    "GetItem": [
        {"Item": OTHER, "ConsumedCapacity": TOTAL},
        {"Item": OTHER_SK, "ConsumedCapacity": TOTAL},
        {"Item": {}, "ConsumedCapacity": TOTAL},
        {"ConsumedCapacity": OTHER_TABLE},
        {},
        WRITTEN,
    ],
    "BatchGetItem": [
        {},
        {"UnprocessedKeys": {}},
        {"Responses": {}},
        batch([], table="another"),
        batch([KEY], table="another"),
        {**batch([KEY]), "Responses": {TABLE: [KEY], "another": []}},
        {**batch([KEY]), "UnprocessedKeys": {"another": {"Keys": [OTHER]}}},
        batch([{"pk": {"S": "u3"}, "sk": {"S": "a"}}]),
        batch([OTHER_SK]),
        batch([KEY, KEY]),
        batch([KEY], [KEY]),
        batch([KEY], [{"pk": {"S": "u3"}, "sk": {"S": "a"}}]),
        batch([KEY], [{**OTHER, "sk": {"S": "b"}}]),
        batch([KEY], [{}]),
        batch([{}]),
    ],
    "Query": [
        page(OTHER),
        page({"pk": {"S": "u1"}, "sk": {"S": "z"}}),
        page(KEY, KEY),
        page(KEY, LastEvaluatedKey=OTHER),
        page(KEY, Count=2),
        page({}),
        {**page(), "ConsumedCapacity": OTHER_TABLE},
        {},
    ],
    "list": [
        page(OTHER),
        page({"pk": {"S": "u1"}, "sk": {"S": ""}}),
        page(KEY, LastEvaluatedKey=OTHER),
        page(KEY, KEY),
        page(LastEvaluatedKey={"pk": {"S": "u1"}}),
    ],
    "Scan": [
        {**page(KEY), "ConsumedCapacity": OTHER_TABLE},
        {**page(), "ConsumedCapacity": OTHER_TABLE},
        page({"pk": {"S": "u1"}}),
        page(KEY, Count=0),
    ],
    "UpdateItem": [{"ConsumedCapacity": OTHER_TABLE}, {}],
    "BatchWriteItem": [
        {},
        unwritten(KEY, table="another"),
        unwritten({"pk": {"S": "u3"}, "sk": {"S": "a"}}),
        unwritten(KEY, KEY),
        {"UnprocessedItems": {TABLE: [{}]}},
    ],
    "TransactWriteItems": [{"ConsumedCapacity": [OTHER_TABLE]}],
}

WRONG["items"] = WRONG["BatchGetItem"]

FORMS = {  # Those whose empty response another operation can have: see the module's limits.
    "list": "Query",
    "Scan": "Query",
    "items": "BatchGetItem",
}


class Asking:
    """Sends one request of each operation and answers it as the test says."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.backend = DynamoDBBackend(TABLE)
        self.driver = SimulatedDriver(lambda send, now: self.replies.pop(0))
        self.matcher = Matcher(TABLE, TableLayout())

    def ask(self, operation: str, *replies: Reply) -> Any:
        """Return the decoded response; raise as the request does."""
        self.replies = list(replies)
        expected = self._expected()[operation]
        wire = self.backend._wire
        call = Call(self.driver.now + 5, retries=False)
        name = {"list": "Query", "items": "BatchGetItem"}.get(operation, operation)
        return self.driver.run(wire.ask(name, b"{}", expected, call))

    def _expected(self) -> dict[str, Any]:
        matcher, shape = self.matcher, RawItemShape(TableLayout())
        return {
            "GetItem": matcher.item(answers.RowsDecoder(answers.GetItemResponse, shape), "u1", "a"),
            "BatchGetItem": matcher.batch(
                answers.RowsDecoder(answers.BatchGetItemResponse, shape), "a", ["u1", "u2"]
            ),
            "items": matcher.items(
                answers.RowsDecoder(answers.BatchGetItemResponse, shape), [ONE, ItemKey("u2", "a")]
            ),
            "Query": matcher.page(
                answers.RowsDecoder(answers.QueryResponse, shape), "u1", "a", "c"
            ),
            "list": matcher.partition("u1", ""),
            "Scan": matcher.scan(),
            "UpdateItem": matcher.write("UpdateItem", ONE),
            "BatchWriteItem": matcher.batch_write([ONE, ItemKey("u2", "a")]),
            "TransactWriteItems": matcher.transaction(2),
        }

    def learn(self) -> None:
        """Let the engine show how it reports capacity."""
        self.ask("GetItem", answer(200, GET_FOUND))
        self.ask("UpdateItem", answer(200, WRITTEN))


def cases(of: dict[str, list[dict[str, Any]]]) -> list[Any]:
    return [
        pytest.param(operation, body, id=f"{operation}-{i}")
        for operation, bodies in of.items()
        for i, body in enumerate(bodies)
    ]


@pytest.mark.parametrize(("operation", "body"), cases(RIGHT))
def test_a_response_to_the_request_is_accepted(operation: str, body: dict[str, Any]) -> None:
    """Each form in which DynamoDB answers an operation is accepted, at first and later."""
    asking = Asking()
    asking.ask(operation, answer(200, body))
    asking.learn()
    asking.ask(operation, answer(200, body))


@pytest.mark.parametrize(("operation", "body"), cases(WRONG))
def test_a_response_to_another_request_is_refused(operation: str, body: dict[str, Any]) -> None:
    """A response with other keys, another table or another form is an error, not a result."""
    asking = Asking()
    asking.learn()
    with pytest.raises(ResponseMismatch):
        asking.ask(operation, answer(200, body), answer(200, body))


@pytest.mark.parametrize("operation", RIGHT)
@pytest.mark.parametrize("other", RIGHT)
def test_no_operation_accepts_the_response_of_another(operation: str, other: str) -> None:
    """A response to another operation is refused, even if it has no items."""
    if FORMS.get(operation, operation) == FORMS.get(other, other):
        return
    for body in RIGHT[other]:
        if operation == "TransactWriteItems" and body.get("ConsumedCapacity") == []:
            continue
        asking = Asking()
        asking.learn()
        if operation == "TransactWriteItems" and body == {}:
            continue
        with pytest.raises(ResponseMismatch):
            asking.ask(operation, answer(200, body), answer(200, body))


@pytest.mark.parametrize("operation", RIGHT)
def test_a_request_is_repeated_once_at_once_on_a_new_connection(operation: str) -> None:
    """After a mismatch the request is sent again without a pause, and closes the connections."""
    asking = Asking()
    asking.learn()
    asking.driver.sent.clear()
    wrong, right = WRONG[operation][0], RIGHT[operation][0]
    before = asking.driver.now
    asking.ask(operation, answer(200, wrong, after=0), answer(200, right, after=0))
    assert [send.request.reconnect for _, send in asking.driver.sent] == [False, True]
    assert asking.driver.now == before


@pytest.mark.parametrize("operation", sorted(RIGHT.keys() - {"UpdateItem", "TransactWriteItems"}))
@pytest.mark.parametrize("kind", ["ConditionalCheckFailed", "TransactionCanceled"])
def test_an_unconditional_request_has_no_refused_condition(operation: str, kind: str) -> None:
    """An error that only a conditional write can have is of another request."""
    with pytest.raises(ResponseMismatch):
        Asking().ask(operation, refusal(f"{kind}Exception"), refusal(f"{kind}Exception"))


def test_a_refused_condition_is_of_the_item_that_was_written() -> None:
    """The item that comes with a refusal is compared with the key of the write."""
    name = "ConditionalCheckFailedException"
    other, right = refusal(name, Item=OTHER), refusal(name, Item=KEY)
    with pytest.raises(ResponseMismatch):
        Asking().ask("UpdateItem", other, other)
    with pytest.raises(ConditionFailed):
        Asking().ask("UpdateItem", other, right)
    with pytest.raises(ConditionFailed):
        Asking().ask("UpdateItem", refusal(name))


def test_a_cancelled_transaction_has_a_reason_per_action() -> None:
    """Reasons of a transaction with another number of actions are of another request."""

    def reply(count: int) -> Reply:
        reasons = [{"Code": "ConditionalCheckFailed"}] * count
        return refusal("TransactionCanceledException", CancellationReasons=reasons)

    with pytest.raises(ResponseMismatch):
        Asking().ask("TransactWriteItems", reply(3), reply(1))
    with pytest.raises(ConditionFailed):
        Asking().ask("TransactWriteItems", reply(2))
    refused = refusal("ConditionalCheckFailedException")
    with pytest.raises(ResponseMismatch):
        Asking().ask("TransactWriteItems", refused, refused)


def test_an_engine_that_reports_no_capacity_is_believed() -> None:
    """`{}` says that an item is missing if the engine never reports capacity."""
    asking = Asking()
    asking.ask("GetItem", answer(200, {"Item": KEY}))
    assert asking.ask("GetItem", answer(200, {})).rows == []
    asking.ask("UpdateItem", answer(200, {}))


# --- what a store makes of it ------------------------------------------------------------------


def store_of(count: int) -> SimulatedStore:
    store = SimulatedStore([User])
    store.write(User, [{"id": i, "a": i * 10} for i in range(count)])
    return store


def swapped(store: SimulatedStore, operation: str, other: Any) -> Callable[..., Any]:
    """A fault that answers each request of an operation with that of another body."""
    return lambda asked, body, now: (
        answer(200, getattr(store.table, f"_{operation}")(other)) if asked == operation else None
    )


@pytest.mark.parametrize("keys", [[1], [1, 2, 3]])
def test_values_of_other_entities_are_never_served(keys: list[int]) -> None:
    """A read whose response is always that of another read fails; nothing is invented."""
    store = store_of(10)
    operation = "GetItem" if len(keys) == 1 else "BatchGetItem"
    store.read(User, [key + 5 for key in keys])
    _, other = store.sent(operation)[-1]
    store.table.fault = swapped(store, operation, other)
    rows = store.read(User, keys, timeout=2)
    assert rows.statuses("a") == [Status.FAILED] * len(keys)
    with pytest.raises(OnlineStoreError, match="does not match the request"):
        rows[0]["a"]


def test_one_swapped_response_costs_one_request() -> None:
    """A single mismatch is mended within the call, and counts as a retry."""
    store = store_of(10)
    store.read(User, [7])
    _, other = store.sent("GetItem")[-1]
    fault, left = swapped(store, "GetItem", other), [1]
    store.table.fault = lambda *asked: fault(*asked) if left and left.pop() else None
    rows = store.read(User, [1])
    assert rows.column("a") == [10]
    assert rows.report.retries == 1


def test_a_mismatch_is_no_key_and_no_value() -> None:
    """The error names operation and table; keys and values stay out of it."""
    asking = Asking()
    reply = answer(200, {"Item": {**OTHER, "x": {"S": "secret"}}, "ConsumedCapacity": TOTAL})
    with pytest.raises(RequestError) as raised:
        asking.ask("GetItem", reply, reply)
    assert isinstance(raised.value, MalformedResponse)
    assert raised.value.retryable
    assert raised.value.engine_fault
    text = str(raised.value)
    assert text.startswith(f"GetItem on table '{TABLE}': ")
    assert not any(secret in text for secret in ("u1", "u2", "secret"))


def test_a_body_that_is_not_json_is_malformed_alone() -> None:
    """A body that cannot be read is no mismatch: its connection may be in step."""
    reply = Reply(Response(200, {}, b"no"))
    with pytest.raises(MalformedResponse) as raised:
        Asking().ask("GetItem", reply)
    assert type(raised.value) is MalformedResponse


def test_a_single_swap_is_compared_with_its_key() -> None:
    """A conditional put of the registry is refused by its own item alone."""
    asking = Asking()
    name = "ConditionalCheckFailedException"
    asking.replies = [refusal(name, Item=OTHER), refusal(name, Item=KEY)]
    item = {name: b'{"S":"%b"}' % value["S"].encode() for name, value in KEY.items()}
    call = Call(asking.driver.now + 5)
    assert asking.driver.run(asking.backend.transact([ConditionalWrite(None, item)], call)) is False
    assert asking.replies == []
