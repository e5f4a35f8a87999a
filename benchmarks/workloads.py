"""The calls that are measured: what is read or written, and how much of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Literal, TypeAlias

from benchmarks.data import ROWS, Dataset, Row

Action: TypeAlias = Literal["read", "cached", "write", "update", "stream"]
"""`cached` reads what a cache in the process holds; `update` lets the newest observed-at win.

`stream` writes as many rows as there are, in whatever way a client has for that.
"""

dataset = cache(Dataset)
"""The one `Dataset` with so many features."""


@dataclass(frozen=True)
class Workload:
    """One call: `entities` of them, from key `first` on, with so many `features` each."""

    action: Action
    entities: int
    features: int = 20
    first: int = 0

    @property
    def title(self) -> str:
        """As DynamoDB calls it."""
        size = f"{self.entities} x {self.features}"
        match self.action:
            case "cached":
                return f"cached read {size}"
            case "write":
                return f"BatchWriteItem {size}"
            case "update":
                return f"conditional UpdateItems {size}"
            case "stream":
                return f"{self.entities:,} rows x {self.features}"
        return f"GetItem {size}" if self.entities == 1 else f"BatchGetItem {size}"

    @property
    def dataset(self) -> Dataset:
        """What it reads from or writes."""
        return dataset(self.features)

    @property
    def ids(self) -> list[int]:
        """The primary keys, in order."""
        return list(range(self.first, self.first + self.entities))

    @property
    def rows(self) -> list[Row]:
        """The rows with these keys; of a stream, which has more than `ROWS`, values come again."""
        rows = self.dataset.rows
        if self.action == "stream":
            return [{**rows[key % ROWS], "id": key} for key in self.ids]
        return rows[self.first : self.first + self.entities]

    def as_json(self) -> dict[str, Any]:
        """For a worker, which makes `Workload(**…)` of it again."""
        return asdict(self)


READ_MANY = Workload("read", 100)
READ_ONE = Workload("read", 1)
READ_WIDE = Workload("read", 50, 200)
"""The size that Feast's issue 6059 is about."""
CACHED = Workload("cached", 100)
WRITE = Workload("write", 25)
UPDATE = Workload("update", 25)
STREAM = Workload("stream", 2500)
WORKLOADS = (READ_MANY, READ_ONE, READ_WIDE, CACHED, WRITE, UPDATE)


def filling(action: Action, features: int) -> list[Workload]:
    """The writes, each as large as one request may be, that put all rows into an empty table."""
    return [Workload(action, 25, features, first) for first in range(0, ROWS, 25)]
