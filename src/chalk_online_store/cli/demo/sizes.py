"""The sizes of rows: in the table, as AWS counts them, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any

import msgspec
import numpy as np

from chalk_online_store.cli.demo.workload import Truth
from chalk_online_store.codec.changes import Attributes, render_item
from chalk_online_store.codec.sizes import item_size
from chalk_online_store.planning.units import batch_write_units
from chalk_online_store.schema import Namespace


@dataclass
class Sizes:
    """A namespace's entities in the table and as JSON.

    The units are what writing all of them would cost.
    """

    entities: int = 0
    items: int = 0
    stored_bytes: int = 0
    stored_wcu: int = 0
    json_bytes: int = 0
    json_wcu: int = 0

    def add(self, items: Sequence[Attributes], texts: Sequence[bytes]) -> None:
        """Count entities: all their items, and the JSON of each."""
        stored = [item_size(msgspec.json.decode(render_item(item))) for item in items]
        lengths = [len(text) for text in texts]
        self.entities += len(texts)
        self.items += len(items)
        self.stored_bytes += sum(stored)
        self.stored_wcu += batch_write_units(stored)
        self.json_bytes += sum(lengths)
        self.json_wcu += batch_write_units(lengths)


def as_json(namespace: Namespace, row: Mapping[str, Truth]) -> bytes:
    """A row as compact JSON under full names: no key, no times, each number at its shortest."""
    # Not to our advantage: without the prefix that only the demo needs.
    prefix = namespace.name.removeprefix("demo_")
    named = {f"{prefix}.{name}": truth.value for name, truth in row.items()}
    return json.dumps(named, default=_simple, separators=(",", ":")).encode()


def _simple(value: Any) -> Any:
    match value:
        case Enum():
            return value.value
        case timedelta():
            return value.total_seconds()
        case np.ndarray():
            return _numbers(value)
        case Decimal():
            return str(value)
        case date():
            return value.isoformat()
        case _:
            raise TypeError(type(value).__name__)


def _numbers(vector: np.ndarray) -> Sequence[float | int]:
    """Its elements, in no more digits than their own precision has."""
    shortest = [float(str(element)) for element in vector]
    return [int(x) if x.is_integer() else x for x in shortest]
