"""What the canned servers answer: the same rows, laid out by the store and by a user of boto3."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from boto3.dynamodb.types import TypeSerializer

from benchmarks.data import OBSERVED_AT, ROWS, TABLE, USER
from benchmarks.items import KEY, item_of, microseconds, to_json
from chalk_online_store.codec.changes import Attributes, fresh_item, render_item
from chalk_online_store.codec.layout import TableLayout
from chalk_online_store.codec.namespaces import NamespaceCodec
from chalk_online_store.codec.registry import Registry, entries_of

LAYOUT = TableLayout()


@dataclass(frozen=True)
class Table:
    """A table as a canned server has it.

    `items` are in DynamoDB's JSON, in the order of `ROWS`; `registry` likewise. `names` says
    what feature each attribute stands for, `keys` what each item's partition key `key` is.
    """

    items: Sequence[str]
    registry: Sequence[str]
    names: Mapping[str, str]
    key: str
    keys: Sequence[str]

    def answers(self) -> dict[str, str]:
        """The response bodies by operation; batches come in no order, as DynamoDB's do."""
        shuffled = random.Random(1).sample(self.items, len(self.items))
        found = ",".join(self.registry)
        return {
            "GetItem": f'{{"ConsumedCapacity":{_units(0.5)},"Item":{self.items[0]}}}',
            "BatchGetItem": f'{{"ConsumedCapacity":[{_units(50.0)}],'
            f'"Responses":{{"{TABLE}":[{",".join(shuffled)}]}},"UnprocessedKeys":{{}}}}',
            "BatchWriteItem": f'{{"ConsumedCapacity":[{_units(25.0)}],"UnprocessedItems":{{}}}}',
            "UpdateItem": f'{{"ConsumedCapacity":{_units(1.0)}}}',
            "Query": f'{{"ConsumedCapacity":{_units(1.0)},"Count":{len(self.registry)},'
            f'"Items":[{found}],"ScannedCount":{len(self.registry)}}}',
        }


def _units(units: float) -> str:
    return json.dumps({"CapacityUnits": units, "TableName": TABLE}, separators=(",", ":"))


def store_table() -> Table:
    """The table as the store would have filled it."""
    entries = Registry().allocate(entries_of(USER), LAYOUT.reserved)
    codec = NamespaceCodec(USER, Registry(tuple(entries)), LAYOUT)
    observed_at = microseconds(OBSERVED_AT)
    changes = [change for row in ROWS for change in codec.changes(row, observed_at)]
    by_name = sorted((entry.items(LAYOUT)[0] for entry in entries), key=_sort_key)
    return Table(
        items=[render_item(fresh_item(LAYOUT, change)).decode() for change in changes],
        registry=[render_item(item).decode() for item in by_name],
        names={
            column.id: column.feature.name
            for group in codec.groups.values()
            for column in group.columns
        },
        key=LAYOUT.pk,
        keys=codec.partition_keys([row["id"] for row in ROWS]),
    )


def _sort_key(item: Attributes) -> bytes:
    return item[LAYOUT.sk]


def boto3_table() -> Table:
    """The table as a user of boto3 would have filled it: the full names of features."""
    items = [item_of(row) for row in ROWS]
    return Table(
        items=[to_json(serialized(item)) for item in items],
        registry=(),
        names={feature.name: feature.name for feature in USER.features},
        key=KEY,
        keys=[item[KEY] for item in items],
    )


def serialized(item: Mapping[str, Any]) -> dict[str, Any]:
    serialize = TypeSerializer().serialize
    return {name: serialize(value) for name, value in item.items()}
