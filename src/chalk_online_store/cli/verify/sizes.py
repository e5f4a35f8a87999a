"""Checks of the limits of items, keys, batches and responses."""

from __future__ import annotations

from collections.abc import Callable

from chalk_online_store.backend import chunks
from chalk_online_store.cli.verify.checks import Check, Units
from chalk_online_store.cli.verify.context import CheckContext, accepted
from chalk_online_store.codec.changes import Change
from chalk_online_store.codec.keys import MAX_KEY_BYTES
from chalk_online_store.codec.layout import ItemKey
from chalk_online_store.codec.raw_items import ATTRIBUTES, RawItemShape
from chalk_online_store.codec.sizes import MAX_ITEM_BYTES
from chalk_online_store.codec.swaps import MAX_TRANSACT_ITEMS, ConditionalWrite
from chalk_online_store.dynamodb import responses as answers
from chalk_online_store.dynamodb.backend import BATCH_WRITE
from chalk_online_store.dynamodb.reading import BATCH_GET
from chalk_online_store.planning.units import read_units, write_units

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
