"""Items in msgpack: what a key of Valkey holds.

A packed item is one map of the names that an item has in DynamoDB (see `codec.layout`) to values.
Its keys and its expiry are the server's: they are not in it. Observed-ats are 64 bits always, so
that the script in `scripts` compares them where they stand. A value is

- null, a bool or a str for NULL, BOOL and S;
- an int or a float for N, where that gives the same digits back;
- bytes for B. Eight of them are an extension of code 8: they may be a float (see `codec.values`);
- the attribute in DynamoDB's JSON, as an extension of code 1, for everything else;
- of an indexed vector, which is a list of numbers, the bytes of its floats, as an extension of code
  2, 3 or 4 for floats of 2, 4 and 8 bytes: a third of the JSON, and read without parsing it.

So `attribute_of(value_of(attribute)) == attribute` for whatever the encoders of `codec` write.
"""

from __future__ import annotations

import struct
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec
from msgspec.msgpack import Ext

from chalk_online_store.codec.changes import Attributes, Change, number, read_number
from chalk_online_store.codec.compiled import kernels
from chalk_online_store.codec.layout import BASE, ERASED, INDEXED, LATEST, WIDTH, TableLayout
from chalk_online_store.codec.values import (
    NULL,
    UNREADABLE,
    ValueRefused,
    list_of_vector,
    vector_of_list,
)
from chalk_online_store.errors import DamagedItem

JSON, EIGHT = 1, 8
VECTORS = {"f2": 2, "f4": 3, "f8": 4}
"""Codes of extensions."""

_DTYPES = {code: dtype for dtype, code in VECTORS.items()}

_json = msgspec.json.encode
_text = msgspec.json.Decoder(str)
_pack = msgspec.msgpack.encode
_unpack = msgspec.msgpack.Decoder(dict[str, Any])
_ZERO = ord("0")
_SPACED = len(b'{"BOOL": ')
"""Bytes in which an engine that writes spaces has written one."""
_TRUE, _FALSE = b'{"BOOL":true}', b'{"BOOL":false}'


# --- values --------------------------------------------------------------------------------


def value_of(attribute: bytes) -> Any:
    """What stands for an attribute in a packed item; for one of any engine, however spaced."""
    if b" " in attribute[:_SPACED]:
        attribute = _json(msgspec.json.decode(attribute))
    kind = attribute[2:4]
    if kind == b'N"':
        return _number(attribute)
    if kind == b'S"':
        return _text.decode(attribute[5:-1])
    if kind == b'B"':
        content = a2b_base64(attribute[6:-2])
        return Ext(EIGHT, content) if len(content) == EIGHT else content
    if kind == b"BO":
        return attribute == _TRUE
    return None if attribute == NULL else Ext(JSON, attribute)


def named_value_of(name: str, attribute: bytes) -> Any:
    """As `value_of`, of an attribute with a name: that of an indexed vector is packed as floats.

    No other list is, as earlier versions have those as JSON.
    """
    if _is_indexed(name) and attribute[2:4] == b'L"':
        found = vector_of_list(attribute)
        if found is not None:
            dtype, raw = found
            return Ext(VECTORS[dtype], raw)
    return value_of(attribute)


def _number(attribute: bytes) -> Any:
    text = attribute[6:-2]
    if text.isdigit():
        if len(text) < 20 and (text[0] != _ZERO or len(text) == 1):
            return int(text)  # Less than 2**64.
    elif b"." in text:
        close = float(text)
        if _json(close) == text:
            return close
    elif text[1:].isdigit():
        whole = int(text)
        if whole >= -(2**63) and b"%d" % whole == text:
            return whole
    return Ext(JSON, attribute)


def attribute_of(value: Any) -> bytes:
    """The attribute that a value of a packed item stands for; raises `DamagedItem`."""
    if value is None:
        return NULL
    if value is True or value is False:
        return _TRUE if value else _FALSE
    write = _WRITE.get(type(value))
    if write is None:
        raise DamagedItem("a value of no known form")
    attribute: bytes = write(value)
    return attribute


def _extension(value: Ext) -> bytes:
    content = bytes(value.data)
    if value.code == JSON:
        return content
    if value.code == EIGHT:
        return _binary(content)
    dtype = _DTYPES.get(value.code)
    if dtype is None or len(content) % int(dtype[1]):
        raise DamagedItem("a value of no known form")
    try:
        return list_of_vector(dtype, content)
    except ValueRefused as refused:
        raise DamagedItem(str(refused)) from None


def _binary(value: bytes) -> bytes:
    return b'{"B":"%b"}' % b2a_base64(value, newline=False)


_WRITE: dict[type, Any] = {
    int: number,
    float: lambda value: b'{"N":"%b"}' % _json(value),
    str: lambda value: b'{"S":%b}' % _json(value),
    bytes: _binary,
    Ext: _extension,
}


# --- items ---------------------------------------------------------------------------------


def packed_change(change: Change) -> bytes:
    """What a change puts: for a whole change, the item where nothing was, or all is replaced.

    For a partial one, its values and its observed-at.
    """
    kept = change.form.kept
    values = dict(zip(kept, map(named_value_of, kept, change.attributes), strict=True))
    times = [LATEST, *([ERASED] if change.erases else [])]
    width = {WIDTH: change.form.width} if change.form.whole else {}
    return _packed(dict.fromkeys(times, change.observed_at), width | values)


def packed_item(layout: TableLayout, item: Attributes) -> bytes:
    """An item of a table, without its key and its expiry.

    Raises as msgspec does, or a `ValueError`, for what is no item.
    """
    left_out = layout.reserved
    compiled = _kernels()
    # The kernel does not know the form of indexed vectors.
    if compiled is not None and type(item) is dict and not any(map(_is_indexed, item)):
        packed: bytes | None = compiled.pack(item, left_out)
        if packed is not None:
            return packed
    times, values = {LATEST: 0}, {}
    for name, attribute in item.items():
        if name in left_out:
            continue
        if name[0] == LATEST or name in (BASE, ERASED):
            times[name] = read_number(attribute) or 0
        else:
            values[name] = named_value_of(name, attribute)
    # In the order of most changes: what is alike is merged without being parsed.
    return _packed(times, {name: values[name] for name in sorted(values)})


def _is_indexed(name: str) -> bool:
    return name.startswith(INDEXED)


@cache
def _kernels() -> Any:
    return kernels()


def _packed(times: Mapping[str, int], values: Mapping[str, Any]) -> bytes:
    """A map of observed-ats, then values."""
    head = b"".join(_key(name) + packed_time(time) for name, time in times.items())
    count = len(times) + len(values)
    body = _pack(values)[1 if len(values) < 16 else 3 :]
    start = bytes((0x80 + count,)) if count < 16 else struct.pack(">BH", 0xDE, count)
    return start + head + body


def _key(name: str) -> bytes:
    return bytes((0xA0 + len(name),)) + name.encode()


def packed_time(time: int) -> bytes:
    """An observed-at, in UTC microseconds."""
    return struct.pack(">Bq", 0xD3, time)


def unpacked(item: bytes) -> dict[str, Any]:
    """The values of a packed item by name; raises `DamagedItem`."""
    try:
        return _unpack.decode(item)
    except UNREADABLE as error:
        raise DamagedItem(f"An item cannot be read: {type(error).__name__}.") from error


def attributes_of(item: bytes) -> dict[str, bytes]:
    """The attributes in a packed item: all but its key and its expiry. Raises `DamagedItem`."""
    return {name: attribute_of(value) for name, value in unpacked(item).items()}
