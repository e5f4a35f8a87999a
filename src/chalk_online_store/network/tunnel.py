"""A tunnel through an HTTP proxy (CONNECT, RFC 9110, 9.3.6), without a socket.

A connection with TLS asks its proxy for a tunnel to the endpoint, and then speaks TLS with the
endpoint itself. The transports send `Tunnel.request`, and feed what arrives until the tunnel is
open.
"""

from __future__ import annotations

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from chalk_online_store.network.settings import Proxy
from chalk_online_store.network.sockets import LARGEST_HEAD, USER_AGENT, BrokenResponse

READ_SIZE = 2**12
"""Bytes to read at once of a proxy's response."""


class ProxyBroken(BrokenResponse):
    """A proxy that cannot be reached, or breaks the protocol. The text is ours."""


class TunnelRefused(BrokenResponse):
    """A proxy that answers CONNECT with another status than 2xx."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status


class Tunnel:
    """One CONNECT request and the response to it."""

    def __init__(self, proxy: Proxy, authority: str) -> None:
        """Ask for a tunnel to `authority`, a host and a port."""
        lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}", f"User-Agent: {USER_AGENT}"]
        if proxy.authorization:
            lines.append(f"Proxy-Authorization: {proxy.authorization}")
        self.request = ("\r\n".join(lines) + "\r\n\r\n").encode()
        self._parser = HttpResponseParser(self)
        self._status = 0
        self._size = 0
        self._more = False

    def feed(self, data: bytes) -> bool:
        """Read a piece of the response. Returns True once the tunnel is open.

        Raises `TunnelRefused`, or `ProxyBroken` if the connection ends, if the response is not
        HTTP, and if the proxy sends bytes within the tunnel.
        """
        self._size += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self._more = True
        if self._status >= 300:
            raise TunnelRefused(self._status)
        if self._more:  # TLS's client speaks first, so these bytes are not the endpoint's.
            raise ProxyBroken("its response to CONNECT is not HTTP")
        if not data:
            raise ProxyBroken("it closed the connection")
        if self._size > LARGEST_HEAD:
            raise ProxyBroken("its response to CONNECT is too long")
        return self._status >= 200

    # --- what the parser calls ---

    def on_headers_complete(self) -> None:
        """Note the status of the first response that is not an interim one."""
        status = self._parser.get_status_code()
        if self._status:
            self._more = True
        elif status >= 200:
            self._status = status

    def on_body(self, data: bytes) -> None:
        """Note that something follows the head."""
        self._more = True
