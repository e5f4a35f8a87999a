"""Swaps: items that become others on the condition that they are as they were read.

A transaction of swaps is all or nothing, which is what keeps the registry consistent.
"""

from __future__ import annotations

from dataclasses import dataclass

from chalk_online_store.codec.changes import Attributes, key_of
from chalk_online_store.codec.layout import ItemKey, TableLayout

MAX_TRANSACT_ITEMS = 100
"""AWS: TransactWriteItems takes 100 actions."""


@dataclass(frozen=True, slots=True)
class ConditionalWrite:
    """What an item has to be, and what it becomes.

    None as `before` says that there must be no such item, None as `after` removes it; one of
    them is given.
    """

    before: Attributes | None
    after: Attributes | None

    def key(self, layout: TableLayout) -> ItemKey:
        """The key of the item."""
        return key_of(layout, self.after or self.before or {})
