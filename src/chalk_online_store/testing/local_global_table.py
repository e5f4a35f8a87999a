"""A Global Table on this machine: an engine a region, and replication between them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlencode

import boto3

from chalk_online_store.arguments import text_list
from chalk_online_store.errors import OnlineStoreError
from chalk_online_store.testing.engines import Dynoxide, create_table, local_session
from chalk_online_store.testing.helper import World
from chalk_online_store.testing.proxy import FaultProxy
from chalk_online_store.testing.world.faults import Blackhole, Refused

SHORTEST_NAME = 11
"""Letters of a table's name from which dynoxide's shard ids are as long as boto3 asks."""


class NotReplicated(OnlineStoreError, TimeoutError):
    """Replication did not come to an end in time; the message says what was missing where."""


class Region:
    """One region of a `LocalGlobalTable`: its engine, and the proxy in front of it."""

    def __init__(self, name: str, engine: Dynoxide, proxy: FaultProxy) -> None:
        self.name = name
        self.engine = engine
        self.proxy = proxy
        self.inject = proxy.inject
        self.fault = proxy.fault
        self.clear = proxy.clear

    @property
    def endpoint_url(self) -> str:
        """Where it answers, through the proxy."""
        return self.proxy.endpoint_url


class LocalGlobalTable:
    """A table in several regions, each a dynoxide behind a `FaultProxy`, replicated between them.

    Replication is that of a Global Table with eventual consistency: asynchronous, `lag` seconds
    late, and for each item the last writer wins, deletes included. Of two writes of which one was
    answered before the other one was sent, the other one is the later, in whatever regions they
    were made, as long as both went through the proxies. Writes that nothing orders end the same
    way in all regions.

    `path` names a directory that keeps each region's items in a SQLite file, so that an engine
    may be killed and started again; without it they are in memory. Proxies and replication run in
    one process of their own.

    ```python
    with LocalGlobalTable() as table:
        store = OnlineStore.open(table.url(), schema=[User], session=table.session())
        table.lose("us-east-1")
    ```

    `start` raises as `Dynoxide.start`.
    """

    def __init__(
        self,
        regions: Sequence[str] = ("us-east-1", "us-west-2"),
        *,
        table: str = "features-local-global",
        lag: float = 0.02,
        path: str | os.PathLike[str] | None = None,
        seed: int | None = None,
    ) -> None:
        """Raises `ValueError` for a name below 11 letters, or regions that are not different."""
        if len(table) < SHORTEST_NAME:
            raise ValueError(f"the table's name needs {SHORTEST_NAME} letters: dynoxide's streams")
        regions = text_list(regions, "regions", "regions")
        if len(set(regions)) != len(regions) or not regions:
            raise ValueError("a Global Table has one region or several different ones")
        self.table = table
        self._names = tuple(regions)
        self._lag = lag
        self._path = None if path is None else Path(path)
        self._seed = seed
        self._world = World()
        self._regions: dict[str, Region] = {}
        self._cleanup = ExitStack()
        self._partitions: set[frozenset[str]] = set()
        self._lost: dict[str, ExitStack] = {}

    def start(self) -> Self:
        """Start engines, proxies and replication, the table having been created everywhere."""
        if not self._regions:
            with ExitStack() as cleanup:
                cleanup.enter_context(self._world)
                regions = {name: self._start(name, cleanup) for name in self._names}
                self._world.order(
                    "replicate",
                    table=self.table,
                    engines={name: region.engine.port for name, region in regions.items()},
                    proxies={name: region.proxy.port for name, region in regions.items()},
                    lag=self._lag,
                )
                self._regions, self._cleanup = regions, cleanup.pop_all()
        return self

    def _start(self, name: str, cleanup: ExitStack) -> Region:
        path = None if self._path is None else self._path / f"{name}.db"
        fresh = path is None or not path.exists()
        engine = cleanup.enter_context(Dynoxide(path))
        if fresh:
            create_table(engine.endpoint_url, self.table, region=name, stream=True)
        proxy = FaultProxy(engine, seed=self._seed, world=self._world)
        return Region(name, engine, cleanup.enter_context(proxy))

    def stop(self) -> None:
        """Stop all of it. Harmless when it does not run."""
        self._regions = {}
        self._partitions.clear()
        self._lost.clear()
        self._cleanup.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- where it is ---

    @property
    def pid(self) -> int:
        """The id of the process of proxies and replication; `EngineNotStarted` without one."""
        return self._world.pid

    @property
    def urls(self) -> dict[str, str]:
        """The store URL of each region alone."""
        return {name: self.url([name]) for name in self._names}

    def url(self, regions: Iterable[str] | None = None, **options: Any) -> str:
        """The store URL of several regions, in order of preference; all of them by default.

        `options` are further options of the URL, such as `read_timeout=0.2`. Raises `KeyError`
        for a region that there is not.
        """
        chosen = [self.region(name) for name in regions or self._names]
        query = {
            "region": ",".join(region.name for region in chosen),
            "endpoint_url": ",".join(region.endpoint_url for region in chosen),
            **options,
        }
        return f"dynamodb:///{self.table}?{urlencode(query, safe=':/,')}"

    def session(self) -> boto3.Session:
        """A session with made-up credentials, for `open(session=...)`."""
        return local_session()

    def region(self, name: str) -> Region:
        """A region; `KeyError` if there is none of the name, or the table is not started."""
        return self._regions[name]

    # --- what happens to it ---

    def set_lag(
        self, seconds: float, *, source: str | None = None, target: str | None = None
    ) -> None:
        """Let replication take so long, for the writes from now on.

        From `source` and to `target` if they are given, else from and to every region.
        """
        links = [(a, b) for a, b in self._links() if source in {None, a} and target in {None, b}]
        self._world.order("lag", seconds=seconds, links=links)

    def partition(self, a: str, b: str) -> None:
        """Stop replication between two regions, both ways; each goes on serving its clients."""
        self._partitions.add(frozenset((self.region(a).name, self.region(b).name)))
        self._cut()

    def heal(self) -> None:
        """End all partitions; what the regions missed reaches them. Lost regions stay lost."""
        self._partitions.clear()
        self._cut()

    def lose(self, region: str, how: Literal["blackhole", "refused"] = "blackhole") -> None:
        """Lose a region wholly: no client reaches it, and nothing is replicated from or to it.

        With `how="blackhole"` requests get no answer, nor do connects on Linux; with `"refused"`,
        connects are refused and connections reset. Harmless when it is lost.
        """
        fault = Refused() if how == "refused" else Blackhole(connect=sys.platform == "linux")
        if region not in self._lost:
            self._lost[region] = ExitStack()
            self._lost[region].enter_context(self.region(region).fault(fault))
            self._cut()

    def restore(self, region: str) -> None:
        """Bring a lost region back, with what it had; then it catches up. Harmless if it is there.

        A connection on which a request was swallowed stays silent.
        """
        if region in self._lost:
            self._lost.pop(region).close()
            self._cut()

    def _links(self) -> list[tuple[str, str]]:
        return [(a, b) for a in self._names for b in self._names if a != b]

    def _cut(self) -> None:
        cut = [
            (a, b)
            for a, b in self._links()
            if frozenset((a, b)) in self._partitions or {a, b} & self._lost.keys()
        ]
        self._world.order("cut", links=cut)

    # --- how far it is ---

    def pending(self) -> dict[str, int]:
        """How many items each region lacks: those that are on their way to it.

        What a partition or a lost region keeps away does not count. A region whose engine is away
        is not in it.
        """
        return {name: count for name, count in self._pending().items() if count is not None}

    def _pending(self) -> dict[str, int | None]:
        counts: dict[str, int | None] = self._world.order("pending")
        return counts

    def wait_until_replicated(self, timeout: float = 10.0) -> None:
        """Return once every region has all that it can get: the same items, if all are connected.

        Raises `NotReplicated` after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while any(count != 0 for count in self._connected().values()):
            if time.monotonic() >= deadline:
                raise NotReplicated(f"after {timeout} s, this was missing: {self._connected()}")
            time.sleep(0.005)

    def _connected(self) -> dict[str, int | None]:
        return {n: count for n, count in self._pending().items() if n not in self._lost}
