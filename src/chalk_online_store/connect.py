"""Open what a store URL names: a backend, a transport for each region, and the router.

The drivers of an engine are imported when a URL of that engine is opened, so that a process pays
only for the engines that it uses.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from chalk_online_store.drivers.steps import read_clocks
from chalk_online_store.dynamodb.urls import DynamoDBTarget
from chalk_online_store.errors import InvalidValue, UnsupportedPlatform
from chalk_online_store.routing.attempts import RoutedAttempts
from chalk_online_store.routing.logs import log_change, log_replication
from chalk_online_store.routing.router import Router
from chalk_online_store.routing.searches import SearchRoute
from chalk_online_store.routing.settings import Routing
from chalk_online_store.urls import SqliteTarget, parse_url
from chalk_online_store.valkey.urls import ValkeyTarget

if TYPE_CHECKING:
    from chalk_online_store.backend import Backend
    from chalk_online_store.drivers.aio import AsyncTransport
    from chalk_online_store.drivers.sync import Transport
    from chalk_online_store.dynamodb.credentials import CredentialSource, Endpoint
    from chalk_online_store.dynamodb.sessions import RegionAccess, Sessions
    from chalk_online_store.valkey.sharing import SharedItems
    from chalk_online_store.valkey.transport import (
        AsyncClusterTransport,
        AsyncValkeyTransport,
        ClusterTransport,
        ValkeyTransport,
    )

SHARED_CACHE = "shared cache"
"""What the transport of a shared cache is named: no region is."""

T = TypeVar("T")


class Connected(NamedTuple, Generic[T]):
    """What a URL opens: a backend, a transport for each region, and what decides between them."""

    backend: Backend
    transports: dict[str, T]
    route: RoutedAttempts | None = None


def connect(
    url: str, session: Sessions | None, routing: Routing | None = None
) -> Connected[Transport]:
    """What a URL opens, for threads.

    `session` is a `boto3.Session`, or one per region; without it, one is made. A URL of one region
    is routed only where `routing` is given. Raises `InvalidURL` or `UnsupportedPlatform`.
    """
    _check_platform()
    target = parse_url(url)
    if isinstance(target, SqliteTarget):
        from chalk_online_store.embedded.backend import EmbeddedBackend
        from chalk_online_store.embedded.transport import SqliteEngine

        return Connected(EmbeddedBackend(), {"": SqliteEngine(target.path)})
    if isinstance(target, ValkeyTarget):
        return _of_valkey(target, valkey_server, routing)
    from chalk_online_store.dynamodb.credentials import is_local
    from chalk_online_store.dynamodb.http.blocking import HttpTransport
    from chalk_online_store.dynamodb.http.mocked import MockedTransport, is_moto_imported
    from chalk_online_store.dynamodb.http.on_demand import OnDemandTransport
    from chalk_online_store.dynamodb.sessions import resolve_regions, search_endpoint

    def transport(endpoint: Endpoint, credentials: CredentialSource) -> Transport:
        made = HttpTransport(endpoint, credentials, **_limits_of(target))
        mockable = is_moto_imported() and not is_local(endpoint.url)
        return MockedTransport(made, endpoint) if mockable else made

    regions = resolve_regions(target, session)
    transports = [transport(each.endpoint, each.credentials) for each in regions]
    searches: list[Transport] = [
        OnDemandTransport(partial(transport, search_endpoint(each), each.credentials))
        for each in regions
    ]
    cache = valkey_server(target.shared_cache) if target.shared_cache else None
    return _connected(target, regions, transports, searches, routing, cache)


def connect_async(
    url: str, session: Sessions | None, routing: Routing | None = None
) -> Connected[AsyncTransport]:
    """What a URL opens, for asyncio.

    `session` is an `aioboto3.Session` or a `boto3.Session`, or one per region; without it, one of
    the latter is made. Otherwise as `connect`.
    """
    _check_platform()
    target = parse_url(url)
    if isinstance(target, SqliteTarget):
        from chalk_online_store.drivers.aio import InThread
        from chalk_online_store.embedded.backend import EmbeddedBackend
        from chalk_online_store.embedded.transport import SqliteEngine

        return Connected(EmbeddedBackend(), {"": InThread(SqliteEngine(target.path))})
    if isinstance(target, ValkeyTarget):
        return _of_valkey(target, _async_server, routing)
    from chalk_online_store.dynamodb.credentials import is_local
    from chalk_online_store.dynamodb.http.aio import AsyncHttpTransport
    from chalk_online_store.dynamodb.http.mocked import AsyncMockedTransport, is_moto_imported
    from chalk_online_store.dynamodb.http.on_demand import AsyncOnDemandTransport
    from chalk_online_store.dynamodb.sessions import resolve_regions, search_endpoint

    def transport(endpoint: Endpoint, credentials: CredentialSource) -> AsyncTransport:
        made = AsyncHttpTransport(endpoint, credentials, **_limits_of(target))
        mockable = is_moto_imported() and not is_local(endpoint.url)
        return AsyncMockedTransport(made, endpoint) if mockable else made

    regions = resolve_regions(target, session)
    transports = [transport(each.endpoint, each.credentials) for each in regions]
    searches: list[AsyncTransport] = [
        AsyncOnDemandTransport(partial(transport, search_endpoint(each), each.credentials))
        for each in regions
    ]
    cache = _async_server(target.shared_cache) if target.shared_cache else None
    return _connected(target, regions, transports, searches, routing, cache)


def _check_platform() -> None:
    if os.name == "nt":
        raise UnsupportedPlatform(
            "Windows is not supported: the transports need poll(2), which Windows does not have."
            " Use Linux, macOS or the Windows Subsystem for Linux (WSL)."
        )


def valkey_server(target: ValkeyTarget) -> ClusterTransport | ValkeyTransport:
    """What carries requests to the servers of a target; raises `MissingDependency`."""
    from chalk_online_store.valkey.transport import ClusterTransport, ValkeyTransport

    return ClusterTransport(target) if target.clustered else ValkeyTransport(target)


def _async_server(target: ValkeyTarget) -> AsyncClusterTransport | AsyncValkeyTransport:
    from chalk_online_store.valkey.transport import AsyncClusterTransport, AsyncValkeyTransport

    return AsyncClusterTransport(target) if target.clustered else AsyncValkeyTransport(target)


def _of_valkey(
    target: ValkeyTarget, server: Callable[[ValkeyTarget], T], routing: Routing | None
) -> Connected[T]:
    """A server, and its replicas as the regions of a router, where reads may go to them."""
    from chalk_online_store.valkey.backend import ValkeyBackend

    places = target.places
    route = None
    if len(places) > 1 or (routing is not None and not target.clustered):
        home, *replicas = places
        first = target.read_from == "replica-preferred"
        nodes = [*replicas, home] if first else [home, *replicas]
        settings = replace(routing or Routing(), writes="home")
        if target.read_from == "nearest":
            settings = replace(settings, reads="nearest")
        route = _routed(Router(nodes, home, settings, single_writer=True))
    backend = ValkeyBackend(
        target.name,
        target.prefix,
        attempt_timeout=target.read_timeout,
        keep_expired=target.keep_expired,
        clustered=target.clustered,
        route=route,
    )
    named = places if route else {"": target}
    return Connected(backend, {name: server(place) for name, place in named.items()}, route)


def _routed(router: Router) -> RoutedAttempts:
    router.on_change = lambda region: log_change(router, region, read_clocks())
    router.on_replication = log_replication
    return RoutedAttempts(router)


def _report_delays(router: Router, regions: Sequence[str], transports: Sequence[Any]) -> None:
    """Let the router know of answers that were late because a pooled connection was stale."""
    for region, transport in zip(regions, transports, strict=True):
        transport.reuse.on_stale = partial(router.delayed, region)


def _connected(
    target: DynamoDBTarget,
    accesses: Sequence[RegionAccess],
    transports: Sequence[T],
    searches: Sequence[T],
    routing: Routing | None,
    cache: T | None,
) -> Connected[T]:
    from chalk_online_store.dynamodb.backend import DynamoDBBackend
    from chalk_online_store.dynamodb.wire import SEARCH

    regions = [access.endpoint.region for access in accesses]
    route = None
    if routing is not None or len(regions) > 1:
        route = _routed(Router(regions, target.home or regions[0], routing))
        _report_delays(route.router, regions, transports)
    backend: Backend = DynamoDBBackend(
        target.table,
        target.layout,
        attempt_timeout=target.read_timeout,
        region=regions[0],
        route=route,
        search_route=SearchRoute(route.router) if route else None,
    )
    by_name = dict(zip(regions if route else [""], transports, strict=True))
    by_name |= {f"{name}{SEARCH}": each for name, each in zip([*by_name], searches, strict=True)}
    if target.shared_cache and cache:
        from chalk_online_store.tiers.shared_cache import SharedCacheBackend

        backend = SharedCacheBackend(backend, _shared_items(target, target.shared_cache, backend))
        by_name[SHARED_CACHE] = cache
    return Connected(backend, by_name, route)


def _shared_items(target: DynamoDBTarget, server: ValkeyTarget, table: Backend) -> SharedItems:
    from chalk_online_store.valkey.sharing import SharedItems

    return SharedItems(
        server.prefix,
        table.identity,
        SHARED_CACHE,
        ttl=target.shared_cache_ttl,
        timeout=target.shared_cache_timeout,
        clustered=server.clustered,
    )


class TableSize(NamedTuple):
    """Items and bytes of a table as its engine counted them last; on AWS every six hours.

    `wcu` is its provisioned write capacity, 0 for a table on demand.
    """

    items: int
    bytes: int
    wcu: int = 0


def table_size(url: str) -> TableSize:
    """How large the table of a URL is. Raises `InvalidURL`, `TableNotFound`, `RequestError`."""
    target = parse_url(url)
    if isinstance(target, SqliteTarget):
        from chalk_online_store.embedded.transport import SqliteEngine

        with closing(SqliteEngine(target.path)) as engine:
            return TableSize(*engine.size())
    if isinstance(target, ValkeyTarget):
        with closing(valkey_server(target)) as server:
            return TableSize(*server.size(target.read_timeout))
    from chalk_online_store.dynamodb.sessions import describe_table, resolve_regions

    first = resolve_regions(target)[0]
    return TableSize(*describe_table(first, target.table))


def provisioned_wcu(url: str) -> float:
    """The provisioned write capacity of the table of a URL, in its first region.

    For `Writing(wcu_per_second=...)`, or a share of it where others write as well. Raises
    `InvalidValue` for a table on demand, and as `table_size` does.
    """
    wcu = table_size(url).wcu
    if not wcu:
        raise InvalidValue("This table has no provisioned write capacity: state a rate.")
    return float(wcu)


def _limits_of(target: DynamoDBTarget) -> dict[str, Any]:
    return {
        "connect_timeout": target.connect_timeout,
        "pool_size": target.max_pool_connections,
        "keepalive_timeout": target.keepalive_timeout,
    }
