"""The SQLite engine: query plans, durability, forks, and other processes that write."""

from __future__ import annotations

import asyncio
import os
import random
import select
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chalk_online_store import (
    AsyncOnlineStore,
    Feature,
    Namespace,
    OnlineStore,
    WriteFailed,
)
from chalk_online_store.codec.changes import Change, ConditionalWrite, parse_item
from chalk_online_store.codec.layout import ItemKey
from chalk_online_store.embedded import requests
from chalk_online_store.embedded import transport as sqlite
from chalk_online_store.embedded.transport import SqliteEngine
from chalk_online_store.errors import RequestTimeout

USER = Namespace("user", int, [Feature("v", int)])
CHILD_SECONDS = 60

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def connections(engine: SqliteEngine) -> list[sqlite3.Connection]:
    """The open connections of an engine."""
    found = [engine._writing._connection, engine._reading._connection]
    return [connection for connection in found if connection is not None]


def test_each_statement_searches_an_index(tmp_path: Path) -> None:
    """No statement of any request scans the items."""
    engine = SqliteEngine(str(tmp_path / "features.db"))
    engine.warm(1, 5.0)
    statements: set[str] = set()
    for connection in connections(engine):
        connection.set_trace_callback(statements.add)
    keys = [ItemKey(f"a:{number}", sk) for number in range(700) for sk in ("x", "y")]
    change = Change.of(keys[0], 1, {}, True, 1, 10)
    for request in (
        requests.Get(keys[:1]),
        requests.Get(keys),
        requests.Merge([change]),
        requests.Replace([change]),
        requests.ListPartition("a:1", "x"),
        requests.ScanKeys(keys[0], 10),
        requests.ScanItems(keys[0], 10),
        requests.Transact([ConditionalWrite(None, parse_item(b'{"pk":{"S":"a"},"sk":{"S":"b"}}'))]),
    ):
        engine.send(request, 5.0)
    engine._writing.run(sqlite._prepare, 5.0)
    writing = connections(engine)[0]
    writing.set_trace_callback(None)
    queries = [each for each in statements if each.split()[0] in ("SELECT", "DELETE", "REPLACE")]
    plans = {q: [line[3] for line in writing.execute(f"EXPLAIN QUERY PLAN {q}")] for q in queries}
    engine.close()
    assert len(queries) > 7
    assert [plan for plan in plans.values() if any(line.startswith("SCAN") for line in plan)] == []
    assert {line.split("(")[0] for q in queries if "IN (" in q for line in plans[q]} == {
        "SEARCH items USING PRIMARY KEY "
    }


def test_many_keys_of_several_groups_are_found(tmp_path: Path) -> None:
    """A read of more keys than a statement takes finds each item once."""
    engine = SqliteEngine(str(tmp_path / "features.db"))
    keys = [ItemKey(f"a:{number}", f"{number % 3}") for number in range(1300)]
    engine.send(requests.Replace([Change.of(key, 1, {}, False, 1, None) for key in keys]), 30.0)
    found = engine.send(requests.Get([*keys, ItemKey("a:0", "1"), ItemKey("b", "0")]), 30.0)
    engine.close()
    assert sorted(found) == sorted(keys)


@pytest.mark.parametrize("name", ["features.db", ""])
def test_a_commit_is_synced(tmp_path: Path, name: str) -> None:
    """Each connection to a file syncs each commit, on macOS past the cache of the drive too."""
    engine = SqliteEngine(str(tmp_path / name) if name else "")
    engine.warm(1, 5.0)
    for connection in connections(engine):
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert connection.execute("PRAGMA fullfsync").fetchone() == (1,)
        mode = connection.execute("PRAGMA journal_mode").fetchone()
        assert mode == ("wal" if name else "memory",)
    engine.close()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another connection, as another process has it, is in the middle of a write."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.close()


def test_another_writer_delays_writes_and_no_reads(tmp_path: Path) -> None:
    """While another process writes, reads succeed, and a write fails at its deadline."""
    path = tmp_path / "features.db"
    with OnlineStore.open(f"sqlite:///{path}", [USER]) as store:
        store.write(USER, [{"id": 1, "v": 1}])
        with locked(path):
            began = time.monotonic()
            with pytest.raises(WriteFailed, match="other processes kept the database busy"):
                store.write(USER, [{"id": 1, "v": 2}], timeout=0.2)
            assert time.monotonic() - began >= 0.15
            assert store.read(USER, [1]).column("v") == [1]
        store.write(USER, [{"id": 1, "v": 3}])
        assert store.read(USER, [1]).column("v") == [3]


def test_a_request_that_waits_leaves_the_connection_to_others(tmp_path: Path) -> None:
    """A database that waits for another process can be closed meanwhile."""
    path = tmp_path / "features.db"
    engine = SqliteEngine(str(path))
    with locked(path):
        change = Change.of(ItemKey("a", "b"), 1, {}, False, 1, None)
        failures: list[Exception] = []

        def write() -> None:
            try:
                engine.send(requests.Merge([change]), 60.0)
            except Exception as error:  # noqa: BLE001 - it is looked at below.
                failures.append(error)

        thread = threading.Thread(target=write)
        thread.start()
        time.sleep(0.05)
        engine.close()
        thread.join(60)
    assert [type(failure).__name__ for failure in failures] == ["StoreClosed"]


def test_a_call_from_a_signal_handler_is_refused(tmp_path: Path) -> None:
    """A handler that uses the engine in the middle of a request gets an error, not a deadlock."""
    engine = SqliteEngine(str(tmp_path / "features.db"))
    found: list[str] = []

    def reenter(connection: sqlite3.Connection) -> str:
        try:
            engine._reading.run(lambda connection: "entered", 5.0)
        except RequestTimeout as error:
            found.append(str(error))
        return "done"

    assert engine._reading.run(reenter, 5.0) == "done"
    assert engine._reading.run(lambda connection: "free", 5.0) == "free"
    engine.close()
    assert found == ["SQLite: called from within another call of this thread."]


# --- forks ---------------------------------------------------------------------------------


def in_fork(call: Callable[[], object]) -> str:
    """What a call returns or raises in a forked child; "hangs" if it does not end."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = repr(call())
        except BaseException as error:  # noqa: BLE001 - the parent compares it.
            answer = f"{type(error).__name__}: {error}"
        os.write(theirs, answer.encode())
        os._exit(0)
    os.close(theirs)
    ready, _, _ = select.select([ours], [], [], CHILD_SECONDS)
    answer = os.read(ours, 4096).decode() if ready else "hangs"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(ours)
    return answer


@contextmanager
def busy_threads(call: Callable[[], object], count: int = 3) -> Iterator[list[Exception]]:
    """Threads that make a call again and again; what they raised."""
    ended = threading.Event()
    failures: list[Exception] = []

    def work() -> None:
        while not ended.is_set():
            try:
                call()
            except Exception as error:  # noqa: BLE001 - the test fails then.
                failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield failures
    finally:
        ended.set()
        for thread in threads:
            thread.join()


@needs_fork
@pytest.mark.parametrize("in_memory", [False, True])
def test_a_store_continues_in_a_fork(tmp_path: Path, in_memory: bool) -> None:
    """Children that are forked while threads read and write can read and write, like the parent."""
    url = "sqlite://" if in_memory else f"sqlite:///{tmp_path}/features.db"
    rng = random.Random(1)
    with OnlineStore.open(url, [USER], timeout=CHILD_SECONDS / 2) as store:
        store.write(USER, [{"id": key, "v": key} for key in range(50)])

        def use() -> None:
            store.read(USER, rng.sample(range(50), 20))
            store.write(USER, [{"id": 1, "v": 1}])

        def in_child() -> object:
            store.write(USER, [{"id": 100, "v": 7}])
            return store.read(USER, [*range(50), 100]).column("v") == [*range(50), 7]

        with busy_threads(use) as failures:
            answers = [in_fork(in_child) for _ in range(6)]
        assert answers == ["True"] * 6
        assert failures == []
        # A file is shared. A database in memory was copied.
        assert store.read(USER, [100]).statuses("v") == ["missing" if in_memory else "hit"]


@needs_fork
def test_parent_and_child_write_to_one_file(tmp_path: Path) -> None:
    """Locks of parent and child hold against each other: no write of either is lost."""
    with OnlineStore.open(f"sqlite:///{tmp_path}/features.db", [USER]) as store:

        def write_from(first: int) -> bool:
            for key in range(first, first + 100):
                store.write(USER, [{"id": key, "v": key}], timeout=CHILD_SECONDS / 2)
            return True

        write_from(0)
        thread = threading.Thread(target=write_from, args=(1000,))
        thread.start()
        assert in_fork(lambda: write_from(2000)) == "True"
        thread.join()
        keys = [first + key for first in (0, 1000, 2000) for key in range(100)]
        assert store.read(USER, keys).column("v") == keys
        (check,) = store.driver.transports[""]._writing.run(  # type: ignore[attr-defined]
            lambda connection: connection.execute("PRAGMA integrity_check").fetchall(), 5.0
        )
        assert check == ("ok",)


@needs_fork
def test_an_async_store_continues_in_a_fork(tmp_path: Path) -> None:
    """A child runs an event loop of its own with the parent's store."""
    store = AsyncOnlineStore.open(f"sqlite:///{tmp_path}/features.db", [USER])

    async def use(value: int) -> object:
        await store.write(USER, [{"id": 1, "v": value}])
        return (await store.read(USER, [1])).column("v")

    assert asyncio.run(use(1)) == [1]
    assert in_fork(lambda: asyncio.run(use(2))) == "[2]"
    assert asyncio.run(use(3)) == [3]
    asyncio.run(store.close())


@needs_fork
def test_a_database_in_memory_that_was_in_use_is_not_touched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If a thread does not come to rest before a fork, the child gets an error that says why."""
    monkeypatch.setattr("chalk_online_store._fork.FORK_TIMEOUT_SECONDS", 0.05)
    engine = SqliteEngine("")
    inside, ended = threading.Event(), threading.Event()

    def occupy(connection: sqlite3.Connection) -> None:
        inside.set()
        ended.wait(CHILD_SECONDS)

    thread = threading.Thread(target=engine._writing.run, args=(occupy, 5.0))
    thread.start()
    inside.wait(CHILD_SECONDS)
    answer = in_fork(lambda: engine.send(requests.Get([ItemKey("a", "b")]), 5.0))
    ended.set()
    thread.join()
    assert answer.startswith("ConnectionFailed: SQLite: the process was forked while")
    assert engine.send(requests.Get([ItemKey("a", "b")]), 5.0) == {}
    engine.close()
