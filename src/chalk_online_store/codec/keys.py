r"""Primary keys to partition keys.

A partition key is `<namespace id>:<key>`: decimal digits for an int, the text itself for a str,
the 32 hexadecimal digits for a UUID; the parts of a tuple are joined by ":". Inside a tuple, ":"
and "\\" of a str are escaped by "\\", so no two keys share a text. Ids hold no ":", so no two
namespaces share one either.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from chalk_online_store.codec.compiled import kernels
from chalk_online_store.errors import DamagedItem, InvalidKey
from chalk_online_store.schema import Namespace, PrimaryKey

MAX_KEY_BYTES = 2048
"""AWS: Quotas in Amazon DynamoDB, "Partition key length: 1 to 2048 bytes"."""

_Encoder = Callable[[Any], str]


def key_encoder(namespace: str, key: PrimaryKey) -> _Encoder:
    """A function from a primary key to its text.

    The function raises `InvalidKey` for a key of another type than declared.
    """
    encoders = [_PARTS[part] for part in key.parts]
    expected = ", ".join(part.__name__ for part in key.parts)
    encode = _tuple_encoder(encoders) if key.composite else encoders[0]

    def encode_key(value: Any) -> str:
        try:
            return encode(value)
        except TypeError:
            kind = "tuple of " * key.composite + expected
            raise InvalidKey(
                f"{namespace}.{key.name}: the primary key is {kind}, not {_kind_of(value)}."
            ) from None

    return encode_key


def keys_encoder(namespace: str, key: PrimaryKey) -> Callable[[str, Sequence[Any]], list[str]]:
    """A function from a prefix and primary keys to their partition keys.

    It raises `InvalidKey` for a key that is of another type than declared, or too long.
    """
    encode_key = key_encoder(namespace, key)
    # The very types whose text is what a format makes of them: no bool, no member of an Enum.
    common = {key.annotation} if key.annotation in (int, str) else set()
    compiled = kernels() if common else None

    def encode_keys(prefix: str, values: Sequence[Any]) -> list[str]:
        if compiled is not None:
            found: list[str] | None = compiled.partition_keys(prefix, values, key.annotation)
            if found is not None:
                return found
        if common and common == {*map(type, values)}:
            try:
                pks = [f"{prefix}{value}" for value in values]
            except ValueError:  # Thousands of digits.
                pks = []
            # ASCII and short: what `partition_key` finds for most, all at once.
            if pks and max(map(len, pks)) <= MAX_KEY_BYTES and all(map(str.isascii, pks)):
                return pks
        return [partition_key(prefix, encode_key(value)) for value in values]

    return encode_keys


def parse_key(text: str, namespace: Namespace) -> Any:
    r"""A primary key from its text, as it lies in a partition key: `7`, or `7:a\:b` for a tuple.

    Raises `InvalidKey` where it is none of the namespace.
    """
    try:
        return _read_key(namespace.key, text)
    except ValueError:
        expected = ":".join(part.__name__ for part in namespace.key.parts)
        raise InvalidKey(f"A primary key of {namespace.name!r} is written as {expected}.") from None


def keys_decoder(key: PrimaryKey) -> Callable[[str, Sequence[str]], list[Any]]:
    """A function from a prefix and partition keys to their primary keys.

    It raises `DamagedItem` for a partition key that no primary key of this type has.
    """

    def decode_keys(prefix: str, pks: Sequence[str]) -> list[Any]:
        try:
            return [_read_key(key, pk.removeprefix(prefix)) for pk in pks]
        except ValueError:
            raise DamagedItem(
                f"A partition key does not hold a primary key of type {key.annotation}."
            ) from None

    return decode_keys


def _read_key(key: PrimaryKey, text: str) -> Any:
    """A primary key from its text. Raises `ValueError` where it is none of this type."""
    texts = _split(text) if key.composite else [text]
    parts = tuple(kind(part) for kind, part in zip(key.parts, texts, strict=True))
    return parts if key.composite else parts[0]


_PART = re.compile(r"(?:[^:\\]|\\.)*", re.DOTALL)


def _split(text: str) -> list[str]:
    """The parts of a tuple's text, without escapes."""
    parts, at = [], 0
    while True:
        found = _PART.match(text, at)
        assert found is not None
        parts.append(re.sub(r"\\(.)", r"\1", found[0], flags=re.DOTALL))
        at = found.end() + 1
        if at > len(text):
            return parts


def partition_key(prefix: str, text: str) -> str:
    """`prefix + text`, if DynamoDB can hold it; else `InvalidKey`."""
    pk = prefix + text
    if len(pk) * 4 > MAX_KEY_BYTES or not pk.isascii():  # Cheap bounds first.
        try:
            size = len(pk.encode())
        except UnicodeEncodeError:
            raise InvalidKey("A str key holds lone surrogates, which UTF-8 cannot.") from None
        if size > MAX_KEY_BYTES:
            raise InvalidKey(
                f"A key of {size} bytes: DynamoDB takes {MAX_KEY_BYTES} at most; hash long keys."
            )
    return pk


def _from_int(value: Any) -> str:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError
    try:
        return str(value.__index__())  # numpy's integers too
    except ValueError:
        raise InvalidKey("An int key of thousands of digits: hash long keys.") from None


def _from_str(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return str.__str__(value)  # Not the name of an enum member.


def _from_uuid(value: Any) -> str:
    if not isinstance(value, UUID):
        raise TypeError
    return value.hex


def _escaped(encode: _Encoder) -> _Encoder:
    if encode is not _from_str:
        return encode
    return lambda value: _from_str(value).replace("\\", "\\\\").replace(":", "\\:")


def _tuple_encoder(encoders: list[_Encoder]) -> _Encoder:
    parts = [_escaped(encode) for encode in encoders]

    def encode(value: Any) -> str:
        if not isinstance(value, tuple | list) or len(value) != len(parts):
            raise TypeError
        return ":".join(encode(part) for encode, part in zip(parts, value, strict=True))

    return encode


def _kind_of(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"{type(value).__name__} of " + ", ".join(type(part).__name__ for part in value)
    return type(value).__name__


_PARTS: dict[type, _Encoder] = {int: _from_int, str: _from_str, UUID: _from_uuid}
