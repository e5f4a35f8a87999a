"""An HTTP proxy for tests: tunnels, forwarding and refusals, with what it was asked for."""

from __future__ import annotations

import base64
import socket
import threading
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit

HOST = "127.0.0.1"


class HttpProxy:
    """Passes connections on to one port of this machine, whatever host they name.

    `status` refuses each request with it. With `user`, a client needs `Proxy-Authorization`.
    """

    def __init__(self, port: int, status: int = 0, user: str = "", head: bytes = b"") -> None:
        self._upstream = port
        self._status = status
        self._expected = b"Basic " + base64.b64encode(user.encode()) if user else b""
        self._head = head
        self._listener = socket.create_server((HOST, 0))
        self._open: list[socket.socket] = [self._listener]
        self._threads = [threading.Thread(target=self._accept)]
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://{HOST}:{self.port}"
        self.heads: list[bytes] = []
        """The heads of all requests, CONNECT or forwarded."""

    @property
    def lines(self) -> list[str]:
        """The first line of each request."""
        return [head.partition(b"\r\n")[0].decode() for head in self.heads]

    def _start(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._open.append(client)
                self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client:
            data = b""
            while b"\r\n\r\n" not in data:
                data += client.recv(2**16) or self._closed()
            head, _, rest = data.partition(b"\r\n\r\n")
            self.heads.append(head)
            if self._expected not in head:
                client.sendall(answer_of(407))
                return
            if self._status:
                client.sendall(answer_of(self._status))
                return
            upstream = socket.create_connection((HOST, self._upstream))
            self._open.append(upstream)
            if head.startswith(b"CONNECT "):
                client.sendall(self._head or b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                url = head.split(b" ", 2)[1]
                path = urlsplit(url.decode()).path.encode()
                upstream.sendall(head.replace(b" " + url, b" " + path, 1) + b"\r\n\r\n" + rest)
            self._start(copy, upstream, client)
            copy(client, upstream)

    @staticmethod
    def _closed() -> bytes:
        raise ConnectionError

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(30)


def answer_of(status: int) -> bytes:
    """A proxy's refusal."""
    return f"HTTP/1.1 {status} No\r\nContent-Length: 6\r\n\r\n<html>".encode()


def copy(source: socket.socket, target: socket.socket) -> None:
    """Pass bytes on until the source ends."""
    with suppress(OSError):
        while data := source.recv(2**16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
