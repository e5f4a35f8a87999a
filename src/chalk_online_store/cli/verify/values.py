"""Checks of values: each type's values are read back bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

import msgspec

from chalk_online_store.cli.verify.context import Check, CheckContext, Units, accepted
from chalk_online_store.codec.changes import ConditionalWrite, key_attributes, render_item
from chalk_online_store.codec.changes import number as number_attribute
from chalk_online_store.codec.shapes import Column, Shape
from chalk_online_store.errors import RequestRefused
from chalk_online_store.schema import Feature

_NUMBERS: Sequence[tuple[Any, Any]] = [
    *((int, value) for value in (0, -1, 12_300, 10**37, 10**38 - 1, 1 - 10**38)),
    *((float, float(value)) for value in ("0.1", "1e22", "1e-130", "9.99e125", "123456789.125")),
    *((float, float(value)) for value in ("-0.0", "5e-324", "1e300", "inf", "nan")),
    *((Decimal, Decimal(value)) for value in ("1.1", "1.10", "-0", "1E+3", "0.000", "-0.5")),
    (Decimal, Decimal("1E-130")),
    (Decimal, Decimal("1." + "2" * 36 + "1")),
]
"""Numbers that DynamoDB has, and others, which are stored in another form."""

_BINARY: Sequence[tuple[Any, Any]] = [
    *((bytes, value) for value in (b"", b"\0", b"ab", b"abc", bytes(range(256)))),
    (UUID, UUID(int=2**127 + 1)),
    (frozenset[bytes], frozenset((b"\0", b"\xff" * 17))),
]

_EMPTY: Sequence[tuple[Any, Any]] = [
    (str, ""),
    (bytes, b""),
    (list[int], []),
    (dict[str, int], {}),
    (set[int], set()),
    (int | None, None),
    (list[str], ["", ""]),
]

_TEXT = (
    '"\\/\b\f\n\r\t' + "".join(map(chr, range(32))) + "\x7f\u0085\u2028\u2029\ufeff\uffff"
    "é☃\U0001f600</script>\\u0041%s{}"
)
"""What JSON escapes, or some writers of JSON do."""

_RAW_NUMBERS = ("1.10", "1E3", "-0", "0.000", "007", "1.5e-7", "1E-130", "9.9E+125", "-12e1")
_NO_NUMBERS = {"39 digits": "1" * 39, "1E126": "1E126", "1E-131": "1E-131", "NaN": "NaN"}


def _check_values(context: CheckContext, values: Sequence[tuple[Any, Any]]) -> str:
    """Write values as features of their types, and compare them with the values read."""
    client, key = context.client, context.scratch.key()
    columns = tuple(
        Column(name, Feature(f"f{place}", kind), f"verify.f{place}")
        for place, (name, (kind, _)) in enumerate(zip(context.ids, values, strict=False))
    )
    stored = {
        column.id: column.encode(value) for column, (_, value) in zip(columns, values, strict=True)
    }
    client.apply(context.change(key, stored))
    shape = Shape(context.layout, columns, projected=True)
    (row,), _ = client.read([key], shape)
    if row is None or isinstance(row, Exception):
        return "no item"
    cells = [shape.cell(row, place) for place in range(len(columns))]
    wrong = [
        f"{_name(kind)} {value!r}"
        for (kind, value), cell in zip(values, cells, strict=True)
        if cell is None or not _is_same(cell.value, value)
    ]
    return f"not as written: {', '.join(wrong)}" if wrong else f"{len(values)} as written"


def _is_same(read: Any, written: Any) -> bool:
    """Return True if two values are the same to the bit, as -0.0 and 0.0 are not."""
    if isinstance(written, set | frozenset):
        return bool(read == written)
    return repr(read) == repr(written)


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind))


def _check_numbers(context: CheckContext) -> str:
    return _check_values(context, _NUMBERS)


def _check_binary(context: CheckContext) -> str:
    return _check_values(context, _BINARY)


def _check_empty(context: CheckContext) -> str:
    return _check_values(context, _EMPTY)


def _put_number(context: CheckContext, number: str) -> Decimal | None:
    """Put a number in a form that stores do not send, and return it as it is read."""
    client, key = context.client, context.scratch.key()
    name, value = context.ids[0], b'{"N":"%b"}' % number.encode()
    attributes = {**key_attributes(context.layout, key), name: value}
    attributes[context.layout.ttl] = number_attribute(context.expires_at)
    operation, body = client.bodies.swap(ConditionalWrite(None, attributes))
    client.send(operation, body, client.matcher.write(operation, key))
    found = client.item(key)
    return None if found is None else Decimal(msgspec.json.decode(found[name])["N"])


def _check_forms(context: CheckContext) -> str:
    """Exact updates compare items by value, so an engine may write numbers as it likes."""
    wrong = []
    for number in _RAW_NUMBERS:
        try:
            found = _put_number(context, number)
        except RequestRefused:
            wrong.append(f"{number} refused")
        else:
            if found != Decimal(number):
                wrong.append(f"{number} became {found}")
    return ", ".join(wrong) or f"{len(_RAW_NUMBERS)} equal by value"


def _check_no_numbers(context: CheckContext) -> str:
    taken = [
        name
        for name, number in _NO_NUMBERS.items()
        if accepted(partial(_put_number, context, number)) == "accepted"
    ]
    return f"accepted: {', '.join(taken)}" if taken else f"{len(_NO_NUMBERS)} refused"


def _check_texts(context: CheckContext) -> str:
    """Read a text as a value, as a name in a map and as a key, by each operation that reads."""
    client = context.client
    key = context.scratch.key(_TEXT)
    other = context.scratch.key("other")
    text, names = Feature("text", str), Feature("names", dict[str, str])
    a, b = context.ids[:2]
    columns = (Column(a, text, "verify.text"), Column(b, names, "verify.names"))
    values = (_TEXT, {_TEXT: _TEXT})
    stored = {
        column.id: column.encode(value) for column, value in zip(columns, values, strict=True)
    }
    client.apply(context.change(key, stored))
    shape = Shape(context.layout, columns)
    (one,), _ = client.read([key], shape)
    (batch, _), _ = client.read([key, other], shape)
    items, _ = client.query(key.pk)
    queried = shape.decode_items([render_item(item) for item in items])
    wrong = []
    for operation, row in (("GetItem", one), ("BatchGetItem", batch), ("Query", queried[0])):
        if row is None or isinstance(row, Exception):
            wrong.append(operation)
            continue
        cells = [shape.cell(row, place) for place in range(2)]
        if [cell and cell.value for cell in cells] != [*values] or row[0] != key.pk:
            wrong.append(operation)
    return f"other texts by {', '.join(wrong)}" if wrong else _ALL_TEXTS


_ALL_TEXTS = "value, map key and partition key as written"

VALUE_CHECKS = [
    Check("numbers", f"{len(_NUMBERS)} as written", _check_numbers, Units(2, 2)),
    Check("forms of numbers", f"{len(_RAW_NUMBERS)} equal by value", _check_forms, Units(18, 18)),
    Check("numbers out of range", f"{len(_NO_NUMBERS)} refused", _check_no_numbers, Units(4, 4)),
    Check("binary values", f"{len(_BINARY)} as written", _check_binary, Units(2, 2)),
    Check("empty values and nulls", f"{len(_EMPTY)} as written", _check_empty, Units(2, 2)),
    Check("JSON escapes", _ALL_TEXTS, _check_texts, Units(6, 3)),
]
