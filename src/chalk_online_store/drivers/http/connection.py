"""One connection whose socket never blocks: it goes on when it is told to, or waits for that."""

from __future__ import annotations

import errno
import math
import os
import select
import socket
import ssl
import time
from collections.abc import Generator
from typing import Any

from chalk_online_store.drivers.http.exchange import AnswerReader, BrokenAnswer
from chalk_online_store.drivers.http.shared import SOCKET_OPTIONS, Target
from chalk_online_store.drivers.polling import milliseconds_until
from chalk_online_store.dynamodb.messages import Response

WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

READ_SIZE = 2**17
"""Bytes that a connection reads at once: most answers come in one piece or two."""


class Connection:
    """One kept connection, for one thread at a time.

    It waits by poll(2), and so for what is left of the whole time. Name resolution alone, by
    the first `open` or `advance`, may take longer.
    """

    _sock: socket.socket
    _poll: select.poll

    def __init__(self, target: Target, deadline: float, generation: int = 0) -> None:
        """Connect to `target` when told to go on, by `deadline` on the monotonic clock."""
        self._target = target
        self.generation = generation
        """The transport's, when it was made."""
        self._opening = self._open()
        self.is_open = False
        """Whether it is connected, TLS included."""
        self._answered = False
        self._buffer = memoryview(bytearray(READ_SIZE))
        self._reader = AnswerReader()
        self._unsent: bytes | memoryview = b""
        self._answer_due = math.inf
        self.deadline = deadline
        """When it has to be connected, later the answer whole, on the monotonic clock."""
        self.waits_for = select.POLLIN
        """What the socket has to be ready for before it is worth while to `advance`."""

    @property
    def reusable(self) -> bool:
        """Whether it may carry another request, once it has carried one."""
        return self._reader.reusable

    def is_alive(self) -> bool:
        """Whether it lies still: unasked, an engine sends nothing but its end."""
        if not self._poll.poll(0):
            return True
        try:
            self._sock.recv(1)
        except WOULD_BLOCK:
            return True  # It was TLS's own business, such as a session ticket.
        except OSError:
            return False
        return False

    def begin(self, data: bytes, deadline: float) -> None:
        """Have a request to send; `advance` sends it."""
        self._unsent = data
        self._answer_due = deadline
        if self.is_open:
            self.deadline = deadline

    def open(self) -> bool:
        """Go on connecting as far as that needs no waiting; whether it is done.

        Raises `OSError` (`TimeoutError` at the deadline); only `close` it then.
        """
        left_until(self.deadline)
        for direction in self._opening:
            self._wait_for(direction)
            return False
        self.is_open = True
        self.deadline = self._answer_due
        return True

    def advance(self) -> Response | None:
        """Go on as far as that needs no waiting; give the answer when it is whole.

        Raises `OSError` (`TimeoutError` at the deadline) or `BrokenAnswer`; only `close` it then.
        """
        if not self.is_open and not self.open():
            return None
        try:
            if not self._unsent:
                return self._receive()
            self._send()
        except BlockingIOError:
            self._wait_for(select.POLLOUT if self._unsent else select.POLLIN)
        except ssl.SSLWantReadError:
            self._wait_for(select.POLLIN)
        except ssl.SSLWantWriteError:
            self._wait_for(select.POLLOUT)
        return None

    def give_up(self) -> None:
        """Nobody waits for the answer: what was not begun to be sent need not be."""
        if not self.is_open:
            self._unsent = b""

    def settle(self) -> bool:
        """Go on with what was given up; whether that is over. Raises as `advance`."""
        return self.advance() is not None if self.is_open else self.open()

    def wait(self, until: float = math.inf) -> None:
        """Wait until it can advance, its deadline has come, or `until`."""
        if self.waits_for != select.POLLIN:
            self._poll.modify(self._sock, self.waits_for)
        try:
            self._poll.poll(milliseconds_until(min(self.deadline, until)))
        finally:
            if self.waits_for != select.POLLIN:
                self._poll.modify(self._sock, select.POLLIN)

    def fileno(self) -> int:
        """The socket's; that of another one where an address did not accept."""
        return self._sock.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._opening.close()
        if self.is_open:
            self._sock.close()

    # --- connecting: each generator yields what the socket has to be ready for ---

    def _open(self) -> Generator[int]:
        """Connect to the first address of the host that accepts."""
        target = self._target
        failure: OSError | None = None
        for *kind, _, address in socket.getaddrinfo(
            target.host, target.port, type=socket.SOCK_STREAM
        ):
            self._sock = socket.socket(*kind)
            try:
                yield from self._connect(address)
                yield from self._secure()
            except BaseException as error:
                self._sock.close()
                if not isinstance(error, OSError):
                    raise
                failure = error
            else:
                return
        raise failure or OSError("the name has no address")

    def _connect(self, address: Any) -> Generator[int]:
        sock = self._sock
        sock.setblocking(False)
        for option in SOCKET_OPTIONS:
            sock.setsockopt(*option)
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        code = sock.connect_ex(address)
        while code == errno.EINPROGRESS:
            yield select.POLLOUT
            code = _progress(sock)
        if code:
            raise OSError(code, os.strerror(code))

    def _secure(self) -> Generator[int]:
        tls = self._target.tls
        if tls is None:
            return
        self._sock = secured = tls.wrap(self._sock)
        while True:
            try:
                secured.do_handshake()
                return
            except ssl.SSLWantReadError:
                direction = select.POLLIN
            except ssl.SSLWantWriteError:
                direction = select.POLLOUT
            yield direction

    # --- exchanging ---

    def _wait_for(self, direction: int) -> None:
        left_until(self.deadline)
        self.waits_for = direction

    def _send(self) -> None:
        while (sent := self._sock.send(self._unsent)) < len(self._unsent):
            left_until(self.deadline)
            self._unsent = memoryview(self._unsent)[sent:]
        self._unsent = b""
        self.waits_for = select.POLLIN  # There cannot be an answer yet.

    def _receive(self) -> Response:
        while (answer := self._read()) is None:
            left_until(self.deadline)
        if not self._answered:
            self._answered = True
            if self._target.tls is not None:
                self._target.tls.keep_session(self._sock)  # type: ignore[arg-type] # it is TLS's
        return answer

    def _read(self) -> Response | None:
        size = self._sock.recv_into(self._buffer)
        if not size:
            raise BrokenAnswer.closed()
        return self._reader.feed(self._buffer[:size])


def _progress(sock: socket.socket) -> int:
    """Why connecting has failed; `EINPROGRESS` while it has not yet, 0 once it is done."""
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        return code
    try:
        sock.getpeername()
    except OSError:
        return errno.EINPROGRESS
    return 0


def left_until(deadline: float) -> float:
    """Seconds until `deadline`; raises `TimeoutError` when there are none."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
