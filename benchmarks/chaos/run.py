"""One scenario, from an empty table to what was found."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks.chaos.calls import Outcome, entity_of
from benchmarks.chaos.load import Account, row
from benchmarks.chaos.scenarios import Scenario, Step
from benchmarks.chaos.settings import ENTITIES, MODES, PREFERRED, STANDBY, Pace
from benchmarks.crew import start
from chalk_online_store import OnlineStore
from chalk_online_store.testing import LocalGlobalTable

LOOK_EVERY = 0.5
_AT_ONCE = 100
_FOR_REPLICATION = 120.0


class LoadFailed(Exception):
    """A load's process ended before it had told what it found."""


class Load:
    """A process with one store, as the run sees it: started on entering `with`."""

    def __init__(self, mode: str, url: str, scenario: Scenario, pace: Pace) -> None:
        options = json.dumps(asdict(scenario.routing))
        lasts = (str(pace.warming + pace.end), str(pace.warming))
        self._command = [sys.executable, "-m", "benchmarks.chaos.load", mode, url, options, *lasts]

    def __enter__(self) -> Self:
        self._process = start(self._command)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def hear(self) -> Any:
        """What it says next."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise LoadFailed("a load ended early: see what it printed")
        return json.loads(line)

    def begin(self, at: float) -> None:
        """Have it begin at a reading of the monotonic clock."""
        assert self._process.stdin
        self._process.stdin.write(f"{at}\n")
        self._process.stdin.flush()


@dataclass(frozen=True, slots=True)
class Look:
    """What the proxies had seen by then: requests, and open connections, by region."""

    at: float
    requests: dict[str, int]
    connections: dict[str, int]


Values = dict[int, int]
"""The newest number of each written entity."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a run of a scenario left: the loads by mode, and the tables.

    `steps` are when what was done, in seconds. `standby` is what the other region held just
    before the fault ended, `final` what each region holds when all has been replicated.
    """

    outcomes: dict[str, Outcome]
    steps: list[float]
    looks: list[Look]
    standby_at: float
    standby: Values
    final: dict[str, Values]


def run(scenario: Scenario, pace: Pace) -> Found:
    """Run one scenario, about as long as its pace says."""
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        table = stack.enter_context(LocalGlobalTable(path=Path(directory), seed=0))
        _fill(table)
        table.set_lag(scenario.lag)
        scenario.prepare(table)
        options = {} if scenario.home == scenario.regions[0] else {"home": scenario.home}
        url = table.url(scenario.regions, **options)
        loads = {m: stack.enter_context(Load(m, url, scenario, pace)) for m in MODES}
        return _Run(table, scenario, pace, loads).found()


def _fill(table: LocalGlobalTable) -> None:
    with OnlineStore.open(table.url(read_timeout=30), schema=[Account], timeout=120) as store:
        store.write(Account, [row(key, 0) for key in range(ENTITIES)], ordering="arrival")
    table.wait_until_replicated(_FOR_REPLICATION)


class _Run:
    """A scenario under way."""

    def __init__(
        self, table: LocalGlobalTable, scenario: Scenario, pace: Pace, loads: dict[str, Load]
    ) -> None:
        self._table = table
        self._scenario = scenario
        self._pace = pace
        self._loads = loads
        self._looks: list[Look] = []
        self._done: list[float] = []
        self._zero = 0.0
        writes = int((pace.warming + pace.end) * 20)
        self._written = sorted({entity_of(mode, n) for mode in MODES for n in range(writes)})

    def found(self) -> Found:
        """Run it to its end."""
        self._start()
        *begun, last = self._scenario.steps(self._pace)
        for step in begun:
            self._do(step)
        self._wait_until(last.at - 0.2)
        standby_at = self._now()
        other = PREFERRED if self._scenario.ill == STANDBY else STANDBY
        standby = self._values(other)
        self._do(last)
        outcomes = {mode: Outcome.of(load.hear()) for mode, load in self._heard()}
        self._table.wait_until_replicated(_FOR_REPLICATION)
        final = {name: self._values(name) for name in (PREFERRED, STANDBY)}
        return Found(outcomes, self._done, self._looks, standby_at, standby, final)

    def _start(self) -> None:
        for load in self._loads.values():
            load.hear()
        at = time.monotonic() + 0.2
        self._zero = at + self._pace.warming
        for load in self._loads.values():
            load.begin(at)

    def _heard(self) -> Iterator[tuple[str, Load]]:
        self._wait_until(self._pace.end)
        yield from self._loads.items()

    def _do(self, step: Step) -> None:
        self._wait_until(step.at)
        self._done.append(self._now())
        step.act(self._table)

    def _now(self) -> float:
        return time.monotonic() - self._zero

    def _wait_until(self, at: float) -> None:
        """Wait, and look at the proxies meanwhile."""
        while (left := at - self._now()) > 0:
            if not self._looks or self._now() - self._looks[-1].at >= LOOK_EVERY:
                self._look()
            time.sleep(min(left, 0.02))

    def _look(self) -> None:
        at = self._now()
        stats = {name: self._table.region(name).proxy.stats() for name in (PREFERRED, STANDBY)}
        requests = {name: sum(seen.requests.values()) for name, seen in stats.items()}
        connections = {name: seen.connections for name, seen in stats.items()}
        self._looks.append(Look(at, requests, connections))

    def _values(self, region: str) -> Values:
        """What one region holds, read past its proxy."""
        with self._alone(region) as store:
            found: Values = {}
            for keys in _chunks(self._written, _AT_ONCE):
                rows = store.read(Account, keys, ["number"])
                numbers = rows.column("number")
                found |= {k: n for k, n in zip(keys, numbers, strict=True) if n is not None}
            return found

    @contextmanager
    def _alone(self, region: str) -> Iterator[OnlineStore]:
        url = self._table.region(region).engine.url(self._table.table, region=region)
        with OnlineStore.open(url, schema=[Account]) as store:
            yield store


def _chunks(keys: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (keys[start : start + size] for start in range(0, len(keys), size))
