"""What both transports are built on: how to connect, and what redis-py's errors are to us."""

from __future__ import annotations

import time
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
from chalk_online_store.valkey.commands import Reply, ScriptUnknown
from chalk_online_store.valkey.urls import ValkeyTarget

Connection: TypeAlias = Any
"""One of redis-py's: it is typed in part only."""

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

    def connection(self, package: Any, deadline: float, **more: Any) -> Connection:
        """A connection that has to be there by then: one of `redis` or of `redis.asyncio`."""
        target, left = self.target, deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        options: dict[str, Any] = {
            "db": target.db,
            "username": target.username or None,
            "password": target.password or None,
            "socket_connect_timeout": min(left, target.connect_timeout),
            "socket_timeout": left,
            "protocol": 2,
            **more,
        }
        if target.path:
            return package.UnixDomainSocketConnection(path=target.path, **options)
        options["host"], options["port"] = target.nodes[0]
        if not target.tls:
            return package.Connection(**options)
        return package.SSLConnection(ssl_check_hostname=True, **dict(target.files), **options)

    def failure(self, error: Exception) -> RequestError:
        """What to raise, or to answer, for one of redis-py's exceptions, or of the system's."""
        code = _CLASSES.get(type(error).__name__) or str(error).partition(" ")[0]
        kind = _CODES.get(code) or self._kind(error)
        found = kind(f"Valkey at {self.target.name}: {_SAYS.get(kind, code)}.")
        found.engine_message = str(error)
        return found

    def _kind(self, error: Exception) -> type[RequestError]:
        if isinstance(error, self._redis.TimeoutError | TimeoutError):
            return RequestTimeout
        if isinstance(error, self._redis.ConnectionError | OSError):
            return ConnectionFailed
        return RequestRefused


def leads_astray(replies: list[Reply]) -> bool:
    """Whether a connection leads to a server that is not the primary any more."""
    return any(isinstance(reply, ServerError) for reply in replies)
