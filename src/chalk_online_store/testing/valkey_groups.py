"""Several Valkey servers that belong together: a cluster, or a primary and its replicas."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self
from urllib.parse import urlencode

from chalk_online_store.testing.engines import HOST, EngineNotStarted, free_port
from chalk_online_store.testing.valkey import Valkey

SLOTS = 16384
SERVICE = "features"
"""What the sentinels call the primary."""


class _Group:
    """Servers that start and stop together."""

    def __init__(self, binary: str | None, timeout: float) -> None:
        self._binary = binary
        self._timeout = timeout
        self._ending = ExitStack()

    def _server(self, **settings: str) -> Valkey:
        named = {name.replace("_", "-"): value for name, value in settings.items()}
        return self._ending.enter_context(Valkey(binary=self._binary, settings=named))

    def _directory(self) -> Path:
        return Path(self._ending.enter_context(TemporaryDirectory(prefix="chalk-valkey-")))

    def _wait(self, until: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self._timeout
        while not until():
            if time.monotonic() > deadline:
                raise EngineNotStarted(f"{type(self).__name__}: not ready in {self._timeout} s")
            time.sleep(0.02)

    def start(self) -> Self:
        """Start, and return once all is ready."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop every server. Harmless when none runs."""
        self._ending.close()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()


class ValkeyCluster(_Group):
    """A cluster of `count` primaries, in memory, which share all slots."""

    def __init__(self, count: int = 3, *, binary: str | None = None, timeout: float = 30) -> None:
        super().__init__(binary, timeout)
        self._count = count
        self.nodes: list[Valkey] = []
        """The primaries, in the order of their slots."""

    def start(self) -> Self:
        """Start, and return once every node has heard of all others."""
        folder = self._directory()
        self.nodes = [
            self._server(
                cluster_enabled="yes",
                cluster_config_file=str(folder / f"nodes-{number}.conf"),
                cluster_port=str(free_port()),
            )
            for number in range(self._count)
        ]
        first, *others = self.nodes
        for number, node in enumerate(self.nodes):
            start, end = (SLOTS * each // self._count for each in (number, number + 1))
            node.ask("CLUSTER", "ADDSLOTSRANGE", start, end - 1)
            node.ask("CONFIG", "SET", "cluster-node-timeout", 2000)
        for other in others:
            first.ask("CLUSTER", "MEET", HOST, other.port, other.cluster_port)
        self._wait(lambda: all(self._knows_all(node) for node in self.nodes))
        return self

    def _knows_all(self, node: Valkey) -> bool:
        info = node.ask("CLUSTER", "INFO")
        return b"cluster_state:ok" in info and b"cluster_size:%d" % self._count in info

    def url(self, prefix: str = "", **options: str | int) -> str:
        """As `Valkey.url`."""
        hosts = ",".join(f"{HOST}:{node.port}" for node in self.nodes)
        return f"valkey+cluster://{hosts}?{_query(prefix, options)}"


class ValkeyReplicas(_Group):
    """A primary and `count` replicas of it. Nobody makes one of them the primary."""

    def __init__(self, count: int = 1, *, binary: str | None = None, timeout: float = 30) -> None:
        super().__init__(binary, timeout)
        self._count = count
        self.primary: Valkey
        self.replicas: list[Valkey] = []

    def start(self) -> Self:
        """Start, and return once every replica is up to date."""
        self.primary = self._server(repl_diskless_sync_delay="0")
        master = f"{HOST} {self.primary.port}"
        self.replicas = [self._server(replicaof=master) for _ in range(self._count)]
        self.wait_until_replicated()
        return self

    def wait_until_replicated(self) -> None:
        """Return once every replica has what the primary has; raises `EngineNotStarted`."""
        self._wait(lambda: _confirmed(self.primary, self._count))

    def url(self, prefix: str = "", **options: str | int) -> str:
        """As `Valkey.url`, of all of them, the primary first."""
        hosts = ",".join(f"{HOST}:{each.port}" for each in (self.primary, *self.replicas))
        return f"valkey://{hosts}/0?{_query(prefix, options)}"


def _confirmed(primary: Valkey, replicas: int) -> bool:
    """Whether so many replicas have what the primary has; they are given two seconds to say so."""
    if primary.ask("INFO", "replication").count(b"state=online") < replicas:
        return False
    with socket.create_connection((HOST, primary.port or 0), timeout=5.0) as connection:
        # PUBLISH goes to replicas as a write does, and leaves nothing.
        connection.sendall(b"PUBLISH replicated 1\r\nWAIT %d 2000\r\n" % replicas)
        with connection.makefile("rb") as answers:
            answers.readline()
            return int(answers.readline()[1:]) >= replicas


class ValkeySentinels(_Group):
    """A primary, a replica, and a sentinel that makes the one the other within a second or two."""

    def __init__(self, *, binary: str | None = None, timeout: float = 30) -> None:
        super().__init__(binary, timeout)
        self.primary: Valkey
        """The server that is the primary at first."""
        self.replica: Valkey
        self.sentinel: Valkey

    def start(self) -> Self:
        """Start, and return once the sentinel knows a replica that is up to date."""
        self.primary = self._server(repl_diskless_sync_delay="0")
        self.replica = self._server(replicaof=f"{HOST} {self.primary.port}")
        config = self._directory() / "sentinel.conf"
        lines = (
            f"monitor {SERVICE} {HOST} {self.primary.port} 1",
            f"down-after-milliseconds {SERVICE} 500",
            f"failover-timeout {SERVICE} 3000",
        )
        config.write_text("".join(f"sentinel {line}\n" for line in lines))
        self.sentinel = self._ending.enter_context(_Sentinel(config, binary=self._binary))
        self._wait(lambda: _confirmed(self.primary, 1))
        self._wait(lambda: self._is_known(self.replica))
        return self

    def _is_known(self, replica: Valkey) -> bool:
        found = self.sentinel.ask("SENTINEL", "REPLICAS", SERVICE)
        away = b"s_down" in found or b"disconnected" in found
        return b"%d" % (replica.port or 0) in found and not away

    def url(self, prefix: str = "", **options: str | int) -> str:
        """As `Valkey.url`, by way of the sentinel."""
        place = f"{HOST}:{self.sentinel.port}/{SERVICE}"
        return f"valkey+sentinel://{place}?{_query(prefix, options)}"


class _Sentinel(Valkey):
    """Keeps what it learns in its configuration file."""

    def __init__(self, config: Path, *, binary: str | None) -> None:
        super().__init__(binary=binary)
        self._config = config

    def _command(self) -> list[str]:
        binary = super()._command()[0]
        place = ("--port", str(self.port), "--bind", HOST, "--dir", str(self._config.parent))
        return [binary, str(self._config), "--sentinel", *place]


def _query(prefix: str, options: dict[str, str | int]) -> str:
    return urlencode({**({"prefix": prefix} if prefix else {}), **options})
