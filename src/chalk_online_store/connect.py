"""Store URLs, and what they open.

| URL | engine |
|---|---|
| `dynamodb:///TABLE?region=us-east-1` | DynamoDB |
| `sqlite:///features.db`, `sqlite:////var/lib/features.db` | a SQLite file, relative or absolute |
| `sqlite://` | SQLite in memory: a database of its own for each store, gone when it is closed |

Options of a DynamoDB URL: `region`, `endpoint_url`, `profile`, and `pk`, `sk` and `ttl` for a
table whose attributes have other names. What is not stated comes from the boto3 session. An
engine on this machine needs no credentials: where there are none, they are made up.

As in botocore's Config, but in the URL, and with other defaults: `connect_timeout` (1 second, TLS
included), `read_timeout` (3 seconds for a whole attempt, whatever trickles in) and
`max_pool_connections` (32 that are kept). `open(timeout=...)` bounds the whole call.
"""

from __future__ import annotations

import math
import re
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple
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
from chalk_online_store.drivers.sync import Transport
from chalk_online_store.dynamodb.backend import DynamoDBBackend
from chalk_online_store.embedded.backend import EmbeddedBackend
from chalk_online_store.errors import InvalidURL

_TABLE = re.compile(r"[A-Za-z0-9_.-]{3,255}")
_LIMITS = ("connect_timeout", "read_timeout", "max_pool_connections")
_OPTIONS = frozenset(("region", "endpoint_url", "profile", "pk", "sk", "ttl", *_LIMITS))


@dataclass(frozen=True, slots=True)
class SqliteTarget:
    """A SQLite database; in memory where `path` is empty."""

    path: str


@dataclass(frozen=True, slots=True)
class DynamoDBTarget:
    """A DynamoDB table."""

    table: str
    region: str | None
    endpoint_url: str | None
    profile: str | None
    layout: TableLayout
    connect_timeout: float = 1.0
    read_timeout: float = 3.0
    max_pool_connections: int = 32


def parse_url(url: str) -> SqliteTarget | DynamoDBTarget:
    """What a store URL names; raises `InvalidURL`."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise InvalidURL("The store URL cannot be parsed.") from None
    if parts.scheme == "sqlite":
        return _sqlite(parts)
    if parts.scheme == "dynamodb":
        return _dynamodb(parts)
    raise InvalidURL(
        f"A store URL begins with dynamodb:// or sqlite://, not {parts.scheme or 'no scheme'!r}."
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
    if "," in options.get("region", ""):
        raise InvalidURL("region= takes one region; failing over to others is not there yet.")
    names = {name: options[name] for name in ("pk", "sk", "ttl") if name in options}
    layout = TableLayout(**names)
    if len(layout.reserved) != 3:
        raise InvalidURL("pk, sk and ttl of a DynamoDB URL must be three different names.")
    return DynamoDBTarget(
        table,
        options.get("region"),
        options.get("endpoint_url"),
        options.get("profile"),
        layout,
        **{name: _limit(name, options[name]) for name in _LIMITS if name in options},
    )


def _limit(name: str, text: str) -> Any:
    """Seconds, or a number of connections."""
    try:
        value = int(text) if name == "max_pool_connections" else float(text)
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


def connect(url: str, session: Session | None) -> tuple[Backend, dict[str, Transport]]:
    """The backend of a URL, and its transports for threads by region.

    `session` is a `boto3.Session`; without one, one is made. Raises `InvalidURL`.
    """
    target = parse_url(url)
    if isinstance(target, SqliteTarget):
        return EmbeddedBackend(), {"": SqliteEngine(target.path)}
    endpoint, session = _resolve(target, session)
    transport = HttpTransport(endpoint, CredentialSource(session), **_limits_of(target))
    return _backend_of(target, endpoint), {"": transport}


def connect_async(url: str, session: Session | None) -> tuple[Backend, dict[str, AsyncTransport]]:
    """The backend of a URL, and its transports for asyncio by region.

    `session` is an `aioboto3.Session` or a `boto3.Session`; without one, one of the latter is
    made. Raises `InvalidURL`.
    """
    target = parse_url(url)
    if isinstance(target, SqliteTarget):
        return EmbeddedBackend(), {"": InThread(SqliteEngine(target.path))}
    endpoint, session = _resolve(target, session)
    transport = AsyncHttpTransport(endpoint, AsyncCredentialSource(session), **_limits_of(target))
    return _backend_of(target, endpoint), {"": transport}


class TableSize(NamedTuple):
    """Items and bytes of a table as its engine counted them last; on AWS every six hours."""

    items: int
    bytes: int


def table_size(url: str) -> TableSize:
    """How large the table of a URL is. Raises `InvalidURL`, `TableNotFound`, `RequestError`."""
    target = parse_url(url)
    if isinstance(target, SqliteTarget):
        with closing(SqliteEngine(target.path)) as engine:
            return TableSize(*engine.size())
    from chalk_online_store.drivers.tables import describe_table  # As boto3: slow to import.

    endpoint, session = _resolve(target, None)
    return TableSize(*describe_table(session, endpoint, target.table))


def _backend_of(target: DynamoDBTarget, endpoint: Endpoint) -> DynamoDBBackend:
    return DynamoDBBackend(
        target.table,
        target.layout,
        attempt_timeout=target.read_timeout,
        region=endpoint.region,
    )


def _limits_of(target: DynamoDBTarget) -> dict[str, Any]:
    return {
        "connect_timeout": target.connect_timeout,
        "pool_size": target.max_pool_connections,
    }


def _resolve(target: DynamoDBTarget, given: Session | None) -> tuple[Endpoint, Session]:
    session = given or _session_of(target)
    endpoint = resolve_endpoint(session, target.region, target.endpoint_url)
    if given is None and is_local(endpoint.url):
        session = LocalSession(session)
    return endpoint, session


def _session_of(target: DynamoDBTarget) -> Session:
    import boto3  # Slow to import, and SQLite does without.
    from botocore.exceptions import ProfileNotFound

    try:
        session: Session = boto3.Session(profile_name=target.profile)
    except ProfileNotFound as error:
        raise InvalidURL(f"{error}: check profile= in the URL, or AWS_PROFILE.") from None
    return session
