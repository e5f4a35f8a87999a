"""Where requests go, and how failures on the way are told; for both transports."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from chalk_online_store.dynamodb.http.exchange import RequestIds, RequestWriter
from chalk_online_store.dynamodb.signing import DEFAULT_PORTS, Signer
from chalk_online_store.errors import (
    ConnectionFailed,
    ProxyFailed,
    ProxyRefused,
    RequestError,
    RequestTimeout,
    StaleConnection,
)
from chalk_online_store.network.settings import Proxy, bracketed, is_local_host
from chalk_online_store.network.sockets import BrokenResponse
from chalk_online_store.network.tls import TLS
from chalk_online_store.network.tunnel import ProxyBroken, Tunnel, TunnelRefused

if TYPE_CHECKING:
    from chalk_online_store.dynamodb.credentials import Endpoint

FAILURES = (BrokenResponse, OSError, UnicodeError)
"""What the way to an answer fails with; the last where a name can be none of a host."""


class Stale(TimeoutError):
    """The deadline passed on a reused connection that was silent."""


class Target:
    """One endpoint: its address, its TLS, the writer of its requests, and how failures are told."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Raises `InvalidURL`, or `ConnectionFailed` when the certificate bundle is unreadable."""
        url = urlsplit(endpoint.url)
        signer = Signer(endpoint.region, endpoint.url)
        host, port = url.hostname or "", url.port or DEFAULT_PORTS[url.scheme]
        self.address = host, port
        """Host and port of the endpoint."""
        self._authority = f"{bracketed(host)}:{port}"
        self._proxy = proxy = endpoint.network.proxy
        self.host, self.port = (host, port) if proxy is None else (proxy.host, proxy.port)
        """Where to connect: to the endpoint, or to a proxy before it."""
        self.tls = TLS(host.rstrip("."), endpoint.network) if url.scheme == "https" else None
        self.writer = RequestWriter(signer, proxy if self.tls is None else None)
        self.request_ids = RequestIds()
        self._name = signer.host
        self._remedy = ""
        if proxy is not None:
            self._name += f" through the proxy {proxy.name}"
            if is_local_host(host):
                self._remedy = f" Add {host} to NO_PROXY to connect to it directly."

    def tunnel(self) -> Tunnel | None:
        """Return the tunnel that a new connection needs before TLS; None if it needs none."""
        if self._proxy is None or self.tls is None:
            return None
        return Tunnel(self._proxy, self._authority)

    def connecting_failed(self, error: Exception) -> Exception:
        """Return what to raise if connecting to `self.host` has failed."""
        if self._proxy is None or isinstance(error, TimeoutError):
            return error
        return ProxyBroken(reason(error))

    def failure(self, error: Exception) -> RequestError:
        """What to raise instead of `error`."""
        if isinstance(error, TunnelRefused) and self._proxy is not None:
            return self._refused(error.status, self._proxy)
        if isinstance(error, ProxyBroken):
            return ProxyFailed(f"the connection to {self._name} failed: {error}.{self._remedy}")
        if isinstance(error, Stale):
            return self.stale()
        return self.too_late() if isinstance(error, TimeoutError) else self.broken(reason(error))

    def _refused(self, status: int, proxy: Proxy) -> RequestError:
        """Return the error for a proxy that does not open a tunnel."""
        passes = status >= 500 or status in (408, 429)
        what = "could not open" if passes else "refused"
        text = f"the proxy {proxy.name} {what} a tunnel to {self._authority}: HTTP {status}."
        if status == 407 and proxy.authorization:
            text += " It does not accept the user and password of its URL, sent as Basic."
        elif status == 407:
            text += " Set user and password in its URL: http://USER:PASSWORD@HOST:PORT."
        error = (ProxyFailed if passes else ProxyRefused)(text + self._remedy)
        error.http_status = status
        return error

    def too_late(self) -> RequestTimeout:
        """No answer, or no connection, in time."""
        return RequestTimeout(f"{self._name} did not answer in time")

    def stale(self) -> StaleConnection:
        """A reused connection gave no response, and no time was left for a new one."""
        return StaleConnection(f"{self._name} did not answer in time on a reused connection")

    def broken(self, why: str) -> ConnectionFailed:
        """The connection is of no use."""
        return ConnectionFailed(f"the connection to {self._name} failed: {why}")


def reason(error: Exception) -> str:
    """What the system, TLS or asyncio says, or our own words, else the exception's name."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if type(error) in (OSError, BrokenResponse):  # asyncio tells all addresses that it tried.
        return str(error)
    return type(error).__name__
