"""One table of the store, made without writing it: for benchmarks of a part of the store."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime

from benchmarks.clients.ours import namespace
from benchmarks.data import OBSERVED_AT
from benchmarks.workloads import dataset
from chalk_online_store.codec.changes import Change, render_fresh, render_item
from chalk_online_store.codec.layout import TableLayout
from chalk_online_store.codec.namespaces import NamespaceCodec
from chalk_online_store.codec.registry import Registry, entries_of

TABLE = "features"
LAYOUT = TableLayout()
DATA = dataset(20)
ROWS = DATA.rows
USER = namespace(DATA)
ENTRIES = Registry().allocate(entries_of(USER), LAYOUT.reserved)
CODEC = NamespaceCodec(USER, Registry(tuple(ENTRIES)), LAYOUT)


def changes(count: int, observed_at: datetime = OBSERVED_AT) -> list[Change]:
    """What the first rows write."""
    moment = int((observed_at - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1_000_000)
    planned = CODEC.changes_of_rows(ROWS[:count], [moment] * count)
    return [change for _, change in planned]


def answers() -> dict[str, str]:
    """The response bodies by operation; batches come in no order, as DynamoDB's do."""
    items = [render_fresh(LAYOUT, change).decode() for change in changes(len(ROWS))]
    by_name = sorted((entry.items(LAYOUT)[0] for entry in ENTRIES), key=lambda item: item["sk"])
    registry = ",".join(render_item(item).decode() for item in by_name)
    shuffled = ",".join(random.Random(1).sample(items, len(items)))
    return {
        "GetItem": f'{{"ConsumedCapacity":{_units(0.5)},"Item":{items[0]}}}',
        "BatchGetItem": f'{{"ConsumedCapacity":[{_units(50.0)}],'
        f'"Responses":{{"{TABLE}":[{shuffled}]}},"UnprocessedKeys":{{}}}}',
        "BatchWriteItem": f'{{"ConsumedCapacity":[{_units(25.0)}],"UnprocessedItems":{{}}}}',
        "UpdateItem": f'{{"ConsumedCapacity":{_units(1.0)}}}',
        "Query": f'{{"ConsumedCapacity":{_units(1.0)},"Items":[{registry}]}}',
    }


def _units(units: float) -> str:
    return json.dumps({"CapacityUnits": units, "TableName": TABLE}, separators=(",", ":"))
