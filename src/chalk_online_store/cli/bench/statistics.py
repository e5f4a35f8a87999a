"""What a number of calls came to: latencies, rates, CPU and capacity units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from chalk_online_store.report import Report

Seconds: TypeAlias = NDArray[np.float64]

PERCENTILES = (50, 95, 99)


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Calls of one kind, "read" or "write".

    `latencies` has the seconds of each call. `elapsed` are those of all, which were several at
    once; `cpu` the seconds that the process computed meanwhile. `report` adds up what the calls
    reported.
    """

    what: str
    latencies: Seconds
    elapsed: float
    cpu: float
    report: Report

    @property
    def queries(self) -> int:
        """How many calls there were."""
        return len(self.latencies)

    def percentile(self, percent: float) -> float:
        """The least latency, in seconds, that so many per cent of the calls kept within."""
        return float(np.percentile(self.latencies, percent, method="inverted_cdf"))

    @property
    def queries_per_second(self) -> float:
        """Calls a second."""
        return self.queries / self.elapsed

    @property
    def cpu_per_query(self) -> float:
        """Seconds of CPU a call, by all threads of this process."""
        return self.cpu / self.queries

    def plain(self) -> dict[str, Any]:
        """As JSON has it: milliseconds of latency, microseconds of CPU, capacity units of all."""
        report = self.report
        return {
            "what": self.what,
            "queries": self.queries,
            **{f"p{percent}_ms": 1e3 * self.percentile(percent) for percent in PERCENTILES},
            "max_ms": 1e3 * float(self.latencies.max()),
            "queries_per_second": self.queries_per_second,
            "cpu_us_per_query": 1e6 * self.cpu_per_query,
            "requests": report.requests,
            "rcu": report.rcu,
            "wcu": report.wcu,
            "cache_hits": report.cache_hits,
            "shared_hits": report.shared_hits,
            "bloom_skips": report.bloom_skips,
            "retries": report.retries,
            "throttles": report.throttles,
            "failed": report.failed,
        }
