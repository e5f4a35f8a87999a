"""Kill -9 for workers of an engine, while they write."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import psutil

from chalk_online_store.integrations.bulk import Scan

SECONDS = 120


@contextlib.contextmanager
def workers_killed(
    scan: Scan, is_worker: Callable[[psutil.Process], bool], count: int
) -> Iterator[list[int]]:
    """Kill up to `count` workers of this process once the table has rows; yield their pids."""
    killed: list[int] = []
    ended = threading.Event()

    def kill() -> None:
        deadline = time.monotonic() + SECONDS
        while not ended.is_set() and time.monotonic() < deadline and len(killed) < count:
            if any(batch.num_rows for batch in scan):
                for process in psutil.Process().children(recursive=True):
                    with contextlib.suppress(psutil.Error):
                        if len(killed) < count and is_worker(process):
                            process.kill()
                            killed.append(process.pid)
            time.sleep(0.05)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        ended.set()
        thread.join()
