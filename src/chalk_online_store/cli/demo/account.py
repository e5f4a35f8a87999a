"""What the demo did, in measured numbers."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from chalk_online_store.cli.demo.check import Verdict
from chalk_online_store.cli.demo.sizes import Sizes
from chalk_online_store.report import Report


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
