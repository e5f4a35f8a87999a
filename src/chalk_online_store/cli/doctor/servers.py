"""What servers of Valkey and Redis tell of themselves, judged: a store's, or a shared cache's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from itertools import count
from typing import Any, TypeAlias

from chalk_online_store.cli.doctor.checks import Check, Verdict
from chalk_online_store.connect import valkey_server
from chalk_online_store.errors import RequestError
from chalk_online_store.valkey.commands import Request
from chalk_online_store.valkey.urls import ValkeyTarget

Info: TypeAlias = Mapping[str, str]
"""What INFO answers: names to values."""

MEMORY_LIMIT = 0.9
"""The share of its memory from which on a server is said to be nearly full."""


def of_servers(target: ValkeyTarget, *, caches: bool) -> Iterator[Check]:
    """Memory, durability and replicas of each server that is read from; of a cache, memory alone.

    Each may take the target's `read_timeout` to answer.
    """
    for number, (name, place) in enumerate(target.places.items()):
        primary = number == 0
        try:
            with closing(valkey_server(place)) as transport:
                found = list(_infos(name, place, transport))
        except RequestError as error:
            # Reads and writes do without a cache, and some without a replica.
            verdict: Verdict = "error" if primary and not caches else "warning"
            yield Check(verdict, name, "server", str(error), "Start it, or correct the URL.")
            continue
        for where, info in found:
            yield from _checks(where, info, caches=caches, primary=primary)


def _checks(where: str, info: Info, *, caches: bool, primary: bool) -> Iterator[Check]:
    yield of_role(where, info, primary=primary)
    if caches:
        yield of_cache_memory(where, info)
        return
    yield of_memory(where, info)
    yield of_durability(where, info)
    if primary:
        yield check_replicas(where, info)


def _infos(name: str, target: ValkeyTarget, transport: Any) -> Iterator[tuple[str, Info]]:
    """Of every node of a cluster that has keys of its own, or of the one server."""
    for number in count():
        request = Request([("INFO",)], number if target.clustered else None)
        (reply,) = transport.send(request, target.read_timeout)
        if isinstance(reply, RequestError):
            raise reply
        if reply is None:  # There are no more nodes.
            return
        yield f"{name} node {number}" if target.clustered else name, info_of(reply)
        if not target.clustered:
            return


def info_of(reply: bytes) -> Info:
    """INFO's answer by name."""
    lines = (line.partition(":") for line in reply.decode(errors="replace").splitlines())
    return {name: value for name, colon, value in lines if colon}


def of_role(where: str, info: Info, *, primary: bool) -> Check:
    """What it is, against what the URL takes it for."""
    name = info.get("server_name", "redis")
    version = info.get(f"{name}_version", info.get("redis_version", "?"))
    is_primary = info.get("role", "master") == "master"
    said = f"{name} {version}, {'primary' if is_primary else 'replica'}"
    if primary and not is_primary:
        return Check("error", where, "server", said, "Name the primary first, or its sentinels.")
    if not primary and is_primary:
        return Check("error", where, "server", said, "It replicates nothing: see REPLICAOF.")
    if info.get("master_link_status", "up") != "up":
        advice = "It is behind its primary until it reaches it again."
        return Check("warning", where, "server", f"{said}, cut off from its primary", advice)
    return Check("ok", where, "server", said)


def of_memory(where: str, info: Info) -> Check:
    """A store's memory: nothing may be evicted, the registry least of all."""
    policy = info.get("maxmemory_policy", "noeviction")
    evicted = int(info.get("evicted_keys", "0"))
    said = f"{_used(info)}, {policy}"
    if policy != "noeviction":
        said += f", {evicted:,} keys evicted"
        advice = "Set maxmemory-policy noeviction: it would evict values, and the registry."
        return Check("error", where, "memory", said, advice)
    share = _share(info)
    if share is None:
        advice = "Set maxmemory: without, the system ends the server when memory is short."
        return Check("warning", where, "memory", said, advice)
    if share > MEMORY_LIMIT:
        return Check("warning", where, "memory", said, "Writes fail once it is full: give it more.")
    return Check("ok", where, "memory", said)


def of_cache_memory(where: str, info: Info) -> Check:
    """A shared cache's memory: it has to make room by itself."""
    policy = info.get("maxmemory_policy", "noeviction")
    said = f"{_used(info)}, {policy}"
    if policy in ("allkeys-lru", "allkeys-lfu"):
        return Check("ok", where, "shared cache", said)
    advice = "Set maxmemory, and maxmemory-policy allkeys-lru: else it refuses when it is full."
    return Check("warning", where, "shared cache", said, advice)


def of_durability(where: str, info: Info) -> Check:
    """Whether what is acknowledged outlives the process."""
    for name, what in (
        ("aof_last_write_status", "the append-only file"),
        ("rdb_last_bgsave_status", "the last snapshot"),
    ):
        if info.get(name, "ok") != "ok":
            said = f"{what} could not be written"
            return Check("error", where, "durability", said, "Look at the server's disk and log.")
    if info.get("aof_enabled") == "1":
        return Check("ok", where, "durability", "append-only file")
    return Check(
        "warning",
        where,
        "durability",
        "no append-only file",
        "A restart loses what came after the last snapshot, and all if there is none: set "
        "appendonly yes.",
    )


def check_replicas(where: str, info: Info) -> Check:
    """Whether anything is left when the machine is not."""
    connected = int(info.get("connected_slaves", "0"))
    said = f"{connected} connected"
    if connected:
        return Check("ok", where, "replicas", said)
    return Check("warning", where, "replicas", said, "The loss of this machine loses the store.")


def _used(info: Info) -> str:
    used, most = int(info.get("used_memory", "0")), int(info.get("maxmemory", "0"))
    of = f" of {most / 2**30:.1f}" if most else ""
    return f"{used / 2**30:.1f}{of} GiB"


def _share(info: Info) -> float | None:
    most = int(info.get("maxmemory", "0"))
    return int(info.get("used_memory", "0")) / most if most else None
