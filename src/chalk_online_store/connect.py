"""Store URLs, and what they open.

| URL | engine |
|---|---|
| `dynamodb:///TABLE?region=us-east-1` | DynamoDB |
| `sqlite:///features.db`, `sqlite:////var/lib/features.db` | a SQLite file, relative or absolute |
| `sqlite://` | SQLite in memory: a database of its own for each store, gone when it is closed |
| `valkey://host:6379/0`, `redis://…`, `valkeys://…` for TLS | Valkey or Redis: see `valkey.urls` |

Options of a DynamoDB URL: `region`, `endpoint_url`, `profile`, and `pk`, `sk` and `ttl` for a
table whose attributes have other names. What is not stated comes from the boto3 session. An
engine on this machine needs no credentials: where there are none, they are made up.

`shared_cache` is the URL of a Valkey or Redis that keeps items for all processes, for
`shared_cache_ttl` seconds (300), and is left alone where it takes more than
`shared_cache_timeout` seconds (0.1) to answer: see docs/caching.md. "&" is "%26" in it.

`region=us-east-1,us-west-2` names the replicas of a Global Table, the preferred one first, and
`endpoint_url`, where it is stated, one URL for each. `home` is the region among them that the
registry is written in: the first one, unless stated. See `routing` for what is done with them.

As in botocore's Config, but in the URL, and with other defaults: `connect_timeout` (1 second, TLS
included), `read_timeout` (3 seconds for a whole attempt, whatever trickles in) and
`max_pool_connections` (32 that are kept). `open(timeout=...)` bounds the whole call.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import SplitResult, parse_qs, urlsplit

from chalk_online_store.backend import Backend
from chalk_online_store.codec.layout import TableLayout
from chalk_online_store.drivers.aio import AsyncTransport, InThread
from chalk_online_store.drivers.credentials import (
    AsyncCredentialSource,
    CredentialSource,
    Endpoint,
    LocalSession,
    Session,
    is_local,
    resolve_endpoint,
)
from chalk_online_store.drivers.http import AsyncHttpTransport, HttpTransport
from chalk_online_store.drivers.sqlite import SqliteEngine
from chalk_online_store.drivers.steps import read_clocks
from chalk_online_store.drivers.sync import Transport
from chalk_online_store.drivers.valkey import (
    AsyncClusterTransport,
    AsyncValkeyTransport,
    ClusterTransport,
    ValkeyTransport,
)
from chalk_online_store.dynamodb.backend import DynamoDBBackend
from chalk_online_store.embedded.backend import EmbeddedBackend
from chalk_online_store.errors import InvalidURL, InvalidValue
from chalk_online_store.operations.shared import SharedCacheBackend
from chalk_online_store.routing.attempts import RoutedAttempts
from chalk_online_store.routing.logs import log_change
from chalk_online_store.routing.router import Router
from chalk_online_store.routing.settings import Routing
from chalk_online_store.valkey import urls
from chalk_online_store.valkey.backend import ValkeyBackend
from chalk_online_store.valkey.sharing import SharedItems
from chalk_online_store.valkey.urls import ValkeyTarget

_TABLE = re.compile(r"[A-Za-z0-9_.-]{3,255}")
_NUMBERS: dict[str, type] = {
    "connect_timeout": float,
    "read_timeout": float,
    "max_pool_connections": int,
    "shared_cache_ttl": int,
    "shared_cache_timeout": float,
}
_CACHE = ("shared_cache", "shared_cache_ttl", "shared_cache_timeout")
_NAMES = ("pk", "sk", "ttl")
_OPTIONS = frozenset(("region", "home", "endpoint_url", "profile", *_NAMES, *_NUMBERS, *_CACHE))

SHARED_CACHE = "shared cache"
"""What the transport of a shared cache is named: no region is."""


@dataclass(frozen=True, slots=True)
class SqliteTarget:
    """A SQLite database; in memory where `path` is empty."""

    path: str


@dataclass(frozen=True, slots=True)
class DynamoDBTarget:
    """A DynamoDB table, in each of `regions`; they and their endpoints are empty if not stated."""

    table: str
    regions: tuple[str, ...]
    endpoint_urls: tuple[str, ...]
    profile: str | None
    layout: TableLayout
    home: str = ""
    connect_timeout: float = 1.0
    read_timeout: float = 3.0
    max_pool_connections: int = 32
    shared_cache: ValkeyTarget | None = None
    shared_cache_ttl: int = 300
    shared_cache_timeout: float = 0.1


def parse_url(url: str) -> SqliteTarget | DynamoDBTarget | ValkeyTarget:
    """What a store URL names; raises `InvalidURL`."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise InvalidURL("The store URL cannot be parsed.") from None
    if parts.scheme == "sqlite":
        return _sqlite(parts)
    if parts.scheme == "dynamodb":
        return _dynamodb(parts)
    if urls.SCHEME.fullmatch(parts.scheme):
        return urls.parse(parts)
    raise InvalidURL(
        "A store URL begins with dynamodb://, valkey:// or sqlite://, not "
        f"{parts.scheme or 'no scheme'!r}."
    )


def _sqlite(parts: SplitResult) -> SqliteTarget:
    if parts.netloc or parts.query:
        raise InvalidURL(
            "A SQLite URL is sqlite:///relative.db, sqlite:////absolute.db, or sqlite:// alone."
        )
    return SqliteTarget(parts.path.removeprefix("/"))


def _dynamodb(parts: SplitResult) -> DynamoDBTarget:
    table = parts.path.removeprefix("/")
    if parts.netloc or not _TABLE.fullmatch(table):
        raise InvalidURL(
            "A DynamoDB URL is dynamodb:///TABLE?region=us-east-1: three slashes, then a table's "
            "name of 3 to 255 letters, digits, '_', '.' or '-'."
        )
    options = _read_options(parts.query)
    regions, urls = (_listed(name, options) for name in ("region", "endpoint_url"))
    if urls and len(urls) != max(1, len(regions)):
        raise InvalidURL(
            f"{len(regions)} regions have {len(urls)} endpoints: endpoint_url= takes one URL for "
            "each of region=, in the same order."
        )
    home = options.get("home", "")
    if home and home not in regions:
        raise InvalidURL(f"home={home} has to be one of region=.")
    names = {name: options[name] for name in _NAMES if name in options}
    layout = TableLayout(**names)
    if len(layout.reserved) != 3:
        raise InvalidURL("pk, sk and ttl of a DynamoDB URL must be three different names.")
    return DynamoDBTarget(
        table,
        regions,
        urls,
        options.get("profile"),
        layout,
        home,
        shared_cache=_shared_cache(options),
        **{name: _limit(name, options[name]) for name in _NUMBERS if name in options},
    )


def _shared_cache(options: dict[str, str]) -> ValkeyTarget | None:
    if "shared_cache" not in options:
        if stray := [name for name in _CACHE if name in options]:
            raise InvalidURL(f"{stray[0]} is for a shared_cache=, which the URL does not name.")
        return None
    try:
        target = parse_url(options["shared_cache"])
    except InvalidURL as error:
        raise InvalidURL(f"The shared_cache= of a DynamoDB URL: {error}") from None
    if not isinstance(target, ValkeyTarget):
        raise InvalidURL("The shared_cache= of a DynamoDB URL is the URL of a Valkey or Redis.")
    if target.read_from != "primary":
        raise InvalidURL("A shared cache is read from its primary: name that alone in its URL.")
    return target


def _listed(name: str, options: dict[str, str]) -> tuple[str, ...]:
    found = tuple(options[name].split(",")) if name in options else ()
    if not all(found) or (name == "region" and len(set(found)) < len(found)):
        raise InvalidURL(f"The option {name!r} of a DynamoDB URL names each one once.")
    return found  # One engine may serve several regions, so that endpoints can be the same.


def _limit(name: str, text: str) -> Any:
    """Seconds, or a number of connections."""
    try:
        value = _NUMBERS[name](text)
    except ValueError:
        value = 0
    if not 0 < value < math.inf:
        raise InvalidURL(f"The option {name!r} of a DynamoDB URL takes a number above 0.")
    return value


def _read_options(query: str) -> dict[str, str]:
    options = parse_qs(query, keep_blank_values=True)
    for name, values in options.items():
        if name not in _OPTIONS:
            known = ", ".join(sorted(_OPTIONS))
            raise InvalidURL(f"A DynamoDB URL has no option {name!r}; it has: {known}.")
        if len(values) != 1 or not values[0]:
            raise InvalidURL(f"The option {name!r} of a DynamoDB URL takes one value.")
    return {name: values[0] for name, values in options.items()}


T = TypeVar("T")


class Connected(NamedTuple, Generic[T]):
    """What a URL opens: a backend, a transport for each region, and what decides between them."""

    backend: Backend
    transports: dict[str, T]
    route: RoutedAttempts | None = None


def connect(
    url: str, session: Session | None, routing: Routing | None = None
) -> Connected[Transport]:
    """What a URL opens, for threads.

    `session` is a `boto3.Session`; without one, one is made. A URL of one region is routed only
    where `routing` is given. Raises `InvalidURL`.
    """
    target = parse_url(url)
    if isinstance(target, SqliteTarget):
        return Connected(EmbeddedBackend(), {"": SqliteEngine(target.path)})
    if isinstance(target, ValkeyTarget):
        return _of_valkey(target, valkey_server, routing)
    endpoints, session = _resolve(target, session)
    source = CredentialSource(session)
    transports: list[Transport] = [
        HttpTransport(endpoint, source, **_limits_of(target)) for endpoint in endpoints
    ]
    cache = valkey_server(target.shared_cache) if target.shared_cache else None
    return _connected(target, endpoints, transports, routing, cache)


def connect_async(
    url: str, session: Session | None, routing: Routing | None = None
) -> Connected[AsyncTransport]:
    """What a URL opens, for asyncio.

    `session` is an `aioboto3.Session` or a `boto3.Session`; without one, one of the latter is
    made. Otherwise as `connect`.
    """
    target = parse_url(url)
    if isinstance(target, SqliteTarget):
        return Connected(EmbeddedBackend(), {"": InThread(SqliteEngine(target.path))})
    if isinstance(target, ValkeyTarget):
        return _of_valkey(target, _async_server, routing)
    endpoints, session = _resolve(target, session)
    source = AsyncCredentialSource(session)
    transports: list[AsyncTransport] = [
        AsyncHttpTransport(endpoint, source, **_limits_of(target)) for endpoint in endpoints
    ]
    cache = _async_server(target.shared_cache) if target.shared_cache else None
    return _connected(target, endpoints, transports, routing, cache)


def valkey_server(target: ValkeyTarget) -> ClusterTransport | ValkeyTransport:
    """What carries requests to the servers of a target; raises `MissingDependency`."""
    return ClusterTransport(target) if target.clustered else ValkeyTransport(target)


def _async_server(target: ValkeyTarget) -> AsyncClusterTransport | AsyncValkeyTransport:
    return AsyncClusterTransport(target) if target.clustered else AsyncValkeyTransport(target)


def _of_valkey(
    target: ValkeyTarget, server: Callable[[ValkeyTarget], T], routing: Routing | None
) -> Connected[T]:
    """A server, and its replicas as the regions of a router, where reads may go to them."""
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
    return RoutedAttempts(router)


def _connected(
    target: DynamoDBTarget,
    endpoints: Sequence[Endpoint],
    transports: Sequence[T],
    routing: Routing | None,
    cache: T | None,
) -> Connected[T]:
    regions = [endpoint.region for endpoint in endpoints]
    route = None
    if routing is not None or len(regions) > 1:
        route = _routed(Router(regions, target.home or regions[0], routing))
    backend: Backend = DynamoDBBackend(
        target.table,
        target.layout,
        attempt_timeout=target.read_timeout,
        region=regions[0],
        route=route,
    )
    by_name = dict(zip(regions if route else [""], transports, strict=True))
    if target.shared_cache and cache:
        backend = SharedCacheBackend(backend, _shared_items(target, target.shared_cache, backend))
        by_name[SHARED_CACHE] = cache
    return Connected(backend, by_name, route)


def _shared_items(target: DynamoDBTarget, server: ValkeyTarget, table: Backend) -> SharedItems:
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
        with closing(SqliteEngine(target.path)) as engine:
            return TableSize(*engine.size())
    if isinstance(target, ValkeyTarget):
        with closing(valkey_server(target)) as server:
            return TableSize(*server.size(target.read_timeout))
    from chalk_online_store.drivers.tables import describe_table  # As boto3: slow to import.

    endpoints, session = _resolve(target, None)
    return TableSize(*describe_table(session, endpoints[0], target.table))


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
    }


def _resolve(target: DynamoDBTarget, given: Session | None) -> tuple[list[Endpoint], Session]:
    """The endpoint of each region, and the session that has the credentials for all."""
    session = given or _session_of(target)
    pairs = zip_longest(target.regions or (None,), target.endpoint_urls)
    endpoints = [resolve_endpoint(session, region, url) for region, url in pairs]
    if given is None and all(is_local(endpoint.url) for endpoint in endpoints):
        session = LocalSession(session)
    return endpoints, session


def _session_of(target: DynamoDBTarget) -> Session:
    import boto3  # Slow to import, and SQLite does without.
    from botocore.exceptions import ProfileNotFound

    try:
        session: Session = boto3.Session(profile_name=target.profile)
    except ProfileNotFound as error:
        raise InvalidURL(f"{error}: check profile= in the URL, or AWS_PROFILE.") from None
    return session
