"""Migrations as docs/migration.md describes them, under load: no read fails."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from chalk_online_store import AsyncOnlineStore, OnlineStore
from chalk_online_store.cli.copying.run import copy_items, take_up
from chalk_online_store.cli.stores import opened_store
from chalk_online_store.migration import AsyncDualStore, DualSettings, DualStore
from chalk_online_store.testing import Dynoxide, Latency, Valkey, ValkeyFaultProxy, create_table
from tests.dual_stores import SCHEMA, City, User
from tests.helpers import exit_status, stress

EARLIER = datetime.now(UTC) - timedelta(hours=1)
KEYS = range(60)
SETTINGS = DualSettings(shadow_timeout=60.0, recheck_after=0.1, max_queued_keys=100_000)


class Application:
    """A service that reads and writes until it is stopped, and checks each result.

    Every user has a risk that never decreases, since each write is newer than the one before it.
    """

    def __init__(self) -> None:
        self.failures: list[BaseException] = []
        self.reads = self.writes = self.deletes = 0
        self.stopped = threading.Event()
        self._numbers = itertools.count(1)
        self._least = dict.fromkeys(KEYS, 0.0)

    def turns(self, worker: int, workers: int) -> Iterator[tuple[int, dict[str, Any], float]]:
        """A user to read, a row to write afterwards, and the least risk that may be read."""
        for key in itertools.cycle(KEYS[worker::workers]):
            if self.stopped.is_set():
                return
            risk = float(next(self._numbers))
            yield key, {"id": key, "name": f"name {risk}", "risk": risk}, self._least[key]

    def check(self, key: int, row: Any, least: float) -> None:
        assert (row.status("name"), row.status("risk")) == ("hit", "hit"), key
        assert row["risk"] >= least, key
        self.reads += 1

    def written(self, row: dict[str, Any]) -> None:
        self._least[row["id"]] = row["risk"]
        self.writes += 1

    def use(self, store: Any, worker: int) -> None:
        """Use a store in a thread; one of two."""
        try:
            for key, row, least in self.turns(worker, 2):
                self.check(key, store.get(User, key), least)
                store.write(User, [row])
                self.written(row)
                store.write(City, [{"name": f"c{key}", "degrees": row["risk"]}])
                store.delete(City, [f"c{key}"])
                self.deletes += 1
        except BaseException as error:  # noqa: BLE001 - the test raises it.
            self.failures.append(error)

    async def use_async(self, store: Any, worker: int) -> None:
        """Use a store in a task; one of four."""
        for key, row, least in self.turns(worker, 4):
            self.check(key, await store.get(User, key), least)
            await store.write(User, [row])
            self.written(row)
            await store.write(City, [{"name": f"c{key}", "degrees": row["risk"]}])
            await store.delete(City, [f"c{key}"])
            self.deletes += 1


def fill(url: str) -> None:
    """The values of the old store before the migration, some of them of several times."""
    with OnlineStore.open(url, SCHEMA) as store:
        rows = [{"id": key, "name": "first", "risk": 0.0} for key in range(200)]
        store.write(User, rows, observed_at=EARLIER)
        store.write(User, [{"id": key, "risk": None} for key in range(100, 150)])
        store.delete(User, range(150, 160))
        store.write(City, [{"name": "Rome", "degrees": -0.0}])
        store.delete(City, ["Rome"])


def copy(old: str, new: str, progress: Path, *options: str) -> None:
    arguments = [old, new, "--progress", str(progress), "--yes", "--json", *options]
    assert exit_status("copy", *arguments) == 0


def copy_items_of(old: str, new: str, path: Path) -> None:
    """What `copy` does, which itself has to run in the main thread."""
    with opened_store(old) as source, opened_store(new) as target:
        state = take_up(path, old, new)
        copy_items(source, target, state, path, math.inf, lambda _: None)
    path.unlink()


def share_registry(old: str, new: str, lock: Path) -> None:
    """Step 1 of the guide: the new store has the feature ids of the old one."""
    assert exit_status("registry", "export", "--url", old, "--output", str(lock)) == 0
    assert exit_status("registry", "import", str(lock), "--url", new, "--json") == 0


def assert_compared(report: Any) -> None:
    """Reads were compared, and no value differs."""
    assert report.reads_compared > 0
    assert report.reads_failed == report.reads_dropped == 0
    assert report.differences == 0
    assert report.outstanding == {"old": 0, "new": 0}


@pytest.fixture
def dynoxide_url(dynoxide: Dynoxide) -> Callable[[], str]:
    def made() -> str:
        table = f"migration-{uuid.uuid4().hex}"
        create_table(dynoxide.endpoint_url, table)
        return dynoxide.url(table)

    return made


@pytest.mark.parametrize("turn", range(stress(1)))
def test_threads_migrate_from_sqlite_to_dynamodb(
    tmp_path: Path,
    dynoxide_url: Callable[[], str],
    capsys: pytest.CaptureFixture[str],
    turn: int,
) -> None:
    """Dual writes, copy, compare, switch and stop under load of threads: no call fails."""
    old, new = f"sqlite:///{tmp_path}/old.db", dynoxide_url()
    fill(old)
    share_registry(old, new, tmp_path / "registry.lock")
    app = Application()
    with DualStore.open(old, new, SCHEMA, compare=0.2, settings=SETTINGS, timeout=60.0) as dual:
        threads = [threading.Thread(target=app.use, args=(dual, n)) for n in range(2)]
        for thread in threads:
            thread.start()
        try:
            progress(app, 5)
            copy(old, new, tmp_path / "progress", "--no-verify")
            dual.wait_for_comparisons(60.0)
            dual.reset_report()  # Until here, values were missing in the new store.
            progress(app, 20)
            dual.switch_to("new")
            progress(app, 20)
        finally:
            app.stopped.set()
            for thread in threads:
                thread.join()
        assert app.failures == []
        assert dual.wait_for_comparisons(60.0)
        assert_equal_values(dual)
    capsys.readouterr()
    copy(old, new, tmp_path / "progress", "--only-verify")
    assert json.loads(capsys.readouterr().out)["compared"]["same"]


def assert_equal_values(dual: DualStore) -> None:
    """Without load, each user and each city is compared, and all are equal."""
    assert dual.outstanding() == []
    dual.reset_report()
    dual.dual.compare = 1.0
    dual.read(User, range(200))
    dual.read(City, ["Rome", *(f"c{key}" for key in KEYS)])
    assert dual.wait_for_comparisons(60.0)
    assert_compared(dual.report())
    assert dual.report().values_compared == 2 * 200 + 1 + len(KEYS)


def progress(app: Application, turns: int) -> None:
    """Wait until an application has done so many turns more."""
    until, pause = app.deletes + turns, threading.Event()
    for _ in range(60_000):
        if app.deletes >= until or app.failures:
            return
        pause.wait(0.001)
    raise AssertionError("The application makes no progress.")


@pytest.mark.parametrize("turn", range(stress(1)))
def test_tasks_migrate_from_dynamodb_to_valkey(
    tmp_path: Path,
    dynoxide_url: Callable[[], str],
    valkey: Valkey,
    valkey_fault_proxy: ValkeyFaultProxy,
    capsys: pytest.CaptureFixture[str],
    turn: int,
) -> None:
    """The same with asyncio, on a slow network, with a new store that is down for a while."""
    prefix = f"?prefix=m{uuid.uuid4().hex}:"
    old, new = dynoxide_url(), f"{valkey.url()}{prefix}"
    fill(old)
    share_registry(old, new, tmp_path / "registry.lock")
    asyncio.run(
        migrate(old, new, f"{valkey_fault_proxy.url()}{prefix}", valkey_fault_proxy, tmp_path)
    )
    capsys.readouterr()
    copy(old, new, tmp_path / "progress", "--only-verify")
    assert json.loads(capsys.readouterr().out)["compared"]["same"]


async def migrate(
    old: str, new: str, through_proxy: str, proxy: ValkeyFaultProxy, tmp_path: Path
) -> None:
    app = Application()
    stores = [AsyncOnlineStore.open(url, SCHEMA, timeout=60.0) for url in (old, through_proxy)]
    settings = DualSettings(shadow_timeout=1.0, retry_after=1.0, recheck_after=0.1)
    async with AsyncDualStore(*stores, compare=0.2, settings=settings) as dual:
        tasks = [asyncio.create_task(app.use_async(dual, n)) for n in range(4)]
        await progress_async(app, tasks, 5)
        await asyncio.to_thread(copy_items_of, old, new, tmp_path / "progress")
        proxy.stop()  # The new store is down: reads and writes go on.
        await progress_async(app, tasks, 20)
        proxy.start()
        proxy.inject(Latency(0.002))
        await progress_async(app, tasks, 5)
        while dual.outstanding():
            await asyncio.sleep(0.3)  # Writes are not skipped any more.
            await dual.copy_outstanding(timeout=60.0)
        dual.reset_report()
        await progress_async(app, tasks, 20)
        dual.switch_to("new", force=True)
        await progress_async(app, tasks, 20)
        app.stopped.set()
        await asyncio.gather(*tasks)
        await dual.copy_outstanding(timeout=60.0)
        assert dual.outstanding() == []
        checked = AsyncDualStore(*stores, compare=1.0, settings=SETTINGS)
        await checked.read(User, range(200))
        assert await checked.wait_for_comparisons(60.0)
        assert_compared(checked.report())


async def progress_async(app: Application, tasks: list[asyncio.Task[None]], turns: int) -> None:
    """As `progress`; a task that fails raises."""
    until = app.deletes + turns
    async with asyncio.timeout(60.0):
        while app.deletes < until:
            for task in tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.001)
