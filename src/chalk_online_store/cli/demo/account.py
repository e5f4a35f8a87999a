"""What the demo did, in measured numbers."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

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

    def phase(self, title: str) -> Phase:
        """Begin a phase."""
        self.phases.append(Phase(title))
        return self.phases[-1]
