"""The floor: what the store sends, signed and sent by a bare socket; the answer read, not decoded.

No client in Python can take less for the same bytes. Only for the canned server, which tells
what the store sent it.
"""

from __future__ import annotations

import socket
import zlib
from collections.abc import Callable
from urllib.parse import urlsplit

from benchmarks.clients.base import ACCESS_KEY, REGION, SECRET_KEY, Call
from benchmarks.clients.ours import Store
from benchmarks.data import Dataset, Row
from benchmarks.server import recorded
from chalk_online_store.dynamodb.http.exchange import RequestWriter
from chalk_online_store.dynamodb.messages import Request
from chalk_online_store.dynamodb.signing import Credentials, Signer

_END = b"\r\n\r\n"
_LENGTH = b"\r\nContent-Length: "
_CRC32 = b"\r\nx-amz-crc32: "


class Floor(Store):
    """Replays the last request that the store made of each kind."""

    decodes = False

    def __init__(self, url: str, prefix: str) -> None:
        super().__init__(url, prefix)
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname, parts.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._writer_of_requests = RequestWriter(Signer(REGION, url))
        self._credentials = Credentials(ACCESS_KEY, SECRET_KEY)
        self._buffer = memoryview(bytearray(2**22))

    def reader(self, dataset: Dataset, ids: list[int]) -> Call:
        """As `Client.reader`, but it gives the bytes of the answer."""
        operation = "GetItem" if len(ids) == 1 else "BatchGetItem"
        return self._replay(super().reader(dataset, ids), operation)

    def cached_reader(self, dataset: Dataset, ids: list[int]) -> None:
        """Nothing is sent."""

    def writer(self, dataset: Dataset, rows: list[Row]) -> Call:
        """As `Client.writer`."""
        return self._replay(super().writer(dataset, rows), "BatchWriteItem")

    def updater(self, dataset: Dataset, rows: list[Row]) -> None:
        """Left out: which requests these are is the store's choice."""

    def _replay(self, call: Call, operation: str) -> Call:
        call()
        body = recorded(self.url, operation)[-1].encode()

        request = Request(operation, body)

        def replay() -> memoryview:
            self._socket.sendall(self._writer_of_requests.write(request, self._credentials))
            return self._receive(self._socket.recv_into)

        return replay

    def _receive(self, receive: Callable[[memoryview], int]) -> memoryview:
        buffer, count = self._buffer, receive(self._buffer)
        head = bytes(buffer[:2048])
        start = head.index(_END) + len(_END)
        end = start + _number_after(head, _LENGTH)
        while count < end:
            count += receive(buffer[count:])
        body = buffer[start:end]
        if zlib.crc32(body) != _number_after(head, _CRC32):
            raise AssertionError("the answer is damaged")
        return body

    def close(self) -> None:
        """As `Client.close`."""
        self._socket.close()
        super().close()


def _number_after(head: bytes, name: bytes) -> int:
    start = head.index(name) + len(name)
    return int(head[start : head.index(b"\r", start)])
