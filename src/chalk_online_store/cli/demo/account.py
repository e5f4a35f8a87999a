"""What the demo did, in measured numbers."""

from __future__ import annotations

import json
import struct
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any

import msgspec
import numpy as np

from chalk_online_store.cli.demo.data import Truth
from chalk_online_store.codec.changes import Attributes, render_item
from chalk_online_store.codec.sizes import item_size
from chalk_online_store.operations.rows import Answer, Rows, Status
from chalk_online_store.planning.units import batch_write_units
from chalk_online_store.report import Report
from chalk_online_store.schema import Namespace

# --- Holding what is read to its source: bit for bit, with its status and its observed-at ---


_EXAMPLES = 5


@dataclass
class Verdict:
    """How many values were compared, and how many of them differ, with some examples."""

    checked: int = 0
    wrong: int = 0
    examples: list[str] = field(default_factory=list)

    def check(self, rows: Rows, truth: Mapping[Any, Mapping[str, Truth]]) -> None:
        """Compare every feature of every row, both by column and one by one."""
        for name, values in rows.to_dict().items():
            for index, (key, value) in enumerate(zip(rows.keys, values, strict=True)):
                answer, expected = rows.answer(index, name), truth[key][name]
                self.checked += 1
                if not is_exactly(answer, expected) or bits(value) != bits(expected.value):
                    self._blame(f"{name} of {key}: {answer}, {value!r} by column, not {expected}")

    def _blame(self, what: str) -> None:
        self.wrong += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(what)


def is_exactly(answer: Answer, truth: Truth) -> bool:
    """Whether a read answers the very value, of the very type, at its own time."""
    status = Status.NULL if truth.value is None else Status.HIT
    return (
        answer.status is status
        and answer.observed_at == truth.observed_at
        and bits(answer.value) == bits(truth.value)
    )


def bits(value: Any) -> Any:
    """What two values share only if nothing tells them apart: NaN and -0.0 included."""
    match value:
        case float():
            return float, struct.pack("<d", value)
        case Decimal():
            return Decimal, value.as_tuple()
        case np.ndarray():
            return value.dtype, value.shape, value.tobytes()
        case _:
            return type(value), value


# --- The sizes of rows: in the table, as AWS counts them, and as JSON ----------------------


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


@dataclass
class Phase:
    """Calls of one kind: how long each took, in seconds, and what all of them cost."""

    title: str
    rows: int = 0
    seconds: list[float] = field(default_factory=list)
    elapsed: float = 0.0
    """All calls together; less than the sum where several were under way at once."""
    report: Report = field(default_factory=Report)

    @contextmanager
    def call(self, rows: int) -> Iterator[None]:
        """Time one call, which is about so many rows."""
        start = time.perf_counter()
        yield
        self.seconds.append(time.perf_counter() - start)
        self.rows += rows

    def percentile(self, percent: float) -> float:
        """A percentile of the calls' times, in seconds."""
        return float(np.percentile(self.seconds, percent))

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "title": self.title,
            "calls": len(self.seconds),
            "p50_seconds": self.percentile(50),
            "p99_seconds": self.percentile(99),
            "rows_per_second": self.rate,
            "requests": self.report.requests,
            "rcu": self.report.rcu,
            "wcu": self.report.wcu,
        }

    @property
    def rate(self) -> float:
        """Rows a second."""
        return self.rows / (self.elapsed or sum(self.seconds))


@dataclass
class Account:
    """Everything that is printed in the end."""

    engine: str
    temporary: bool
    counts_capacity: bool
    flights: int
    phases: list[Phase] = field(default_factory=list)
    sizes: defaultdict[type, Sizes] = field(default_factory=lambda: defaultdict(Sizes))
    late_items: int = 0
    superseded: int = 0
    hot_items: int = 0
    cache_hits: int = 0
    verdict: Verdict = field(default_factory=Verdict)
    seconds: float = 0.0

    @property
    def right(self) -> bool:
        """Whether every value was right, and every late write came too late."""
        return not self.verdict.wrong and self.superseded == self.late_items

    def plain(self) -> dict[str, Any]:
        """As JSON has it; seconds, bytes, and units as the engine reports them."""
        return {
            "engine": self.engine,
            "flights": self.flights,
            "right": self.right,
            "checked": self.verdict.checked,
            "wrong": self.verdict.wrong,
            "superseded": self.superseded,
            "late_items": self.late_items,
            "cache_hits": self.cache_hits,
            "hot_items": self.hot_items,
            "seconds": self.seconds,
            "sizes": {schema.__name__: asdict(sizes) for schema, sizes in self.sizes.items()},
            "phases": [phase.plain() for phase in self.phases],
        }

    def phase(self, title: str) -> Phase:
        """Begin a phase."""
        self.phases.append(Phase(title))
        return self.phases[-1]
