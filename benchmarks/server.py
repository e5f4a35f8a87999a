"""A canned server: a process of its own that gives the same bytes for the same request.

What it answers is what clients wrote to it (`tables.py`), unless response bodies by operation
are given: these come as a JSON object in the first line of its input. It prints its port, and
ends when its input does. It imports the standard library alone.
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

from benchmarks.tables import READS, Tables

ROOT = Path(__file__).parents[1]
HOST = "127.0.0.1"
RECORDED = "Recorded"
"""A service that DynamoDB does not have: its operations give back what was sent."""
FORGET = "Forget"
"""An operation of that service: empty the table that the body names."""
KEPT = 512
"""How many requests of an operation, and how many answers, the server remembers."""

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_TARGET = re.compile(rb"\r\nx-amz-target: *(\w+)\.(\w+)", re.IGNORECASE)
_END = b"\r\n\r\n"


class CannedServer:
    """The server as its client sees it: started on entering `with`, stopped on leaving it.

    `core` is the processor that it stays on; None leaves that to the system. With a
    `certificate`, a file that holds its key too, it speaks TLS.
    """

    def __init__(
        self,
        answers: Mapping[str, str] | None = None,
        core: int | None = None,
        certificate: Path | None = None,
    ) -> None:
        self._answers = answers or {}
        self._core = core
        self._certificate = certificate

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "benchmarks.server",
                str(self._core),
                str(self._certificate or ""),
            ],
            cwd=ROOT,
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
        return [json.loads(body) for body in recorded(self.url, operation)]

    def forget(self, table: str) -> None:
        """Empty a table."""
        ask(self.url, f"{RECORDED}.{FORGET}", table)


def recorded(url: str, operation: str) -> list[str]:
    """The last bodies that the server at `url` was sent; then it forgets them."""
    bodies: list[str] = json.loads(ask(url, f"{RECORDED}.{operation}"))
    return bodies


def ask(url: str, target: str, body: str = "") -> bytes:
    """The body of the answer to a request that no client of DynamoDB would make."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    try:
        connection.request("POST", "/", body.encode(), {"X-Amz-Target": target})
        return connection.getresponse().read()
    finally:
        connection.close()


# --- the process ---------------------------------------------------------------------------


class Answering(asyncio.Protocol):
    """One connection, kept for as long as the client likes."""

    def __init__(self, desk: Desk) -> None:
        self._answer = desk.answer
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


class Desk:
    """What all connections share: responses, made once, and what was asked."""

    def __init__(self, answers: Mapping[str, str]) -> None:
        self._fixed = {name.encode(): response(answer.encode()) for name, answer in answers.items()}
        self._made: dict[tuple[bytes, bytes], bytes] = {}
        self._tables = Tables()
        self._recorded: dict[bytes, deque[bytes]] = defaultdict(lambda: deque(maxlen=KEPT))

    def answer(self, head: bytes, body: bytes) -> bytes:
        """The whole response to a request."""
        target = _TARGET.search(head)
        prefix, operation = target.groups() if target else (b"", b"")
        if prefix == RECORDED.encode():
            return response(self._control(operation, body))
        self._recorded[operation].append(body)
        try:
            return self._fixed.get(operation) or self._made_once(operation, body)
        except KeyError:
            return response(b'{"message":"not canned"}', 400)

    def _made_once(self, operation: bytes, body: bytes) -> bytes:
        asked = operation, body
        if asked not in self._made:
            answer = response(self._tables.perform(operation, body))
            self._forget_changed(operation)
            self._made[asked] = answer
        return self._made[asked]

    def _forget_changed(self, operation: bytes) -> None:
        """After a write, what reads gave; a write that is repeated word by word changes nothing."""
        if operation not in READS:
            self._made = {
                asked: made for asked, made in self._made.items() if asked[0] not in READS
            }
        elif len(self._made) >= KEPT:
            self._made.clear()

    def _control(self, operation: bytes, body: bytes) -> bytes:
        if operation == FORGET.encode():
            self._made.clear()
            self._tables.forget(body.decode())
        kept = self._recorded.pop(operation, ())
        return json.dumps([sent.decode() for sent in kept]).encode()


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
    desk = Desk(answers)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Answering(desk), HOST, 0, ssl=tls)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.buffer.read)


if __name__ == "__main__":
    if sys.argv[1].isdigit():
        os.sched_setaffinity(0, {int(sys.argv[1])})
    asyncio.run(serve(json.loads(sys.stdin.buffer.readline()), sys.argv[2]))
