"""What both transports are built on: where to send, the time left, the words for failures."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from chalk_online_store.drivers.http.exchange import BrokenAnswer, RequestIds, RequestWriter
from chalk_online_store.drivers.http.tls import TLS
from chalk_online_store.dynamodb.signing import DEFAULT_PORTS, Signer
from chalk_online_store.errors import (
    ConnectionFailed,
    RequestError,
    RequestTimeout,
    StaleConnection,
    StoreClosed,
)

if TYPE_CHECKING:
    from chalk_online_store.drivers.credentials import Endpoint

SOCKET_OPTIONS = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    # A peer that vanished is noticed within a minute, where the system can be told so.
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
        if hasattr(socket, name)
    ),
]

FAILURES = (BrokenAnswer, OSError, UnicodeError)
"""What the way to an answer fails with; the last where a name can be none of a host."""


class Stale(TimeoutError):
    """The deadline passed on a reused connection that was silent."""


class Target:
    """One endpoint: its address, its TLS, the writer of its requests, and how failures are told."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Raises `InvalidURL`, or `ConnectionFailed` when the certificate bundle is unreadable."""
        url = urlsplit(endpoint.url)
        signer = Signer(endpoint.region, endpoint.url)
        self.host = url.hostname or ""
        self.port = url.port or DEFAULT_PORTS[url.scheme]
        self.tls = TLS(self.host.rstrip(".")) if url.scheme == "https" else None
        self.writer = RequestWriter(signer)
        self.request_ids = RequestIds()
        self._name = signer.host

    def failure(self, error: Exception) -> RequestError:
        """What to raise instead of `error`."""
        if isinstance(error, Stale):
            return self.stale()
        return self.too_late() if isinstance(error, TimeoutError) else self.broken(reason(error))

    def too_late(self) -> RequestTimeout:
        """No answer, or no connection, in time."""
        return RequestTimeout(f"{self._name} did not answer in time")

    def stale(self) -> StaleConnection:
        """A reused connection gave no response, and no time was left for a new one."""
        return StaleConnection(f"{self._name} did not answer in time on a reused connection")

    def broken(self, why: str) -> ConnectionFailed:
        """The connection is of no use."""
        return ConnectionFailed(f"the connection to {self._name} failed: {why}")


def store_closed() -> StoreClosed:
    """Something was asked of a transport after its end."""
    return StoreClosed("the store was closed: open another one")


def reason(error: Exception) -> str:
    """What the system, TLS or asyncio says, or our own words, else the exception's name."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if type(error) in (OSError, BrokenAnswer):  # asyncio tells all addresses that it tried.
        return str(error)
    return type(error).__name__
