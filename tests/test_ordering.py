"""Writes in event time fit DynamoDB's expressions, whatever the item and the group are."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chalk_online_store.backend import Call, WriteOutcome
from chalk_online_store.codec.changes import (
    Attributes,
    Change,
    Times,
    difference,
    is_same,
    number,
    parse_item,
)
from chalk_online_store.codec.layout import BASE, ERASED, LATEST, ItemKey, TableLayout, own
from chalk_online_store.drivers.simulated import Reply, SimulatedDriver
from chalk_online_store.dynamodb.backend import DynamoDBBackend
from chalk_online_store.dynamodb.messages import Request, Response
from chalk_online_store.dynamodb.updates import MAX_EXPRESSION_BYTES, MAX_OPERATORS, Expected
from chalk_online_store.effects import Send
from chalk_online_store.errors import ItemTooLarge, RequestError, RequestRefused
from tests.expressions import Expressions
from tests.fakes import answer, refusal

LAYOUT = TableLayout()
KEY = ItemKey('a:é"1', "a")
COUNTER = itertools.count(1)
SIZES = (1, 3, 99, 180, 300, 420, 900)
OPERATORS = re.compile(r"AND|OR|attribute_not_exists|if_not_exists|<=|<|>|=")


@dataclass
class Table:
    """One item of an engine that checks what DynamoDB checks of expressions."""

    item: dict[str, Any] | None = None
    others: list[Callable[[], None]] = field(default_factory=list)
    """What other writers do, each just before a request arrives."""
    requests: list[Request] = field(default_factory=list)

    def __call__(self, send: Send, now: float) -> Reply:
        self.requests.append(send.request)
        if self.others:
            self.others.pop(0)()
        body = json.loads(send.request.body)
        if send.request.operation == "GetItem":
            return answer(200, {"Item": self.item} if self.item else {})
        for name in ("UpdateExpression", "ConditionExpression"):
            text = body.get(name, "")
            operators = OPERATORS.findall(text) if name == "ConditionExpression" else []
            if len(text.encode()) > MAX_EXPRESSION_BYTES or len(operators) > MAX_OPERATORS:
                return refusal("ValidationException")
        expressions = Expressions(body, self.item)
        if not expressions.hold():
            # `json.dumps` writes white space and escapes that the library does not write.
            found: dict[str, Any] = {}
            if self.item:
                found["Item"] = dict(reversed(self.item.items()))
            return refusal("ConditionalCheckFailedException", **found)
        if send.request.operation == "PutItem":
            self.item = body["Item"]
        else:
            names = body["ExpressionAttributeNames"].values()
            assert not {LAYOUT.pk, LAYOUT.sk} & set(names)
            self.item = expressions.updated(body["Key"])
        return answer(200, {})


class Writing:
    """A backend on such a table, and what event time says that the table holds."""

    def __init__(self, size: int) -> None:
        self.names = [f"f{i}" for i in range(size)]
        self.table = Table()
        self.backend = DynamoDBBackend("t", LAYOUT)
        self.driver = SimulatedDriver(self.table)
        self.model: dict[str, tuple[int, int | None]] = dict.fromkeys(self.names, (0, None))

    def apply(self, change: Change, replay: bool = False) -> Any:
        """Apply a change to the table and to the model; the requests that it took."""
        for name in self.names if change.erases else change.values:
            if change.observed_at >= self.model[name][0]:
                value = change.values.get(name)
                seen = None if value is None else int(json.loads(value)["N"])
                self.model[name] = (change.observed_at, seen)
        self.table.requests.clear()
        call = Call(self.driver.now + 60, replay=replay)
        (outcome,) = self.driver.run(self.backend.change([change], call))
        if isinstance(outcome, RequestError | ItemTooLarge):
            raise outcome
        return outcome

    def change(self, kind: str, time: int, *more: Any) -> Change:
        """Make the change of a generated step, with a value that no other change has."""
        if kind == "erase":
            return self.erase(time)
        value = None if more[0] is None else next(COUNTER)
        if kind == "whole":
            return self.whole(time, value or 0, *more[1:])
        start, end = more[1]
        return self.part(time, start, end, value)

    def whole(self, time: int, value: int = 0, dropped: int = 0) -> Change:
        gone = tuple(f"d{i}" for i in range(dropped))
        values = dict.fromkeys(self.names, number(value))
        return Change.of(KEY, time, values, True, len(values) + dropped, None, gone)

    def part(self, time: int, start: float, end: float, value: int | None) -> Change:
        count = len(self.names)
        first = int(start * count)
        names = self.names[first : max(int(end * count), first + 1)] or self.names[-1:]
        attribute = None if value is None else number(value)
        return Change.of(KEY, time, dict.fromkeys(names, attribute), False, count, None)

    def erase(self, time: int) -> Change:
        return Change.of(KEY, time, {}, True, len(self.names), None)

    def held(self) -> dict[str, tuple[int, int | None]]:
        """Return time and value of each feature in the table."""
        item = parse_item(json.dumps(self.table.item or {}).encode())
        times = Times(item)
        return {name: (times.of(name), self._value(item.get(name))) for name in self.names}

    def _value(self, attribute: bytes | None) -> int | None:
        return None if attribute is None else int(json.loads(attribute)["N"])

    @property
    def operations(self) -> list[str]:
        return [request.operation for request in self.table.requests]


part_of = st.tuples(st.floats(0, 0.9), st.floats(0.1, 1)).map(sorted)
steps = st.lists(
    st.tuples(st.just("whole"), st.integers(1, 5), st.integers(0, 2), st.sampled_from([0, 100]))
    | st.tuples(st.just("part"), st.integers(1, 5), st.none() | st.integers(0, 2), part_of)
    | st.tuples(st.just("erase"), st.integers(1, 5)),
    min_size=1,
    max_size=5,
)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(SIZES), steps, st.booleans())
@example(300, [("part", 1, 1, [0, 1]), ("whole", 2, 2, 100)], False)
@example(900, [("part", 1, 1, [0, 1]), ("erase", 3), ("part", 5, 1, [0, 0.2]), ("erase", 4)], False)
@example(900, [("part", 5, 1, [0, 1]), ("whole", 3, 2, 0)], True)
def test_every_write_fits_and_event_time_wins(size: int, history: list[Any], replay: bool) -> None:
    """A group of any size, after any writes, is what event time says, in requests that fit."""
    writing = Writing(size)
    for step in history:
        change = writing.change(*step)
        writing.apply(change, replay)
        before = writing.table.item
        writing.apply(change, replay=True)
        assert writing.table.item is before  # A replay writes nothing.
        assert values_of(writing.held()) == values_of(writing.model)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from((1, 3, 40, 99)), steps, st.randoms(use_true_random=False))
def test_a_wrong_expectation_costs_requests_alone(
    size: int, history: list[Any], rng: random.Random
) -> None:
    """Event time wins whichever form of a conditional write is sent first."""
    writing = Writing(size)
    expectations = writing.backend._ordered._expectations
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(expectations, "expect", lambda _: rng.choice(list(Expected)))
        for step in history:
            change = writing.change(*step)
            writing.apply(change)
            before = writing.table.item
            writing.apply(change, replay=True)
            assert writing.table.item is before
            assert values_of(writing.held()) == values_of(writing.model)


def test_a_damaged_width_does_not_stop_a_whole_write() -> None:
    """A whole write replaces an item of which the number of features cannot be read."""
    writing = Writing(3)
    writing.apply(writing.part(1, 0, 0.3, 1))
    assert writing.table.item is not None
    writing.table.item["%"] = {"S": "damaged"}
    writing.apply(writing.whole(2, 5))
    assert writing.held() == writing.model


def test_a_whole_write_over_own_times_keeps_unknown_features() -> None:
    """A newer schema's feature keeps its own time, and a later whole write of that schema wins."""
    writing = Writing(3)
    newer = Change.of(KEY, 5, {"new": number(7)}, False, 4, None)
    for time in (1, 2, 3):  # From the second refusal on, the whole write expects own times.
        writing.apply(writing.part(10 * time, 0, 0.3, time))
        writing.apply(writing.whole(10 * time + 1, time))
    writing.names.append("new")
    writing.model["new"] = (0, None)
    writing.apply(msgspec.structs.replace(newer, observed_at=40))
    older = Writing(3)
    older.backend = writing.backend
    older.table = writing.table
    older.driver = writing.driver
    older.apply(older.whole(50, 8))
    assert older.operations == ["UpdateItem"]
    assert {name: writing.held()[name] for name in older.names} == older.model
    assert writing.held()["new"] == (40, 7)
    other = DynamoDBBackend("t", LAYOUT)  # A process that has refused nothing yet.
    values = {**dict.fromkeys(older.names, number(9)), "new": number(9)}
    change = Change.of(KEY, 60, values, True, 4, None)
    writing.driver.run(other.change([change], Call(writing.driver.now + 60)))
    assert set(writing.held().values()) == {(60, 9)}


@settings(max_examples=25, deadline=None)
@given(st.sampled_from((3, 300, 420, 900)), steps, steps)
@example(
    420,
    [("part", 1, 1, [0, 1]), ("whole", 3, 2, 0)],
    [("part", 4, 1, [0, 0.1]), ("part", 2, 2, [0.5, 1]), ("whole", 3, 1, 0)],
)
@example(
    3,
    [("part", 2, 1, [0, 1])],
    [("part", 3, 1, [0, 0.3]), ("part", 4, 1, [0.5, 1])],
)
@example(
    3,
    [("part", 2, 1, [0, 1])],
    [("part", 5, 1, [0, 0.3]), ("part", 4, 1, [0.5, 1])],
)
@example(420, [("whole", 3, 1, 0)], [("part", 1, 1, [0, 1]), ("part", 4, 1, [0, 0.1])])
def test_writers_at_once_agree_with_event_time(
    size: int, history: list[Any], others: list[Any]
) -> None:
    """Writes of another process between two requests of a write are neither lost nor undone."""
    writing = Writing(size)
    other = Writing(size)
    other.table, other.driver = writing.table, SimulatedDriver(writing.table)

    def interfere(step: Any) -> Callable[[], None]:
        def act() -> None:
            waiting, writing.table.others[:] = writing.table.others[:], []
            other.apply(other.change(*step))
            writing.table.others[:] = waiting

        return act

    for step in history:
        writing.table.others = [interfere(step) for step in others]
        writing.apply(writing.change(*step))
    writing.table.others = []
    for name, seen in other.model.items():  # Of equal times, either may be the later one.
        writing.model[name] = max(writing.model[name], seen, key=lambda found: found[0])
    times = {name: time for name, (time, _) in writing.model.items()}
    held = writing.held()
    for name, time in times.items():
        allowed = {each.model[name] for each in (writing, other)} | {writing.model[name]}
        latest = [value for at, value in allowed if at == time]
        assert held[name][1] in latest, (name, held[name], allowed)


def values_of(held: dict[str, tuple[int, int | None]]) -> dict[str, Any]:
    return {name: value for name, (_, value) in held.items()}


@pytest.mark.parametrize(("size", "dropped"), [(320, 100), (420, 0), (2000, 0)])
def test_a_large_whole_write_is_one_put(size: int, dropped: int) -> None:
    """A whole write whose expression is too long puts the item, under the same conditions."""
    writing = Writing(size)
    assert writing.apply(writing.whole(1, 1, dropped)) is WriteOutcome.APPLIED
    assert writing.apply(writing.whole(3, 2, dropped)) is WriteOutcome.APPLIED
    assert writing.operations == ["PutItem"]
    assert writing.apply(writing.whole(2, 3, dropped)) is WriteOutcome.SUPERSEDED
    assert writing.held() == writing.model


def test_a_small_whole_write_names_its_features() -> None:
    """A whole write that fits is one UpdateItem, as before."""
    writing = Writing(300)
    writing.apply(writing.whole(1))
    assert writing.operations == ["UpdateItem"]


@pytest.mark.parametrize("size", [300, 420])
def test_a_large_whole_write_clears_away_what_parts_left(size: int) -> None:
    """After parts were written apart, a whole write removes their times.

    The mark of such parts stays in a large group, whose whole writes are puts that go by it.
    """
    writing = Writing(size)
    writing.apply(writing.part(1, 0, 1, 1))
    writing.apply(writing.whole(2, 2))
    assert set(writing.operations) == {"UpdateItem"} | {"PutItem"} & set(writing.operations)
    assert writing.table.item is not None
    is_put = size == 420
    assert own("f0") not in writing.table.item
    assert (BASE in writing.table.item) is is_put
    assert writing.held() == writing.model
    writing.apply(writing.whole(3, 3))
    assert (len(writing.operations) == 1) is not is_put
    assert writing.held() == writing.model


def test_a_put_keeps_what_it_does_not_know() -> None:
    """A large whole write of an older schema keeps the features of a newer one."""
    writing = Writing(420)
    newer = Change.of(KEY, 1, {"new": number(7)}, False, 421, None)
    writing.apply(writing.whole(1))
    writing.names.append("new")
    writing.model["new"] = (0, None)
    writing.apply(newer)
    older = Writing(420).whole(2, 2)
    writing.apply(older)
    assert writing.held() == writing.model
    assert writing.held()["new"] == (1, 7)


def test_an_erasure_stays_known_after_a_large_write() -> None:
    """A put does not forget that the entity was erased: a late part stays out."""
    writing = Writing(420)
    writing.apply(writing.erase(3))
    writing.apply(writing.whole(5, 1))
    assert writing.table.item is not None
    assert ERASED in writing.table.item


def test_json_of_another_form_is_no_difference() -> None:
    """White space, escapes, exponents and the order of maps and sets make no difference."""
    same = [
        (b'{"S":"\\u001f"}', b'{"S": "\\u001F"}'),
        (b'{"S":"\xc3\xa9"}', b'{"S":"\\u00e9"}'),
        (b'{"N":"100"}', b'{"N":"1E2"}'),
        (b'{"N":"0"}', b'{"N":"-0.00"}'),
        (b'{"SS":["a","b"]}', b'{"SS":["b","a"]}'),
        (b'{"NS":["1","20"]}', b'{"NS":["2E1","1.0"]}'),
        (b'{"M":{"a":{"N":"1"},"b":{"L":[]}}}', b'{"M":{"b":{"L":[]},"a":{"N":"1.0"}}}'),
        (b'{"L":[{"NULL":true}]}', b'{ "L": [ { "NULL": true } ] }'),
    ]
    different: list[tuple[bytes | None, bytes | None]] = [
        (b'{"S":"1"}', b'{"N":"1"}'),
        (b'{"L":[{"N":"1"},{"N":"2"}]}', b'{"L":[{"N":"2"},{"N":"1"}]}'),
        (b'{"NULL":true}', None),
        (b'{"BOOL":true}', b'{"N":"1"}'),
        (b'{"N":"x"}', b'{"N":"y"}'),
        (b"{", b"}"),
        (b'{"S":"a"}', b'{"S":"A"}'),
    ]
    assert all(is_same(*pair) for pair in same)
    assert not any(is_same(*pair) for pair in different)
    assert is_same(None, None)


def test_a_difference_has_no_key() -> None:
    """Neither a key in another form nor one that is absent is a difference."""
    item: Attributes = {"pk": b'{"S": "a"}', LATEST: number(1)}
    merged: Attributes = {"pk": b'{"S":"a"}', "sk": b'{"S":"b"}', LATEST: number(2)}
    assert difference(LAYOUT, item, merged) == ({LATEST: number(2)}, set())
    assert difference(LAYOUT, merged, {}) == ({}, {LATEST})


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("Invalid UpdateExpression: Expression size {};", RequestRefused),
        ("Item size {}", ItemTooLarge),
        ("Item size to update {}", ItemTooLarge),
    ],
)
def test_an_expression_that_is_too_long_is_no_large_item(message: str, kind: type) -> None:
    """DynamoDB's words for both are alike; only an item is the caller's to make smaller."""
    text = message.format("has exceeded the maximum allowed size")
    body = json.dumps({"__type": "ValidationException", "message": text}).encode()
    writing = Writing(1)
    writing.driver.handler = lambda send, now: Reply(Response(400, {}, body))
    with pytest.raises(kind):
        writing.apply(writing.whole(1))
