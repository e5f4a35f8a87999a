"""What would make our items smaller still, or does already, without leaving native types.

Each idea is a change to an item as the store writes it today. None is built in; the figures are
what `docs/decisions/0003-item-size.md` decides by.
"""

from __future__ import annotations

import base64
import statistics
import string
import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import reduce
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from benchmarks.entities import COUNTS, entities, namespace
from benchmarks.layouts import Item, Row, codec_of, our_layout
from benchmarks.table import as_table
from chalk_online_store.codec.layout import ALPHABET, BASE, ERASED, LATEST, WIDTH, own
from chalk_online_store.codec.sizes import item_size, value_size
from chalk_online_store.planning.units import write_units

Ids: TypeAlias = Mapping[str, str]
"""Feature names to ids."""

Idea: TypeAlias = Callable[[Item, Row, Ids], Item]

_DECLARED = {"pk": "<", "sk": ">", "ttl": "^"}
"""Names of one character that are in no id."""

_PRINTABLE = sorted(
    set(string.ascii_letters + string.digits + string.punctuation)
    - {LATEST, BASE, WIDTH, ERASED, *_DECLARED.values()}
)


class Saving(NamedTuple):
    """What an idea saves of an entity with so many features, on average."""

    idea: str
    features: int
    bytes: float
    share: float
    wcu: float


def _number(value: object) -> Item:
    return {"N": str(value)}


def _binary(raw: bytes) -> Item:
    return {"B": base64.b64encode(raw).decode()}


def _each(kind: type, form: Callable[[Any], Item]) -> Idea:
    """An idea that gives the values of one type another form."""

    def idea(item: Item, row: Row, ids: Ids) -> Item:
        return item | {ids[n]: form(v) for n, v in row.items() if n in ids and type(v) is kind}

    return idea


def _shorter_of_digits_and_bytes(value: float) -> Item:
    return min(_number(repr(value)), _binary(struct.pack(">d", value)), key=value_size)


def _own_times(item: Item, row: Row, ids: Ids) -> Item:
    return item | {own(feature_id): item[LATEST] for feature_id in ids.values()}


def _packed_bools(item: Item, row: Row, ids: Ids) -> Item:
    bools = [ids[name] for name, value in row.items() if type(value) is bool]
    bits = sum(item[feature_id]["BOOL"] << place for place, feature_id in enumerate(bools))
    kept = {name: value for name, value in item.items() if name not in bools}
    return kept | {bools[0]: _number(bits)}


def _no_width(item: Item, row: Row, ids: Ids) -> Item:
    return {name: value for name, value in item.items() if name != WIDTH}


def _time_in(microseconds: int) -> Idea:
    return lambda item, row, ids: item | {LATEST: _number(int(item[LATEST]["N"]) // microseconds)}


def _rounded_expiry(item: Item, row: Row, ids: Ids) -> Item:
    return item | {"ttl": _number(-(-int(item["ttl"]["N"]) // 10_000) * 10_000)}


def _short_names(item: Item, row: Row, ids: Ids) -> Item:
    return {_DECLARED.get(name, name): value for name, value in item.items()}


def _base_62_key(item: Item, row: Row, ids: Ids) -> Item:
    prefix, key = item["pk"]["S"].split(":")
    return item | {"pk": {"S": f"{prefix}:{_in_digits(int(key), ALPHABET)}"}}


def _printable_ids(item: Item, row: Row, ids: Ids) -> Item:
    places = {feature_id: place for place, feature_id in enumerate(ids.values())}
    return {_printable(places[n]) if n in places else n: v for n, v in item.items()}


def _printable(place: int) -> str:
    letters = len(_PRINTABLE)
    if place < letters:
        return _PRINTABLE[place]
    return _PRINTABLE[place // letters - 1] + _PRINTABLE[place % letters]


def _in_digits(number: int, digits: str) -> str:
    head, last = divmod(number, len(digits))
    return (_in_digits(head, digits) if head else "") + digits[last]


def _milliseconds(value: datetime) -> Item:
    return _number(round(value.timestamp() * 1000))


def _together(*ideas: Idea) -> Idea:
    return lambda item, row, ids: reduce(lambda so_far, idea: idea(so_far, row, ids), ideas, item)


_short_floats = _each(float, _shorter_of_digits_and_bytes)

IDEAS: dict[str, Idea] = {
    "built in: one observed-at an item, not one a feature": _own_times,
    "floats: 8 bytes of B where digits take more": _short_floats,
    "bools of a group in one number": _packed_bools,
    "`pk`, `sk`, `ttl` named by one character": _short_names,
    "int keys in base 62": _base_62_key,
    f"ids of {len(_PRINTABLE)} characters, not 62": _printable_ids,
    "no `%`": _no_width,
    "expiry rounded up to 10,000 s": _rounded_expiry,
    "these seven together": _together(
        _short_floats,
        _packed_bools,
        _base_62_key,
        _printable_ids,
        _no_width,
        _rounded_expiry,
        _short_names,
    ),
    "lossy: floats as float32, 9 digits": _each(float, lambda v: _number(np.float32(v))),
    "lossy: floats as float32, 4 bytes of B": _each(float, lambda v: _binary(struct.pack("f", v))),
    "lossy: vectors as float16": _each(np.ndarray, lambda v: _binary(v.astype("<f2").tobytes())),
    "lossy: datetimes in milliseconds": _each(datetime, _milliseconds),
    "lossy: observed-at in milliseconds": _time_in(1_000),
    "lossy: observed-at in seconds": _time_in(1_000_000),
}


def savings() -> list[Saving]:
    """What each idea saves at each number of features."""
    return [saving for count in COUNTS for saving in _savings(count)]


def _savings(count: int) -> list[Saving]:
    declared = namespace(count)
    (group,) = codec_of(declared).groups.values()
    ids = {column.feature.name: column.id for column in group.columns}
    rows = entities(count)
    items = [our_layout(declared)(row) for row in rows]
    return [_saving(name, idea, items, rows, ids) for name, idea in IDEAS.items()]


def _saving(name: str, idea: Idea, items: Sequence[Item], rows: Sequence[Row], ids: Ids) -> Saving:
    before = [item_size(item) for item in items]
    changed = (idea(item, row, ids) for item, row in zip(items, rows, strict=True))
    after = [item_size(item) for item in changed]
    if name.startswith("built in"):
        before, after = after, before
    saved = statistics.mean(before) - statistics.mean(after)
    wcu = statistics.mean(map(write_units, before)) - statistics.mean(map(write_units, after))
    return Saving(name, len(ids), saved, saved / statistics.mean(before), wcu)


def as_text(results: Sequence[Saving]) -> str:
    """A line an idea; bytes and their share saved at each number of features, and WCU."""
    head = ["idea"] + [f"{what} of {count}" for count in COUNTS for what in ("bytes", "WCU")]
    body = []
    for name in IDEAS:
        cells = [
            cell
            for saving in results
            if saving.idea == name
            for cell in (f"{saving.bytes:,.0f} ({saving.share:.1%})", f"{saving.wcu:.2f}")
        ]
        body.append([name, *cells])
    return as_table(head, body, texts=1)
