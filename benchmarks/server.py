"""A canned server: a process of its own that gives the same bytes for the same operation.

Run as a script, it takes a JSON object of response bodies by operation as its first line, prints
its port, and ends when its standard input does. It imports the standard library alone.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import ssl
import subprocess
import sys
import zlib
from collections import defaultdict, deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

HOST = "127.0.0.1"
RECORDED = "Recorded"
"""A service that DynamoDB does not have: its operations give back what was sent."""
KEPT = 400
"""How many bodies of an operation the server remembers: what 16 calls of 25 items send."""

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_TARGET = re.compile(rb"\r\nx-amz-target: *(\w+)\.(\w+)", re.IGNORECASE)
_END = b"\r\n\r\n"


class CannedServer:
    """The server as its client sees it: started on entering `with`, stopped on leaving it.

    `core` is the processor that it stays on; None leaves that to the system. With a
    `certificate`, a file that holds its key too, it speaks TLS.
    """

    def __init__(
        self, answers: Mapping[str, str], core: int | None, certificate: Path | None = None
    ) -> None:
        self._answers = answers
        self._core = core
        self._certificate = certificate

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), str(self._core), str(self._certificate or "")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the client, which then closes our input.
        )
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(self._answers).encode() + b"\n")
        self._process.stdin.flush()
        self.port = int(self._process.stdout.readline())
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http{'s' if self._certificate else ''}://{HOST}:{self.port}"

    def recorded(self, operation: str) -> list[Any]:
        """The last bodies that it was sent for an operation, decoded; then it forgets them."""
        connection = http.client.HTTPConnection(HOST, self.port)
        try:
            connection.request("POST", "/", b"", {"X-Amz-Target": f"{RECORDED}.{operation}"})
            bodies: list[Any] = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return bodies


# --- the process ---------------------------------------------------------------------------


class Answering(asyncio.Protocol):
    """One connection, kept for as long as the client likes."""

    def __init__(
        self, responses: Mapping[bytes, bytes], recorded: Mapping[bytes, deque[bytes]]
    ) -> None:
        self._responses = responses
        self._recorded = recorded
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called once by asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every request that has come whole."""
        self._received += data
        while (end := self._received.find(_END)) >= 0:
            head = self._received[:end]
            length = _LENGTH.search(head)
            after = end + len(_END) + (int(length[1]) if length else 0)
            if len(self._received) < after:
                return
            body = self._received[end + len(_END) : after]
            self._received = self._received[after:]
            self._transport.write(self._answer(head, body))

    def _answer(self, head: bytes, body: bytes) -> bytes:
        target = _TARGET.search(head)
        prefix, operation = target.groups() if target else (b"", b"")
        if prefix == RECORDED.encode():
            kept = self._recorded[operation]
            answer = response(b"[%b]" % b",".join(kept))
            kept.clear()
            return answer
        self._recorded[operation].append(body)
        return self._responses.get(operation) or response(b'{"message":"not canned"}', 400)


def response(body: bytes, status: int = 200) -> bytes:
    """A whole HTTP response, with the headers that DynamoDB sends."""
    return (
        b"HTTP/1.1 %d OK\r\nServer: Server\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
        b"Content-Type: application/x-amz-json-1.0\r\nContent-Length: %d\r\n"
        b"Connection: keep-alive\r\n"
        b"x-amzn-RequestId: 6F4RNR2D8ICG7TLQ1PJ5KBM3V3VV4KQNSO5AEMVJF66Q9ASUAAJG\r\n"
        b"x-amz-crc32: %d\r\n\r\n%b"
    ) % (status, len(body), zlib.crc32(body), body)


async def serve(answers: Mapping[str, str], certificate: str) -> None:
    """Answer until standard input ends."""
    tls = None
    if certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
    responses = {name.encode(): response(body.encode()) for name, body in answers.items()}
    recorded: Mapping[bytes, deque[bytes]] = defaultdict(lambda: deque(maxlen=KEPT))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Answering(responses, recorded), HOST, 0, ssl=tls)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.buffer.read)


if __name__ == "__main__":
    if sys.argv[1].isdigit():
        os.sched_setaffinity(0, {int(sys.argv[1])})
    asyncio.run(serve(json.loads(sys.stdin.buffer.readline()), sys.argv[2]))
