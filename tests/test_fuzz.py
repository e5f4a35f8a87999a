"""Whatever lies in a table or comes over the wire: a value or an error of this library.

`make fuzz` runs this for a few minutes, by a larger `CHALK_STRESS`.
"""

from __future__ import annotations

import copy
import json
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from chalk_online_store import Feature, Namespace, OnlineStoreError, Report, features
from chalk_online_store.codec.changes import (
    Change,
    Times,
    key_of,
    merge,
    number,
    parse_item,
    render_item,
)
from chalk_online_store.codec.layout import ItemKey, TableLayout, all_ids
from chalk_online_store.codec.registry import Registry, read_entry
from chalk_online_store.codec.shapes import Column, Shape
from chalk_online_store.drivers.simulated import Reply
from chalk_online_store.dynamodb import responses as answers
from chalk_online_store.dynamodb.matching import Matcher
from chalk_online_store.dynamodb.messages import Response
from chalk_online_store.operations.rows import ColumnSource, ColumnSources, Rows
from chalk_online_store.schema.annotations import read_annotation
from chalk_online_store.schema.types import struct_fields
from tests.fakes import SimulatedStore
from tests.golden.cases import TYPES
from tests.golden.generate import load
from tests.helpers import stress

EXAMPLES = stress(40)
fuzz = settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))

LAYOUT = TableLayout()
KEY = {"pk": {"S": "a:1"}, "sk": {"S": "a"}}


def attempt(what: Callable[[], Any]) -> Any:
    """What it gives; None for an error of this library. Any other is the test's failure."""
    try:
        return what()
    except OnlineStoreError:
        return None


# --- what there may be ---------------------------------------------------------------------

NUMBERS = ["1", "-0", "1e400", "1E+999999999", "9" * 4000, "9" * 5000, "NaN", "sNaN", "Infinity"]
NUMBERS += ["null", "", " 1", "0x1", "1.5", "-1E-999999999", "true", "1_0", "9" * 17, "9" * 30]
TEXTS = ["AAAA", "AA==", "null", "\ud800", "/////w==", "1AAA", "gQ==", "x" * 300, "gcDA"]
TEXTS += ["kpHA", "3f//////", "1v//////", "xwz/////////////////"]  # msgpack, damaged
KINDS = ["S", "N", "B", "BOOL", "NULL", "L", "M", "SS", "NS", "BS", "X", ""]

texts = st.sampled_from(NUMBERS + TEXTS) | st.text(max_size=5)
json_leaves = st.none() | st.booleans() | st.integers() | st.floats() | texts
json_values = st.recursive(
    json_leaves,
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(texts, parts, max_size=3),
    max_leaves=8,
)


def _containing(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.fixed_dictionaries({"L": st.lists(parts, max_size=3)}),
        st.fixed_dictionaries({"M": st.dictionaries(st.sampled_from("abcde"), parts, max_size=4)}),
    )


texts_of_a_kind = st.dictionaries(st.sampled_from(KINDS), texts | st.booleans(), max_size=2)
sets = st.dictionaries(st.sampled_from(["SS", "NS", "BS"]), st.lists(texts, max_size=3), min_size=1)
attributes = st.recursive(texts_of_a_kind | sets, _containing, max_leaves=6)
stored = st.sampled_from([golden["stored"] for golden in load("types").values()])


@st.composite
def mutations(draw: st.DrawFn, whole: st.SearchStrategy[Any]) -> Any:
    """Something sound with one part of it replaced."""
    value = copy.deepcopy(draw(whole))
    parent: Any = [value]
    key: Any = 0
    part: Any = value
    while isinstance(part, dict | list) and part and draw(st.integers(0, 3)):
        keys = list(part) if isinstance(part, dict) else list(range(len(part)))
        parent, key = part, draw(st.sampled_from(keys))
        part = parent[key]
    if parent == [value]:
        return draw(attributes)
    parent[key] = draw(attributes | json_values)
    return value


damaged = attributes | mutations(stored) | stored | json_values


def column(annotation: Any) -> Column:
    """A column whose id is `v`."""
    paths = [path for path, _ in struct_fields(read_annotation(annotation).type, "user.x")]
    return Column(
        "v", Feature("x", annotation), "user.x", dict(zip(paths, all_ids(), strict=False))
    )


SHAPES = {n: Shape(LAYOUT, (column(annotation),)) for n, (annotation, _) in TYPES.items()}
shapes = st.sampled_from(list(SHAPES.values()))


def dumps(value: Any) -> bytes:
    return json.dumps(value).encode()


# --- items ---------------------------------------------------------------------------------

bookkeeping = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ("@", "~", "@v", "%", "!", "ttl"), texts_of_a_kind | texts.map(lambda t: {"N": t})
    ),
)


@fuzz
@given(shapes, st.lists(st.tuples(damaged, bookkeeping), min_size=1, max_size=3))
@example(SHAPES["set of equal NaNs"], [({"NS": ["NaN"]}, {"@": {"NULL": True}})])
@example(SHAPES["decimal"], [({"N": "1E+999999999"}, {})])
@example(SHAPES["decimal"], [({"N": "NaN"}, {"@": {"N": "9" * 30}})])
@example(SHAPES["int"], [({"N": "1"}, {"@": {"NULL": True}}), ({"N": "1"}, {"@": {"N": "5"}})])
def test_items_of_any_content(shape: Shape, items: list[tuple[Any, Any]]) -> None:
    """Reading damaged items, one feature or a whole column, gives values or our errors."""
    bodies = [dumps({**KEY, "v": value, **times}) for value, times in items]
    check_items(shape, bodies)


def check_items(shape: Shape, bodies: list[bytes]) -> None:
    found = shape.decode_each(bodies)
    assert len(found) == len(bodies)
    for row in found:
        if not isinstance(row, OnlineStoreError):
            attempt(partial(shape.cell, row, 0))
    sources = {"x": ColumnSource(0, shape, 0, 10**15)}
    report = Report(failed=sum(isinstance(row, OnlineStoreError) for row in found))
    rows = Rows(
        list(range(len(found))), ColumnSources(sources), range(len(found)), [found], 10**15, report
    )
    attempt(rows.to_dict)
    attempt(lambda: rows.statuses("x"))
    for each in rows:
        attempt(partial(each.__getitem__, "x"))
        attempt(partial(each.observed_at, "x"))


DEEP = b"[" * 100_000 + b"]" * 100_000
bodies = (
    st.binary(max_size=20)
    | json_values.map(dumps)
    | st.sampled_from(
        [
            b'{"pk":{"S":"a"},"sk":{"S":"a"},"v":{"S":"\xff"}}',
            b'{"pk":{"S":"a"},"sk":{"S":"a"},"z":%b}' % DEEP,
            b'{"pk":{"S":"a"},"sk":{"S":"a"},"v":{"L":%b}}' % DEEP,
            b'{"\xff":1}',
            DEEP,
        ]
    )
)


@fuzz
@given(shapes, st.lists(bodies, min_size=1, max_size=2))
@example(SHAPES["str"], [b'{"pk":{"S":"a"},"sk":{"S":"a"},"v":{"S":"\xff"}}'])
@example(SHAPES["str"], [b'{"pk":{"S":"a"},"sk":{"S":"a"},"z":%b}' % DEEP])
def test_items_of_any_bytes(shape: Shape, items: list[bytes]) -> None:
    """What is no JSON, no UTF-8, or nests without end, is a damaged item, each by itself."""
    check_items(shape, items)


@fuzz
@given(bodies)
@example(b'{"\xff":1}')
@example(b'{"a":%b}' % DEEP)
@example(b"{}")
def test_any_bytes_as_an_item(body: bytes) -> None:
    """Taking an item apart, and finding its key, gives attributes or our error."""
    item = attempt(lambda: parse_item(body))
    if item is not None:
        attempt(lambda: key_of(LAYOUT, item))


changes = st.builds(
    Change.of,
    st.just(ItemKey("a:1", "a")),
    st.integers(0, 9),
    st.dictionaries(st.sampled_from("abv"), st.none() | st.just(number(1)), max_size=2),
    st.booleans(),
    st.integers(0, 3),
    st.none() | st.integers(0, 9),
)


@fuzz
@given(st.dictionaries(texts, damaged, max_size=2), bookkeeping, changes)
@example({}, {"@": {"N": "x"}}, Change.of(ItemKey("a", "a"), 1, {}, True, 1, None))
@example(
    {}, {"@": {"N": "9" * 5000}}, Change.of(ItemKey("a", "a"), 1, {"v": number(1)}, False, 1, 1)
)
def test_writes_to_damaged_items(others: Any, times: Any, change: Change) -> None:
    """A write that meets damaged bookkeeping is applied or refused by our error."""
    item = attempt(lambda: parse_item(dumps({**KEY, **others, **times})))
    if item is None:
        return
    attempt(lambda: [Times(item).of(name) for name in "abv"])
    merged = attempt(lambda: merge(LAYOUT, item, change))
    if merged is not None:
        assert parse_item(render_item(merged)) == merged


golden_entries = st.sampled_from([items[0] for items in load("registry").values()])


@fuzz
@given(mutations(golden_entries) | json_values)
def test_entries_of_any_content(body: Any) -> None:
    """A damaged registry entry is refused by our error, or is an entry that can be looked up."""
    item = attempt(lambda: parse_item(dumps(body)))
    entry = item and attempt(lambda: read_entry(item))
    if entry:
        registry = Registry((entry,))
        attempt(lambda: registry.by_name)
        attempt(lambda: registry.missing(Namespace("user", int, [Feature("risk", float)])))


# --- answers -------------------------------------------------------------------------------

DECODERS: list[Any] = [
    answers.written,
    answers.transacted,
    answers.queried,
    answers.batch_written,
    answers.raw_item,
    *(
        answers.RowsDecoder(answer, SHAPES["struct"])
        for answer in (answers.GetItemResponse, answers.BatchGetItemResponse, answers.QueryResponse)
    ),
]
MATCHER = Matcher("simulated", TableLayout())
DECODERS += [
    MATCHER.item(answers.RowsDecoder(answers.GetItemResponse, SHAPES["struct"]), "u1", "a"),
    MATCHER.batch(
        answers.RowsDecoder(answers.BatchGetItemResponse, SHAPES["struct"]), "a", ["u1", "u2"]
    ),
    MATCHER.page(answers.RowsDecoder(answers.QueryResponse, SHAPES["struct"]), "u1", "a", "b"),
    MATCHER.raw_item(ItemKey("u1", "a")),
    MATCHER.partition("u1", ""),
    MATCHER.scan(),
    MATCHER.write("PutItem", ItemKey("u1", "a")),
    MATCHER.batch_write([ItemKey("u1", "a")]),
    MATCHER.transaction(2),
]
NAMES = ["Item", "Items", "Responses", "UnprocessedKeys", "UnprocessedItems", "Keys", "PutRequest"]
NAMES += ["Count", "TableName", "Table", "Attributes"]
NAMES += ["DeleteRequest", "Key", "ConsumedCapacity", "CapacityUnits", "LastEvaluatedKey"]
NAMES += ["__type", "message", "Message", "CancellationReasons", "Code", "simulated"]
CODES = ["ThrottlingException", "x#TransactionCanceledException", "ConditionalCheckFailedException"]
CODES += ["ValidationException", "None", "ConditionalCheckFailed", "ResourceNotFoundException"]
answer_values = st.recursive(
    json_leaves | st.sampled_from(CODES),
    lambda parts: (
        st.lists(parts, max_size=2)
        | st.dictionaries(st.sampled_from(NAMES) | texts, parts, max_size=3)
    ),
    max_leaves=8,
)
answer_bodies = bodies | answer_values.map(dumps)
statuses = st.sampled_from([200, 200, 200, 400, 413, 500, 503, 0, 301, -1])
checksums = st.sampled_from(["", "x", "-1", "1.5", "\uff19", "0" * 5000, "right", "right", "none"])


def response_of(status: int, checksum: str, body: bytes) -> Response:
    right = str(zlib.crc32(body))
    headers = {} if checksum == "none" else {"x-amz-crc32": checksum.replace("right", right)}
    return Response(status, headers, body)


@fuzz
@given(st.sampled_from(DECODERS), st.builds(response_of, statuses, checksums, answer_bodies))
@example(answers.written, Response(200, {"x-amz-crc32": "x"}, b"{}"))
@example(answers.written, Response(200, {}, b'{"a":%b}' % DEEP))
@example(answers.queried, Response(200, {}, b'{"Items":[{"\xff":1}]}'))
@example(answers.written, Response(400, {}, b'{"message":"\xff"}'))
@example(answers.written, Response(500, {}, DEEP))
def test_answers_of_any_kind(decoder: Any, response: Response) -> None:
    """Any status, header and body is an answer or an error that says what failed."""
    check = getattr(decoder, "check_failure", None)
    answer = attempt(lambda: answers.read(response, decoder, "Query of a table", check))
    if answer is not None:
        attempt(lambda: answer.units)


@features
class User:
    id: int
    a: int
    b: list[str]


ROWS = [{"id": i, "a": i, "b": ["x"]} for i in range(3)]
OPERATIONS: list[Callable[[SimulatedStore], Any]] = [
    lambda store: store.read(User, [1]),
    lambda store: store.read(User, [1, 2]).to_dict(),
    lambda store: store.write(User, ROWS),
    lambda store: store.write(User, ROWS[:1], ordering="event"),
]


@fuzz
@given(
    st.sampled_from(OPERATIONS),
    st.lists(st.builds(response_of, statuses, checksums, answer_bodies), min_size=1, max_size=3),
    st.booleans(),
)
@example(
    OPERATIONS[2],
    [Response(200, {}, b'{"UnprocessedItems":{"simulated":[{}]}}')],
    True,
)
@example(
    OPERATIONS[1],
    [Response(200, {}, b'{"UnprocessedKeys":{"simulated":{"Keys":[{}]}}}')],
    True,
)
def test_a_store_behind_a_mad_engine(
    operation: Callable[[SimulatedStore], Any], replies: list[Response], known: bool
) -> None:
    """An engine that answers anything at all gets nothing but our errors out of a store."""
    store = SimulatedStore([User])
    if known:
        store.write(User, ROWS)
    left = iter(replies)

    def fault(*_: Any) -> Reply | None:
        response = next(left, None)
        return None if response is None else Reply(response, after=0.01)

    store.table.fault = fault
    attempt(lambda: operation(store))


def test_fuzzing_can_fail() -> None:
    """What is neither a value nor our error is not swallowed by these tests."""
    for error in (KeyError("x"), msgspec.ValidationError("x"), RecursionError()):
        try:
            attempt(partial(_raise, error))
        except type(error):
            continue
        raise AssertionError


def _raise(error: Exception) -> None:
    raise error
