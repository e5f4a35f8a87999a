"""Making calls from several threads, and timing each."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import numpy as np

from chalk_online_store.cli.bench.statistics import Measured
from chalk_online_store.report import Report

Call = Callable[[int], Report]
"""Makes the call of a number, and tells what it took."""

Tell = Callable[[int], None]
"""Hears how many calls are done."""

_LOOK_EVERY = 0.1


@dataclass(slots=True)
class _Share:
    """What one thread did."""

    latencies: list[float] = field(default_factory=list)
    report: Report = field(default_factory=Report)

    def work(self, call: Call, numbers: Iterable[int], stop: threading.Event) -> None:
        for number in numbers:
            if stop.is_set():
                return
            start = time.perf_counter()
            report = call(number)
            self.latencies.append(time.perf_counter() - start)
            self.report.add(report)


def measure(what: str, call: Call, count: int, concurrency: int, tell: Tell) -> Measured:
    """Make calls 0 to `count` - 1 from so many threads, each one after the other.

    Raises what a call raises, once the calls that are under way have ended.
    """
    shares = [_Share() for _ in range(min(concurrency, count))]
    stop = threading.Event()
    cpu, start = time.process_time(), time.perf_counter()
    with ThreadPoolExecutor(len(shares)) as pool:
        try:
            futures = [
                pool.submit(share.work, call, range(first, count, len(shares)), stop)
                for first, share in enumerate(shares)
            ]
            while wait(futures, _LOOK_EVERY, FIRST_EXCEPTION).not_done:
                tell(sum(len(share.latencies) for share in shares))
                if any(future.done() and future.exception() for future in futures):
                    break
        finally:  # Also on Ctrl-C.
            stop.set()
    elapsed, cpu = time.perf_counter() - start, time.process_time() - cpu
    for future in futures:
        future.result()
    report = Report()
    for share in shares:
        report.add(share.report)
    latencies = np.concatenate([share.latencies for share in shares])
    return Measured(what, latencies, elapsed, cpu, report)
