"""Checks of capacity units: each operation consumes what `planning.units` predicts.

Capacity is counted in whole KB. So each item has a size at the end of a KB, or a byte more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from chalk_online_store.backend import chunks
from chalk_online_store.cli.verify.context import Check, CheckContext, Units, accepted
from chalk_online_store.codec.changes import MAX_TRANSACT_ITEMS, Change, ConditionalWrite
from chalk_online_store.codec.keys import MAX_KEY_BYTES
from chalk_online_store.codec.layout import ItemKey
from chalk_online_store.codec.raw_items import ATTRIBUTES, RawItemShape
from chalk_online_store.codec.shapes import Column, Shape
from chalk_online_store.codec.sizes import MAX_ITEM_BYTES
from chalk_online_store.dynamodb import responses as answers
from chalk_online_store.dynamodb.backend import BATCH_WRITE
from chalk_online_store.dynamodb.reading import BATCH_GET
from chalk_online_store.dynamodb.updates import short_cut
from chalk_online_store.errors import ConditionFailed
from chalk_online_store.planning.units import (
    READ_BYTES,
    WRITE_BYTES,
    batch_read_units,
    batch_write_units,
    query_units,
    read_units,
    write_units,
)
from chalk_online_store.schema import Feature

_KB, _READ = WRITE_BYTES, READ_BYTES
_ITEM_SIZES = (_KB, _KB + 1)
_BORDERS = (_READ, _READ + 1)


@dataclass(frozen=True, slots=True)
class _Case:
    """A request, the units that it shall consume, and how to measure them."""

    what: str
    predicted: float
    measure: Callable[[CheckContext], float]


def _check(name: str, unit: str, cases: Sequence[_Case], units: Units) -> Check:
    def render(amounts: Sequence[float]) -> str:
        pairs = zip(cases, amounts, strict=True)
        return ", ".join(f"{case.what}: {amount:g}" for case, amount in pairs) + f" {unit}"

    def run(context: CheckContext) -> str:
        return render([case.measure(context) for case in cases])

    expected = render([case.predicted for case in cases])
    return Check(f"units of {name}", expected, run, units)


def _bytes(size: int) -> str:
    """Return a size as people read it: 4 KB, 4 KB + 1."""
    kilobytes, more = divmod(size, _KB)
    return f"{kilobytes} KB" + (f" + {more} B" if more else "")


# --- writes --------------------------------------------------------------------------------


def _put(context: CheckContext, size: int) -> float:
    swap = ConditionalWrite(None, context.fresh(context.filled(context.scratch.key(), size)))
    return _transact(context, [swap])


def _transact(context: CheckContext, swaps: Sequence[ConditionalWrite]) -> float:
    client = context.client
    _, report = client.measure(lambda call: client.backend.transact(swaps, call))
    return report.wcu


def _update(context: CheckContext, before: int, after: int) -> float:
    key = context.scratch.key()
    context.client.apply(context.filled(key, before))
    return context.client.apply(context.filled(key, after, at=1)).wcu


def _create(context: CheckContext, size: int) -> float:
    return context.client.apply(context.filled(context.scratch.key(), size)).wcu


def _refuse(context: CheckContext, size: int) -> float:
    """Have an update refused, and return what the refusal reports. AWS bills it unreported."""
    client, key = context.client, context.scratch.key()
    client.put(context.filled(key, size, at=1))
    found = short_cut(context.layout, context.filled(key, size), again=False)
    assert found is not None, "the expression is short"
    body = client.bodies.update(key, found.members)
    before = client.report.wcu
    with suppress(ConditionFailed):
        client.send("UpdateItem", body, client.matcher.write("UpdateItem", key))
    return client.report.wcu - before


def _delete(context: CheckContext, size: int) -> float:
    key = context.scratch.key()
    if size:
        context.client.put(context.filled(key, size))
    return context.client.delete([key]).wcu


def _batch_write(context: CheckContext, *, removes: bool) -> float:
    keys = [context.scratch.key() for _ in _ITEM_SIZES]
    changes = [context.filled(key, size) for key, size in zip(keys, _ITEM_SIZES, strict=True)]
    put = context.client.put_all(changes).wcu
    return context.client.delete(keys).wcu if removes else put


def _transaction(context: CheckContext, *, removes: bool) -> float:
    items = [context.fresh(context.filled(context.scratch.key(), size)) for size in _ITEM_SIZES]
    put = _transact(context, [ConditionalWrite(None, item) for item in items])
    return _transact(context, [ConditionalWrite(item, None) for item in items]) if removes else put


# --- reads ---------------------------------------------------------------------------------


def _get(context: CheckContext, size: int, *, consistent: bool, projected: bool = False) -> float:
    key = context.scratch.key()
    if size:
        context.client.put(context.filled(key, size))
    shape = None
    if projected:
        column = Column(context.ids[1], Feature("other", int), "verify.other")
        shape = Shape(context.layout, (column,), projected=True)
    _, report = context.client.read([key], shape, consistent=consistent)
    return report.rcu


def _batch_get(context: CheckContext, *, consistent: bool) -> float:
    keys = [context.scratch.key() for _ in (*_BORDERS, 0)]
    for key, size in zip(keys, _BORDERS, strict=False):
        context.client.put(context.filled(key, size))
    return context.client.read(keys, consistent=consistent)[1].rcu


def _query(context: CheckContext, sizes: Sequence[int]) -> float:
    first = context.scratch.key()
    keys: list[ItemKey] = [context.scratch.beside(first, f"{n}") for n in range(len(sizes))]
    for key, size in zip(keys, sizes, strict=True):
        context.client.put(context.filled(key, size))
    return context.client.query(first.pk)[1].rcu


# --- the checks ----------------------------------------------------------------------------


def _gets(*, projected: bool) -> list[_Case]:
    def case(size: int, consistent: bool) -> _Case:
        what = f"{_bytes(size) if size else 'nothing'}{' consistent' if consistent else ''}"
        predicted = read_units(size, consistent=consistent)

        measure = partial(_get, size=size, consistent=consistent, projected=projected)
        return _Case(what, predicted, measure)

    return [case(size, consistent) for consistent in (False, True) for size in (*_BORDERS, 0)]


def _sum_of(*sizes: int) -> str:
    return " and ".join(map(_bytes, sizes))


_UPDATES = [(_KB, _KB), (_KB, _KB + 1), (3 * _KB, _KB), (_KB, 3 * _KB)]
_QUERIES = [(2 * _KB, 2 * _KB), (2 * _KB, 2 * _KB + 1)]


def _updates() -> list[_Case]:
    created = [_Case(_bytes(s), write_units(s), partial(_create, size=s)) for s in _ITEM_SIZES]
    updated = [
        _Case(
            f"{_bytes(before)} to {_bytes(after)}",
            write_units(after, before),
            partial(_update, before=before, after=after),
        )
        for before, after in _UPDATES
    ]
    return created + updated


def _deletes() -> list[_Case]:
    return [
        _Case(_bytes(s) if s else "nothing", write_units(0, s), partial(_delete, size=s))
        for s in (*_ITEM_SIZES, 0)
    ]


def _puts_and_deletes(predicted: float, measure: Callable[..., float]) -> list[_Case]:
    return [
        _Case("puts", predicted, partial(measure, removes=False)),
        _Case("deletes", predicted, partial(measure, removes=True)),
    ]


def _batch_gets() -> list[_Case]:
    return [
        _Case(
            f"{_sum_of(*_BORDERS)} and nothing{' consistent' if consistent else ''}",
            batch_read_units((*_BORDERS, 0), consistent=consistent),
            partial(_batch_get, consistent=consistent),
        )
        for consistent in (False, True)
    ]


def _queries() -> list[_Case]:
    return [
        _Case(_sum_of(*s), query_units(s, consistent=True), partial(_query, sizes=s))
        for s in _QUERIES
    ]


_PUTS = [_Case(_bytes(s), write_units(s), partial(_put, size=s)) for s in _ITEM_SIZES]
_REFUSED = [_Case(_bytes(_KB + 1), 0, partial(_refuse, size=_KB + 1))]
_IN_TRANSACTION = sum(write_units(size, transactional=True) for size in _ITEM_SIZES)

CONSUMPTION_CHECKS = [
    _check("PutItem", "WCU", _PUTS, Units(2, 6)),
    _check("UpdateItem", "WCU", _updates(), Units(6, 28)),
    _check("a refused condition", "WCU reported", _REFUSED, Units(1, 6)),
    _check("DeleteItem", "WCU", _deletes(), Units(3, 10)),
    _check(
        "BatchWriteItem",
        "WCU",
        _puts_and_deletes(batch_write_units(_ITEM_SIZES), _batch_write),
        Units(4, 14),
    ),
    _check(
        "TransactWriteItems",
        "WCU",
        _puts_and_deletes(_IN_TRANSACTION, _transaction),
        Units(4, 23),
    ),
    _check("GetItem", "RCU", _gets(projected=False), Units(12, 38)),
    _check("GetItem, projected", "RCU", _gets(projected=True), Units(12, 38)),
    _check("BatchGetItem", "RCU", _batch_gets(), Units(12, 38)),
    _check("Query", "RCU", _queries(), Units(5, 20)),
]


# --- Checks of the limits of items, keys, batches and responses ----------------------------


_LARGEST = write_units(MAX_ITEM_BYTES)
_UPDATE_BYTES = 3
_UPDATE_BYTES_PER_ATTRIBUTE = 19
"""See docs/capacity.md: an UpdateItem adds these to the bytes that it writes."""


# --- items ---------------------------------------------------------------------------------


def _check_put_size(context: CheckContext) -> str:
    def send(size: int) -> None:
        swap = ConditionalWrite(None, context.fresh(context.filled(context.scratch.key(), size)))
        context.client.run(lambda call: context.client.backend.transact([swap], call))

    return _largest(MAX_ITEM_BYTES, send)


def _check_update_size(context: CheckContext) -> str:
    """Send updates of one long attribute, up to the size that our rule allows."""

    def send(size: int) -> None:
        key = context.scratch.key()
        fixed = context.text(key, "")
        written = context.size_of(fixed) - len(
            context.layout.pk + context.layout.sk + key.pk + key.sk
        )
        attributes = len(context.fresh(fixed)) - 2
        extra = _UPDATE_BYTES + _UPDATE_BYTES_PER_ATTRIBUTE * attributes
        context.client.apply(context.text(key, "x" * (size - written - extra)))

    return _largest(MAX_ITEM_BYTES, send)


def _largest(limit: int, send: Callable[[int], object]) -> str:
    at, above = accepted(lambda: send(limit)), accepted(lambda: send(limit + 1))
    return f"{limit:,} bytes {at}, {limit + 1:,} {above}"


def _check_key_size(context: CheckContext) -> str:
    """Fill a partition key up to the longest that stores send."""
    shortest = len(context.scratch.key().pk)
    key = context.scratch.key("k" * (MAX_KEY_BYTES - shortest))
    context.client.put(context.text(key))
    found = context.client.item(key)
    return f"{len(key.pk):,} bytes {'written and read' if found else 'missing'}"


# --- batches -------------------------------------------------------------------------------


def _check_batch_get(context: CheckContext) -> str:
    """Ask for items that do not exist: only their number counts."""
    client, shape = context.client, RawItemShape(context.layout)
    reads = client.bodies.reads(["a"], shape)
    decoder = answers.RowsDecoder(answers.BatchGetItemResponse, shape)

    def send(count: int, *, repeated: bool = False) -> None:
        pks = [f"{context.scratch.partition}:absent:{n}" for n in range(count)]
        pks += pks[:1] * repeated
        expected = client.matcher.batch(decoder, "a", pks)
        client.send("BatchGetItem", reads.batch_get(pks, False), expected)

    twice = accepted(lambda: send(2, repeated=True))
    return f"{_keys(BATCH_GET, send)}, a key twice {twice}"


def _check_batch_write(context: CheckContext) -> str:
    client = context.client

    def send(count: int, *, repeated: bool = False) -> None:
        first = context.scratch.key()
        keys = [context.scratch.beside(first, f"{n}") for n in range(count)]
        keys += keys[:1] * repeated
        changes = [context.text(key) for key in keys]
        expected = client.matcher.batch_write(keys)
        client.send("BatchWriteItem", client.bodies.batch_write(changes), expected)

    twice = accepted(lambda: send(2, repeated=True))
    return f"{_keys(BATCH_WRITE, send)}, a key twice {twice}"


def _check_transaction_size(context: CheckContext) -> str:
    client = context.client

    def send(count: int) -> None:
        first = context.scratch.key()
        keys = [context.scratch.beside(first, f"{n}") for n in range(count)]
        swaps = [ConditionalWrite(None, context.fresh(context.text(key))) for key in keys]
        expected = client.matcher.transaction(count)
        client.send("TransactWriteItems", client.bodies.transact(swaps), expected)

    return _keys(MAX_TRANSACT_ITEMS, send)


def _keys(limit: int, send: Callable[[int], object]) -> str:
    at, above = accepted(lambda: send(limit)), accepted(lambda: send(limit + 1))
    return f"{limit} {at}, {limit + 1} {above}"


# --- responses -----------------------------------------------------------------------------

_LARGE_BYTES = 400_000
_ITEMS = 43
"""Large items. A response of 16 MB has room for 41."""

_CHUNK = 4
"""Large items per request: few enough for a slow connection."""


def _check_unprocessed(context: CheckContext) -> str:
    client, shape = context.client, RawItemShape(context.layout)
    keys = [context.scratch.key() for _ in range(_ITEMS)]
    _put_large(context, keys)
    pks = [key.pk for key in keys]
    decoder = answers.RowsDecoder(answers.BatchGetItemResponse, shape)
    body = client.bodies.reads(["a"], shape).batch_get(pks, False)
    read = client.attempt("BatchGetItem", body, client.matcher.batch(decoder, "a", pks))
    rows, _ = client.read(keys)
    whole = sum(row is not None and context.ids[0] in row[ATTRIBUTES] for row in rows)  # type: ignore[index]
    client.delete(keys)  # Now, since to find them again would cost as much as this read.
    left = "some" if read.left else "no"
    return f"{left} keys unprocessed, all {whole} read in the end"


def _check_pages(context: CheckContext) -> str:
    first = context.scratch.key()
    keys = [context.scratch.beside(first, f"{n}") for n in range(3)]
    _put_large(context, keys)
    items, report = context.client.query(first.pk)
    context.client.delete(keys)
    return f"{len(items)} items of {_LARGE_BYTES:,} bytes in {report.requests} pages"


def _put_large(context: CheckContext, keys: list[ItemKey]) -> None:
    """Put large items."""
    for some in chunks(keys, _CHUNK):
        changes: list[Change] = [context.filled(key, _LARGE_BYTES) for key in some]
        context.client.put_all(changes)


_TOO_LARGE = "refused as too large"
_SIZES = f"{MAX_ITEM_BYTES:,} bytes accepted, {MAX_ITEM_BYTES + 1:,} {_TOO_LARGE}"
_LARGE_WRITE = write_units(_LARGE_BYTES)
_LARGE_READ = read_units(_LARGE_BYTES) + read_units(_LARGE_BYTES, consistent=True)

SIZE_CHECKS = [
    Check("item of 400 KB by PutItem", _SIZES, _check_put_size, Units(2, 2 * _LARGEST + 1)),
    Check("item of 400 KB by UpdateItem", _SIZES, _check_update_size, Units(2, 2 * _LARGEST + 1)),
    Check(
        "length of a partition key",
        f"{MAX_KEY_BYTES:,} bytes written and read",
        _check_key_size,
        Units(3, 7),
    ),
    Check(
        "keys of a BatchGetItem",
        f"{BATCH_GET} accepted, {BATCH_GET + 1} refused, a key twice refused",
        _check_batch_get,
        Units(BATCH_GET / 2, 0),
    ),
    Check(
        "items of a BatchWriteItem",
        f"{BATCH_WRITE} accepted, {BATCH_WRITE + 1} refused, a key twice refused",
        _check_batch_write,
        Units(3, 3 * BATCH_WRITE + 6),
    ),
    Check(
        "actions of a transaction",
        f"{MAX_TRANSACT_ITEMS} accepted, {MAX_TRANSACT_ITEMS + 1} refused",
        _check_transaction_size,
        Units(2, 4 * MAX_TRANSACT_ITEMS + 3),
    ),
    Check(
        "unprocessed keys of a 16 MB read",
        f"some keys unprocessed, all {_ITEMS} read in the end",
        _check_unprocessed,
        Units(_ITEMS * (_LARGE_READ + 1), _ITEMS * (2 * _LARGE_WRITE + 1)),
    ),
    Check(
        "pages of a Query",
        f"3 items of {_LARGE_BYTES:,} bytes in 2 pages",
        _check_pages,
        Units(2 * _LARGE_READ + 1, 6 * _LARGE_WRITE + 4),
    ),
]
