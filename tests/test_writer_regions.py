"""The persistence writer on a Global Table: what a region acknowledged outlives the region."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from chalk_online_store import (
    AsyncOnlineStore,
    AsyncPersistenceWriter,
    OnlineStore,
    PersistenceWriter,
    Routing,
    Writing,
)
from chalk_online_store.testing import LocalGlobalTable
from tests.crashing import KEYS, User, moment, row

EAST, WEST = "us-east-1", "us-west-2"
ROUTING = Routing(return_after="500ms", return_over="500ms", probe_every="500ms")


@pytest.fixture
def spools(tmp_path: Path) -> dict[str, Path | None]:
    return {"memory": None, "spool": tmp_path / "writer.spool"}


def open_store(table: LocalGlobalTable, regions: list[str] | None = None) -> OnlineStore:
    return OnlineStore.open(table.url(regions), [User], routing=ROUTING, session=table.session())


def versions(table: LocalGlobalTable, region: str) -> dict[int, int]:
    """The version of each row in one region; no row is of two."""
    with OnlineStore.open(table.urls[region], [User], session=table.session()) as store:
        found = {}
        for key, each in enumerate(store.read(User, range(KEYS), consistent=True)):
            if each.status("version") == "hit":
                found[key] = each["version"]
                assert each["text"] == f"v{each['version']}"
        return found


def write(writer: PersistenceWriter, *wanted: int) -> None:
    """Write versions of every row, and wait until they are acknowledged."""
    for version in wanted:
        writer.submit(User, [row(key, version) for key in range(KEYS)], moment(version))
    writer.flush(20)


def until(holds: Any, seconds: float = 15.0) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("kept", ["memory", "spool"])
def test_what_a_lost_region_acknowledged_is_written_to_the_next(
    local_global_table: LocalGlobalTable, kept: str, spools: dict[str, Path | None]
) -> None:
    """Writes that were never replicated are in the surviving region soon after the failover."""
    table = local_global_table
    with (
        open_store(table) as store,
        PersistenceWriter(store, Writing(write_timeout="1s"), spool=spools[kept]) as writer,
    ):
        write(writer, 1)
        table.wait_until_replicated()
        table.partition(EAST, WEST)
        write(writer, 2, 3)
        assert versions(table, WEST) == dict.fromkeys(range(KEYS), 1)
        table.lose(EAST, "refused")
        writer.submit(User, [row(0, 4)], moment(4))
        until(lambda: writer.stats().replayed >= KEYS)
        writer.flush(20)
        assert versions(table, WEST) == {0: 4} | dict.fromkeys(range(1, KEYS), 3)
        table.heal()
        table.restore(EAST)
        until(lambda: writer.stats().replay_owed == 0, 30)
        table.wait_until_replicated(30)
        for region in (EAST, WEST):
            assert versions(table, region) == {0: 4} | dict.fromkeys(range(1, KEYS), 3)


def test_an_idle_writer_notices_that_a_region_is_lost(local_global_table: LocalGlobalTable) -> None:
    """Though nobody writes any more, what was acknowledged is written to the next region."""
    table = local_global_table
    with open_store(table) as store, PersistenceWriter(store) as writer:
        write(writer, 1)
        table.wait_until_replicated()
        table.partition(EAST, WEST)
        write(writer, 2)
        table.lose(EAST, "refused")
        until(lambda: writer.stats().replayed >= KEYS, 20)
        assert versions(table, WEST) == dict.fromkeys(range(KEYS), 2)


def test_a_replay_undoes_nothing_that_others_wrote(local_global_table: LocalGlobalTable) -> None:
    """Newer values of another process in the surviving region stay, also after the return."""
    table = local_global_table
    with open_store(table) as store, PersistenceWriter(store) as writer:
        write(writer, 1)
        table.wait_until_replicated()
        table.partition(EAST, WEST)
        write(writer, 2)
        table.lose(EAST, "refused")
        with open_store(table, [WEST, EAST]) as other:
            other.write(User, [{"id": 1, "version": 9, "text": "v9"}], observed_at=moment(9))
            other.write(User, [{"id": 2, "blob": b"part"}], observed_at=moment(9))
            until(lambda: writer.stats().replayed >= KEYS, 20)
            for _ in range(2):
                rows = other.read(User, range(4))
                assert [each["version"] for each in rows] == [2, 9, 2, 2]
                assert rows[2]["blob"] == b"part"
                table.heal()
                table.restore(EAST)
                until(lambda: writer.stats().replay_owed == 0, 30)
                table.wait_until_replicated(30)


def test_an_async_writer_replays_too(local_global_table: LocalGlobalTable) -> None:
    """The same core under asyncio."""
    table = local_global_table

    async def script() -> None:
        async with (
            _async_store(table) as store,
            AsyncPersistenceWriter(store) as writer,
        ):
            for version in (1, 2):
                rows = [row(key, version) for key in range(KEYS)]
                ticket = await writer.submit(User, rows, moment(version))
                await ticket.wait(timeout=60)
                if version == 1:
                    await asyncio.to_thread(table.wait_until_replicated)
                    await asyncio.to_thread(table.partition, EAST, WEST)
            await asyncio.to_thread(table.lose, EAST, "refused")
            deadline = time.monotonic() + 120
            while writer.stats().replayed < KEYS:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)

    asyncio.run(script())
    assert versions(table, WEST) == dict.fromkeys(range(KEYS), 2)


def _async_store(table: LocalGlobalTable) -> AsyncOnlineStore:
    url, session = table.url(), table.session()
    return AsyncOnlineStore.open(url, [User], routing=ROUTING, session=session)


@pytest.mark.slow
def test_regions_come_and_go_under_load() -> None:
    """Three regions, two failovers and a return under load: nothing acknowledged is lost."""
    with LocalGlobalTable((EAST, WEST, "eu-west-1")) as table:
        table.set_lag(0.5)
        with (
            open_store(table) as store,
            PersistenceWriter(store, Writing(write_timeout="1s")) as writer,
        ):
            version = 0
            for event in (None, (table.lose, EAST), (table.lose, WEST), (table.restore, EAST)):
                if event is not None:
                    event[0](event[1])
                began = time.monotonic()
                while time.monotonic() - began < 2.5:
                    version += 1
                    writer.submit(User, [row(version % KEYS, version)], moment(version))
                    time.sleep(0.01)
            writer.flush(30)
            table.restore(WEST)
            until(lambda: writer.stats().replay_owed == 0, 40)
            table.wait_until_replicated(30)
        expected = {key: version - (version - key) % KEYS for key in range(KEYS)}
        for region in (EAST, WEST, "eu-west-1"):
            assert versions(table, region) == expected


def test_one_region_keeps_nothing_for_others(tmp_path: Path) -> None:
    """Where there is no other region, what is written needs no memory."""
    with (
        OnlineStore.open(f"sqlite:///{tmp_path / 'features.db'}", [User]) as store,
        PersistenceWriter(store) as writer,
    ):
        write(writer, 1)
        assert writer.stats().replay_bytes == 0
