"""How large the items of a namespace are, by the codec that will write them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import msgspec

from chalk_online_store.codec.changes import Attributes, merge, render_item
from chalk_online_store.codec.layout import TableLayout
from chalk_online_store.codec.namespaces import NamespaceCodec
from chalk_online_store.codec.registry import Registry, entries_of
from chalk_online_store.codec.sizes import item_size
from chalk_online_store.errors import InvalidValue
from chalk_online_store.schema import Namespace

_START = 1_800_000_123_456_789
_STEP = 1_000_002
"""UTC microseconds. DynamoDB does not count a number's trailing zeros, and times have none: the
start is odd and the step even, so every observed-at has all of its 16 digits, or 9 bytes."""


def draft_codec(namespace: Namespace, layout: TableLayout | None = None) -> NamespaceCodec:
    """A namespace as an empty table would encode it.

    In a table in which 62 features are registered before it, an id has two characters, not one.
    """
    layout = layout or TableLayout()
    entries = Registry().allocate(entries_of(namespace), layout.reserved)
    return NamespaceCodec(namespace, Registry(tuple(entries)), layout)


class Sample:
    """Rows of a namespace, and what their items come to.

    Raises what `OnlineStore.write` raises for a row that cannot be stored; `InvalidValue` where
    there is none.
    """

    def __init__(
        self,
        namespace: Namespace,
        rows: Sequence[Mapping[str, Any]],
        layout: TableLayout | None = None,
    ) -> None:
        if not rows:
            raise InvalidValue(f"There is no row of {namespace.name!r} to size its items by.")
        self.namespace = namespace
        self.rows = rows
        self._codec = draft_codec(namespace, layout)

    def regrouped(self, groups: Iterable[Collection[str]]) -> Sample:
        """The same rows, the features in other groups."""
        where = {name: f"g{place}" for place, group in enumerate(groups) for name in group}
        features = [replace(f, group=where[f.name]) for f in self.namespace.features]
        namespace = replace(self.namespace, features=features)
        return Sample(namespace, self.rows, self._codec.layout)

    @cached_property
    def groups(self) -> dict[str, frozenset[str]]:
        """The names of each group's features."""
        return {
            name: frozenset(feature.name for feature in features)
            for name, features in self.namespace.groups.items()
        }

    def names(self, features: Iterable[str]) -> frozenset[str]:
        """Features by their short names; raises `UnknownFeature`."""
        return frozenset(self.namespace.feature(name).name for name in features)

    def touched(self, features: Iterable[str]) -> list[str]:
        """The groups in which features are; all of them, unless some are named."""
        names = self.names(features)
        return [name for name, group in self.groups.items() if not names or names & group]

    def sizes(self, writes: Sequence[Collection[str]] = ()) -> dict[str, list[int]]:
        """The bytes of each row's item in each group, after all of these writes, one by one.

        0 where a row has none; groups of which no row has one are left out. A write is of some
        features, none named for all. Features that are written apart have their own observed-at
        in the item.
        """
        orders = sorted({frozenset(write) for write in writes or [()]}, key=self._rank)
        found: dict[str, list[int]] = {name: [] for name in self._codec.groups}
        for row in self.rows:
            items: dict[str, Attributes] = {}
            for place, names in enumerate(orders):
                self._write(items, row, names, _START + place * _STEP)
            for group in self._codec.groups.values():
                found[group.name].append(_size(items[group.sk]) if group.sk in items else 0)
        return {name: sizes for name, sizes in found.items() if any(sizes)}

    def _rank(self, names: frozenset[str]) -> tuple[int, list[str]]:
        """Wider writes first: what they leave is what the narrower ones find."""
        return -(len(names) or len(self.namespace.features)), sorted(names)

    def _write(
        self, items: dict[str, Attributes], row: Mapping[str, Any], names: frozenset[str], at: int
    ) -> None:
        key = self.namespace.key_name
        part = {name: row[name] for name in row if not names or name == key or name in names}
        for change in self._codec.changes(part, at):
            items[change.key.sk] = merge(self._codec.layout, items.get(change.key.sk), change)


def _size(item: Attributes) -> int:
    return item_size(msgspec.json.decode(render_item(item)))
