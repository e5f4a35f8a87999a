"""`doctor` on Valkey: each fault of a server is found, each sound one passes."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest
import redis

from chalk_online_store import OnlineStore, features
from chalk_online_store.cli import main
from chalk_online_store.cli.doctor.checks import (
    Check,
    of_cache_memory,
    of_durability,
    of_memory,
    of_role,
    of_servers,
)
from chalk_online_store.testing import Dynoxide, Valkey, ValkeyCluster, ValkeyReplicas, create_table
from chalk_online_store.urls import parse_url
from chalk_online_store.valkey.urls import ValkeyTarget

ROOM = {"maxmemory": "100mb", "maxmemory-policy": "noeviction"}


@features
class User:
    id: int
    a: int


def checks_of(url: str, *, caches: bool = False) -> dict[str, Check]:
    """What is found of the servers of a URL, by what was looked at."""
    target = parse_url(url)
    assert isinstance(target, ValkeyTarget)
    return {check.what: check for check in of_servers(target, caches=caches)}


def verdicts(url: str, *, caches: bool = False) -> dict[str, str]:
    return {what: check.verdict for what, check in checks_of(url, caches=caches).items()}


def test_a_sound_server_passes(tmp_path: Path) -> None:
    """Bounded memory of which nothing is evicted, a file of all writes, a replica."""
    with Valkey(tmp_path, settings=ROOM) as primary:
        of = {"replicaof": f"127.0.0.1 {primary.port}", "repl-diskless-sync-delay": "0"}
        with Valkey(settings=of) as replica:
            client = redis.Redis(port=replica.port or 0)
            while client.info("replication")["master_link_status"] != "up":
                pass
            client.close()
            found = checks_of(primary.url())
    assert {check.verdict for check in found.values()} == {"ok"}
    assert set(found) == {"server", "memory", "durability", "replicas"}
    assert found["memory"].found == "0.0 of 0.1 GiB, noeviction"


def test_a_server_as_it_comes_is_warned_of() -> None:
    """Without a bound, a file and a replica, each of them is named, with the way out."""
    with Valkey() as server:
        found = checks_of(server.url())
    kinds = {what: check.verdict for what, check in found.items()}
    assert kinds == {
        "server": "ok",
        "memory": "warning",
        "durability": "warning",
        "replicas": "warning",
    }
    assert all(check.advice for check in found.values() if check.verdict != "ok")


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_store_that_evicts_is_an_error_and_a_cache_that_does_is_not(policy: str) -> None:
    """Eviction would take the registry of a store; of a cache it is what makes room."""
    with Valkey(settings=ROOM | {"maxmemory-policy": policy}) as server:
        assert verdicts(server.url())["memory"] == "error"
        cache = verdicts(server.url(), caches=True)
    assert cache == {"server": "ok", "shared cache": "ok" if "lru" in policy else "warning"}


def test_replicas_are_looked_at_too() -> None:
    """Each node that reads may go to is; one that is away is no error, nor named as the primary."""
    with ValkeyReplicas() as group:
        target = parse_url(group.url())
        assert isinstance(target, ValkeyTarget)
        sound = list(of_servers(target, caches=False))
        assert [check.found[-7:] for check in sound if check.what == "server"] == [
            "primary",
            "replica",
        ]
        swapped = f"valkey://127.0.0.1:{group.replicas[0].port},127.0.0.1:{group.primary.port}/0"
        other = parse_url(swapped)
        assert isinstance(other, ValkeyTarget)
        roles = [
            check.verdict for check in of_servers(other, caches=False) if check.what == "server"
        ]
        assert roles == ["error", "error"]
        group.replicas[0].stop()
        gone = [check for check in of_servers(target, caches=False) if check.what == "server"]
        assert [check.verdict for check in gone] == ["ok", "warning"]


def test_every_node_of_a_cluster_is_looked_at(valkey_cluster: ValkeyCluster) -> None:
    """Each node with keys of its own says how it is."""
    target = parse_url(valkey_cluster.url())
    assert isinstance(target, ValkeyTarget)
    found = [check.where for check in of_servers(target, caches=False) if check.what == "server"]
    assert len(found) == len({*found}) >= 3


def test_a_server_that_does_not_answer_is_named() -> None:
    """It is an error for a store; where it is a cache, one can do without."""
    with Valkey() as server:
        url = server.url(read_timeout="0.3")
        os.kill(server.pid, signal.SIGSTOP)
        try:
            assert verdicts(url) == {"server": "error"}
            assert verdicts(url, caches=True) == {"server": "warning"}
        finally:
            os.kill(server.pid, signal.SIGCONT)


@pytest.mark.parametrize(
    ("info", "verdict"),
    [
        ({"maxmemory": "100", "used_memory": "50"}, "ok"),
        ({"maxmemory": "100", "used_memory": "91"}, "warning"),
        ({"maxmemory": "0", "used_memory": "91"}, "warning"),
        ({"maxmemory": "100", "maxmemory_policy": "allkeys-lru", "evicted_keys": "7"}, "error"),
    ],
)
def test_a_stores_memory_is_judged(info: Mapping[str, str], verdict: str) -> None:
    """How full it is, and what happens then."""
    assert of_memory("here", info).verdict == verdict


def test_what_a_server_could_not_write_is_an_error() -> None:
    """A file that fails is worse than none."""
    assert of_durability("here", {"aof_enabled": "1"}).verdict == "ok"
    failed = {"aof_enabled": "1", "aof_last_write_status": "err"}
    assert of_durability("here", failed).verdict == "error"
    assert of_durability("here", {"rdb_last_bgsave_status": "err"}).verdict == "error"


def test_a_replica_that_is_cut_off_is_warned_of() -> None:
    """It answers what it had when its primary was last there."""
    info = {"role": "slave", "master_link_status": "down"}
    assert of_role("here", info, primary=False).verdict == "warning"


def test_a_cache_that_refuses_is_warned_of() -> None:
    """Without eviction a full cache takes nothing new."""
    assert of_cache_memory("here", {"maxmemory_policy": "noeviction"}).verdict == "warning"


def test_the_command_looks_at_servers(capsys: pytest.CaptureFixture[str], valkey: Valkey) -> None:
    """A Valkey URL, and the shared cache of a DynamoDB URL, are looked at by `doctor`."""
    with OnlineStore.open(valkey.url("doctor:"), [User]) as store:
        store.write(User, [{"id": 1, "a": 1}])
    with suppress(SystemExit):
        main(["doctor", valkey.url("doctor:"), "--json"])
    of_store = {check["what"]: check for check in json.loads(capsys.readouterr().out)}
    assert of_store["registry"]["found"] == "3 entries"
    assert of_store["server"]["verdict"] == "ok"
    with Dynoxide() as engine:
        create_table(engine.endpoint_url, "features")
        url = f"{engine.url('features')}&shared_cache={quote(valkey.url())}"
        with suppress(SystemExit):
            main(["doctor", url, "--json"])
    of_table = [check["what"] for check in json.loads(capsys.readouterr().out)]
    assert {"table", "server", "shared cache"} <= {*of_table}
    assert "replicas" not in of_table
