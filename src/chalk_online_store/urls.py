"""Store URLs, and what they name.

| URL | engine |
|---|---|
| `dynamodb:///TABLE?region=us-east-1` | DynamoDB: see `dynamodb.urls` |
| `sqlite:///features.db`, `sqlite:////var/lib/features.db` | a SQLite file, relative or absolute |
| `sqlite://` | SQLite in memory: a database of its own for each store, gone when it is closed |
| `valkey://host:6379/0`, `redis://…`, `valkeys://…` for TLS | Valkey or Redis: see `valkey.urls` |
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from chalk_online_store.arguments import check_text
from chalk_online_store.dynamodb import urls as dynamodb
from chalk_online_store.dynamodb.urls import DynamoDBTarget
from chalk_online_store.errors import InvalidURL
from chalk_online_store.valkey import urls as valkey
from chalk_online_store.valkey.urls import ValkeyTarget


@dataclass(frozen=True, slots=True)
class SqliteTarget:
    """A SQLite database; in memory where `path` is empty."""

    path: str


def parse_url(url: str) -> SqliteTarget | DynamoDBTarget | ValkeyTarget:
    """What a store URL names; raises `InvalidURL`."""
    check_text(url, "url", InvalidURL)
    try:
        parts = urlsplit(url)
    except ValueError:
        raise InvalidURL("The store URL cannot be parsed.") from None
    if parts.scheme == "sqlite":
        return _sqlite(parts)
    if parts.scheme == "dynamodb":
        return dynamodb.parse(parts, _parse_shared_cache)
    if valkey.SCHEME.fullmatch(parts.scheme):
        return valkey.parse(parts)
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


def _parse_shared_cache(url: str) -> ValkeyTarget:
    try:
        target = parse_url(url)
    except InvalidURL as error:
        raise InvalidURL(f"The shared_cache= of a DynamoDB URL: {error}") from None
    if not isinstance(target, ValkeyTarget):
        raise InvalidURL("The shared_cache= of a DynamoDB URL is the URL of a Valkey or Redis.")
    if target.read_from != "primary":
        raise InvalidURL("A shared cache is read from its primary: name that alone in its URL.")
    return target
