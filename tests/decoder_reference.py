"""A simple reading of the contract of `codec._kernels.Decoder`, which shares nothing with it."""

from __future__ import annotations

import base64
import json
import math
import re
import struct
from collections.abc import Callable
from typing import Any

Column = tuple[str, str, Callable[[bytes], Any]]
Read = Callable[[Any], Any]
Row = tuple[Any, ...]
Answer = tuple[list[Row], Any]
KINDS = ["S", "B", "BOOL", "int", "float", "other"]


class Unsure(Exception):
    """Where the contract asks for a ValueError."""


class Object(list[tuple[str, Any]]):
    """The members of a JSON object, in order."""


_TOKEN = re.compile(rb'"(?:[^"\\\0-\x1f]|\\[^\0-\x1f])*"|[-+.0-9Eaeflnrstu]+')


def parse(body: bytes) -> Any:
    """JSON with objects as `Object`; NaN and the infinities, which JSON has not, refused.

    For a string or another scalar that is none in JSON stands half a surrogate pair: nobody would
    take it for a value or a name, but it may be skipped.
    """
    try:
        text = _TOKEN.sub(_mended, body).decode()
        return json.loads(text, object_pairs_hook=Object, parse_constant=refuse)
    except (ValueError, RecursionError):
        raise Unsure from None


def _mended(token: re.Match[bytes]) -> bytes:
    try:
        json.loads(token[0].decode())
    except ValueError:
        return b'"\\udcff"'
    return token[0]


def refuse(_: object) -> None:
    raise ValueError


def sure(condition: object) -> None:
    if not condition:
        raise Unsure


def reference(columns: list[Column], body: bytes) -> Answer:
    """A direct reading of the contract. Raises `Unsure`."""
    found = parse(body)
    sure(isinstance(found, Object))
    items, left = taken_out(found)
    return [row_of(columns, item) for item in items], left


def taken_out(answer: Object) -> tuple[list[Any], dict[str, Any]]:
    """The items of an answer, and the answer without."""
    where = [name for name, _ in answer if name in ("Item", "Items", "Responses")]
    sure(len(where) <= 1)
    left = dict(answer)
    if not where:
        return [], left
    found = left[where[0]]
    if where == ["Item"]:
        left["Item"] = found and Object()
        return [] if found is None else [found], left
    if where == ["Responses"]:
        sure(isinstance(found, Object) and len(found) <= 1)
        if not found:
            return [], left
        table, found = found[0]
        left["Responses"] = [(table, found and [Object()])]
    else:
        left["Items"] = found and [Object()]
    sure(isinstance(found, list) and not isinstance(found, Object))
    return found, left


def row_of(columns: list[Column], pairs: Any) -> Row:
    sure(isinstance(pairs, Object))
    read: dict[str, Read] = {"pk": text, "sk": text, "@": time, "~": time}
    read |= {"@" + name: time for name, _, _ in columns}
    read |= {name: nullable(READ[kind]) for name, kind, _ in columns}
    names = [name for name, _ in pairs if name in read]
    sure(len(set(names)) == len(names))
    item = {name: read[name](value) for name, value in pairs if name in read}
    sure("pk" in item and "sk" in item)
    latest = item.get("@", 0)
    base = item.get("~", latest)
    times: Any = tuple(
        item.get("@" + name, base) if name in item else None for name, _, _ in columns
    )
    own = any("@" + name in item for name, _, _ in columns)
    if None not in times and "~" not in item and not own:
        times = None
    return (item["pk"], item["sk"], latest, times, *(item.get(name) for name, _, _ in columns))


def only(attribute: Any, *types: str) -> tuple[str, Any]:
    sure(isinstance(attribute, Object) and len(attribute) == 1 and attribute[0][0] in types)
    kind, value = attribute[0]
    return kind, value


def nullable(read: Read) -> Read:
    return lambda value: None if value == [("NULL", True)] else read(value)


def text(attribute: Any) -> str:
    _, value = only(attribute, "S")
    sure(isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value))
    return str(value)


def binary(attribute: Any) -> bytes:
    _, value = only(attribute, "B")
    sure(isinstance(value, str))
    try:
        raw = base64.b64decode(value, validate=True)
    except ValueError:
        raise Unsure from None
    sure(base64.b64encode(raw).decode() == value)
    return raw


def boolean(attribute: Any) -> bool:
    _, value = only(attribute, "BOOL")
    sure(isinstance(value, bool))
    return bool(value)


def whole(attribute: Any) -> int:
    _, value = only(attribute, "N")
    sure(isinstance(value, str) and re.fullmatch(r"-?(0|[1-9][0-9]{0,37})", value))
    return int(value)


def time(attribute: Any) -> int:
    microseconds = whole(attribute)
    sure(abs(microseconds) < 2**63)
    return microseconds


def real(attribute: Any) -> float:
    kind, value = only(attribute, "N", "B")
    if kind == "B":
        raw = binary(attribute)
        sure(len(raw) == 8)
        return float(struct.unpack(">d", raw)[0])
    number = r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,4})?"
    sure(isinstance(value, str) and re.fullmatch(number, value, re.ASCII))
    sure(math.isfinite(float(value)) and (float(value) or not value.startswith("-")))
    return float(value)


def other(attribute: Any) -> Any:
    sure(isinstance(attribute, Object) and attribute and attribute[0][0] != "NULL")
    return attribute


READ: dict[str, Read] = dict(zip(KINDS, (text, binary, boolean, whole, real, other), strict=True))


def column(name: str, kind: str) -> Column:
    """A column whose reader knows the contract."""
    return name, kind, lambda attribute: READ[kind](parse(attribute))
