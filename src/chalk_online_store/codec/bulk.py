"""Many values of one type to attributes at once, in C as far as it goes.

The same bytes as the encoders of `values` and `nested` give one by one, several times sooner:
msgspec encodes all values in one call, and what it wrote is cut into attributes. That holds for
the plain case only, values of exactly the declared type with nothing special about them. In any
other case every value goes through its encoder.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import msgspec
import numpy as np

from chalk_online_store.codec.compiled import kernels
from chalk_online_store.codec.values import MAX_INT, NULL, Encode, microseconds_utc
from chalk_online_store.schema.types import FeatureType, Scalar, VectorType

EncodeAll: TypeAlias = Callable[[Sequence[Any]], list[bytes]]
"""Values to their attributes' JSON. Raises what one of them cannot be stored for, of any class."""

_Plain: TypeAlias = Callable[[Sequence[Any]], "list[bytes] | None"]
"""The same, for values of exactly one class; None where one of them is special."""

_json = msgspec.json.encode
_NONE = type(None)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FIRST = microseconds_utc(datetime.min.replace(tzinfo=UTC))
_LAST = microseconds_utc(datetime.max.replace(tzinfo=UTC))


def encode_each(encode: Encode) -> EncodeAll:
    """One by one: what every type falls back to."""
    return lambda values: list(map(encode, values))


def encoder_of_stored(nullable: bool) -> EncodeAll:
    """An encoder of moments that are integers already, as they are stored."""

    def encode_all(numbers: Sequence[int]) -> list[bytes]:
        if None in numbers:
            raise TypeError
        return _cut(b"N", _json(numbers)[1:-1], b",") if numbers else []

    return _with_nulls(encode_all) if nullable else encode_all


def encoder_of_all(kind: FeatureType, encode: Encode, nullable: bool) -> EncodeAll:
    """An encoder of many values of a type, of which `encode` stores one."""
    encode_all = encode_each(encode)
    if isinstance(kind, VectorType) and not kind.listed:
        encode_all = _where_plain(np.ndarray, _plain_vectors(kind), encode)
    elif isinstance(kind, Scalar) and kind.name in _PLAIN:
        encode_all = _where_plain(*_PLAIN[kind.name], encode)
    encode_all = _with_nulls(encode_all) if nullable else encode_all
    plain = _compiled(kind, nullable)
    return encode_all if plain is None else _first(plain, encode_all)


def _first(plain: _Plain, otherwise: EncodeAll) -> EncodeAll:
    def encode_all(values: Sequence[Any]) -> list[bytes]:
        found = plain(values)
        return otherwise(values) if found is None else found

    return encode_all


def _compiled(kind: FeatureType, nullable: bool) -> _Plain | None:
    """Return the compiled encoder of a type; None if there is none."""
    compiled = kernels()
    if compiled is None:
        return None
    if kind == Scalar("float"):
        return _compiled_floats(compiled.cut)
    if isinstance(kind, VectorType):
        if kind.listed:
            return None
        code, letter, size = 7, _BUFFER_FORMATS[kind.dtype], kind.size
    elif isinstance(kind, Scalar) and kind.name in _COMPILED:
        code, letter, size = _COMPILED[kind.name], "-", 0
    else:
        return None
    encode, null = compiled.encode, NULL if nullable else None

    def plain(values: Sequence[Any]) -> list[bytes] | None:
        found: list[bytes] | None
        found = encode(code, values, null, _TRUE, _FALSE, np.ndarray, letter, size)
        return found

    return plain


def _compiled_floats(cut: Callable[[bytes], list[bytes] | None]) -> _Plain:
    """Msgspec writes the shortest digits of many floats sooner than CPython's own function."""

    def plain(values: Sequence[Any]) -> list[bytes] | None:
        return cut(_json(values)) if set(map(type, values)) == {float} else None

    return plain


_TRUE, _FALSE = b'{"BOOL":true}', b'{"BOOL":false}'
_COMPILED = {"str": 0, "bytes": 1, "bool": 2, "int": 3, "datetime": 6}
_BUFFER_FORMATS = {"f2": "e", "f4": "f", "f8": "d"}
"""Of the types that compiled encoders know: `_kernels.encode` has the numbers."""


def _where_plain(cls: type, plain: _Plain, encode: Encode) -> EncodeAll:
    def encode_all(values: Sequence[Any]) -> list[bytes]:
        found = plain(values) if set(map(type, values)) == {cls} else None
        return list(map(encode, values)) if found is None else found

    return encode_all


def _with_nulls(encode_all: EncodeAll) -> EncodeAll:
    def encode_nullable(values: Sequence[Any]) -> list[bytes]:
        if _NONE not in set(map(type, values)):
            return encode_all(values)
        encoded = iter(encode_all([value for value in values if value is not None]))
        return [NULL if value is None else next(encoded) for value in values]

    return encode_nullable


def _cut(kind: bytes, texts: bytes, between: bytes) -> list[bytes]:
    """Attributes of a kind from the texts of their JSON; no text may hold a line feed."""
    lines = texts.replace(between, b'"}\n{"%b":"' % kind)
    return (b'{"%b":"%b"}' % (kind, lines)).split(b"\n")


_FAR = re.compile(rb"e-?[0-9]{3}")


def _plain_floats(values: Sequence[float]) -> list[bytes] | None:
    """NaN and infinities are `null` in JSON; DynamoDB's range ends at exponents of 3 digits."""
    texts = _json(values)[1:-1] + b","
    if b"n" in texts or b"-0.0," in texts or (b"e" in texts and _FAR.search(texts)):
        return None
    return _cut(b"N", texts[:-1], b",")


def _plain_ints(values: Sequence[int]) -> list[bytes] | None:
    if min(values) < -MAX_INT or max(values) > MAX_INT:
        return None
    return _cut(b"N", _json(values)[1:-1], b",")


def _plain_bools(values: Sequence[bool]) -> list[bytes]:
    return [_TRUE if value else _FALSE for value in values]


def _plain_strs(values: Sequence[str]) -> list[bytes] | None:
    """Without a backslash in the JSON, the next quote is always the end of a string."""
    texts = _json(values)[2:-2]
    return None if b"\\" in texts else _cut(b"S", texts, b'","')


def _plain_bytes(values: Sequence[bytes]) -> list[bytes]:
    return _cut(b"B", _json(values)[2:-2], b'","')


def _plain_datetimes(values: Sequence[datetime]) -> list[bytes] | None:
    """Without a time zone there is no difference to 1970, but a TypeError."""
    moments = [(value - _EPOCH) // _MICROSECOND for value in values]
    if min(moments) < _FIRST or max(moments) > _LAST:
        return None
    return _plain_ints(moments)


def _plain_vectors(kind: VectorType) -> _Plain:
    stored, shape = np.dtype(f"<{kind.dtype}"), (kind.size,)

    def plain(values: Sequence[Any]) -> list[bytes] | None:
        for value in values:
            if value.dtype != stored or value.shape != shape:
                return None
        return _plain_bytes([value.tobytes() for value in values])

    return plain


_PLAIN: dict[str, tuple[type, _Plain]] = {
    "float": (float, _plain_floats),
    "int": (int, _plain_ints),
    "bool": (bool, _plain_bools),
    "str": (str, _plain_strs),
    "bytes": (bytes, _plain_bytes),
    "datetime": (datetime, _plain_datetimes),
}
