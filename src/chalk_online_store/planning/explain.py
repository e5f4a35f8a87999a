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
from chalk_online_store.codec.vector_indexes import index_spec
from chalk_online_store.operations.times import time_of, times_of_rows
from chalk_online_store.planning.items import draft_codec
from chalk_online_store.planning.units import (
    batch_read_units,
    batch_write_units,
    read_units,
    write_units,
)
from chalk_online_store.schema import Namespace, VectorType, namespace_of
from chalk_online_store.schema.instances import rows_of

_MIN_INDEX_WRITE_BYTES = 1024
"""AWS: a write request to vector indexes is billed as 1 KB at least."""

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
class VectorBytes:
    """What a vector index of a feature adds to the item, and what is in the index.

    `listed_bytes` is the vector's size as a list of numbers, as it is stored, and `binary_bytes`
    what it would be without an index. `index_bytes` is the size of the entry in the index: 4 bytes
    per dimension, the key, and what is compared or projected. DynamoDB bills `write_bytes` of index
    writes for each write of the item.
    """

    feature: str
    listed_bytes: int
    binary_bytes: int
    index_bytes: int

    @property
    def write_bytes(self) -> int:
        """The billed bytes of a write to the index: 1 KB at least, per request."""
        return max(_MIN_INDEX_WRITE_BYTES, self.index_bytes)


@dataclass(frozen=True, slots=True)
class ItemBytes:
    """One item: a group of an entity. `vectors` are its features that have a vector index."""

    group: str
    attributes: tuple[AttributeBytes, ...]
    vectors: tuple[VectorBytes, ...] = ()

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
    items = (_explain(layout, groups[c.key.sk], codec.namespace, c) for c in changes)
    return Explanation(tuple(items))


def _explain(
    layout: TableLayout, group: GroupCodec, namespace: Namespace, change: Change
) -> ItemBytes:
    """The item that a change leaves where nothing was."""
    meanings = _meanings(layout, group)
    item = msgspec.json.decode(render_item(merge(layout, None, change)))
    attributes = {name: _attribute(name, meanings[name], value) for name, value in item.items()}
    vectors = tuple(_vectors(layout, group, namespace, attributes))
    return ItemBytes(group.name, tuple(attributes.values()), vectors)


def _vectors(
    layout: TableLayout,
    group: GroupCodec,
    namespace: Namespace,
    attributes: Mapping[str, AttributeBytes],
) -> Iterator[VectorBytes]:
    ids = {column.full_name: column.id for column in group.columns}
    for column in group.columns:
        kind = column.feature.type
        if column.feature.index is None or column.id not in attributes:
            continue
        assert isinstance(kind, VectorType)
        spec = index_spec(namespace, column.feature, ids.__getitem__)
        copied = {layout.pk, layout.sk, *(each.name for each in spec.compared), *spec.projected}
        yield VectorBytes(
            column.full_name,
            attributes[column.id].value_bytes,
            kind.size * int(kind.dtype[1]),
            4 * kind.size + sum(attributes[name].bytes for name in copied & attributes.keys()),
        )


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
    for vector in item.vectors:
        yield (
            f"vector index of {vector.feature}: {vector.listed_bytes:,} bytes as a list of numbers "
            f"instead of {vector.binary_bytes:,}, {vector.index_bytes:,} in the index, "
            f"{vector.write_bytes:,} billed per write"
        )


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
