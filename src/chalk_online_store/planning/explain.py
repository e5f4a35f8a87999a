"""Where the bytes of a row's items go, and what they cost: without a table, before there is one.

The ids are those that an empty table would give. In a table in which 62 features of a namespace
are registered before it, a feature has an id of two characters instead of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from chalk_online_store.codec.changes import Change, merge, render_item
from chalk_online_store.codec.layout import BASE, ERASED, LATEST, WIDTH, TableLayout, own
from chalk_online_store.codec.namespaces import GroupCodec
from chalk_online_store.codec.sizes import value_size
from chalk_online_store.operations.times import time_of, times_of_rows
from chalk_online_store.planning.items import draft_codec
from chalk_online_store.planning.units import (
    batch_read_units,
    batch_write_units,
    read_units,
    write_units,
)
from chalk_online_store.schema import Namespace, namespace_of
from chalk_online_store.schema.instances import rows_of

_HEADINGS = ("", "stands for", "type", "name", "value", "bytes")


@dataclass(frozen=True, slots=True)
class AttributeBytes:
    """One attribute of an item: its name in the table, and what it stands for.

    `kind` is DynamoDB's type, such as "N".
    """

    name: str
    stands_for: str
    kind: str
    name_bytes: int
    value_bytes: int

    @property
    def bytes(self) -> int:
        """What it adds to the item."""
        return self.name_bytes + self.value_bytes


@dataclass(frozen=True, slots=True)
class ItemBytes:
    """One item: a group of an entity."""

    group: str
    attributes: tuple[AttributeBytes, ...]

    @property
    def bytes(self) -> int:
        """The item's size."""
        return sum(attribute.bytes for attribute in self.attributes)

    @property
    def wcu(self) -> int:
        """What it costs to write it where nothing larger was."""
        return write_units(self.bytes)

    @property
    def rcu(self) -> float:
        """What an eventually consistent read of it costs."""
        return read_units(self.bytes)

    @property
    def consistent_rcu(self) -> float:
        """What a strongly consistent read of it costs."""
        return read_units(self.bytes, consistent=True)


@dataclass(frozen=True, slots=True)
class Explanation:
    """The items of a row, as they lie in the table after it was written where nothing was.

    `print` shows a table of every attribute.
    """

    items: tuple[ItemBytes, ...]

    @property
    def bytes(self) -> int:
        """The size of all items."""
        return sum(item.bytes for item in self.items)

    @property
    def wcu(self) -> int:
        """What it costs to write all of them where nothing larger was."""
        return batch_write_units(item.bytes for item in self.items)

    @property
    def rcu(self) -> float:
        """What an eventually consistent read of all of them costs."""
        return batch_read_units(item.bytes for item in self.items)

    @property
    def consistent_rcu(self) -> float:
        """What a strongly consistent read of all of them costs."""
        return batch_read_units((item.bytes for item in self.items), consistent=True)

    def __str__(self) -> str:
        parts = ["\n".join(_table(item)) for item in self.items]
        if len(parts) > 1:
            parts.append(_total(f"{len(parts)} items", self))
        return "\n\n".join(parts)


def explain(
    schema: Namespace | type, row: Mapping[str, Any], observed_at: datetime | None = None
) -> Explanation:
    """Where each byte of a row goes, and what writing and reading it costs.

    `observed_at` is when the values were true: now, unless stated. Nothing is sent. Raises what
    `OnlineStore.write` raises for a row that cannot be stored.
    """
    layout = TableLayout()
    codec = draft_codec(namespace_of(schema), layout)
    groups = {group.sk: group for group in codec.groups.values()}
    (row,), own = rows_of(namespace_of(schema), [row])
    now = time_of(datetime.now(UTC))
    stated = None if observed_at is None else [observed_at]
    (time,) = times_of_rows(stated, 1, own, now)
    changes = codec.changes(row, time)
    return Explanation(tuple(_explain(layout, groups[c.key.sk], c) for c in changes))


def _explain(layout: TableLayout, group: GroupCodec, change: Change) -> ItemBytes:
    """The item that a change leaves where nothing was."""
    meanings = _meanings(layout, group)
    item = msgspec.json.decode(render_item(merge(layout, None, change)))
    attributes = (_attribute(name, meanings[name], value) for name, value in item.items())
    return ItemBytes(group.name, tuple(attributes))


def _attribute(name: str, stands_for: str, value: Mapping[str, Any]) -> AttributeBytes:
    (kind,) = value
    return AttributeBytes(name, stands_for, kind, len(name.encode()), value_size(value))


def _meanings(layout: TableLayout, group: GroupCodec) -> dict[str, str]:
    """What each attribute that an item of the group may have stands for."""
    names = {column.id: column.full_name for column in group.columns}
    return {
        layout.pk: "partition key",
        layout.sk: "sort key: the group",
        layout.ttl: "expiry",
        LATEST: "newest observed-at",
        BASE: "observed-at of the rest",
        WIDTH: "features in the group",
        ERASED: "erased at",
        **{own(name): f"observed-at of {full_name}" for name, full_name in names.items()},
        **names,
    }


def _table(item: ItemBytes) -> Iterator[str]:
    """The lines of an item's table: texts to the left, numbers to the right."""
    rows = [_HEADINGS, *(_cells(attribute) for attribute in item.attributes)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    yield _total(f"group {item.group}", item)
    for row in rows:
        yield "  ".join(_aligned(row, widths)).rstrip()


def _cells(attribute: AttributeBytes) -> tuple[str, ...]:
    counts = (attribute.name_bytes, attribute.value_bytes, attribute.bytes)
    return (attribute.name, attribute.stands_for, attribute.kind, *(f"{n:,}" for n in counts))


def _aligned(row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    for place, (cell, width) in enumerate(zip(row, widths, strict=True)):
        yield cell.ljust(width) if place < 3 else cell.rjust(width)


def _total(what: str, sizes: ItemBytes | Explanation) -> str:
    return (
        f"{what}: {sizes.bytes:,} bytes, {sizes.wcu:,} WCU to write, {sizes.rcu:g} RCU to read "
        f"({sizes.consistent_rcu:g} consistent)"
    )
