"""`python -m benchmarks.transports`: CPU of one HTTP exchange, by our transports and by others.

Each signs the same request and gives the same answer; nothing is encoded or decoded. The last
one of each kind shows what is left to gain: a socket with the least Python around it that reads
such an answer, and that keeps no promise at all.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import socket
import statistics
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import uvloop

from benchmarks.canned import TABLE, answers
from benchmarks.certificate import self_signed
from benchmarks.clients.base import REGION
from benchmarks.inprocess import Call, Client, Contender, Sampled, a_core_for_servers, measure
from benchmarks.reference_http import AiohttpTransport, Urllib3Transport
from benchmarks.server import CannedServer
from benchmarks.table import as_table
from chalk_online_store.dynamodb.credentials import Endpoint
from chalk_online_store.dynamodb.http import AsyncHttpTransport, HttpTransport
from chalk_online_store.dynamodb.http.exchange import RequestWriter
from chalk_online_store.dynamodb.messages import Request, Response
from chalk_online_store.dynamodb.signing import Credentials, Signer
from chalk_online_store.network.tls import TLS

CREDENTIALS = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
BATCH = Call("BatchGetItem", 100)
ONE = Call("GetItem", 1)
CALLS = (BATCH, ONE)


def request_of(call: Call) -> Request:
    """The request for so many entities, as long as the store's own."""
    keys = [{"pk": {"S": f"u:{number}"}, "sk": {"S": "0"}} for number in range(call.entities)]
    asked = {"ConsistentRead": False, "ExpressionAttributeNames": {}, "ProjectionExpression": "a,b"}
    if call is ONE:
        body: dict[str, Any] = {"TableName": TABLE, "Key": keys[0], **asked}
    else:
        body = {"RequestItems": {TABLE: {"Keys": keys, **asked}}}
    return Request(call.title, json.dumps(body, separators=(",", ":")).encode())


class Source:
    """Credentials that are there at once."""

    def current(self, timeout: float) -> Credentials:
        return CREDENTIALS


class AsyncSource:
    """The same for tasks."""

    async def current_async(self, timeout: float) -> Credentials:
        return CREDENTIALS


class RawSocket:
    """A blocking socket, and the few lines that read an answer with a Content-Length."""

    def __init__(self, endpoint: Endpoint, credentials: Any) -> None:
        self._writer = RequestWriter(Signer(endpoint.region, endpoint.url))
        scheme, _, address = endpoint.url.partition("://")
        host, _, port = address.partition(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if scheme == "https":
            self._socket = secured = TLS(host).wrap(self._socket)
            secured.do_handshake()

    def send(self, request: Request, timeout: float) -> Response:
        self._socket.sendall(self._writer.write(request, CREDENTIALS))
        data = self._socket.recv(2**17)
        head, _, body = data.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
        }
        length = int(headers["content-length"])
        pieces = [body]
        left = length - len(body)
        while left:
            pieces.append(self._socket.recv(2**17))
            left -= len(pieces[-1])
        return Response(int(status[9:12]), headers, b"".join(pieces))

    def close(self) -> None:
        self._socket.close()


class _Transporting(Client):
    """A transport as a client: it makes no columns, it exchanges."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._requests = {call: request_of(call) for call in CALLS}

    @abstractmethod
    def repeat(self, call: Call, times: int) -> Response: ...


class Threads(_Transporting):
    """One thread."""

    def __init__(self, name: str, transport: Any, url: str) -> None:
        super().__init__(name)
        self._transport = transport(Endpoint(REGION, url), Source())

    def repeat(self, call: Call, times: int) -> Response:
        request, send = self._requests[call], self._transport.send
        for _ in range(times - 1):
            send(request, 5.0)
        return send(request, 5.0)  # type: ignore[no-any-return] # any transport's

    def close(self) -> None:
        self._transport.close()


class Tasks(_Transporting):
    """Sixteen tasks on one event loop, or one."""

    def __init__(
        self,
        name: str,
        transport: Any,
        url: str,
        new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
        at_once: int = 16,
    ) -> None:
        super().__init__(f"{name} x {at_once}")
        self.at_once = at_once
        self._loop = new_loop()
        self._transport = transport(Endpoint(REGION, url), AsyncSource())

    def repeat(self, call: Call, times: int) -> Response:
        return self._loop.run_until_complete(self._repeat(call, times))

    async def _repeat(self, call: Call, times: int) -> Response:
        share = times // self.at_once
        answers = (self._some(call, share) for _ in range(self.at_once))
        return (await asyncio.gather(*answers))[-1]

    async def _some(self, call: Call, times: int) -> Response:
        request, send = self._requests[call], self._transport.send
        for _ in range(times - 1):
            await send(request, 5.0)
        return await send(request, 5.0)  # type: ignore[no-any-return] # any transport's

    def close(self) -> None:
        self._loop.run_until_complete(self._transport.close())
        self._loop.close()


def clients(url: str) -> Iterator[Client]:
    """Ours first, of both kinds."""
    yield Threads("HttpTransport", HttpTransport, url)
    yield Threads("urllib3", Urllib3Transport, url)
    yield Threads("raw socket", RawSocket, url)
    for at_once in (16, 1):
        yield Tasks("AsyncHttpTransport", AsyncHttpTransport, url, at_once=at_once)
        yield Tasks("aiohttp", AiohttpTransport, url, at_once=at_once)
    yield Tasks("AsyncHttpTransport, uvloop", AsyncHttpTransport, url, uvloop.new_event_loop)
    yield Tasks("aiohttp, uvloop", AiohttpTransport, url, uvloop.new_event_loop)


def run(rounds: int, *, tls: bool, seed: int = 0) -> list[Sampled]:
    """See that all transports give the same answers, then measure them."""
    with ExitStack() as stack:
        core = stack.enter_context(a_core_for_servers())
        certificate = stack.enter_context(trusted_certificate()) if tls else None
        server = stack.enter_context(CannedServer(answers(), core, certificate))
        taking_part = [stack.enter_context(closing(client)) for client in clients(server.url)]
        for call in CALLS:
            first, *others = [client.repeat(call, client.at_once) for client in taking_part]
            assert first.status == 200
            assert all(other == first for other in others)
        contenders = [Contender(call, client) for call in CALLS for client in taking_part]
        return measure(contenders, rounds, seed)


@contextmanager
def trusted_certificate() -> Iterator[Path]:
    """A certificate for this machine that this process trusts meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        path = self_signed(Path(folder) / "bundle.pem")
        with mock.patch.dict(os.environ, AWS_CA_BUNDLE=str(path)):
            yield path


def as_text(sampled: Sequence[Sampled]) -> str:
    """Medians, and how many times ours of the same kind: the median of ratios in one round."""
    times = {(line.call, line.client): line.microseconds for line in sampled}
    body = []
    for call, client, microseconds in sampled:
        ours = times[call, "AsyncHttpTransport x 16" if " x " in client else "HttpTransport"]
        ratios = [one / other for one, other in zip(microseconds, ours, strict=True)]
        median = statistics.median(microseconds)
        body.append([call, client, f"{median:,.1f}", f"{statistics.median(ratios):.2f}"])
    return as_table(["call", "transport", "CPU us", "x ours"], body, texts=2)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transports", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="samples of each (default: 15)")
    options = parser.parse_args()
    packages = ("httptools", "urllib3", "aiohttp", "uvloop")
    named = ", ".join(f"{name} {version(name)}" for name in packages)
    print(f"Python {platform.python_version()} on {platform.machine()}: {named}\n")
    for tls in (False, True):
        print(f"{'TLS' if tls else 'plain HTTP'}\n\n{as_text(run(options.rounds, tls=tls))}\n")


if __name__ == "__main__":
    main()
