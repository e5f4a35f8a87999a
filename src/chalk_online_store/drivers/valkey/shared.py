"""What the transports are built on: how to connect, and what redis-py's errors are to us."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from chalk_online_store.errors import (
    AccessDenied,
    ConnectionFailed,
    InvalidCredentials,
    MissingDependency,
    RequestError,
    RequestRefused,
    RequestTimeout,
    ServerError,
    Throttled,
)
from chalk_online_store.valkey.commands import Argument, Command, Reply, ScriptUnknown
from chalk_online_store.valkey.urls import ValkeyTarget

Connection: TypeAlias = Any
"""One of redis-py's: it is typed in part only."""

Address: TypeAlias = tuple[str, int]

REDIRECTS = 5
"""How often a command follows a key that moves within a cluster."""

ROLE: Command = ("ROLE",)
SLOTS: Command = ("CLUSTER", "SLOTS")
ASKING: Command = ("ASKING",)

_FIRST = random.randrange(1 << 16)
"""Which of several replicas this process takes for the first."""

_AWAY_FLAGS = frozenset((b"s_down", b"o_down", b"disconnected"))
"""What a sentinel calls a replica that it cannot reach."""

_AWAY = ("LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "MISCONF")
_CODES: dict[str, type[RequestError]] = {
    **dict.fromkeys((*_AWAY, "NOREPLICAS", "UNKILLABLE"), ServerError),
    "OOM": Throttled,
    "NOPERM": AccessDenied,
    "WRONGPASS": InvalidCredentials,
    "NOAUTH": InvalidCredentials,
    "NOSCRIPT": ScriptUnknown,
}
"""What the first word of an error says."""

_CLASSES = {
    "AuthenticationError": "WRONGPASS",
    "AuthenticationWrongNumberOfArgsError": "WRONGPASS",
    "NoPermissionError": "NOPERM",
    "AuthorizationError": "NOPERM",
    "BusyLoadingError": "LOADING",
    "NoScriptError": "NOSCRIPT",
    "OutOfMemoryError": "OOM",
    "ReadOnlyError": "READONLY",
    "MasterDownError": "MASTERDOWN",
    "ClusterDownError": "CLUSTERDOWN",
    "TryAgainError": "TRYAGAIN",
    "MovedError": "MOVED",
    "AskError": "ASK",
    "ClusterCrossSlotError": "CROSSSLOT",
}
"""redis-py takes the word away where it has a class for it."""

_SAYS: dict[type[RequestError], str] = {
    AccessDenied: "the user may not do this: see the rules of its ACL",
    InvalidCredentials: "the user or the password is wrong, or is missing in the URL",
    Throttled: "the server's memory is full: see maxmemory",
    RequestTimeout: "no answer in time",
    ConnectionFailed: "no connection, or it broke",
    RequestRefused: "the server refuses the command",
}


class KeyMoved(RequestError):
    """Another node has the key; with `asking`, for this one command alone."""

    retryable = True
    address: Address
    asking: bool


class Server:
    """How to reach what a target names, and what to call it.

    Raises `MissingDependency` where the package redis is not installed.
    """

    def __init__(self, target: ValkeyTarget) -> None:
        try:
            import redis
        except ImportError as error:
            raise MissingDependency(
                "A Valkey URL needs the package redis: pip install 'chalk-online-store[valkey]'"
            ) from error
        self.target = target
        self.failures = (redis.RedisError, OSError)
        """What a connection fails with."""
        self._redis = redis

    def connection(
        self, package: Any, address: Address, deadline: float, *, login: bool = True, **more: Any
    ) -> Connection:
        """A connection that has to be there by then: one of `redis` or of `redis.asyncio`."""
        target = self.target
        left = seconds_until(deadline)
        options: dict[str, Any] = {
            "socket_connect_timeout": min(left, target.connect_timeout),
            "socket_timeout": left,
            "protocol": 2,
            **more,
        }
        if login:
            options["db"] = target.db
            options["username"] = target.username or None
            options["password"] = target.password or None
        if target.path:
            return package.UnixDomainSocketConnection(path=target.path, **options)
        options["host"], options["port"] = address
        if not target.tls:
            return package.Connection(**options)
        return package.SSLConnection(ssl_check_hostname=True, **dict(target.files), **options)

    def failure(self, error: Exception) -> RequestError:
        """What to raise, or to answer, for one of redis-py's exceptions, or of the system's."""
        text = str(error)
        code = _CLASSES.get(type(error).__name__) or text.partition(" ")[0]
        if code in ("MOVED", "ASK") and self.target.clustered:
            return _moved(text, code == "ASK")
        if code in ("MOVED", "ASK", "CROSSSLOT"):
            return RequestRefused(
                f"Valkey at {self.target.name} is a node of a cluster: open that by "
                "valkey+cluster://host:port."
            )
        kind = _CODES.get(code) or self._kind(error)
        found = kind(f"Valkey at {self.target.name}: {_SAYS.get(kind, code)}.")
        found.engine_message = text
        return found

    def _kind(self, error: Exception) -> type[RequestError]:
        if isinstance(error, self._redis.TimeoutError | TimeoutError):
            return RequestTimeout
        if isinstance(error, self._redis.ConnectionError | OSError):
            return ConnectionFailed
        return RequestRefused

    # --- sentinels ---

    @property
    def whereabouts(self) -> Command:
        """Asks a sentinel for the primary, or its replicas."""
        what = "REPLICAS" if self.target.replica else "GET-MASTER-ADDR-BY-NAME"
        return "SENTINEL", what, self.target.service

    def place(self, found: Reply) -> Address | None:
        """Where a sentinel says that what is meant is; None where it does not know."""
        if not found or isinstance(found, RequestError):
            return None
        if not self.target.replica:
            return found[0].decode(), int(found[1])
        replicas = _replicas(found)
        if not replicas:
            return None
        # Each process begins elsewhere, so that all replicas are read from.
        return replicas[(_FIRST + self.target.replica - 1) % len(replicas)]

    def nowhere(self) -> RequestError:
        """No sentinel knows of what is meant."""
        what = "replica" if self.target.replica else "primary"
        return ConnectionFailed(
            f"Valkey at {self.target.name}: no sentinel that answers knows of a {what}."
        )

    def check_primary(self, role: Reply) -> None:
        """Raise `ServerError` for a replica in the primary's place: a sentinel may be behind."""
        if isinstance(role, RequestError):
            raise role
        if role[0] != b"master" and not self.target.replica:
            raise ServerError(f"Valkey at {self.target.name}: the primary is a replica by now.")


def _replicas(found: Iterable[Sequence[bytes]]) -> list[Address]:
    """Those that have a link to the primary, else those that are up, else all that are named.

    While there is no primary none has a link. While one is promoted, sentinels have lost their own
    connections to it as well, and call it away: it is tried all the same.
    """
    ranks: dict[int, list[Address]] = {}
    for words in found:
        said = dict(zip(words[::2], words[1::2], strict=False))
        linked = said.get(b"master-link-status") == b"ok"
        away = not _AWAY_FLAGS.isdisjoint(said.get(b"flags", b"").split(b","))
        address = said[b"ip"].decode(), int(said[b"port"])
        ranks.setdefault(2 if away else 1 - linked, []).append(address)
    return sorted(ranks[min(ranks)]) if ranks else []


def _moved(text: str, asking: bool) -> KeyMoved:
    """What `MOVED 3999 127.0.0.1:6381` or `ASK …` says, with that word or without."""
    host, _, port = text.rsplit(maxsplit=1)[-1].rpartition(":")
    found = KeyMoved("A key lies on another node of the cluster.")
    found.address, found.asking = (host, int(port)), asking
    return found


def seconds_until(deadline: float) -> float:
    """What is left; raises `TimeoutError` where nothing is."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def leads_astray(replies: Iterable[Reply]) -> bool:
    """Whether a connection leads to a server that should not be asked, or not any more."""
    return any(isinstance(reply, ServerError) for reply in replies)


class SlotMap:
    """Which node of a cluster has which keys."""

    def __init__(self, slots: Reply, asked: Address) -> None:
        """Take the answer to `SLOTS`, and the address of who gave it."""
        from redis.crc import key_slot

        self._slot_of = key_slot
        self._owners: dict[int, Address] = {}
        for first, last, (host, port, *_), *_ in slots:
            # A node that does not know its own name leaves it out.
            owner = (host.decode() if host and host != b"?" else asked[0], int(port))
            self._owners.update(dict.fromkeys(range(first, last + 1), owner))
        self.nodes = sorted(set(self._owners.values()))
        """Those that have keys."""

    def owner(self, key: Argument) -> Address:
        """The node that has a key; any one where none has it, which will say so."""
        text = key.encode() if isinstance(key, str) else bytes(key)
        return self._owners.get(self._slot_of(text)) or self.nodes[0]
