"""What all connections have in common: socket options, the user agent, words for failures."""

from __future__ import annotations

import socket
from importlib.metadata import PackageNotFoundError, version

from chalk_online_store.errors import StoreClosed

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

LARGEST_HEAD = 2**16
"""Bytes that may arrive before a body: status line and headers, those of interim answers too."""

_CLOSED = "the peer closed it before the answer was whole"


def _user_agent() -> str:
    try:
        return f"chalk-online-store/{version('chalk-online-store')}"
    except PackageNotFoundError:  # Programs that are frozen into one file often lack metadata.
        return "chalk-online-store"


USER_AGENT = _user_agent()


class BrokenResponse(Exception):
    """An answer that cannot be accepted. The text is ours, never the peer's."""

    @classmethod
    def closed(cls) -> BrokenResponse:
        """The connection ended too early."""
        return cls(_CLOSED)


def store_closed() -> StoreClosed:
    """Something was asked of a transport after its end."""
    return StoreClosed("the store was closed: open another one")
