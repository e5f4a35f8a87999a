"""URLs of DynamoDB tables.

Options of a DynamoDB URL: `region`, `endpoint_url`, `profile`, and `pk`, `sk` and `ttl` for a
table whose attributes have other names. What is not stated comes from the boto3 session. An
engine on this machine needs no credentials: where there are none, they are made up.

`shared_cache` is the URL of a Valkey or Redis that keeps items for all processes, for
`shared_cache_ttl` seconds (300), and is left alone where it takes more than
`shared_cache_timeout` seconds (0.1) to answer: see docs/caching.md. "&" is "%26" in it.

`region=us-east-1,us-west-2` names the replicas of a Global Table, the preferred one first, and
`endpoint_url`, where it is stated, one URL for each. `profile` names one profile for all regions,
or one for each (`profile=prod-us,prod-eu`) if the replicas are in several accounts. `home` is the
region among them that the registry is written in: the first one, unless stated. See `routing` for
what is done with them.

As in botocore's Config, but in the URL, and with other defaults: `connect_timeout` (1 second, TLS
included), `read_timeout` (3 seconds for a whole attempt, whatever trickles in) and
`max_pool_connections` (32 that are kept). `open(timeout=...)` bounds the whole call. As in
aiobotocore's, `keepalive_timeout` (50 seconds) is how long a connection may be idle and still be
used: see docs/failover.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult

from chalk_online_store.arguments import MAX_TIMEOUT_SECONDS, read_url_options
from chalk_online_store.codec.layout import TableLayout
from chalk_online_store.errors import InvalidURL

if TYPE_CHECKING:
    from chalk_online_store.valkey.urls import ValkeyTarget

_TABLE = re.compile(r"[A-Za-z0-9_.-]{3,255}")
_NUMBERS: dict[str, type] = {
    "connect_timeout": float,
    "read_timeout": float,
    "max_pool_connections": int,
    "keepalive_timeout": float,
    "shared_cache_ttl": int,
    "shared_cache_timeout": float,
}
_CACHE = ("shared_cache", "shared_cache_ttl", "shared_cache_timeout")
_NAMES = ("pk", "sk", "ttl")
_OPTIONS = frozenset(("region", "home", "endpoint_url", "profile", *_NAMES, *_NUMBERS, *_CACHE))


@dataclass(frozen=True, slots=True)
class DynamoDBTarget:
    """A DynamoDB table, in each of `regions`; they and their endpoints are empty if not stated."""

    table: str
    regions: tuple[str, ...]
    endpoint_urls: tuple[str, ...]
    profiles: tuple[str, ...]
    """None, one for all regions, or one for each."""
    layout: TableLayout
    home: str = ""
    connect_timeout: float = 1.0
    read_timeout: float = 3.0
    max_pool_connections: int = 32
    keepalive_timeout: float = 50.0
    shared_cache: ValkeyTarget | None = None
    shared_cache_ttl: int = 300
    shared_cache_timeout: float = 0.1


def parse(parts: SplitResult, parse_cache: Callable[[str], ValkeyTarget]) -> DynamoDBTarget:
    """What a DynamoDB URL names. `parse_cache` reads the URL of a shared cache.

    Raises `InvalidURL`.
    """
    table = parts.path.removeprefix("/")
    if parts.netloc or not _TABLE.fullmatch(table):
        raise InvalidURL(
            "A DynamoDB URL is dynamodb:///TABLE?region=us-east-1: three slashes, then a table's "
            "name of 3 to 255 letters, digits, '_', '.' or '-'."
        )
    options = read_url_options(parts.query, _OPTIONS, "DynamoDB")
    regions, urls = (_listed(name, options) for name in ("region", "endpoint_url"))
    if urls and len(urls) != max(1, len(regions)):
        raise InvalidURL(
            f"{len(regions)} regions have {len(urls)} endpoints: endpoint_url= takes one URL for "
            "each of region=, in the same order."
        )
    profiles = _listed("profile", options)
    if len(profiles) > 1 and len(profiles) != len(regions):
        raise InvalidURL(
            f"The URL has {len(regions)} regions and {len(profiles)} profiles: profile= takes one "
            "profile for all regions, or one for each of region=, in the same order."
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
        profiles,
        layout,
        home,
        shared_cache=_shared_cache(options, parse_cache),
        **{name: _limit(name, options[name]) for name in _NUMBERS if name in options},
    )


def _shared_cache(
    options: dict[str, str], parse_cache: Callable[[str], ValkeyTarget]
) -> ValkeyTarget | None:
    if "shared_cache" in options:
        return parse_cache(options["shared_cache"])
    if stray := [name for name in _CACHE if name in options]:
        raise InvalidURL(f"{stray[0]} is for a shared_cache=, which the URL does not name.")
    return None


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
    if not 0 < value <= MAX_TIMEOUT_SECONDS:
        raise InvalidURL(
            f"The option {name!r} of a DynamoDB URL takes a number above 0, and at most 1,000,000."
        )
    return value
