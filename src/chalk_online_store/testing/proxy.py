"""A proxy between the code under test and an engine, which fails as networks and engines do."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import ClassVar, Self
from urllib.parse import urlsplit

from chalk_online_store.arguments import finite_number, text_list
from chalk_online_store.testing.engines import Engine, EngineNotStarted
from chalk_online_store.testing.helper import World
from chalk_online_store.testing.valkey import Valkey, url_of
from chalk_online_store.testing.world.faults import (
    KINDS,
    AcceptThenClose,
    Blackhole,
    Fault,
    ForgottenConnections,
    LateDuplicates,
    Latency,
    LostAnswer,
    LostRequest,
    Refused,
    Reset,
    Slowdown,
    SlowDrip,
    SwappedResponses,
    Truncated,
    dump,
)


@dataclass(frozen=True, slots=True)
class ProxyStats:
    """What a proxy has seen since its start.

    `requests` counts by API operation, `faulted` by the name of the fault that hit.
    `connections` are those of clients that are open now.
    """

    requests: dict[str, int]
    faulted: dict[str, int]
    connections: int


class _Proxy:
    """What both kinds of proxies have in common."""

    _kind: ClassVar[str]
    _knows: ClassVar[frozenset[type[Fault]]]
    """The faults that it can do."""

    port: int | None = None

    def __init__(self, host: str, target: int, seed: int | None, world: World | None) -> None:
        self._host, self._target = host, target
        self._seed = seed
        self._world = world or World()
        self._owns_world = world is None
        self._started = False

    @property
    def pid(self) -> int:
        """The id of the process that it runs in; `EngineNotStarted` when it does not run."""
        return self._world.pid

    def start(self) -> Self:
        """Start, and return once it listens. After `stop`, it is on the same port."""
        if not self._started:
            self._world.start()
            self.port = self._world.order(
                "start",
                kind=self._kind,
                host=self._host,
                target=self._target,
                port=self.port or 0,
                seed=self._seed,
            )
            self._started = True
        return self

    def stop(self) -> None:
        """Stop at once; open connections are reset. Harmless when it does not run."""
        if self._started:
            self._started = False
            with suppress(EngineNotStarted):  # The process has ended, and the proxy with it.
                self._world.order("stop", proxy=self.port)
            if self._owns_world:
                self._world.stop()

    def inject(
        self, fault: Fault, *, share: float = 1.0, operations: Collection[str] | None = None
    ) -> None:
        """Put a fault in force, beside those that are, until `clear`.

        It hits a part of the requests: `share` of them, and only these API `operations`, such as
        `{"BatchGetItem"}`. Requests that are under way are not hit, except by a `Blackhole` of all.
        Raises `ValueError` for a share that is none, for a part where there can be none, or for a
        fault that is not for this kind of proxy.

        `ForgottenConnections` hits the connections that are open at this moment, and
        `AcceptThenClose` those and each new one.
        """
        self._inject(fault, share, operations)

    def clear(self) -> None:
        """End all faults. A connection on which a request was swallowed stays silent."""
        self._world.order("clear", proxy=self.port)

    @contextmanager
    def fault(
        self, fault: Fault, *, share: float = 1.0, operations: Collection[str] | None = None
    ) -> Iterator[None]:
        """As `inject`, until the block ends."""
        key = self._inject(fault, share, operations)
        try:
            yield
        finally:
            self._world.order("remove", proxy=self.port, injection=key)

    def stats(self) -> ProxyStats:
        """What it has seen since its start."""
        return ProxyStats(**self._world.order("stats", proxy=self.port))

    def _inject(self, fault: Fault, share: float, operations: Collection[str] | None) -> int:
        if type(fault) not in self._knows:
            raise ValueError(f"{type(self).__name__} cannot do {fault}")
        share = finite_number(share, "share", most=1, remedy="Pass a part of the requests.")
        if fault.is_total and (share < 1 or operations is not None):
            raise ValueError(f"{fault} hits all requests")
        if fault == Blackhole(connect=True) and sys.platform != "linux":
            raise ValueError("only Linux lets connects go unanswered")
        names = None
        if operations is not None:
            names = sorted(text_list(operations, "operations", "API operations"))
        key: int = self._world.order(
            "inject", proxy=self.port, fault=dump(fault), share=share, operations=names
        )
        return key

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


class FaultProxy(_Proxy, Engine):
    """Stands in front of an engine and answers like it, but for the faults that are injected.

    `target` is a started `Engine`, or the `http://` URL of any endpoint. `seed` makes the draws
    of `share`, `jitter` and `Unprocessed` repeatable. It runs in a process of its own, or in the
    `world` that is given, and so takes no time from the interpreter under test.

    ```python
    with Dynoxide() as engine, FaultProxy(engine) as proxy:
        proxy.inject(Latency(0.05), share=0.01)
        with proxy.fault(Throttling(), operations={"BatchGetItem"}):
            ...
    ```
    """

    _kind = "http"
    _knows = frozenset(KINDS.values()) - {LostRequest}

    def __init__(
        self, target: Engine | str, *, seed: int | None = None, world: World | None = None
    ) -> None:
        """Raises `ValueError` for a URL that is none of an endpoint without TLS."""
        url = urlsplit(target if isinstance(target, str) else target.endpoint_url)
        if url.scheme != "http" or not url.hostname:
            raise ValueError("the proxy's target is an engine or an http:// URL")
        super().__init__(url.hostname, url.port or 80, seed, world)


class ValkeyFaultProxy(_Proxy):
    """Stands in front of a Valkey or Redis server, as a `FaultProxy` before an engine.

    `target` is a started `Valkey`, or a `valkey://` URL without TLS. A request is what a client
    sends until it is answered, of one command or many; its operation is the name of the first,
    such as "MGET". The faults that are for both, and `LostRequest`:

    ```python
    with Valkey() as server, ValkeyFaultProxy(server) as proxy:
        with proxy.fault(Reset(after=100), operations={"MGET"}):
            store = OnlineStore.open(proxy.url(), schema=[User])
    ```
    """

    _kind = "stream"
    _knows = frozenset(
        (
            AcceptThenClose,
            Blackhole,
            ForgottenConnections,
            LateDuplicates,
            Latency,
            LostAnswer,
            LostRequest,
            Refused,
            Reset,
            Slowdown,
            SlowDrip,
            SwappedResponses,
            Truncated,
        )
    )

    def __init__(
        self, target: Valkey | str, *, seed: int | None = None, world: World | None = None
    ) -> None:
        """Raises `ValueError` for a URL that is none of a server without TLS."""
        url = urlsplit(target if isinstance(target, str) else target.url())
        if url.scheme not in ("valkey", "redis") or not url.hostname:
            raise ValueError("the proxy's target is a Valkey server or a valkey:// URL")
        super().__init__(url.hostname, url.port or 6379, seed, world)

    def url(self, prefix: str = "", **options: str | int) -> str:
        """As `Valkey.url`, by way of the proxy."""
        return url_of(self.port, prefix, options)
