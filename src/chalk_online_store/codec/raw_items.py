"""Items as they lie in the table, for who keeps them for readers with schemas of their own."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import msgspec

from chalk_online_store.codec.changes import key_of
from chalk_online_store.codec.decoding import Row, RowDecoder
from chalk_online_store.codec.layout import TableLayout
from chalk_online_store.codec.shapes import Shape

ATTRIBUTES = 2
"""Where a row of a whole item has its attributes."""


class RawItemShape(Shape):
    """In the place of a shape: a row is `(pk, sk, attributes)`, whatever the item holds."""

    def __init__(self, layout: TableLayout) -> None:
        super().__init__(layout, ())

    @cached_property
    def decoder(self) -> RowDecoder:
        """Takes items as they are."""
        return _ItemDecoder([], self.layout)


class _ItemDecoder(RowDecoder):
    @property
    def compiled(self) -> None:
        """There is nothing to gain."""
        return None

    @property
    def struct(self) -> Any:
        """What msgspec decodes an item into."""
        return dict[str, msgspec.Raw]

    def salvaged(self, item: bytes) -> None:
        """There is nothing to decode, and so nothing to salvage."""
        return

    def rows(self, items: Iterable[Any]) -> list[Row]:
        """Rows of decoded items; raises `DamagedItem` for one without a key."""
        return [self._whole(item) for item in items]

    def _whole(self, item: dict[str, msgspec.Raw]) -> Row:
        attributes = {name: bytes(raw) for name, raw in item.items()}
        return (*key_of(self._layout, attributes), attributes)
