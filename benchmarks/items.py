"""Rows as users of general DynamoDB clients store them: full names, native types, one key.

Numbers come back from each client in another type, so every value is turned into its declared
type: in place, as the dictionaries are the caller's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeAlias

import numpy as np

from benchmarks.data import OBSERVED_AT, STALENESS, Dataset, Floats, Row

Item: TypeAlias = dict[str, Any]
Convert: TypeAlias = Callable[[Any], Any]

KEY = "entity_id"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(value: datetime) -> int:
    return (value - EPOCH) // timedelta(microseconds=1)


def float_to_decimal(value: float) -> Decimal:
    return Decimal(repr(value))


def datetime_of(stored: Any) -> datetime:
    return EPOCH + timedelta(0, 0, int(stored))


TIMES = {
    "observed_at": microseconds(OBSERVED_AT),
    "ttl": int((OBSERVED_AT + STALENESS).timestamp()) + 1,
}
"""What the store keeps in an item beside its features, so that all write as much."""

CONDITION = "attribute_not_exists(#observed_at) OR #observed_at <= :observed_at"
"""Of an update: unless something newer is there."""


class Conversion:
    """Between rows of a dataset and items, for one client's types."""

    def __init__(
        self,
        dataset: Dataset,
        *,
        store_float: Convert | None = None,
        bytes_of: Convert | None = None,
    ) -> None:
        """`store_float` for a client that takes no floats, `bytes_of` for one that wraps bytes."""
        self._store = list(_conversions(dataset, _stores(store_float)))
        self._load = list(_conversions(dataset, _loads(bytes_of)))
        self.names = [*dataset.kinds, *TIMES]

    def item(self, row: Mapping[str, Any]) -> Item:
        """A row as the client takes it."""
        item = {KEY: str(row["id"]), **row, **TIMES}
        del item["id"]
        for name, store in self._store:
            item[name] = store(item[name])
        return item

    def row(self, item: Item) -> Row:
        """What the client gave, each value in its declared type."""
        for name, load in self._load:
            item[name] = load(item[name])
        del item[KEY], item["observed_at"], item["ttl"]
        return item

    def rows(self, ids: Iterable[int], items: Iterable[Item]) -> list[Row]:
        """Rows in the order of their keys: BatchGetItem answers in any."""
        found = {item[KEY]: item for item in items}
        return [self.row(found[str(number)]) for number in ids]

    def update_options(self, name: Callable[[str], str] = str) -> dict[str, Any]:
        """What an update says of every row alike, with options named as the client names them."""
        return {
            name("UpdateExpression"): "SET " + ", ".join(f"#{n} = :{n}" for n in self.names),
            name("ConditionExpression"): CONDITION,
            name("ExpressionAttributeNames"): {f"#{n}": n for n in self.names},
        }

    def update_values(self, row: Row) -> Item:
        """What an update sets."""
        item = self.item(row)
        return {f":{name}": item[name] for name in self.names}


def key_of(number: int) -> Item:
    return {KEY: str(number)}


def _stores(store_float: Convert | None) -> dict[Any, Convert]:
    stores: dict[Any, Convert] = {datetime: microseconds, Floats: _vector_to_bytes}
    return stores | ({float: store_float} if store_float else {})


def _loads(bytes_of: Convert | None) -> dict[Any, Convert]:
    def vector_of(stored: Any) -> Any:
        return np.frombuffer(bytes_of(stored) if bytes_of else stored, "<f4")

    return {float: float, int: int, datetime: datetime_of, Floats: vector_of}


def _conversions(dataset: Dataset, by_kind: Mapping[Any, Convert]) -> Iterable[tuple[str, Convert]]:
    for name, kind in dataset.kinds.items():
        convert = by_kind.get(Floats if isinstance(kind, Floats) else kind)
        if convert:
            yield name, convert


def _vector_to_bytes(value: Any) -> bytes:
    return bytes(value.astype("<f4").tobytes())
