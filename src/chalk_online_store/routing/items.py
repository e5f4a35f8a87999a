"""What regions tell each other through the table: heartbeats, and an operator's orders."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from chalk_online_store.codec.changes import Attributes, key_attributes, key_of, number, read_number
from chalk_online_store.codec.layout import RESERVED, ItemKey, TableLayout
from chalk_online_store.codec.values import UNREADABLE
from chalk_online_store.errors import DamagedItem
from chalk_online_store.routing.commands import RegionCommands

PARTITION = f"{RESERVED}regions"

_BEAT = "beat:"
"""Begins the sort key of a heartbeat; the region that it was written in follows."""

_ORDERS = "orders"
_AT = "at"
_WHAT = "what"

_orders = msgspec.json.Decoder(RegionCommands)


@dataclass(frozen=True, slots=True)
class Seen:
    """What one region shows: heartbeats (UTC us) by region, and orders; and the items of these."""

    beats: dict[str, int] = field(default_factory=dict)
    orders: RegionCommands | None = None
    beat_items: dict[str, Attributes] = field(default_factory=dict)
    orders_item: Attributes | None = None


def read(items: Iterable[Attributes], layout: TableLayout) -> Seen:
    """What items of the partition say; what cannot be read is passed over."""
    beats: dict[str, int] = {}
    beat_items: dict[str, Attributes] = {}
    orders, orders_item = None, None
    for item in items:
        sk = key_of(layout, item).sk
        if sk.startswith(_BEAT):
            region = sk.removeprefix(_BEAT)
            beat_items[region], beats[region] = item, _integer(item)
        elif sk == _ORDERS:
            orders, orders_item = _orders_in(item), item
    return Seen(beats, orders, beat_items, orders_item)


def beat(region: str, now: int, layout: TableLayout) -> Attributes:
    """A region's heartbeat at `now`, UTC microseconds."""
    key = key_attributes(layout, ItemKey(PARTITION, _BEAT + region))
    return {**key, _AT: number(now)}


def order(orders: RegionCommands, layout: TableLayout) -> Attributes:
    """The item of an operator's orders."""
    key = key_attributes(layout, ItemKey(PARTITION, _ORDERS))
    text = msgspec.json.encode(orders).decode()
    return {**key, _WHAT: msgspec.json.encode({"S": text})}


def _integer(item: Attributes) -> int:
    try:
        return read_number(item.get(_AT)) or 0
    except DamagedItem:
        return 0


def _orders_in(item: Attributes) -> RegionCommands | None:
    try:
        return _orders.decode(msgspec.json.decode(item[_WHAT], type=dict[str, str])["S"])
    except (KeyError, *UNREADABLE):
        return None
