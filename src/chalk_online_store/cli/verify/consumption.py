"""Checks of capacity units: each operation consumes what `planning.units` predicts.

Capacity is counted in whole KB. So each item has a size at the end of a KB, or a byte more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from chalk_online_store.cli.verify.checks import Check, Units
from chalk_online_store.cli.verify.context import CheckContext
from chalk_online_store.codec.layout import ItemKey
from chalk_online_store.codec.shapes import Column, Shape
from chalk_online_store.codec.swaps import ConditionalWrite
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
_SIZES = (_KB, _KB + 1)
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
    keys = [context.scratch.key() for _ in _SIZES]
    changes = [context.filled(key, size) for key, size in zip(keys, _SIZES, strict=True)]
    put = context.client.put_all(changes).wcu
    return context.client.delete(keys).wcu if removes else put


def _transaction(context: CheckContext, *, removes: bool) -> float:
    items = [context.fresh(context.filled(context.scratch.key(), size)) for size in _SIZES]
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
    created = [_Case(_bytes(s), write_units(s), partial(_create, size=s)) for s in _SIZES]
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
        for s in (*_SIZES, 0)
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


_PUTS = [_Case(_bytes(s), write_units(s), partial(_put, size=s)) for s in _SIZES]
_REFUSED = [_Case(_bytes(_KB + 1), 0, partial(_refuse, size=_KB + 1))]
_IN_TRANSACTION = sum(write_units(size, transactional=True) for size in _SIZES)

CONSUMPTION_CHECKS = [
    _check("PutItem", "WCU", _PUTS, Units(2, 6)),
    _check("UpdateItem", "WCU", _updates(), Units(6, 28)),
    _check("a refused condition", "WCU reported", _REFUSED, Units(1, 6)),
    _check("DeleteItem", "WCU", _deletes(), Units(3, 10)),
    _check(
        "BatchWriteItem",
        "WCU",
        _puts_and_deletes(batch_write_units(_SIZES), _batch_write),
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
