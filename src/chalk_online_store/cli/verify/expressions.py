"""Checks of expressions: event-time writes, refused conditions, names, and the limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import msgspec
import numpy as np

from chalk_online_store.cli.verify.context import (
    Check,
    CheckContext,
    Measured,
    ResponseLog,
    Units,
    accepted,
)
from chalk_online_store.codec.changes import (
    Attributes,
    Change,
    ConditionalWrite,
    is_same,
    merge,
    number,
    parse_item,
    render_fresh,
)
from chalk_online_store.codec.decoding import FIRST
from chalk_online_store.codec.layout import BASE, LATEST, ItemKey
from chalk_online_store.codec.shapes import Column, Shape
from chalk_online_store.dynamodb.updates import (
    MAX_EXPRESSION_BYTES,
    MAX_OPERATORS,
    Expected,
    short_cut,
)
from chalk_online_store.errors import ConditionFailed
from chalk_online_store.schema import Feature

_json = msgspec.json.encode
_AS_MERGED = "accepted, as merged"


# --- event-time writes ---------------------------------------------------------------------


def _send_short_cut(
    context: CheckContext, change: Change, expected: Expected = Expected.PLAIN
) -> None:
    """Send a change as a store does first. Raises `ConditionFailed` if the item is not expected."""
    client = context.client
    found = short_cut(context.layout, change, again=False, expected=expected)
    assert found is not None, "the change is short"
    if found.operation == "PutItem":
        body = client.bodies.put(render_fresh(context.layout, change), found.members)
    else:
        body = client.bodies.update(change.key, found.members)
    client.send(found.operation, body, client.matcher.write(found.operation, change.key))


def _difference(item: Attributes | None, expected: Attributes) -> str:
    """Return a text that names the attributes which differ from the expected item."""
    found, wanted = _with_base(item or {}), _with_base(expected)
    names = sorted(
        name
        for name in found.keys() | wanted.keys()
        if not is_same(found.get(name), wanted.get(name))
    )
    return f"accepted, other values of {', '.join(names)}" if names else _AS_MERGED


def _with_base(item: Attributes) -> Attributes:
    """Add the time of all values, which may be left out if it is the newest one."""
    return {BASE: item[LATEST], **item} if LATEST in item else item


def _check_nested(context: CheckContext) -> str:
    """Write parts of a group: on no item, on a whole group, and on a group with parts."""
    a, b = context.ids[:2]
    for begins_whole in (False, True):
        key = context.scratch.key()
        item: Attributes | None = None
        first = context.change(key, {a: number(1), b: number(1)}, whole=begins_whole)
        changes = [
            (first, Expected.PLAIN),
            (context.change(key, {b: number(2)}, whole=False, at=10), Expected.PLAIN),
            (context.change(key, {a: number(3)}, whole=False, at=30), Expected.PLAIN),
            (context.change(key, {b: number(4)}, whole=False, at=20), Expected.NEWER),
            (context.change(key, {a: number(5), b: number(5)}, at=40), Expected.OWN_TIMES),
        ]
        for change, expected in changes:
            _send_short_cut(context, change, expected)
            item = merge(context.layout, item, change)
            seen = _difference(context.client.item(key), item)
            if seen != _AS_MERGED:
                return seen
    return _AS_MERGED


def _check_refusals(context: CheckContext) -> str:
    client, key = context.client, context.scratch.key()
    client.apply(context.text(key, at=2))
    stored = client.item(key) or {}
    update = context.text(key, "older", at=1)
    put = context.change(key, {}, at=1)  # An erasure is a PutItem.
    seen = [
        _item_of_refusal(partial(_send_short_cut, context, each), stored) for each in (update, put)
    ]
    absent = context.scratch.key()
    swap = ConditionalWrite({**stored, **context.fresh(context.change(absent, {}))}, None)
    operation, body = client.bodies.swap(swap)
    expected = client.matcher.write(operation, absent)
    seen.append(_item_of_refusal(lambda: client.send(operation, body, expected), {}))
    return "UpdateItem {}, PutItem {}, absent item {}".format(*seen)


def _item_of_refusal(send: Callable[[], object], stored: Attributes) -> str:
    """Return a text on the item of a refusal, compared with the stored item."""
    try:
        send()
    except ConditionFailed as refused:
        if refused.item is None:
            return "nothing"
        item = parse_item(refused.item)
        names = item.keys() | stored.keys()
        same = all(is_same(item.get(name), stored.get(name)) for name in names)
        return "the item" if same else "another item"
    return "not refused"


# --- names ---------------------------------------------------------------------------------


def _check_names(context: CheckContext) -> str:
    """Write every attribute name of one character that items can have, and one of two."""
    client, key, layout = context.client, context.scratch.key(), context.layout
    values: dict[str, bytes | None] = {
        name: number(place) for place, name in enumerate(context.ids)
    }
    changes = [
        context.change(key, values),
        context.change(key, {context.ids[0]: number(-1)}, whole=False, at=1, width=len(values)),
        context.change(key, {}, at=-1),
    ]
    item: Attributes | None = None
    for change in changes:
        client.apply(change)
        item = merge(layout, item, change)
    columns = [Column(name, Feature(f"f{name}", int), f"verify.f{name}") for name in values]
    (row,), _ = client.read([key], Shape(layout, tuple(columns), projected=True))
    wanted = [-1, *range(1, len(values))]
    if row is None or list(row[FIRST:]) != wanted:  # type: ignore[index]
        return "a projection returned other values"
    seen = _difference(client.item(key), item or {})
    return _ALL_NAMES if seen == _AS_MERGED else seen


_ALL_NAMES = "all ids and @ ~ % ! written, projected and read"


# --- limits --------------------------------------------------------------------------------


class _Expression(NamedTuple):
    text: str
    names: dict[str, str]


def _expression(ids: Sequence[str], size: int, prefix: str, form: str, joiner: str) -> _Expression:
    """Return an expression of exactly `size` bytes: parts of `form`, made long by their aliases."""
    count = 17  # The aliases of 4 KB then have fewer than 255 characters, AWS's limit.
    letters = size - len(prefix) - count * len(form.format("#")) - (count - 1) * len(joiner)
    names = {}
    for place in range(count):
        width = letters // count + (place < letters % count)
        names["#" + f"{place}".zfill(width)] = ids[place]
    return _Expression(prefix + joiner.join(map(form.format, names)), names)


def _sizes(send: Callable[[CheckContext, int], None]) -> Callable[[CheckContext], str]:
    """Return a check of the size that an engine takes, and of one byte more."""

    def check(context: CheckContext) -> str:
        return _edge(MAX_EXPRESSION_BYTES, "bytes", lambda size: send(context, size))

    return check


def _edge(limit: int, what: str, send: Callable[[int], object]) -> str:
    at, above = accepted(partial(send, limit)), accepted(partial(send, limit + 1))
    return f"{limit:,} {what} {at}, {limit + 1:,} {above}"


def _send_update(
    context: CheckContext, key: ItemKey, update: str, condition: str, names: dict[str, str]
) -> None:
    """Send an update of the values `:v`, 1, and `:x`, the expiry in the attribute `#x`."""
    members = b'"UpdateExpression":%b,"ExpressionAttributeNames":%b,%b' % (
        _json(update),
        _json(names | {"#x": context.layout.ttl}),
        b'"ExpressionAttributeValues":{":v":{"N":"1"},":x":%b}' % number(context.expires_at),
    )
    if condition:
        members += b',"ConditionExpression":%b' % _json(condition)
    client = context.client
    body = client.bodies.update(key, members)
    client.send("UpdateItem", body, client.matcher.write("UpdateItem", key))


def _send_long_update(context: CheckContext, size: int) -> None:
    update, names = _expression(context.ids, size, "SET #x=:x,", "{}=:v", ",")
    _send_update(context, context.scratch.key(), update, "", names)


def _send_long_condition(context: CheckContext, size: int) -> None:
    condition, names = _expression(context.ids, size, "", "attribute_not_exists({})", " AND ")
    names["#set"] = context.ids[-1]
    _send_update(context, context.scratch.key(), "SET #x=:x,#set=:v", condition, names)


def _send_long_projection(context: CheckContext, size: int) -> None:
    client, key = context.client, context.scratch.key()
    projection, names = _expression(context.ids, size, "", "{}", ",")
    table = _json(client.table)
    body = (
        b'{"TableName":%b,"Key":%b,"ProjectionExpression":%b,"ExpressionAttributeNames":%b,'
        b'"ReturnConsumedCapacity":"TOTAL"}'
    ) % (table, client.bodies.key(key), _json(projection), _json(names))
    client.send("GetItem", body, client.matcher.raw_item(key))


def _check_operators(context: CheckContext) -> str:
    """Compare one attribute many times: each `=`, `AND` and `NOT` is an operator."""
    key, names = context.scratch.key(), {"#a": context.ids[0]}
    _send_update(context, key, "SET #x=:x,#a=:v", "", names)

    def send(operators: int) -> None:
        # n comparisons have n - 1 ANDs; for an even number, the first one is negated.
        parts = ["#a=:v"] * ((operators + 1) // 2)
        if operators % 2 == 0:
            parts = ["NOT #a<:v", *parts[1:]]
        _send_update(context, key, "SET #x=:x,#a=:v", " AND ".join(parts), names)

    return _edge(MAX_OPERATORS, "operators", send)


_SIZES = f"{MAX_EXPRESSION_BYTES:,} bytes accepted, {MAX_EXPRESSION_BYTES + 1:,} refused"
_OPERATORS = f"{MAX_OPERATORS} operators accepted, {MAX_OPERATORS + 1} refused"

EXPRESSION_CHECKS = [
    Check("nested if_not_exists", _AS_MERGED, _check_nested, Units(12, 12)),
    Check(
        "refused conditions",
        "UpdateItem the item, PutItem the item, absent item nothing",
        _check_refusals,
        Units(3, 6),
    ),
    Check("attribute names of one character", _ALL_NAMES, _check_names, Units(3, 5)),
    Check("size of an UpdateExpression", _SIZES, _sizes(_send_long_update), Units(2, 3)),
    Check("size of a ConditionExpression", _SIZES, _sizes(_send_long_condition), Units(2, 3)),
    Check("size of a ProjectionExpression", _SIZES, _sizes(_send_long_projection), Units(2.5, 2)),
    Check("operators of a condition", _OPERATORS, _check_operators, Units(1, 4)),
]


# --- Checks of transactions: all of their writes, or none ----------------------------------


def _is_accepted(context: CheckContext, swaps: Sequence[ConditionalWrite]) -> bool:
    return context.client.run(lambda call: context.client.backend.transact(swaps, call))


def _fresh(context: CheckContext, key: ItemKey, value: str) -> Attributes:
    return context.fresh(context.text(key, value))


def _count(context: CheckContext, keys: Sequence[ItemKey]) -> int:
    return sum(context.client.item(key) is not None for key in keys)


def _check_transaction(context: CheckContext) -> str:
    keys = [context.scratch.key() for _ in range(3)]
    old, *others = (_fresh(context, key, "old") for key in keys)
    done = _is_accepted(context, [ConditionalWrite(None, item) for item in (old, others[0])])
    written = _count(context, keys)
    # The second one exists already.
    refused = not _is_accepted(
        context, [ConditionalWrite(None, others[1]), ConditionalWrite(None, others[0])]
    )
    unchanged = _count(context, keys) == written
    new = _fresh(context, keys[0], "new")
    replaced = _is_accepted(
        context, [ConditionalWrite(old, new), ConditionalWrite(others[0], None)]
    )
    left = _count(context, keys)
    seen = (
        f"{'done' if done and written == 2 else 'not done'}",
        f"{'refused' if refused else 'not refused'} {'as a whole' if unchanged else 'in part'}",
        f"{'replaced and removed' if replaced and left == 1 else 'neither replaced nor removed'}",
    )
    return ", ".join(seen)


def _check_single(context: CheckContext) -> str:
    """A swap that is alone goes by PutItem and DeleteItem, at half the units."""
    key = context.scratch.key()
    old, new = _fresh(context, key, "old"), _fresh(context, key, "new")
    steps = [
        ConditionalWrite(None, old),
        ConditionalWrite(None, new),
        ConditionalWrite(new, None),
        ConditionalWrite(old, new),
        ConditionalWrite(new, None),
    ]
    done = [_is_accepted(context, [swap]) for swap in steps]
    return ", ".join("done" if each else "refused" for each in done)


TRANSACTION_CHECKS = [
    Check(
        "transactions",
        "done, refused as a whole, replaced and removed",
        _check_transaction,
        Units(12, 15),
    ),
    Check(
        "conditional PutItem and DeleteItem",
        "done, refused, refused, done, done",
        _check_single,
        Units(1, 5),
    ),
]


# --- Checks of the headers of all responses of a run, and of latency -----------------------


_PERCENTILES = (50, 95, 99)
_BATCH = 10


def _check_checksums(context: CheckContext) -> str:
    log = _log(context)
    if log.damaged:
        return "wrong on some responses"
    if log.checksums == log.responses:
        return "on every response, all correct"
    return "on some responses" if log.checksums else "on no response"


def _check_request_ids(context: CheckContext) -> str:
    log = _log(context)
    ids = log.request_ids - {""}
    if "" in log.request_ids:
        return "on no response" if not ids else "on some responses"
    return "on every response, all different" if len(ids) == log.responses else "some twice"


def _log(context: CheckContext) -> ResponseLog:
    """Return the log of the run, after one more request: it is never empty."""
    context.client.item(context.scratch.key())
    return context.client.transport.log


# --- latency -------------------------------------------------------------------------------

_Send = Callable[[CheckContext, list[ItemKey], int], object]
"""Sends request number n. All of the keys have items."""


def _update(context: CheckContext, keys: list[ItemKey], number: int) -> None:
    context.client.apply(context.text(keys[0], at=number + 1))


def _put(context: CheckContext, keys: list[ItemKey], number: int) -> None:
    fresh = context.fresh(context.change(context.scratch.beside(keys[0], f"p{number}"), {}))
    context.client.run(
        lambda call: context.client.backend.transact([ConditionalWrite(None, fresh)], call)
    )


def _put_two(context: CheckContext, keys: list[ItemKey], number: int) -> None:
    made = [context.scratch.beside(keys[0], f"{part}{number}") for part in "tu"]
    swaps = [ConditionalWrite(None, context.fresh(context.change(key, {}))) for key in made]
    context.client.run(lambda call: context.client.backend.transact(swaps, call))


_SENDS: dict[str, _Send] = {
    "GetItem": lambda c, keys, n: c.client.read(keys[:1], consistent=False),
    "BatchGetItem": lambda c, keys, n: c.client.read(keys, consistent=False),
    "Query": lambda c, keys, n: c.client.query(keys[1].pk),
    "UpdateItem": _update,
    "PutItem": _put,
    "BatchWriteItem": lambda c, keys, n: c.client.put_all([c.text(key) for key in keys[1:]]),
    "TransactWriteItems": _put_two,
    "DeleteItem": lambda c, keys, n: c.client.delete(keys[:1]),
}


def _latency_check(operation: str, send: _Send, units: Units) -> Callable[[int], Check]:
    def run(context: CheckContext) -> Measured:
        keys = [context.scratch.key() for _ in range(_BATCH)]
        context.client.put_all([context.text(key) for key in keys])
        latencies = context.client.transport.log.latencies
        before = len(latencies.get(operation, ()))
        for count in range(context.requests):
            send(context, keys, count)
        seconds = latencies[operation][before:]
        figures = {
            f"p{percent}_ms": 1e3 * float(np.percentile(seconds, percent, method="inverted_cdf"))
            for percent in _PERCENTILES
        }
        figures["max_ms"] = 1e3 * max(seconds)
        shown = ", ".join(f"{name[:-3]} {value:.1f}" for name, value in figures.items())
        return Measured(f"{shown} ms", True, {**figures, "requests": float(len(seconds))})

    def make(requests: int) -> Check:
        cost = Units(units.rcu * requests + _BATCH, units.wcu * requests + 2 * _BATCH)
        return Check(f"latency of {operation}", "measured", run, cost)

    return make


_UNITS = {
    "GetItem": Units(0.5),
    "BatchGetItem": Units(0.5 * _BATCH),
    "Query": Units(1),
    "UpdateItem": Units(0, 1),
    "PutItem": Units(0, 2),
    "BatchWriteItem": Units(0, _BATCH - 1),
    "TransactWriteItems": Units(0, 6),
    "DeleteItem": Units(0, 1),
}


def latency_checks(requests: int) -> list[Check]:
    """Return a check for each operation. Each measures `requests` requests."""
    return [_latency_check(name, send, _UNITS[name])(requests) for name, send in _SENDS.items()]


RESPONSE_CHECKS = [
    Check("CRC32 headers", "on every response, all correct", _check_checksums, Units(2, 1)),
    Check("request ids", "on every response, all different", _check_request_ids, Units(2, 1)),
]
