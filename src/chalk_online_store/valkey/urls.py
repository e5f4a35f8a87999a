"""URLs of Valkey and Redis.

| URL | what is opened |
|---|---|
| `valkey://[user:password@]host[:port][/db]` | one server |
| `valkey://primary:port,replica:port/db` | a primary, and replicas that reads may go to |
| `valkeys://…` | the same over TLS |
| `valkey+unix:///path.sock?db=0` | a Unix socket |
| `valkey+sentinel://host:port,host:port/service?db=0` | the primary that the sentinels name |
| `valkey+cluster://host:port,host:port` | a cluster that these nodes, or some of them, are of |

`redis` may stand for `valkey`, and `rediss` for `valkeys`. Options: `prefix`, which goes before
every key, so that several environments share a server; `connect_timeout`, `read_timeout` and
`max_pool_connections` as in a DynamoDB URL; `keep_expired`, for how many seconds an item is kept
after none of its values can be served any more (300); `db`; and for TLS `ssl_ca_certs`,
`ssl_certfile` and `ssl_keyfile`, paths of files in PEM.

`read_from` says where plain reads go: "primary", "primary-preferred", "replica-preferred" or
"nearest". Where several hosts are named it is "primary-preferred" unless stated, else "primary".
Of the replicas that sentinels name, `replicas` are read from (1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias, get_args
from urllib.parse import SplitResult, unquote

from chalk_online_store.arguments import MAX_TIMEOUT_SECONDS, read_url_options
from chalk_online_store.errors import InvalidURL

SCHEME = re.compile(r"(valkey|redis)(s?)(?:\+(unix|sentinel|cluster))?")
"""Of every URL here: whether over TLS, and what is at the other end."""

_NUMBERS: dict[str, type] = {
    "connect_timeout": float,
    "read_timeout": float,
    "max_pool_connections": int,
    "keepalive_timeout": float,
    "keep_expired": int,
    "replicas": int,
}
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_OPTIONS = frozenset(("prefix", "db", "read_from", *_NUMBERS, *_FILES))
_PORT, _SENTINELS_PORT = 6379, 26379

ReadFrom: TypeAlias = Literal["primary", "primary-preferred", "replica-preferred", "nearest"]
_READ_FROM: Mapping[str, ReadFrom] = {name: name for name in get_args(ReadFrom)}


@dataclass(frozen=True, slots=True)
class ValkeyTarget:
    """A database of a server: at `nodes`, at `path`, or where sentinels say it is.

    `service` is the name that the sentinels, which are the nodes then, know it by. Of a cluster
    the nodes are those that are asked for the others; otherwise the first one is the primary, and
    the rest are its replicas. With `replica`, it is the n-th replica that the sentinels name that
    is meant, not the primary; `replicas` are as many as reads may go to.
    """

    nodes: tuple[tuple[str, int], ...] = ()
    path: str = ""
    service: str = ""
    clustered: bool = False
    db: int = 0
    username: str = ""
    password: str = field(default="", repr=False)
    tls: bool = False
    files: tuple[tuple[str, str], ...] = ()
    prefix: str = ""
    connect_timeout: float = 1.0
    read_timeout: float = 3.0
    max_pool_connections: int = 32
    keepalive_timeout: float = 50.0
    keep_expired: int = 300
    read_from: ReadFrom = "primary"
    replicas: int = 1
    replica: int = 0

    @property
    def places(self) -> dict[str, ValkeyTarget]:
        """Where reads may go, by name: the primary first, then its replicas."""
        if self.read_from == "primary":
            return {self.name: self}
        if self.service:
            numbers = range(1, self.replicas + 1)
            return {"primary": self} | {f"replica-{n}": replace(self, replica=n) for n in numbers}
        return {f"{host}:{port}": replace(self, nodes=((host, port),)) for host, port in self.nodes}

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port of the one server; None where there may be another, or a socket."""
        return self.nodes[0] if self.nodes and not (self.service or self.clustered) else None

    @property
    def name(self) -> str:
        """Which database it is, without secrets."""
        host, port = self.nodes[0] if self.nodes else ("", 0)
        return f"{self.service or self.path or f'{host}:{port}'}/{self.db}"


def parse(parts: SplitResult) -> ValkeyTarget:
    """What a URL of Valkey names; raises `InvalidURL`."""
    found = SCHEME.fullmatch(parts.scheme)
    if found is None:
        raise InvalidURL(f"{parts.scheme!r} is no scheme of a Valkey URL.")
    _, secure, kind = found.groups(default="")
    options = read_url_options(parts.query, _OPTIONS, "Valkey")
    userinfo, _, hosts = parts.netloc.rpartition("@")
    username, _, password = userinfo.partition(":")
    path = parts.path.removeprefix("/")
    db = options.get("db", "0")
    match kind:
        case "unix":
            place = _unix(parts, bool(secure), hosts)
        case "sentinel":
            place = _sentinel(hosts, path)
        case "cluster":
            place = {"nodes": _hosts(hosts, _PORT), "clustered": True}
        case _:
            place = {"nodes": _hosts(hosts, _PORT)}
            db = _database(path, options)
    if not db.isdecimal():
        raise InvalidURL("The database of a Valkey URL is a number, as in valkey://host:6379/0.")
    if kind == "cluster" and (path or db != "0"):
        raise InvalidURL("A URL of a cluster names no database: a cluster has one.")
    files = tuple((name, options[name]) for name in _FILES if name in options)
    if files and not secure:
        raise InvalidURL(f"{files[0][0]} is for TLS: the URL begins with valkeys:// then.")
    return ValkeyTarget(
        **place,
        db=int(db),
        username=unquote(username),
        password=unquote(password),
        tls=bool(secure),
        files=files,
        prefix=_prefix(options.get("prefix", "")),
        read_from=_reading(options, kind, len(place.get("nodes", ()))),
        **{name: _number(name, options[name]) for name in _NUMBERS if name in options},
    )


def _database(path: str, options: Mapping[str, str]) -> str:
    if path and "db" in options:
        raise InvalidURL("A Valkey URL states the database once: as /0 or as db=0.")
    return path or options.get("db", "0")


def _unix(parts: SplitResult, secure: bool, hosts: str) -> dict[str, Any]:
    if hosts or secure or not parts.path:
        raise InvalidURL("A Unix socket is valkey+unix:///path.sock, without a host or TLS.")
    return {"path": unquote(parts.path)}


def _sentinel(hosts: str, service: str) -> dict[str, Any]:
    if not service:
        raise InvalidURL(
            "A URL of sentinels is valkey+sentinel://host:port,host:port/service: the service's "
            "name comes last."
        )
    return {"nodes": _hosts(hosts, _SENTINELS_PORT), "service": unquote(service)}


def _reading(options: Mapping[str, str], kind: str, hosts: int) -> ReadFrom:
    """Where plain reads go."""
    has_replicas = kind == "sentinel" or (not kind and hosts > 1)
    usual = "primary-preferred" if has_replicas and not kind else "primary"
    found = options.get("read_from", usual)
    if found not in _READ_FROM:
        choices = ", ".join(_READ_FROM)
        raise InvalidURL(f"The option 'read_from' of a Valkey URL is one of {choices}.")
    if found != "primary" and not has_replicas:
        raise InvalidURL(
            f"read_from={found} needs replicas: valkey://primary:6379,replica:6379/0, or "
            "sentinels that name them."
        )
    if "replicas" in options and (kind != "sentinel" or found == "primary"):
        raise InvalidURL(
            "replicas= says how many of those that sentinels name are read from: it goes with "
            "valkey+sentinel:// and read_from=."
        )
    return _READ_FROM[found]


def _hosts(text: str, port: int) -> tuple[tuple[str, int], ...]:
    found = tuple(_host(host, port) for host in text.split(","))
    if len(set(found)) < len(found):
        raise InvalidURL("A Valkey URL names each host and port once.")
    return found


def _host(text: str, port: int) -> tuple[str, int]:
    found = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:]+)(?::(\d{1,5}))?", text)
    if found is None or int(found[2] or 0) > 65535:
        raise InvalidURL("A Valkey URL is valkey://host:port/db: it has no host, or no such port.")
    return found[1].strip("[]"), int(found[2] or port)


def _prefix(text: str) -> str:
    """In a cluster braces say where a key lies, and the reserved partitions have their own."""
    if "{" in text or "}" in text:
        raise InvalidURL("The prefix of a Valkey URL holds no braces.")
    return text


_LONGEST_EXPIRY = 2**31 - 1
"""Seconds, 68 years."""


def _number(name: str, text: str) -> Any:
    """Seconds, or a number of connections."""
    try:
        value = _NUMBERS[name](text)
    except ValueError:
        value = -1
    least = "0 or more" if name == "keep_expired" else "above 0"
    most = _LONGEST_EXPIRY if name == "keep_expired" else MAX_TIMEOUT_SECONDS
    if not 0 <= value <= most or (value == 0 and least == "above 0"):
        raise InvalidURL(
            f"The option {name!r} of a Valkey URL takes a number, {least}, and at most {most:,.0f}."
        )
    return value
