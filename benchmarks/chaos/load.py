"""One load: a process with one store, sync or async, that calls it by schedule.

A call is made when it is due, however the ones before it fare. It prints "ready" when it is warm,
reads the moment to begin at (monotonic clock), and prints what it found as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

from benchmarks.chaos.calls import (
    READ_ONE,
    WRITE,
    Call,
    Change,
    Outcome,
    Planned,
    Usage,
    entity_of,
    plan,
)
from benchmarks.chaos.settings import BATCH, ENTITIES, MODES, TIMEOUT, RoutingOptions
from chalk_online_store import AsyncOnlineStore, OnlineStore, Status, features
from chalk_online_store.errors import ReadFailed, WriteFailed
from chalk_online_store.operations.rows import Row, Rows
from chalk_online_store.report import Report

THREADS = 100
"""Enough for all calls under way when each takes its whole second."""
CONNECTIONS = 8
_PRIME = 7919


@features
class Account:
    """What is read and written."""

    id: int
    number: int
    email: str
    balance: float
    visits: int
    active: bool


FEATURES = ["number", "email", "balance", "visits"]


def row(key: int, number: int) -> dict[str, Any]:
    """An entity whose newest value is `number`."""
    return {
        "id": key,
        "number": number,
        "email": f"{key}@example.com",
        "balance": number / 7,
        "visits": number,
        "active": True,
    }


def keys_of(mode: str, planned: Planned) -> list[int]:
    """Which entities a read is of: all over the table, the same in each run.

    The two stores read different ones at a time, so that a response is never right for both.
    """
    count = 1 if planned.kind == READ_ONE else BATCH
    first = planned.number * _PRIME + MODES.index(mode)
    return [(first + place * 31) % ENTITIES for place in range(count)]


def invented(mode: str, planned: Planned, rows: Rows) -> int:
    """Count the rows that differ from what was written to their entity. Every entity exists."""
    return sum(
        found.status("number") is not Status.FAILED and not _is_of(key, found)
        for key, found in zip(keys_of(mode, planned), rows, strict=True)
    )


def _is_of(key: int, found: Row) -> bool:
    if any(found.status(name) is not Status.HIT for name in FEATURES):
        return False
    written = row(key, found["number"])
    return all(found[name] == written[name] for name in FEATURES)


class Recorder:
    """Puts down calls, changes of regions, and processor time; `zero` ends the warming."""

    def __init__(self, mode: str, zero: float) -> None:
        self._mode = mode
        self._zero = zero
        self._calls: list[Call] = []
        self._changes: list[Change] = []
        self._usage: list[Usage] = []
        self._states: dict[str, str] = {}

    def answered(self, planned: Planned, due: float, began: float, answer: Rows | Report) -> None:
        report = answer.report if isinstance(answer, Rows) else answer
        if isinstance(answer, Rows):
            error = _failure(answer) if report.failed else ""
            self._add(planned, due, began, error, report, invented(self._mode, planned, answer))
        else:
            self._add(planned, due, began, "", report)

    def failed(self, planned: Planned, due: float, began: float, error: Exception) -> None:
        if isinstance(error, WriteFailed):
            error = next(iter(error.failed.values()), error)
        self._add(planned, due, began, type(error).__name__, Report())

    def _add(
        self,
        planned: Planned,
        due: float,
        began: float,
        error: str,
        of: Report,
        invented: int = 0,
    ) -> None:
        ended, zero = time.monotonic(), self._zero
        self._calls.append(
            Call(
                planned.kind,
                planned.number,
                due - zero,
                began - zero,
                ended - zero,
                error,
                tuple(of.regions),
                of.requests,
                of.retries,
                of.hedges,
                of.failovers,
                of.behind,
                invented,
            )
        )

    def look(self, store: OnlineStore | AsyncOnlineStore) -> None:
        """See whether a region's state has changed, and every second how much was used."""
        at = time.monotonic() - self._zero
        for region in store.regions():
            if self._states.get(region.name) != region.state:
                self._states[region.name] = region.state
                self._changes.append(Change(at, region.name, region.state, region.reason))
        if not self._usage or at - self._usage[-1].at >= 0.5:
            self._usage.append(Usage(at, time.process_time()))

    @property
    def outcome(self) -> Outcome:
        return Outcome(self._calls, self._changes, self._usage)


def _failure(rows: Rows) -> str:
    for found in rows:
        try:
            found["number"]
        except ReadFailed as error:
            return type(error.__cause__ or error).__name__
    return "ReadFailed"


def run_sync(url: str, options: RoutingOptions, seconds: float, warming: float) -> Outcome:
    """Calls in threads."""
    with (
        OnlineStore.open(
            url, schema=[Account], timeout=TIMEOUT, routing=options.as_routing()
        ) as store,
        ThreadPoolExecutor(THREADS) as threads,
    ):
        store.warm(CONNECTIONS)
        start = _told_to_start()
        recorder = Recorder("sync", start + warming)
        waiting = []
        for planned in plan(seconds):
            due = start + planned.due
            time.sleep(max(0.0, due - time.monotonic()))
            waiting.append(threads.submit(_make, store, planned, due, recorder))
            recorder.look(store)
        for future in waiting:
            future.result()
        return recorder.outcome


def _make(store: OnlineStore, planned: Planned, due: float, recorder: Recorder) -> None:
    began = time.monotonic()
    try:
        recorder.answered(planned, due, began, _call(store, "sync", planned, due))
    except Exception as error:  # noqa: BLE001 - one that should not be is a finding
        recorder.failed(planned, due, began, error)


async def run_async(url: str, options: RoutingOptions, seconds: float, warming: float) -> Outcome:
    """Calls in tasks."""
    async with (
        AsyncOnlineStore.open(
            url, schema=[Account], timeout=TIMEOUT, routing=options.as_routing()
        ) as store,
        asyncio.TaskGroup() as tasks,
    ):
        await store.warm(CONNECTIONS)
        start = _told_to_start()
        recorder = Recorder("async", start + warming)
        waiting = []
        for planned in plan(seconds):
            due = start + planned.due
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            waiting.append(tasks.create_task(_make_async(store, planned, due, recorder)))
            recorder.look(store)
        await asyncio.gather(*waiting)
        return recorder.outcome


async def _make_async(
    store: AsyncOnlineStore, planned: Planned, due: float, recorder: Recorder
) -> None:
    began = time.monotonic()
    try:
        recorder.answered(planned, due, began, await _call(store, "async", planned, due))
    except Exception as error:  # noqa: BLE001 - one that should not be is a finding
        recorder.failed(planned, due, began, error)


def _call(store: Any, mode: str, planned: Planned, due: float) -> Any:
    if planned.kind == WRITE:
        written = row(entity_of(mode, planned.number), planned.number)
        # Else one that its thread made late would be the newer one, and the next one seem lost.
        return store.write(Account, [written], observed_at=_wall(due))
    return store.read(Account, keys_of(mode, planned), FEATURES)


def _wall(moment: float) -> datetime:
    """When a reading of the monotonic clock was, or is."""
    return datetime.now(UTC) + timedelta(seconds=moment - time.monotonic())


def _told_to_start() -> float:
    print(json.dumps("ready"), flush=True)
    return float(sys.stdin.readline())


def main(arguments: Sequence[str]) -> None:
    """`MODE URL ROUTING SECONDS WARMING`."""
    mode, url, routing, seconds, warming = arguments
    given = (url, RoutingOptions(**json.loads(routing)), float(seconds), float(warming))
    outcome = run_sync(*given) if mode == "sync" else asyncio.run(run_async(*given))
    print(json.dumps(outcome), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
