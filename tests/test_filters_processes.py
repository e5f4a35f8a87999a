"""A Bloom filter between real processes, which are killed: nobody's entities are hidden."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import signal
import time
import uuid
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from chalk_online_store import (
    BloomFilter,
    Feature,
    Namespace,
    OnlineStore,
    OnlineStoreConfig,
    Status,
)
from chalk_online_store.testing import Dynoxide, create_table
from chalk_online_store.tiers.filter import snapshots
from chalk_online_store.tiers.filter.reads import FilterStats

REFRESH = 0.5
SECONDS = 3.0 * int(os.environ.get("CHALK_STRESS", "1"))
PATIENCE = 30.0
WRITERS = 3

# The server of forks imports this module once, so that a writer starts within milliseconds.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["__main__", __name__])

# Room for few, so that it grows, and a log that is merged soon.
CONFIG = OnlineStoreConfig(bloom_filter=BloomFilter(300, refresh=REFRESH, partitions=2))
USER = Namespace("user", int, [Feature("a", int)], online_store_config=CONFIG)


def write_on(url: str, first: int, acknowledge: Connection) -> None:
    """Write new entities, some at once, and say when they are acknowledged, until killed."""
    snapshots.LEAST_LOG_BYTES = 2_000
    with OnlineStore.open(url, [USER]) as store:
        for start in itertools.count(first, 4):
            keys = list(range(start, start + random.choice([1, 4])))
            store.write(USER, [{"id": key, "a": key} for key in keys])
            acknowledge.send((keys, time.monotonic()))


class Writer:
    """A process that writes, and the pipe that it tells of it by."""

    def __init__(self, url: str, number: int) -> None:
        self.pipe, theirs = multiprocessing.Pipe(duplex=False)
        self.process = CONTEXT.Process(target=write_on, args=(url, number * 1_000_000, theirs))
        self.process.start()
        theirs.close()
        self.told = 0

    def acknowledged(self) -> Iterator[tuple[int, float]]:
        """What was acknowledged since the last call, and when."""
        while self.pipe.poll():
            try:
                keys, when = self.pipe.recv()
            except EOFError:
                return
            self.told += 1
            yield from ((key, when) for key in keys)

    def kill(self) -> None:
        """Kill it as the kernel does when memory is short."""
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()


@pytest.fixture(params=["sqlite", "dynoxide"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty table."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/features.db"
    engine: Dynoxide = request.getfixturevalue("dynoxide")
    create_table(engine.endpoint_url, table := f"filters-{uuid.uuid4().hex}")
    return engine.url(table)


@pytest.mark.slow
def test_killed_writers_hide_nothing(url: str) -> None:
    """Writers are killed and replaced; what they acknowledged is seen after the refresh, by all."""
    known: dict[int, float] = {}
    numbers = itertools.count(1)
    rng = random.Random(5)
    hidden: list[Any] = []
    killed = 0
    with OnlineStore.open(url, [USER]) as reader:
        reader.write(USER, [{"id": 0, "a": 0}])
        reader.warm()
        writers = [Writer(url, next(numbers)) for _ in range(WRITERS)]
        ends = time.monotonic() + SECONDS
        while time.monotonic() < ends or len(known) <= 300 or killed <= 2:  # On busy machines.
            for place, writer in enumerate(writers):
                known.update(writer.acknowledged())
                if writer.told > 0 and rng.random() < 0.02:
                    writer.kill()
                    known.update(writer.acknowledged())
                    writers[place] = Writer(url, next(numbers))
                    killed += 1
            began = time.monotonic()
            due = [key for key, when in known.items() if when <= began - REFRESH]
            hidden += unseen(reader, rng.sample(due, min(len(due), 50)))
        for writer in writers:
            writer.kill()
            known.update(writer.acknowledged())
        time.sleep(REFRESH)
        hidden += unseen(reader, list(known))
        stats = refreshed(reader)
    with OnlineStore.open(url, [USER]) as fresh:
        fresh.warm()
        hidden += unseen(fresh, list(known))
        absent = fresh.read(USER, range(-2000, 0))
    assert hidden == []
    assert len(known) > 300
    assert killed > 2
    assert stats.degraded_reason == ""
    assert stats.trusted
    assert stats.layers > 1
    assert absent.report.bloom_skips > 0.97 * 2000


def refreshed(reader: OnlineStore) -> FilterStats:
    """Return the statistics of the filter once a refresh in the background has ended.

    A read starts the refresh and does not wait for it. Statistics taken right after the read can
    therefore be older than everything that was written during the last `REFRESH` seconds.
    """
    ends = time.monotonic() + PATIENCE
    while True:
        unseen(reader, [0])
        stats = reader.stats().namespaces["user"].bloom
        assert stats is not None
        if stats.trusted or time.monotonic() > ends:
            return stats
        time.sleep(0.01)


def unseen(store: OnlineStore, keys: list[int]) -> list[int]:
    """Those of some acknowledged keys that a read does not find."""
    rows = store.read(USER, keys) if keys else ()
    return [row.key for row in rows if row.status("a") is not Status.HIT]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_announces_for_itself(tmp_path: Path) -> None:
    """Parent and child of a fork both write new entities, and both are seen."""
    url = f"sqlite:///{tmp_path}/features.db"
    with OnlineStore.open(url, [USER]) as first:
        first.write(USER, [{"id": 0, "a": 0}])
    with OnlineStore.open(url, [USER]) as store:
        store.warm()
        child = os.fork()
        if child == 0:
            store.write(USER, [{"id": 1, "a": 1}])
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        store.write(USER, [{"id": 2, "a": 2}])
    with OnlineStore.open(url, [USER]) as fresh:
        fresh.warm()
        assert fresh.read(USER, [0, 1, 2, 3]).column("a") == [0, 1, 2, None]
