"""Counted bytes and units equal what an engine consumes, over thousands of generated items.

Capacity is counted in whole KB, which hides single bytes. So an item is filled up to a border: at
a predicted size of exactly N KB it must cost N units, with one byte more N + 1. One byte counted
too many or too few shows in one of the two.

dynoxide follows AWS's guide in all that is compared here. In one thing it does not, which nothing
here relies on: for a GetItem with a projection it counts the attributes returned, where AWS counts
the item.
"""

from __future__ import annotations

import base64
import itertools
import random
import uuid
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import pytest
from botocore.exceptions import ClientError

from chalk_online_store import ItemTooLarge, OnlineStore, features
from chalk_online_store.codec.sizes import MAX_ITEM_BYTES, item_size
from chalk_online_store.planning.explain import explain
from chalk_online_store.planning.units import (
    batch_read_units,
    query_units,
    read_units,
    write_units,
)
from chalk_online_store.testing import Dynoxide, create_table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Item: TypeAlias = dict[str, Any]
"""Attributes as boto3's client takes them: like DynamoDB's JSON, but B as bytes."""

ITEMS = 3_000
REGION = "us-east-1"
KB = 1024
KEY = {"pk": {"S": "k" * 8}, "sk": {"S": "s"}}
"""As large as the key of every item here."""


class Table:
    """A table of its own in the engine, and what each call on it consumed."""

    def __init__(self, client: DynamoDBClient, name: str) -> None:
        self._client: Any = client
        self.name = name
        self._keys = itertools.count(10_000_000)

    def fresh_key(self) -> Item:
        """The key of no item so far."""
        return {"pk": {"S": str(self.fresh_id())}, "sk": {"S": "s"}}

    def fresh_id(self) -> int:
        """A number of eight digits, never the same."""
        return next(self._keys)

    def units(self, operation: str, **arguments: Any) -> float:
        """The units of a call on this table."""
        return self._units(operation, TableName=self.name, **arguments)

    def batch_units(self, operation: str, requests: Any) -> float:
        """The units of a batch on this table."""
        return self._units(operation, RequestItems={self.name: requests})

    def transaction_units(self, operation: str, *actions: tuple[str, Item]) -> float:
        """The units of a transaction of actions, each with its arguments."""
        items = [{kind: {"TableName": self.name, **more}} for kind, more in actions]
        return self._units(operation, TransactItems=items)

    def put(self, size: int, key: Item | None = None) -> Item:
        """Put an item of so many bytes; its key."""
        key = key or self.fresh_key()
        assert self.units("put_item", Item=filled(key, size)) >= write_units(size)
        return key

    def _units(self, operation: str, **arguments: Any) -> float:
        answer = getattr(self._client, operation)(ReturnConsumedCapacity="TOTAL", **arguments)
        consumed = answer["ConsumedCapacity"]
        (total,) = consumed if isinstance(consumed, list) else [consumed]
        units: float = total["CapacityUnits"]
        return units


@pytest.fixture(scope="module")
def table(dynoxide: Dynoxide) -> Iterator[Table]:
    name = f"sizes-{uuid.uuid4().hex}"
    create_table(dynoxide.endpoint_url, name)
    session = dynoxide.session()
    with closing(session.client("dynamodb", REGION, endpoint_url=dynoxide.endpoint_url)) as client:
        yield Table(client, name)
        client.delete_table(TableName=name)


def on_the_wire(value: Any) -> Any:
    """An item as boto3 takes it to DynamoDB's JSON."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {name: on_the_wire(inner) for name, inner in value.items()}
    return [on_the_wire(inner) for inner in value] if isinstance(value, list) else value


def size_of(item: Item) -> int:
    return item_size(on_the_wire(item))


def filled(item: Item, size: int) -> Item:
    """The item with a binary attribute that brings it to so many bytes."""
    return {**item, "%": {"B": bytes(size - size_of(item) - 1)}}


# --- generated values ----------------------------------------------------------------------

ALPHABET = 'az09 .é☃\U0001f600\x00\n\\"ßЖ\u202e\uffff'


def a_text(rng: random.Random) -> str:
    return "".join(rng.choices(ALPHABET, k=rng.randrange(12)))


def a_number(rng: random.Random) -> str:
    """Any sign, number of digits and magnitude, with idle zeros, in any notation."""
    digits = "".join(rng.choices("0123456789", k=rng.choice([1, 2, 3, 4, 9, 16, 17, 37, 38])))
    digits = digits if rng.random() < 0.8 else digits[: rng.randrange(38)].ljust(38, "0")
    sign = rng.choice(["", "-"])
    match rng.randrange(3):
        case 0:
            return f"{sign}{digits}"
        case 1:
            place = rng.randrange(len(digits)) + 1
            return f"{sign}00{digits[:place]}.{digits[place:]}0"
        case _:
            return f"{sign}{digits}E{rng.choice([-1, 0, 1, rng.randrange(-90, 85)])}"


def a_value(rng: random.Random, depth: int = 0) -> Item:
    """Any value of any kind of attribute."""
    kinds = ["S", "N", "B", "BOOL", "NULL", "SS", "NS", "BS", "L", "M"]
    kind = rng.choice(kinds if depth < 4 else kinds[:8])
    some = range(rng.randrange(5))
    match kind:
        case "S":
            return {kind: a_text(rng)}
        case "N":
            return {kind: a_number(rng)}
        case "B":
            return {kind: rng.randbytes(rng.randrange(20))}
        case "BOOL":
            return {kind: rng.random() < 0.5}
        case "NULL":
            return {kind: True}
        case "SS":
            return {kind: sorted({"a" + a_text(rng) for _ in range(1 + len(some))})}
        case "NS":
            return {kind: [f"{sign}{n}.{n}5" for n in range(1 + len(some)) for sign in ("", "-")]}
        case "BS":
            return {kind: sorted({rng.randbytes(1 + n) for n in range(1 + len(some))})}
        case "L":
            return {kind: [a_value(rng, depth + 1) for _ in some]}
        case _:
            return {kind: {f"{n}{a_text(rng)}": a_value(rng, depth + 1) for n in some}}


def an_item(rng: random.Random) -> Item:
    """Any item: a key, and attributes of any name and kind."""
    return {**KEY, **{f"{n}{a_text(rng)}": a_value(rng) for n in range(rng.randrange(1, 9))}}


# --- sizes ---------------------------------------------------------------------------------


def require_exact(table: Table, items: list[Item]) -> None:
    """At a KB's end an item costs as many units as KB, with a byte more it costs one more."""
    for start in range(0, len(items), 12):  # Each twice: 24 of the 25 that a batch takes.
        some = [(item, -(-(size_of(item) + 1) // KB)) for item in items[start : start + 12]]
        puts = [
            {"PutRequest": {"Item": filled(item, kilobytes * KB + more) | table.fresh_key()}}
            for item, kilobytes in some
            for more in (0, 1)
        ]
        expected = sum(2 * kilobytes + 1 for _, kilobytes in some)
        assert table.batch_units("batch_write_item", puts) == expected, some


def test_the_size_of_any_item_is_exact(table: Table) -> None:
    """Filled up by its counted size, any item costs a unit more just where a KB ends."""
    rng = random.Random(1)
    require_exact(table, [an_item(rng) for _ in range(ITEMS)])


def test_the_size_of_any_number_is_exact(table: Table) -> None:
    """Numbers of any sign, length, magnitude and notation take the bytes that are counted."""
    rng = random.Random(2)
    numbers = [[{"N": a_number(rng)} for _ in range(5)] for _ in range(ITEMS)]
    require_exact(table, [{**KEY, "n": {"L": some}} for some in numbers])


@pytest.mark.parametrize("size", [4 * KB, 8 * KB, 100 * KB])
@pytest.mark.parametrize("consistent", [False, True])
def test_reads_round_each_item_up_and_queries_their_sum(
    table: Table, size: int, consistent: bool
) -> None:
    """GetItem, BatchGetItem and Query cost what is reckoned, at a border and a byte over it."""
    key = table.fresh_key()
    sizes = [size, size + 1, 300]
    keys = [table.put(some, {**key, "sk": {"S": f"{n}"}}) for n, some in enumerate(sizes)]
    how = {"ConsistentRead": consistent}
    for one, some in zip(keys, sizes, strict=True):
        units = table.units("get_item", Key=one, **how)
        assert units == read_units(some, consistent=consistent)
    asked = {"Keys": [*keys, table.fresh_key()], **how}
    units = table.batch_units("batch_get_item", asked)
    assert units == batch_read_units([*sizes, 0], consistent=consistent)
    assert query(table, key, how) == query_units(sizes, consistent=consistent)
    nothing = {"ProjectionExpression": "sk", "FilterExpression": "attribute_exists(x)"}
    assert query(table, key, {**how, **nothing}) == query_units(sizes, consistent=consistent)


def query(table: Table, key: Item, more: Item) -> float:
    values = {":p": key["pk"]}
    condition = "pk=:p"
    return table.units(
        "query", KeyConditionExpression=condition, ExpressionAttributeValues=values, **more
    )


@pytest.mark.parametrize("consistent", [False, True])
def test_reading_nothing_costs_a_read(table: Table, consistent: bool) -> None:
    """A missing item and an empty partition cost half a unit, or one if consistent."""
    how = {"ConsistentRead": consistent}
    missing = table.fresh_key()
    assert table.units("get_item", Key=missing, **how) == read_units(0, consistent=consistent)
    assert query(table, missing, how) == query_units([], consistent=consistent)


BORDERS = [300, KB, KB + 1, 3 * KB, 3 * KB + 1]


@pytest.mark.parametrize("before", BORDERS)
@pytest.mark.parametrize("after", BORDERS)
def test_a_write_costs_the_larger_of_before_and_after(
    table: Table, before: int, after: int
) -> None:
    """PutItem, UpdateItem and BatchWriteItem over an item, and in a transaction, twice."""
    expected = write_units(after, before)
    keys = [table.put(before) for _ in range(5)]
    puts = [{"Item": filled(key, after)} for key in keys]
    updates = [update_to(key, after) for key in keys]
    assert table.units("put_item", **puts[0]) == expected
    assert table.units("update_item", **updates[1]) == expected
    assert table.batch_units("batch_write_item", [{"PutRequest": puts[2]}]) == expected
    actions = ("Put", puts[3]), ("Update", updates[4])
    units = table.transaction_units("transact_write_items", *actions)
    assert units == 2 * write_units(after, before, transactional=True)


def update_to(key: Item, size: int) -> Item:
    """An UpdateItem that leaves an item of so many bytes."""
    values = {":p": filled(key, size)["%"]}
    names = {"#p": "%"}
    return {
        "Key": key,
        "UpdateExpression": "SET #p=:p",
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": values,
    }


@pytest.mark.parametrize("size", BORDERS)
def test_a_delete_costs_what_it_deletes(table: Table, size: int) -> None:
    """DeleteItem costs the item that was there, whichever way it is sent; nothing costs one."""
    keys = [table.put(size) for _ in range(3)]
    assert table.units("delete_item", Key=keys[0]) == write_units(0, size)
    assert table.units("delete_item", Key=keys[0]) == write_units(0)
    deletes = [{"DeleteRequest": {"Key": keys[1]}}]
    assert table.batch_units("batch_write_item", deletes) == write_units(0, size)
    units = table.transaction_units("transact_write_items", ("Delete", {"Key": keys[2]}))
    assert units == write_units(0, size, transactional=True)


@pytest.mark.parametrize("size", BORDERS)
def test_a_transaction_costs_twice(table: Table, size: int) -> None:
    """A condition check costs two writes of what it looks at, a transactional read two reads."""
    key = table.put(size)
    check = {"Key": key, "ConditionExpression": "attribute_exists(pk)"}
    other = {"Item": filled(table.fresh_key(), 300)}
    actions = ("ConditionCheck", check), ("Put", other)
    units = table.transaction_units("transact_write_items", *actions)
    assert units == sum(write_units(some, transactional=True) for some in (size, 300))
    units = table.transaction_units("transact_get_items", ("Get", {"Key": key}))
    assert units == read_units(size, transactional=True)


def test_a_failed_condition_is_billed_but_not_reported(table: Table) -> None:
    """A refusal names no units, so `Report.wcu` cannot hold them: only `write_units` tells."""
    key = table.put(3 * KB)
    put = {"Item": filled(key, 300), "ConditionExpression": "attribute_not_exists(pk)"}
    with pytest.raises(ClientError) as refused:
        table.units("put_item", **put)
    assert "ConsumedCapacity" not in refused.value.response


# --- the store on top ----------------------------------------------------------------------


@features
class Blob:
    id: int
    data: bytes
    count: int
    ratio: float


NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)


@pytest.fixture
def store(dynoxide: Dynoxide, table: Table) -> Iterator[OnlineStore]:
    """A store whose features are registered, as that costs units too."""
    with OnlineStore.open(dynoxide.url(table.name), [Blob], session=dynoxide.session()) as store:
        store.write(Blob, [{"id": 0, "count": 1}])
        yield store


def a_row(key: int, size: int) -> dict[str, Any]:
    """A row whose item has so many bytes."""
    row = {"id": key, "data": b"", "count": -1200, "ratio": 1234.5678}
    return {**row, "data": bytes(size - explain(Blob, row, NOW).bytes)}


@pytest.mark.parametrize("ordering", ["event", "arrival"])
@pytest.mark.parametrize("size", [KB, KB + 1, 4 * KB, 4 * KB + 1, 399 * KB])
def test_what_explain_says_is_what_the_store_pays(
    store: OnlineStore, table: Table, size: int, ordering: Literal["event", "arrival"]
) -> None:
    """The units of `explain` are those that the engine reports for the write and the reads."""
    key, missing = table.fresh_id(), table.fresh_id()
    row = a_row(key, size)
    told = explain(Blob, row, NOW)
    assert told.bytes == size
    assert store.write(Blob, [row], observed_at=NOW, ordering=ordering).wcu == told.wcu
    for consistent, units in ((False, told.rcu), (True, told.consistent_rcu)):
        assert store.read(Blob, [key], consistent=consistent).report.rcu == units
        nothing = read_units(0, consistent=consistent)
        both = store.read(Blob, [key, missing], consistent=consistent)
        assert both.report.rcu == units + nothing


def test_the_largest_item_is_written_and_no_larger_one_sent(
    store: OnlineStore, table: Table
) -> None:
    """The engine takes an item of 400 KB to the byte; what is larger is refused before."""
    key, other = table.fresh_id(), table.fresh_id()
    largest, larger = a_row(key, MAX_ITEM_BYTES), a_row(other, MAX_ITEM_BYTES + 1)
    assert store.write(Blob, [largest], observed_at=NOW, ordering="arrival").wcu == 400
    with pytest.raises(ItemTooLarge):
        store.write(Blob, [larger], observed_at=NOW, ordering="arrival")
    with pytest.raises(ItemTooLarge):
        store.write(Blob, [larger], observed_at=NOW, ordering="event")
    assert store.read(Blob, [other])[0].status("data") == "missing"
