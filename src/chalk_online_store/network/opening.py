"""Opening a connection without blocking, for threads: addresses, connects, and TLS.

`open_socket` is a generator. It yields what to wait for, and returns the connected socket. It may
be resumed at any time: each step looks whether its socket is ready.
"""

from __future__ import annotations

import errno
import math
import os
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Generator
from typing import NamedTuple, Protocol, TypeVar

from chalk_online_store.network.resolver import RESOLVER, Address, Resolution, stagger_for
from chalk_online_store.network.sockets import SOCKET_OPTIONS
from chalk_online_store.network.tls import TLS
from chalk_online_store.network.tunnel import READ_SIZE, Tunnel

T = TypeVar("T")


class Target(Protocol):
    """Where a socket is to be opened."""

    @property
    def host(self) -> str:
        """The name or the address to connect to."""

    @property
    def port(self) -> int:
        """The port to connect to."""

    @property
    def tls(self) -> TLS | None:
        """The settings of TLS; None for a plain connection."""


class ProxiedTarget(Target, Protocol):
    """A target that may be reached through an HTTP proxy."""

    def tunnel(self) -> Tunnel | None:
        """Return the tunnel that a new connection needs; None if it needs none."""

    def connecting_failed(self, error: Exception) -> Exception:
        """Return what to raise if connecting has failed."""


class Waiting(NamedTuple):
    """What an opening connection waits for: sockets with their events, at most until a time."""

    sockets: tuple[tuple[int, int], ...]
    until: float = math.inf


Opening = Generator[Waiting, None, T]


def open_socket(target: Target, deadline: float) -> Opening[socket.socket]:
    """Connect to the first address of the host that accepts, and shake hands.

    Raises `OSError` or `UnicodeError`. The caller ends it at `deadline`, which is used here only
    to divide the time among several addresses.
    """
    sock = yield from _connect(target, deadline)
    return sock if target.tls is None else (yield from _secure(sock, target.tls))


def open_through_proxy(target: ProxiedTarget, deadline: float) -> Opening[socket.socket]:
    """Open a socket like `open_socket`, through the proxy of the target if it has one.

    Raises `BrokenAnswer` for a proxy that fails, or refuses.
    """
    try:
        sock = yield from _connect(target, deadline)
    except (OSError, UnicodeError) as error:
        raise target.connecting_failed(error) from None
    if tunnel := target.tunnel():
        yield from _pass_through(sock, tunnel)
    return sock if target.tls is None else (yield from _secure(sock, target.tls))


def _connect(target: Target, deadline: float) -> Opening[socket.socket]:
    addresses = RESOLVER.resolve(target.host, target.port)
    if isinstance(addresses, Resolution):
        addresses = yield from _addresses_of(addresses)
    return (yield from _first_to_accept(addresses, deadline))


def _addresses_of(resolution: Resolution) -> Opening[list[Address]]:
    here, there = socket.socketpair()
    there.setblocking(False)

    def wake() -> None:
        there.send(b"!")

    try:
        resolution.watch(wake)
        while (addresses := resolution.addresses()) is None:
            yield Waiting(((here.fileno(), select.POLLIN),), resolution.wake_at)
        return addresses
    finally:
        resolution.unwatch(wake)
        there.close()
        here.close()


def _first_to_accept(addresses: list[Address], deadline: float) -> Opening[socket.socket]:
    """Connect as RFC 8305 describes: the next address starts when one fails or is slow."""
    untried = deque(addresses)
    stagger = stagger_for(len(addresses), deadline - time.monotonic())
    next_at = -math.inf
    attempts: list[socket.socket] = []
    failure = OSError("the name has no address")
    try:
        while True:
            if untried and (not attempts or time.monotonic() >= next_at):
                next_at = time.monotonic() + stagger
                try:
                    attempts.append(_begin_connecting(untried.popleft()))
                except OSError as error:
                    failure = error
            for sock in list(attempts):
                code = _progress(sock)
                if code != errno.EINPROGRESS:
                    attempts.remove(sock)
                    if not code:
                        return sock
                    sock.close()
                    failure = OSError(code, os.strerror(code))
                    next_at = -math.inf
            if attempts and (not untried or time.monotonic() < next_at):
                connecting = tuple((sock.fileno(), select.POLLOUT) for sock in attempts)
                yield Waiting(connecting, next_at if untried else math.inf)
            elif not attempts and not untried:
                raise failure
    finally:
        for sock in attempts:
            sock.close()


def _begin_connecting(address: Address) -> socket.socket:
    family, kind, protocol, _, target = address
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        for option in SOCKET_OPTIONS:
            sock.setsockopt(*option)
        code = sock.connect_ex(target)
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, os.strerror(code))
    except BaseException:
        sock.close()
        raise
    return sock


def _progress(sock: socket.socket) -> int:
    """Return 0 if connected, `EINPROGRESS` if not yet, else why connecting has failed."""
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        return code
    try:
        sock.getpeername()
    except OSError:
        return errno.EINPROGRESS
    return 0


def _pass_through(sock: socket.socket, tunnel: Tunnel) -> Opening[None]:
    """Have a proxy connect the socket to the endpoint."""
    try:
        unsent = memoryview(tunnel.request)
        while unsent:
            try:
                unsent = unsent[sock.send(unsent) :]
            except BlockingIOError:
                yield Waiting(((sock.fileno(), select.POLLOUT),))
        is_open = False
        while not is_open:
            try:
                is_open = tunnel.feed(sock.recv(READ_SIZE))
            except BlockingIOError:
                yield Waiting(((sock.fileno(), select.POLLIN),))
    except BaseException:
        sock.close()
        raise


def _secure(sock: socket.socket, tls: TLS) -> Opening[ssl.SSLSocket]:
    secured = None
    try:
        secured = tls.wrap(sock)
        while True:
            try:
                secured.do_handshake()
                return secured
            except ssl.SSLWantReadError:
                event = select.POLLIN
            except ssl.SSLWantWriteError:
                event = select.POLLOUT
            yield Waiting(((secured.fileno(), event),))
    except BaseException:
        (secured or sock).close()
        raise
