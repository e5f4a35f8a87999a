"""A process that has one client, and does what the lines of its input say.

    python -m benchmarks.worker CLIENT URL PREFIX CORE

Every line is a JSON object, and so is every answer; the first tells what runs here, or why
nothing does. What the client's library prints goes to the standard error.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import resource
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

from benchmarks.check import check
from benchmarks.clients import load
from benchmarks.clients.base import AsyncClient, Call, Client
from benchmarks.workloads import Action, Workload, filling

Answer = dict[str, Any]


class Worker:
    """What each command does with the client."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._calls: dict[Workload, Call | None] = {}

    def perform(self, do: str, **arguments: Any) -> Answer:
        """One command."""
        commands: dict[str, Callable[..., Answer]] = {
            "fill": self.fill,
            "check": self.check,
            "time": self.time,
            "latencies": self.latencies,
            "scan": self.scan,
        }
        if "workload" in arguments:
            arguments["workload"] = Workload(**arguments["workload"])
        return commands[do](**arguments)

    def fill(self, features: int, action: Action = "write") -> Answer:
        """Write all rows of a dataset, by whole writes or by conditional ones."""
        for write in filling(action, features):
            call = self._client.call(write)
            if call is None:
                return {"can": False}
            self._repeat(call, 1, 1)
        return {"can": True}

    def check(self, workload: Workload) -> Answer:
        """Read, and compare with the source; twice, as the second may come from a cache."""
        call = self._call(workload)
        if call is None:
            return {"can": False}
        for _ in range(2 if self._client.decodes else 0):
            check(self._repeat(call, 1, 1), workload, self._client.whole_seconds)
        return {"can": True}

    def time(self, workload: Workload, times: int, at_once: int) -> Answer:
        """Make a call so many times; microseconds of CPU, of all threads, and of wall time each."""
        call = self._call(workload)
        if call is None:
            return {"can": False}
        cpu, wall = time.process_time_ns(), time.perf_counter_ns()
        self._repeat(call, times, at_once)
        cpu, wall = time.process_time_ns() - cpu, time.perf_counter_ns() - wall
        each = {"cpu_us": cpu / times / 1e3, "wall_us": wall / times / 1e3}
        return {"can": True, **each, "rss_mb": peak_mb()}

    def latencies(self, workload: Workload, times: int) -> Answer:
        """Microseconds of wall time of each of so many calls, one at a time; CPU on average."""
        call, took = self._call(workload), []
        if call is None:
            return {"can": False}
        cpu = time.process_time_ns()
        for _ in range(times):
            start = time.perf_counter_ns()
            self._repeat(call, 1, 1)
            took.append((time.perf_counter_ns() - start) / 1e3)
        cpu_us = (time.process_time_ns() - cpu) / times / 1e3
        return {"can": True, "wall_us": took, "cpu_us": cpu_us}

    def scan(self, features: int, chunk: int, chunks: int) -> Answer:
        """Read so many chunks of other keys; the peak of memory after each hundredth of them."""
        peaks = []
        for number in range(chunks):
            call = self._client.call(Workload("read", chunk, features, number * chunk))
            assert call
            self._repeat(call, 1, 1)
            if (number + 1) * 100 % chunks == 0:
                peaks.append(peak_mb())
        return {"rss_mb": peaks}

    def _call(self, workload: Workload) -> Call | None:
        if workload not in self._calls:
            self._calls[workload] = self._client.call(workload)
        return self._calls[workload]

    def _repeat(self, call: Call, times: int, at_once: int) -> Any:
        if isinstance(self._client, AsyncClient):
            return self._client.loop.run_until_complete(_tasks(call, times, at_once))
        return _threads(call, times, at_once)


def _threads(call: Call, times: int, at_once: int) -> Any:
    if at_once == 1:
        return _many(call, times)
    share = times // at_once
    threads = [threading.Thread(target=_many, args=(call, share)) for _ in range(at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return None


def _many(call: Call, times: int) -> Any:
    result: Any = None
    for _ in range(times):
        result = call()
    return result


async def _tasks(call: Call, times: int, at_once: int) -> Any:
    async def many() -> Any:
        result: Any = None
        for _ in range(times // at_once):
            result = await call()
        return result

    if at_once == 1:
        return await many()
    return (await asyncio.gather(*(many() for _ in range(at_once))))[-1]


def peak_mb() -> float:
    """The most memory that this process ever had, in MB (10^6 bytes).

    Linux counts in `ru_maxrss` what the parent had when it started this process; `VmHWM` is ours.
    """
    status = Path("/proc/self/status")
    if status.exists():
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def describe(client: Client) -> Answer:
    """What runs here."""
    return {
        "tasks": client.tasks,
        "keys": client.keys,
        "reads_only": client.reads_only,
        "python": platform.python_version(),
        "versions": dict(versions_of(client.packages)),
    }


def versions_of(packages: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Those of packages that are installed."""
    for package in packages:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            continue


def main(name: str, url: str, prefix: str, core: str) -> None:
    answers = _own_stdout()
    if core.isdigit():
        os.sched_setaffinity(0, {int(core)})
    try:
        kind = load(name)
    except ImportError as error:
        _say(answers, {"missing": str(error)})
        return
    with closing(kind(url, prefix)) as client:
        _say(answers, describe(client))
        worker = Worker(client)
        for line in sys.stdin:
            _say(answers, _performed(worker, json.loads(line)))


def _performed(worker: Worker, command: Answer) -> Answer:
    try:
        return worker.perform(**command)
    except Exception as error:  # noqa: BLE001 (whoever ordered it decides)
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}


def _own_stdout() -> IO[str]:
    """The standard output for answers alone; what others print goes to the standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def _say(answers: IO[str], answer: Answer) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
