"""Items as changes, to bring them into another table, and as hashes, to see that they are there.

An item is what its changes made of it. `changes_of` gives changes that make the same of nothing:
the same values, each with its observed-at, and the same erasures. Merged into what is there
already, the newer wins as always, so that an item may be copied twice, and beside other writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

import msgspec
import xxhash

from chalk_online_store.codec.changes import (
    Attributes,
    Change,
    Times,
    features_of,
    key_of,
    read_number,
)
from chalk_online_store.codec.layout import ERASED, WIDTH, TableLayout


def changes_of(layout: TableLayout, item: Attributes) -> list[Change]:
    """What brings an item about where nothing is, in the order in which it has to be applied."""
    return list(_Item(layout, item).changes())


class _Item:
    def __init__(self, layout: TableLayout, item: Attributes) -> None:
        self._item = item
        self._key = key_of(layout, item)
        self._expires_at = read_number(item.get(layout.ttl))
        self._width = read_number(item.get(WIDTH)) or 0
        self._times = Times(item)
        self._features = features_of(item, layout)

    def changes(self) -> Iterator[Change]:
        if ERASED in self._item:
            yield self._change(self._times.erased, {}, whole=True)
        by_time: dict[int, dict[str, bytes | None]] = {}
        for name in self._features:
            by_time.setdefault(self._times.of(name), {})[name] = self._item.get(name)
        base = by_time.pop(self._times.base, {}) if WIDTH in self._item else {}
        together = {name: value for name, value in base.items() if value is not None}
        if together:
            yield self._change(self._times.base, together, whole=True)
        if gone := {name: None for name, value in base.items() if value is None}:
            by_time[self._times.base] = dict(gone)
        for time in sorted(by_time):
            yield self._change(time, by_time[time], whole=False)

    def _change(self, time: int, values: Mapping[str, bytes | None], *, whole: bool) -> Change:
        return Change.of(self._key, time, values, whole, self._width, self._expires_at)


# --- comparing -----------------------------------------------------------------------------


def hash_item(layout: TableLayout, item: Attributes) -> int:
    """64 bits of all that an item says, however its engine writes that down.

    When a tombstone expires depends on the clock of the process that has deleted the entity, and so
    differs between two stores that both were asked to. Of a tombstone it counts only that it does.
    """
    times, features = Times(item), features_of(item, layout)
    said = [(name, times.of(name), _value(item.get(name))) for name in features]
    expires_at = read_number(item.get(layout.ttl))
    if expires_at is not None and not features:
        expires_at = 0
    whole = (*key_of(layout, item), times.erased, expires_at, said)
    return xxhash.xxh3_64_intdigest(msgspec.json.encode(whole))


def _value(attribute: bytes | None) -> Any:
    return None if attribute is None else _plain(msgspec.json.decode(attribute))


def _plain(attribute: Mapping[str, Any]) -> Any:
    """An attribute in one form for all: engines order sets and maps as they like."""
    ((kind, value),) = attribute.items()
    match kind:
        case "N":
            return kind, _number(value)
        case "NS":
            return kind, sorted(map(_number, value))
        case "SS" | "BS":
            return kind, sorted(value)
        case "L":
            return kind, [_plain(each) for each in value]
        case "M":
            return kind, [(name, _plain(value[name])) for name in sorted(value)]
    return kind, value


def _number(text: str) -> str:
    return str(Decimal(text).normalize())
