"""One connection whose socket never blocks: it goes on when it is told to, or waits for that."""

from __future__ import annotations

import math
import select
import socket
import ssl
import time
from collections.abc import Iterable

from chalk_online_store.drivers.polling import milliseconds_until, wait_for_any
from chalk_online_store.dynamodb.http.exchange import ResponseReader
from chalk_online_store.dynamodb.http.target import Target
from chalk_online_store.dynamodb.messages import Response
from chalk_online_store.network.opening import Waiting, open_through_proxy
from chalk_online_store.network.sockets import BrokenResponse

WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

READ_SIZE = 2**17
"""Bytes that a connection reads at once: most answers come in one piece or two."""


class Connection:
    """One kept connection, for one thread at a time.

    It waits by poll(2), and so for what is left of the whole time. Nothing that it does blocks.
    """

    _sock: socket.socket
    _poll: select.poll

    def __init__(self, target: Target, deadline: float, generation: int = 0) -> None:
        """Connect to `target` when told to go on, by `deadline` on the monotonic clock."""
        self._target = target
        self.generation = generation
        """The transport's, when it was made."""
        self._opening = open_through_proxy(target, deadline)
        self._waiting = Waiting(())
        self.is_open = False
        """Whether it is connected, TLS included."""
        self.reused = False
        """Whether it comes from the pool, so that it may have been lost while it was idle."""
        self.heard = False
        """Whether a byte has arrived since the last request."""
        self.idle_since = -math.inf
        self.wall_offset = 0.0
        self.began_at = math.inf
        """When the last request could be sent, on the monotonic clock."""
        self.doubt_at = math.inf
        """When to doubt it, if it comes from the pool and is silent."""
        self._answered = False
        self._buffer = memoryview(bytearray(READ_SIZE))
        self._reader = ResponseReader(target.request_ids)
        self._unsent: bytes | memoryview = b""
        self._answer_due = math.inf
        self.deadline = deadline
        """When it has to be connected, later the answer whole, on the monotonic clock."""
        self._waits_for = select.POLLIN

    @property
    def reusable(self) -> bool:
        """Whether it may carry another request, once it has carried one."""
        return self._reader.reusable

    @property
    def is_suspect(self) -> bool:
        """Whether it may have been lost while it was idle: there is no sign of life since."""
        return self.reused and not self.heard

    @property
    def wake_at(self) -> float:
        """When to `advance` in any case, on the monotonic clock."""
        if self.is_open:
            return min(self.deadline, self.doubt_at)
        return min(self.deadline, self._waiting.until)

    def sockets(self) -> Iterable[tuple[int, int]]:
        """Return the file descriptors to poll before it is worth while to `advance`."""
        return ((self._sock.fileno(), self._waits_for),) if self.is_open else self._waiting.sockets

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

    def begin(self, data: bytes, now: float, deadline: float) -> None:
        """Have a request to send; `advance` sends it."""
        self._unsent = data
        self._answer_due = deadline
        self.heard = False
        if self.is_open:
            self.deadline = deadline
            self.began_at = now

    def open(self) -> bool:
        """Go on connecting as far as that needs no waiting; whether it is done.

        Raises `OSError` (`TimeoutError` at the deadline) or `UnicodeError`; only `close` it then.
        """
        left_until(self.deadline)
        try:
            self._waiting = next(self._opening)
        except StopIteration as stop:
            self._sock = stop.value
        else:
            return False
        self._poll = select.poll()
        self._poll.register(self._sock, select.POLLIN)
        self.is_open = True
        self.deadline = self._answer_due
        self.began_at = time.monotonic()
        return True

    def advance(self) -> Response | None:
        """Go on as far as that needs no waiting; give the answer when it is whole.

        Raises as `open`, or `BrokenResponse`; only `close` it then.
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
        """Wait until it can advance, has to, or `until`."""
        if not self.is_open:
            wait_for_any((self,), until)
            return
        if self._waits_for != select.POLLIN:
            self._poll.modify(self._sock, self._waits_for)
        try:
            self._poll.poll(milliseconds_until(min(self.deadline, self.doubt_at, until)))
        finally:
            if self._waits_for != select.POLLIN:
                self._poll.modify(self._sock, select.POLLIN)

    def close(self) -> None:
        """Close the socket."""
        self._opening.close()
        if self.is_open:
            self._sock.close()

    def __del__(self) -> None:
        # An exception of a signal handler may arrive where nobody has the connection yet, or while
        # it is being closed.
        if self.is_open:
            self._sock.close()

    def _wait_for(self, direction: int) -> None:
        left_until(self.deadline)
        self._waits_for = direction

    def _send(self) -> None:
        while (sent := self._sock.send(self._unsent)) < len(self._unsent):
            left_until(self.deadline)
            self._unsent = memoryview(self._unsent)[sent:]
        self._unsent = b""
        self._waits_for = select.POLLIN  # There cannot be an answer yet.

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
            raise BrokenResponse.closed()
        self.heard = True
        self.doubt_at = math.inf
        return self._reader.feed(self._buffer[:size])


def left_until(deadline: float) -> float:
    """Seconds until `deadline`; raises `TimeoutError` when there are none."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
