"""The persistence writer on Valkey, with processes and servers that are killed."""

from __future__ import annotations

import random
import uuid
from pathlib import Path

import pytest

from chalk_online_store import OnlineStore, PersistenceWriter, RowsPending
from chalk_online_store.errors import SpoolError
from chalk_online_store.testing import Valkey, ValkeyCluster, ValkeySentinels
from tests.crashing import KEYS, User, moment, row
from tests.helpers import stress
from tests.test_writer_crashes import check_kills, versions


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "writer.spool"


@pytest.fixture(params=["valkey", "redis_server", "valkey_cluster"])
def url(request: pytest.FixtureRequest) -> str:
    """A store URL on each kind of server."""
    server: Valkey | ValkeyCluster = request.getfixturevalue(request.param)
    return server.url(f"{uuid.uuid4().hex}:")


@pytest.mark.slow
def test_nothing_durable_is_lost_when_writers_are_killed(url: str, spool: Path) -> None:
    """Killed at any moment, time and again: what was durable is there, whole, and newest wins."""
    check_kills(url, spool, stress(10))


def test_rows_in_any_order_leave_the_newest(url: str) -> None:
    """Whatever order rows are handed over in, event time decides, on the server as well."""
    order = [(key, version) for key in range(KEYS) for version in range(1, 20)]
    random.Random(3).shuffle(order)
    with OnlineStore.open(url, [User]) as store, PersistenceWriter(store) as writer:
        for key, version in order:
            writer.submit(User, [row(key, version)], moment(version))
        writer.flush(60)
        stats = writer.stats()
    assert (stats.accepted, stats.written, stats.dead) == (len(order), len(order), 0)
    assert versions(url) == dict.fromkeys(range(KEYS), 19)


def test_a_server_that_was_killed_has_what_was_written(tmp_path: Path, spool: Path) -> None:
    """With an append-only file written through, a crash of the server loses nothing either."""
    folder = tmp_path / "server"
    folder.mkdir()
    with (
        Valkey(folder) as server,
        OnlineStore.open(server.url(), [User]) as store,
        PersistenceWriter(store, spool=spool) as writer,
    ):
        writer.submit(User, [row(key, 1) for key in range(KEYS)], moment(1))
        writer.flush(10)
        server.kill()
        for version in range(2, 20):
            writer.submit(User, [row(key, version) for key in range(5)], moment(version))
        with pytest.raises(RowsPending):
            writer.flush(0.5)
        server.start()
        writer.flush(60)
        assert writer.stats().dead == 0
        assert versions(server.url()) == {key: 19 if key < 5 else 1 for key in range(KEYS)}


def test_a_failover_loses_no_row_that_is_still_to_be_written(spool: Path) -> None:
    """While a replica takes over, the writer waits, and then writes everything there."""
    with ValkeySentinels() as group:
        with (
            OnlineStore.open(group.url(), [User]) as store,
            PersistenceWriter(store, spool=spool) as writer,
        ):
            writer.submit(User, [row(0, 1)], moment(1))
            writer.flush(10)
            group.primary.kill()
            for version in range(2, 50):
                writer.submit(User, [row(key, version) for key in range(KEYS)], moment(version))
            writer.flush(60)
            assert writer.stats().dead == 0
        assert versions(group.url()) == dict.fromkeys(range(KEYS), 49)


def test_a_spool_belongs_to_one_database(valkey: Valkey, spool: Path) -> None:
    """Rows that were handed over for one prefix are not written under another."""
    with OnlineStore.open(valkey.url("spool-one:"), [User]) as store:
        PersistenceWriter(store, spool=spool).close()
    with (
        OnlineStore.open(valkey.url("spool-two:"), [User]) as store,
        pytest.raises(SpoolError, match="table"),
    ):
        PersistenceWriter(store, spool=spool)
